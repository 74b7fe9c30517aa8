# SPDX-License-Identifier: GPL-2.0-or-later
"""Source files that nobody edited and that a header's change concerns: as which units are they
compiled, if at all? Directories are listed when they are asked about, once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kspliced.build.kbuild import Listing, Unit, ancestors, find_unit
from kspliced.build.select import not_kernel, rests
from kspliced.source.snapshot import is_included

# Files; a header's edit that more mention is refused without asking what each is.
_MANY = 300


@dataclass(frozen=True)
class Found:
    """``units`` are of what matters, ``later`` of modules that are not loaded; what is in neither
    is built in a way that is not understood."""

    units: tuple[Unit, ...]
    later: tuple[Unit, ...]


class Neighbours:
    """
    :param listings: what is known already.
    :param list_more: asks Kbuild about directories that have a Kbuild file.
    :param has_kbuild: whether a directory has one.
    :param included: gives the .c files that other sources include (Snapshot.included).
    :param targets: vmlinux and module names that matter; empty for all.
    """

    def __init__(
        self,
        listings: dict[str, Listing],
        list_more: Callable[[list[str]], dict[str, Listing]],
        has_kbuild: Callable[[str], bool],
        included: Callable[[], frozenset[str]],
        targets: frozenset[str],
    ) -> None:
        self._listings, self._list_more = dict(listings), list_more
        self._has_kbuild, self._included, self._targets = has_kbuild, included, targets
        self._asked: set[str] = set(listings)

    def built(self, paths: Iterable[str]) -> frozenset[str]:
        """Those of ``paths`` that the configuration builds, or that may be part of what it does."""
        sources = [path for path in paths if not not_kernel(path)]
        self._list(sources)
        return frozenset(path for path in sources if self._matters(path))

    def built_only(self, found: Mapping[str, frozenset[str]]) -> Mapping[str, frozenset[str]]:
        """Names with the files that mention them, without sources that are not built, and what is
        no code of this kernel; what very many mention is refused in any case."""
        found = {
            name: frozenset(path for path in files if not not_kernel(path))
            for name, files in found.items()
        }
        near = {name: files for name, files in found.items() if len(files) <= _MANY}
        sources = {path for files in near.values() for path in files if path.endswith(".c")}
        absent = sources - self.built(sources)
        return {**found, **{name: files - absent for name, files in near.items()}}

    def units(self, paths: Iterable[str]) -> Found:
        """The units of files."""
        wanted = sorted(paths)
        self._list(wanted)
        units: list[Unit] = []
        later: list[Unit] = []
        for path in wanted:
            found = find_unit(path, self._listings)
            if len(found) == 1:
                loaded = not self._targets or found[0].target in self._targets
                (units if loaded else later).append(found[0])
        return Found(tuple(units), tuple(later))

    def rest(self, path: str) -> bool:
        """Whether the nearest directory with a Kbuild file builds only modules not loaded, so that
        what includes the file is one of these."""
        return rests(path, self._listings, self._targets)

    def _matters(self, path: str) -> bool:
        if find_unit(path, self._listings) or is_included(path, self._included()):
            return True
        near = next((d for d in ancestors(path) if d in self._asked), None)
        return near is not None and near not in self._listings

    def _list(self, paths: Iterable[str]) -> None:
        every = {directory for path in paths for directory in ancestors(path)}
        wanted = sorted(d for d in every - self._asked if self._has_kbuild(d))
        self._asked |= set(wanted)
        if wanted:
            self._listings |= self._list_more(wanted)
