# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of the changed files matter to this kernel, and as which units they are compiled.

Every changed file ends in exactly one of three lists: a unit to compile, irrelevant with the
reason, or refused with the reason. A file nobody knows is refused, never passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kspliced.build.idle import changes_nothing
from kspliced.build.kbuild import Listing, Unit, ancestors, find_unit, modules_of, reached
from kspliced.model import Refusal
from kspliced.plan.conditions import Configuration
from kspliced.source.compare import ChangeType, FileChange
from kspliced.source.snapshot import Snapshot, header_readers, includers, is_included

_NOT_KERNEL = ("Documentation/", "tools/", "samples/", "LICENSES/", "usr/", "debian/", "certs/")
# Linked by themselves and carried as data, or run before the kernel proper.
_OTHER_PROGRAMS = (
    "arch/x86/boot/", "arch/x86/realmode/", "arch/x86/purgatory/", "drivers/firmware/efi/libstub/",
)  # fmt: skip
# No kernel code, but read by what compiles it: kernel/bpf/btf.c includes from tools/lib.
_TOOLS = ("scripts/", "tools/lib/bpf/", "tools/include/")
_PROSE = frozenset({"MAINTAINERS", "CREDITS", "README", "COPYING", ".gitignore", ".mailmap"})
_KBUILD = re.compile(r"(?:^|/)(?:Makefile[^/]*|Kbuild[^/]*|Kconfig[^/]*)$")
# Bytes above which a header of a graphics driver is not kept: a list of a chip's registers has
# megabytes, and all such lists together are a third of the tree.
_LARGE = 512 << 10
_LISTS = "drivers/gpu/"
_VERSION_LINE = re.compile(rb"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *=.*$", re.MULTILINE)


@dataclass(frozen=True)
class Irrelevant:
    """A changed file that this kernel does not consist of."""

    path: str
    reason: str


@dataclass(frozen=True)
class Included:
    """A .c file that the sources ``hosts`` include, which are units."""

    path: str
    hosts: frozenset[str]


@dataclass(frozen=True)
class Nature:
    """What has to be known of the old source, and is asked only where it matters.

    :param included: gives the .c files that other sources include (Snapshot.included).
    :param includers: gives the files that may include one.
    :param readers: gives the files that may include each of some headers.
    :param idle: whether the edit of a Kbuild file changes nothing that is built.
    """

    included: Callable[[], frozenset[str]]
    includers: Callable[[str], frozenset[str]]
    readers: Callable[[Collection[str]], Mapping[str, frozenset[str]]]
    idle: Callable[[str], bool]

    @staticmethod
    def of(source: Snapshot, old: Path, new: Path, configuration: Configuration) -> Nature:
        """That of a source, with both versions of the changed files in ``old`` and ``new``."""
        return Nature(
            lambda: source.included,
            lambda path: includers(path, source),
            lambda paths: header_readers(paths, source),
            lambda path: changes_nothing(path, old / path, new / path, configuration),
        )


@dataclass(frozen=True)
class Selection:
    """What becomes of the changed files. ``headers`` may concern units that did not change, those
    ``included`` among them; ``later`` are units of modules that are not loaded, ``idle_headers``
    those of ``headers`` that lie with such modules only."""

    units: tuple[Unit, ...]
    later: tuple[Unit, ...]
    headers: tuple[str, ...]
    idle_headers: frozenset[str]
    irrelevant: tuple[Irrelevant, ...]
    refused: tuple[Refusal, ...]
    included: tuple[Included, ...] = ()


def worth_keeping(path: str, size: int) -> bool:
    """Whether a compilation may read a file of ``size`` bytes (source.cache.SourceCache)."""
    if path.startswith(_TOOLS):
        return True
    registers = size > _LARGE and path.startswith(_LISTS) and path.endswith(".h")
    return not registers and not not_kernel(path)


def every_unit_reads(path: str) -> bool:
    """Whether a file is read, or looked for, whatever is compiled."""
    if path.startswith(_TOOLS):
        return True
    common = path.startswith(("include/", "arch/")) and not path.endswith(".c")
    return not not_kernel(path) and (common or bool(_KBUILD.search(path)))


