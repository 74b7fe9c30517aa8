# SPDX-License-Identifier: GPL-2.0-or-later
"""Units that refer to each other's new functions and data.

The running kernel has no address for what is new, so a unit carries it as soon as another one
needs it; and a function that was static is known to the kernel only inside its unit. Units of a
module see what the kernel proper newly exports, too, or a module that theirs needs already. The
running kernel goes on without such an export: whoever needs it is linked with the update, or was
built for another kernel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kspliced.build.closure import Closure, Elsewhere, unit_import
from kspliced.build.diff import UnitDiff, exports
from kspliced.build.layout import Entity, Layout
from kspliced.elf.object import SHN_UNDEF, Binding, Symbol, SymbolType
from kspliced.model import VMLINUX, Import, Refusal

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
    something that only this unit's pre object or its closure has. ``lenders``: such units, for
    this one."""

    closure: Closure
    needed: bool
    lenders: tuple[str, ...]
    refused: tuple[Refusal, ...]


def join(members: tuple[Member, ...]) -> tuple[Joined, ...]:
    """The closure of each member, in their order."""
    return tuple(_Join(members).join())


@dataclass(frozen=True)
class _Lent:
    """What a member, by its number, has for others."""

    owner: int
    what: Elsewhere | Import


class _Join:
    """All members, with what those of each target have in common."""

    def __init__(self, members: tuple[Member, ...]) -> None:
        self._members = members
        self._after = [global_symbols(member.diff.post.layout) for member in members]
        # Names that a unit now defines, and that a unit of a target no longer defines, with it.
        self._come: list[set[str]] = []
        self._gone: dict[str, dict[str, str]] = defaultdict(dict)
        lent: dict[str, dict[str, _Lent]] = defaultdict(dict)
        for number, member in enumerate(members):
            lent[member.target].update(self._lent(number, member))
        self._stays = _Stays(members)
        self._lent_to = {
            target: {**dict(self._shown(target, lent)), **own} for target, own in lent.items()
        }
        self._wanted: list[set[Entity]] = [set() for _ in members]

    def _lent(self, number: int, member: Member) -> Iterator[tuple[str, _Lent]]:
        """What of a member is known to the kernel under no name, or under one of its unit only."""
        before, post = global_symbols(member.diff.pre.layout), member.diff.post.layout
        after = self._after[number]
        self._come.append(after.keys() - before.keys())
        self._gone[member.target] |= dict.fromkeys(before.keys() - after.keys(), member.unit)
        for name, symbol in after.items():
            entity = post.at(symbol.section, symbol.value)
            old = member.diff.pairing.pre_of(entity)
            if old is None:
                yield name, _Lent(number, Elsewhere(member.target, member.unit, entity))
            elif name not in before:
                wanted = unit_import(member.target, member.unit, old.symbol, old.name)
                yield name, _Lent(number, wanted)

    def _shown(
        self, target: str, lent: Mapping[str, Mapping[str, _Lent]]
    ) -> Iterator[tuple[str, _Lent]]:
        """What other targets newly export to this one, and the kernel does not."""
        for number, member in enumerate(self._members):
            if member.target == target or not self._stays(member.target, target):
                continue
            before = global_symbols(member.diff.pre.layout)
            for name in member.diff.new_exports:
                if name in lent[member.target]:
                    yield name, lent[member.target][name]
                elif name in before:
                    index = before[name].index
                    wanted = unit_import(member.target, member.unit, index, name)
                    yield name, _Lent(number, wanted)

    def join(self) -> Iterator[Joined]:
        """What becomes of each member."""
        needed: set[int] = set()
        lenders: list[set[str]] = [set() for _ in self._members]
        grew = True
        while grew:
            closures = [self._closure(number) for number in range(len(self._members))]
            grew = False
            for number, closure in enumerate(closures):
                lent = self._lent_to[self._members[number].target]
                for one in (lent[name] for name in closure.externs & lent.keys()):
                    if one.owner != number:
                        needed.add(one.owner)
                        lenders[number].add(self._members[one.owner].unit)
                    wanted = self._wanted[one.owner]
                    if isinstance(one.what, Elsewhere) and one.what.entity not in wanted:
                        wanted.add(one.what.entity)
                        grew = True
        for number, closure in enumerate(closures):
            refused = (*self._moved(number, closure), *self._exported(number, closures))
            yield Joined(closure, number in needed, tuple(sorted(lenders[number])), refused)

    def _closure(self, number: int) -> Closure:
        member = self._members[number]
        wanted = frozenset(self._wanted[number])
        shared = {name: one.what for name, one in self._lent_to[member.target].items()}
        return Closure(member.diff, member.target, member.unit, wanted, shared)

    def _exported(self, number: int, closures: Sequence[Closure]) -> Iterator[Refusal]:
        """New exports, but those that another target of the update links by."""
        member = self._members[number]
        if not member.diff.new_exports:
            return
        linked: set[str] = set()
        for other, closure in zip(self._members, closures, strict=True):
            if other.target != member.target and self._stays(member.target, other.target):
                linked |= closure.externs
        for name in member.diff.new_exports:
            if name not in linked:
                reason = "an exported symbol is new: other modules link by the export table"
                yield Refusal("export_changed", member.unit, name, reason)

    def _moved(self, number: int, closure: Closure) -> Iterator[Refusal]:
        """New here and gone there: callers that nobody compiled still use the one that is gone."""
        member, here = self._members[number], self._after[number]
        gone = self._gone[member.target]
        for name in sorted(self._come[number] & gone.keys()):
            reason = "the symbol moves from one unit to another, and others still use the old"
            yield Refusal("symbol_moved", member.unit, name, reason, f"from {gone[name]}")
        new = {e.name for e in closure.carried.new_functions + closure.carried.new_data}
        for name in sorted(new & here.keys()):
            if here[name].binding is Binding.WEAK:
                reason = "a new weak symbol: which definition the kernel would use is not known"
                yield Refusal("weak_symbol", member.unit, name, reason)


class _Stays:
    """Whether one target stays as long as another does: the kernel proper, or a module that the
    other links by already."""

    def __init__(self, members: tuple[Member, ...]) -> None:
        self._exports: dict[str, set[str]] = defaultdict(set)
        self._links: dict[str, set[str]] = defaultdict(set)
        for member in members:
            obj = member.diff.pre.layout.object
            self._exports[member.target] |= exports(obj)
            undefined = (s for s in obj.symbols if s.section == SHN_UNDEF)
            self._links[member.target] |= {
                s.name for s in undefined if s.binding is not Binding.WEAK
            }

    def __call__(self, owner: str, user: str) -> bool:
        return owner == VMLINUX or bool(self._exports[owner] & self._links[user])


def global_symbols(layout: Layout) -> dict[str, Symbol]:
    """What a unit defines with external linkage, by name."""
    return {
        s.name: s
        for s in layout.object.symbols
        if s.binding is not Binding.LOCAL and s.type in _NAMED and layout.known(s.section)
    }
