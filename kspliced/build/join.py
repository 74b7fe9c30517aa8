# SPDX-License-Identifier: GPL-2.0-or-later
"""Units of one target that refer to each other's new functions and data.

The running kernel has no address for what is new, so a unit carries it as soon as another one
needs it; and a function that was static is known to the kernel only inside its unit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from kspliced.build.closure import Closure, Elsewhere, unit_import
from kspliced.build.diff import UnitDiff
from kspliced.build.layout import Entity, Layout
from kspliced.elf.object import Binding, Symbol, SymbolType
from kspliced.model import Import, Refusal

_NAMED = (SymbolType.FUNC, SymbolType.OBJECT)


@dataclass(frozen=True)
class Member:
    """A unit's difference, with the target it is linked into."""

    target: str
    unit: str
    diff: UnitDiff


@dataclass(frozen=True)
class Joined:
    """A unit's closure in the company of the others. ``needed``: another unit refers to
    something that only this unit's pre object locates. ``lenders``: such units, for this one."""

    closure: Closure
    needed: bool
    lenders: tuple[str, ...]
    refused: tuple[Refusal, ...]


def join(members: tuple[Member, ...]) -> tuple[Joined, ...]:
    """The closure of each member, in their order."""
    found: dict[int, Joined] = {}
    targets: dict[str, list[int]] = defaultdict(list)
    for number, member in enumerate(members):
        targets[member.target].append(number)
    for numbers in targets.values():
        joined = _Target([members[n] for n in numbers]).join()
        found.update(zip(numbers, joined, strict=True))
    return tuple(found[number] for number in range(len(members)))


class _Target:
    """All members of one target."""

    def __init__(self, members: list[Member]) -> None:
        self._members = members
        self._shared: dict[str, Elsewhere | Import] = {}
        self._owner: dict[str, int] = {}
        self._after = [global_symbols(member.diff.post.layout) for member in members]
        # Names that a unit now defines, and that a unit no longer defines, with that unit.
        self._come: list[set[str]] = []
        self._gone: dict[str, str] = {}
        for number, member in enumerate(members):
            self._add(number, member)
        self._wanted: list[set[Entity]] = [set() for _ in members]

    def _add(self, number: int, member: Member) -> None:
        before, post = global_symbols(member.diff.pre.layout), member.diff.post.layout
        self._come.append(self._after[number].keys() - before.keys())
        self._gone |= dict.fromkeys(before.keys() - self._after[number].keys(), member.unit)
        for name, symbol in self._after[number].items():
            entity = post.at(symbol.section, symbol.value)
            old = member.diff.pairing.pre_of(entity)
            if old is None:
                self._shared[name] = Elsewhere(member.unit, entity)
                self._owner[name] = number
            elif name not in before:
                self._shared[name] = unit_import(member.target, member.unit, old.symbol, old.name)
                self._owner[name] = number

    def join(self) -> list[Joined]:
        needed: set[int] = set()
        lenders: list[set[str]] = [set() for _ in self._members]
        while True:
            closures = [self._closure(number) for number in range(len(self._members))]
            grew = False
            for number, closure in enumerate(closures):
                for name in closure.externs & self._shared.keys():
                    owner, what = self._owner[name], self._shared[name]
                    if owner != number:
                        needed.add(owner)
                        lenders[number].add(self._members[owner].unit)
                    if isinstance(what, Elsewhere) and what.entity not in self._wanted[owner]:
                        self._wanted[owner].add(what.entity)
                        grew = True
            if not grew:
                break
        return [
            Joined(
                closure,
                number in needed,
                tuple(sorted(lenders[number])),
                tuple(self._moved(number, closure)),
            )
            for number, closure in enumerate(closures)
        ]

    def _closure(self, number: int) -> Closure:
        member = self._members[number]
        wanted = frozenset(self._wanted[number])
        return Closure(member.diff, member.target, member.unit, wanted, self._shared)

    def _moved(self, number: int, closure: Closure) -> Iterator[Refusal]:
        """New here and gone there: callers that nobody compiled still use the one that is gone."""
        member, here = self._members[number], self._after[number]
        for name in sorted(self._come[number] & self._gone.keys()):
            reason = "the symbol moves from one unit to another, and others still use the old"
            yield Refusal("symbol_moved", member.unit, name, reason, f"from {self._gone[name]}")
        new = {e.name for e in closure.carried.new_functions + closure.carried.new_data}
        for name in sorted(new & here.keys()):
            if here[name].binding is Binding.WEAK:
                reason = "a new weak symbol: which definition the kernel would use is not known"
                yield Refusal("weak_symbol", member.unit, name, reason)


def global_symbols(layout: Layout) -> dict[str, Symbol]:
    """What a unit defines with external linkage, by name."""
    return {
        s.name: s
        for s in layout.object.symbols
        if s.binding is not Binding.LOCAL and s.type in _NAMED and layout.known(s.section)
    }
