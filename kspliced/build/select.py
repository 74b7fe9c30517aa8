# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of the changed files matter to this kernel, and as which units they are compiled.

Every changed file ends in exactly one of three lists: a unit to compile, irrelevant with the
reason, or refused with the reason. A file nobody knows is refused, never passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from kspliced.build.kbuild import Listing, Unit, ancestors, find_unit, modules_of
from kspliced.model import Refusal
from kspliced.source.compare import ChangeType, FileChange
from kspliced.source.snapshot import is_included

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
class Selection:
    """What becomes of the changed files. ``headers`` may concern units that did not change;
    ``later`` are units of modules that are not loaded, ``idle_headers`` those of ``headers`` that
    lie with such modules only."""

    units: tuple[Unit, ...]
    later: tuple[Unit, ...]
    headers: tuple[str, ...]
    idle_headers: frozenset[str]
    irrelevant: tuple[Irrelevant, ...]
    refused: tuple[Refusal, ...]


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


def select(
    changes: tuple[FileChange, ...],
    listings: dict[str, Listing],
    unlisted: frozenset[str],
    included: Callable[[], frozenset[str]],
    targets: frozenset[str],
) -> Selection:
    """Sort the changed files.

    :param unlisted: directories of which Kbuild could not tell what it builds there.
    :param included: gives the .c files that other sources include (Snapshot.included); asked only
        when it matters.
    :param targets: vmlinux and module names that matter; empty for all that is configured.
    """
    sorter = _Sorter(listings, unlisted, included, targets)
    for change in changes:
        sorter.sort(change)
    return Selection(
        tuple(sorter.units),
        tuple(sorter.later),
        tuple(sorter.headers),
        frozenset(sorter.idle_headers),
        tuple(sorter.irrelevant),
        tuple(sorter.refused),
    )


def only_version(old: bytes, new: bytes) -> bool:
    """Whether two top Makefiles differ in nothing but the kernel's version number."""
    return _VERSION_LINE.sub(b"", old) == _VERSION_LINE.sub(b"", new)


class _Sorter:
    def __init__(
        self,
        listings: dict[str, Listing],
        unlisted: frozenset[str],
        included: Callable[[], frozenset[str]],
        targets: frozenset[str],
    ) -> None:
        self._listings, self._unlisted = listings, unlisted
        self._included, self._targets = included, targets
        self.units: list[Unit] = []
        self.later: list[Unit] = []
        self.headers: list[str] = []
        self.idle_headers: list[str] = []
        self.irrelevant: list[Irrelevant] = []
        self.refused: list[Refusal] = []

    def sort(self, change: FileChange) -> None:
        path = change.path
        reason = not_kernel(path)
        if reason:
            self.irrelevant.append(Irrelevant(path, reason))
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
        """Whether the nearest directory with a Kbuild file could not be listed."""
        known = (d for d in ancestors(path) if d in self._listings or d in self._unlisted)
        return next(known, "") in self._unlisted

    def _source(self, change: FileChange) -> None:
        path = change.path
        units = find_unit(path, self._listings)
        if not units and is_included(path, self._included()):
            self._refuse("included_source", path, "another source file includes this one")
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

    def _header(self, change: FileChange) -> None:
        path = change.path
        if change.type is ChangeType.REMOVED:
            self.irrelevant.append(Irrelevant(path, "nothing includes it any more"))
        elif path.startswith(("include/", "arch/x86/")) or self._built_near(path):
            self.headers.append(path)
            if self._idle(path):
                self.idle_headers.append(path)
        else:
            self.irrelevant.append(Irrelevant(path, "not configured"))

    def _assembly(self, path: str) -> None:
        if self._built_near(path):
            self._refuse("assembly", path, "assembly is not replaced")
        else:
            self.irrelevant.append(Irrelevant(path, "not configured"))

    def _idle(self, path: str) -> bool:
        """Whether the nearest directory with a Kbuild file builds only modules not loaded."""
        near = next((d for d in ancestors(path) if d in self._listings), None)
        if near is None or not self._targets or path.startswith(("include/", "arch/")):
            return False
        listing = self._listings[near]
        return not listing.builtin and not modules_of(listing) & self._targets

    def _built_near(self, path: str) -> bool:
        """Whether the nearest directory with a Kbuild file builds anything here."""
        near = next((d for d in ancestors(path) if d in self._listings), None)
        if near is None:
            return True
        listing = self._listings[near]
        return bool(listing.builtin or listing.modular or listing.down)