def not_kernel(path: str) -> str:
    """Why a path is no part of an x86 kernel, or ''."""
    name = PurePosixPath(path).name
    if path.startswith(_NOT_KERNEL) or path in _PROSE or name in _PROSE or name.startswith("."):
        return "not kernel code"
    if path.endswith((".rst", ".txt", ".yaml", ".dts", ".dtsi")):
        return "not kernel code"
    if path.startswith("scripts/") and not _KBUILD.search(path):
        return "a host tool"
    if path.startswith("arch/") and path.count("/") > 1 and not path.startswith("arch/x86/"):
        return "another architecture"
    return ""


def directories(changes: Iterable[FileChange]) -> tuple[str, ...]:
    """The directories whose Kbuild files say whether the changes are built."""
    found = {d for change in changes for d in ancestors(change.path) if not not_kernel(change.path)}
    return tuple(sorted(found))


def rests(path: str, listings: Mapping[str, Listing], targets: Collection[str]) -> bool:
    """Whether the nearest directory with a Kbuild file builds only modules that are not loaded.

    :param targets: as for :func:`select`.
    """
    near = next((d for d in ancestors(path) if d in listings), None)
    if near is None or not targets:
        return False
    return not listings[near].builtin and not modules_of(listings[near]) & frozenset(targets)


def select(
    changes: tuple[FileChange, ...],
    listings: dict[str, Listing],
    unlisted: frozenset[str],
    nature: Nature,
    targets: frozenset[str],
) -> Selection:
    """Sort the changed files.

    :param unlisted: directories of which Kbuild could not tell what it builds there.
    :param targets: vmlinux and module names that matter; empty for all that is configured.
    """
    sorter = _Sorter(listings, unlisted, nature, targets)
    for change in changes:
        sorter.sort(change)
    sorter.settle()
    return Selection(
        tuple(sorter.units),
        tuple(sorter.later),
        tuple(sorter.headers),
        frozenset(sorter.idle_headers),
        tuple(sorter.irrelevant),
        tuple(sorter.refused),
        tuple(sorter.included),
    )


def only_version(old: bytes, new: bytes) -> bool:
    """Whether two top Makefiles differ in nothing but the kernel's version number."""
    return _VERSION_LINE.sub(b"", old) == _VERSION_LINE.sub(b"", new)


