# SPDX-License-Identifier: GPL-2.0-or-later
"""Units of modules that are not loaded and change together with code that runs.

Their part goes into a group of its own, which the core waits for when the module loads
(docs/kernel-core.md, "Holds").
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from kspliced.build.join import global_symbols
from kspliced.build.kbuild import Unit
from kspliced.build.unit import DiffedUnit
from kspliced.build.workspace import source_of
from kspliced.errors import BuildError
from kspliced.model import Refusal


@dataclass(frozen=True)
class Pre:
    """The old units: ``failed`` compilers' words by object, ``reads`` of each source file."""

    failed: Mapping[str, str]
    reads: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Compiled:
    """``first`` waits for the old units of what was selected, ``more`` compiles further ones."""

    first: Callable[[], Pre]
    more: Callable[[tuple[Unit, ...]], Pre]


def with_more(compiled: Compiled, units: tuple[Unit, ...]) -> Callable[[], Pre]:
    """The old units that are compiled in any case, and more."""
    first = compiled.first()
    more = compiled.more(units)
    both = Pre({**first.failed, **more.failed}, {**first.reads, **more.reads})
    return lambda: both


class Olds:
    """The old units; those of modules that are not loaded are compiled when they are wanted.

    :param first: what is compiled in any case.
    :param later: units of modules that are not loaded.
    :param more: compiles further ones, after which more of the old tree is there.
    """

    def __init__(
        self,
        first: Callable[[], Pre],
        later: Iterable[Unit],
        more: Callable[[tuple[Unit, ...]], Pre],
    ) -> None:
        self._first, self._more = first, more
        self._later = {unit.path for unit in later}
        self._extra = Pre({}, {})

    def __call__(self) -> Pre:
        """All that are compiled."""
        first, extra = self._first(), self._extra
        return Pre({**first.failed, **extra.failed}, {**first.reads, **extra.reads})

    def want(self, units: Iterable[Unit]) -> bool:
        """Have units compiled; whether there were any that were not."""
        wanted = tuple(unit for unit in units if unit.path in self._later)
        if not wanted:
            return False
        self._later -= {unit.path for unit in wanted}
        self._first()  # one at a time in a tree
        try:
            more = self._more(wanted)
        except BuildError as error:
            # None compiles: no reason to fail for what runs.
            more = Pre({unit.path: error.message for unit in wanted}, {})
        extra = self._extra
        self._extra = Pre({**extra.failed, **more.failed}, {**extra.reads, **more.reads})
        return True


def strangers(diffed: Iterable[DiffedUnit], late: Collection[str]) -> Iterator[Refusal]:
    """Units that use what another target adds which is not loaded, or that is not known to stay as
    long as the unit's own does, which is not loaded: the kernel has no address for what is new.

    :param late: targets that are not loaded.
    """
    units = tuple(d for d in diffed if d.part is not None)
    if not any(d.unit.target in late for d in units):
        return
    added: dict[str, set[str]] = defaultdict(set)
    for d in units:
        assert d.part is not None
        before, after = (
            global_symbols(side.layout) for side in (d.part.diff.pre, d.part.diff.post)
        )
        added[d.unit.target] |= after.keys() - before.keys()
    for d in units:
        assert d.part is not None
        for target, names in added.items():
            if target == d.unit.target or not {target, d.unit.target} & set(late):
                continue
            for name in sorted(d.part.closure.externs & names):
                if target not in late and d.part.closure.lent(name):
                    continue
                reason = f"it uses what {target} adds, and one of the two is not loaded"
                yield Refusal("module_not_loaded", source_of(d.unit), name, reason)