class _Sorter:
    def __init__(
        self,
        listings: dict[str, Listing],
        unlisted: frozenset[str],
        nature: Nature,
        targets: frozenset[str],
    ) -> None:
        self._listings, self._unlisted = listings, unlisted
        self._nature, self._targets = nature, targets
        self.units: list[Unit] = []
        self.later: list[Unit] = []
        self.headers: list[str] = []
        self.idle_headers: list[str] = []
        self.irrelevant: list[Irrelevant] = []
        self.refused: list[Refusal] = []
        self.included: list[Included] = []
        self._remote: list[str] = []

    def sort(self, change: FileChange) -> None:
        path = change.path
        reason = not_kernel(path)
        if reason:
            self.irrelevant.append(Irrelevant(path, reason))
        elif _KBUILD.search(path) and self._nature.idle(path):
            self.irrelevant.append(Irrelevant(path, "not configured"))
        elif _KBUILD.search(path):
            self._refuse("kbuild_changed", path, "what is built, or how, changes")
        elif path.startswith("arch/x86/entry/vdso/"):
            self._refuse("vdso", path, "the vDSO is mapped into running processes")
        elif path.startswith(_OTHER_PROGRAMS):
            reason = (
                "the file is part of a program of its own: boot loader stub, trampoline, purgatory"
            )
            self._refuse("other_program", path, reason)
        elif path.endswith(".c"):
            self._source(change)
        elif path.endswith(".h"):
            self._header(change)
        elif path.endswith(".S"):
            self._assembly(path)
        elif self._built_near(path):
            self._refuse_unknown(path)
        else:
            self.irrelevant.append(Irrelevant(path, "not configured"))

    def _refuse(self, code: str, path: str, reason: str) -> None:
        self.refused.append(Refusal(code, path, "", reason))

    def _refuse_unknown(self, path: str) -> None:
        self._refuse("unknown_file", path, "it is not known what the kernel makes of this file")

    def _nobody_knows(self, path: str) -> bool:
        """Whether the nearest directory with a Kbuild file could not be listed, and that is part of
        another one's which Kbuild may enter."""
        known = [d for d in ancestors(path) if d in self._listings or d in self._unlisted]
        if not known or known[0] in self._listings:
            return False
        above = next((d for d in known if d in self._listings), "")
        return not above or reached(above, self._listings)

    def _source(self, change: FileChange) -> None:
        path = change.path
        units = find_unit(path, self._listings)
        if not units and is_included(path, self._nature.included()):
            self._included_source(change)
        elif not units and self._nobody_knows(path):
            self._refuse_unknown(path)
        elif not units:
            self.irrelevant.append(Irrelevant(path, "not configured"))
        elif change.type is not ChangeType.MODIFIED:
            self._refuse("source_set_changed", path, f"the file is {change.type.value}")
        elif len(units) > 1:
            self._refuse("several_targets", path, "the object is part of several modules")
        elif self._targets and units[0].target not in self._targets:
            self.later.append(units[0])
        else:
            self.units.append(units[0])

    def _included_source(self, change: FileChange) -> None:
        """A .c file that is part of other units is as a header that only these read."""
        path = change.path
        by = self._nature.includers(path)
        strange = (
            change.type is not ChangeType.MODIFIED
            or not by
            or not all(host.endswith(".c") and self._listed(host) for host in by)
        )
        hosts = frozenset(host for host in by if find_unit(host, self._listings))
        if strange or any(is_included(host, self._nature.included()) for host in by):
            self._refuse("included_source", path, "other files include it, not only units")
        elif not hosts:
            self.irrelevant.append(Irrelevant(path, "not configured"))
        else:
            self.headers.append(path)
            self.included.append(Included(path, hosts))

    def _listed(self, path: str) -> bool:
        """Whether it is known what is built of a source, if anything."""
        near = next((d for d in ancestors(path) if d in self._listings), None)
        return near is not None and not self._nobody_knows(path)

    def _header(self, change: FileChange) -> None:
        path = change.path
        if change.type is ChangeType.REMOVED:
            self.irrelevant.append(Irrelevant(path, "nothing includes it any more"))
        elif path.startswith(("include/", "arch/x86/")) or self._built_near(path):
            self.headers.append(path)
            if self._idle(path):
                self.idle_headers.append(path)
        else:
            self._remote.append(path)

    def settle(self) -> None:
        """Headers beside which nothing is built: another directory may include them."""
        read = self._read_here(frozenset(self._remote))
        for path in self._remote:
            if path in read:
                self.headers.append(path)
            else:
                self.irrelevant.append(Irrelevant(path, "not configured"))

    def _read_here(self, paths: frozenset[str]) -> frozenset[str]:
        """Those of some headers that a file of a directory that is built may come to read."""
        passed_by: dict[str, frozenset[str]] = {}
        read: set[str] = set()
        frontier = paths
        while frontier:
            for path, files in self._nature.readers(frontier).items():
                kernel = [file for file in files if not not_kernel(file)]
                if any(map(self._built_near, kernel)):
                    read.add(path)
                # A header that nobody edits may pass it on.
                passed_by[path] = frozenset(file for file in kernel if file.endswith(".h"))
            unread = passed_by.keys() - read
            frontier = frozenset(h for path in unread for h in passed_by[path]) - passed_by.keys()
        while more := {path for path in passed_by.keys() - read if passed_by[path] & read}:
            read |= more
        return paths & read

    def _assembly(self, path: str) -> None:
        if self._built_near(path):
            self._refuse("assembly", path, "assembly is not replaced")
        else:
            self.irrelevant.append(Irrelevant(path, "not configured"))

    def _idle(self, path: str) -> bool:
        """Whether only modules that are not loaded read a header."""
        shared = path.startswith(("include/", "arch/"))
        return not shared and rests(path, self._listings, self._targets)

    def _built_near(self, path: str) -> bool:
        """Whether the nearest directory with a Kbuild file builds anything here, and is built."""
        near = next((d for d in ancestors(path) if d in self._listings), None)
        if near is None:
            return True
        listing = self._listings[near]
        builds = listing.builtin or listing.modular or listing.down
        return bool(builds) and reached(near, self._listings)
