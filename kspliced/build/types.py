# SPDX-License-Identifier: GPL-2.0-or-later
"""Types that are not the same in two compilations of a unit, as far as live data goes.

What a unit does to data is in its code; what the data looks like is not, and data of the old
layout lives on. So a type that both sources have must look the same: every old member is where it
was, of the type it had, and what is new lies exactly over an old member of the same kind, as in a
union of both. Types by name: a structure or union by size and members, an enumeration by values,
a typedef by what it stands for. Of types whose objects have no such bit set, bit-fields may be new
where one was that nobody used (plan/zeroed.py); of types whose objects are constants, members may
be new where none was (plan/constant_types.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kspliced.build.btf import AGGREGATES, ENUMS, SECTION, Kind, Member, Type, Types
from kspliced.elf.object import Object
from kspliced.plan.enumerators import Enumerator, changes, enumeration
from kspliced.plan.neutral import spare

# Of these the value has another order of bytes than an integer's.
_SWAPPED = ("__be", "be")


@dataclass(frozen=True)
class Room:
    """Structures with room for new members, by tag. ``bits``: of those that are called unused none
    is set in any object; ``padding``: what lies between the members is zero in every object."""

    bits: frozenset[str] = frozenset()
    padding: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TypeChange:
    """``name`` as in C (``struct kthread``); ``evidence`` says what is different."""

    name: str
    evidence: str


def changed_types(pre: Object, post: Object, room: Room | None = None) -> tuple[TypeChange, ...]:
    """Types of both objects that are not the same in both, by name.

    :raises ValueError: an object has no BTF, or it is malformed.
    """
    both = _Both(*_sides(pre, post), room or Room())
    found = [*both.layouts(), *_enumerators(both.old, both.new)]
    return tuple(sorted(found, key=lambda change: change.name))


def enumerators_told(pre: Object, post: Object) -> frozenset[str]:
    """The enumerators that the compiler describes in both objects.

    :raises ValueError: an object has no BTF, or it is malformed.
    """
    old, new = map(_enumerated, _sides(pre, post))
    return frozenset(old.keys() & new.keys())


def _sides(pre: Object, post: Object) -> tuple[Types, Types]:
    old, new = Types(_content(pre)), Types(_content(post))
    # One compiler made both, and need not have had anything signed in both.
    old.signs = new.signs = old.signs or new.signs
    return old, new


def _content(obj: Object) -> bytes:
    section = obj.section_named(SECTION)
    if section is None:
        raise ValueError("the compiler wrote no BTF")
    return section.data


def _named(types: Types) -> dict[str, list[int]]:
    """Every named structure, union and typedef; a name may stand for several types."""
    found: dict[str, list[int]] = {}
    for number, one in enumerate(types.all):
        if one.name and one.kind in AGGREGATES:
            found.setdefault(f"{one.kind.name.lower()} {one.name}", []).append(number)
        elif one.kind is Kind.TYPEDEF:
            found.setdefault(one.name, []).append(number)
    return found


class _Both:
    """Compares types of the old object with those of the new one."""

    def __init__(self, old: Types, new: Types, room: Room) -> None:
        self.old, self.new = old, new
        self._zeroed = frozenset(_closed(old, room.bits))
        self._padding = room.padding

    def layouts(self) -> Iterator[TypeChange]:
        """The structures, unions and typedefs that are not the same."""
        before, after = _named(self.old), _named(self.new)
        for name in before.keys() & after.keys():
            olds, news = before[name], after[name]
            same = [(a, b) for a in olds for b in news if self._content(a, b)]
            if {a for a, _ in same} != set(olds) or {b for _, b in same} != set(news):
                yield TypeChange(name, self._difference(olds[0], news[0]))

    def _content(self, old: int, new: int) -> bool:
        """Whether types of one name are the same within."""
        before, after = self.old.all[old], self.new.all[new]
        if before.kind is Kind.TYPEDEF:
            return self._alike(before.value, after.value)
        return self._aggregate(old, new)

    def _aggregate(self, old: int, new: int) -> bool:
        if self.old.all[old].value != self.new.all[new].value:
            return False
        before, after = tuple(_flat(self.old, old)), tuple(_flat(self.new, new))
        if old in self._zeroed:
            unused = _unused(self.old, before)
            before = tuple(member for member in before if member not in unused)
            after = tuple(m for m in after if not (m.width and any(_within(m, u) for u in unused)))
        if self.old.all[old].name in self._padding:
            after = tuple(member for member in after if not self._in_padding(member, before))
        called: dict[str, list[Member]] = {}
        for member in after:
            called.setdefault(member.name, []).append(member)
        paired = [(a, b) for a in before for b in called.get(a.name, ())]
        kept = {b for a, b in paired if self._member(a, b, before)}
        if any(a.name and not any(a == one for one, _ in paired) for a in before):
            return False
        if any(b not in kept for _, b in paired):
            return False
        return all(b in kept or any(self._overlays(b, a) for a in before) for b in after)

    def _member(self, old: Member, new: Member, beside: tuple[Member, ...]) -> bool:
        """Whether a member of those ``beside`` it is where it was, and what it was."""
        if old.offset != new.offset:
            return False
        if old.width == new.width and self._alike(old.type, new.type):
            return True
        return self._number(old, new, beside)

    def _in_padding(self, new: Member, before: tuple[Member, ...]) -> bool:
        """Whether a new number lies where no old member does; of an array without a length nobody
        can tell where it ends."""
        if (
            new.width
            or self.new.scalar(new.type) is None
            or any(m.name == new.name for m in before)
        ):
            return False
        start, end = new.offset, new.offset + 8 * self.new.size(new.type)
        spans = [(m.offset, m.offset + (m.width or 8 * self.old.size(m.type))) for m in before]
        return all(a < b and (b <= start or end <= a) for a, b in spans)

    def _number(self, old: Member, new: Member, beside: tuple[Member, ...]) -> bool:
        """Whether a bit-field becomes the same bytes as a number, or the other way round. Code
        may write one bit-field with those that touch it."""
        one, other = self.old.scalar(old.type), self.new.scalar(new.type)
        if one is None or other is None or not (old.width or new.width):
            return False
        before, after = old.width or one.width, new.width or other.width
        touching = any(
            m.width and old.offset in (m.offset + m.width, m.offset - before) for m in beside
        )
        same = one.encoding == other.encoding and before == after
        return same and not touching and not old.offset % before

    def _overlays(self, new: Member, old: Member) -> bool:
        """Whether a new member is another name for the bytes of an old one, of the same kind."""
        if new.offset != old.offset or new.width or old.width or not new.name:
            return False
        if self._alike(old.type, new.type):
            return self.old.size(old.type) > 0
        one, other = self.old.plain(old.type), self.new.plain(new.type)
        return self.old.all[one].kind is self.new.all[other].kind is Kind.PTR

    def _alike(self, old: int, new: int) -> bool:
        """Whether what is of either type looks the same; named types are compared by themselves."""
        old, new = self.old.bare(old), self.new.bare(new)
        before, after = self.old.all[old], self.new.all[new]
        if Kind.TYPEDEF in (before.kind, after.kind) and before.name == after.name:
            return before.kind is after.kind
        if Kind.TYPEDEF in (before.kind, after.kind):
            return self._same_number(old, new, before, after)
        if _tag(before) and _tag(after):
            return _tag(before) == _tag(after)
        if before.kind in ENUMS or after.kind in ENUMS:
            return self._same_enum(old, new)
        if before.kind is not after.kind:
            return False
        return _ALIKE[before.kind](self, old, new)

    def _same_number(self, old: int, new: int, before: Type, after: Type) -> bool:
        swapped = any(one.name.startswith(_SWAPPED) for one in (before, after))
        scalar = self.old.scalar(old)
        return not swapped and scalar is not None and scalar == self.new.scalar(new)

    def _same_enum(self, old: int, new: int) -> bool:
        """An enumeration that gets a name, or more enumerators; values are compared by name."""
        if self.old.all[old].kind is not self.new.all[new].kind:
            return False
        if self.old.scalar(old) != self.new.scalar(new):
            return False
        return {n for n, _ in self.old.values(old)} <= {n for n, _ in self.new.values(new)}

    def _integer(self, old: int, new: int) -> bool:
        return self.old.scalar(old) == self.new.scalar(new)

    def _pointer(self, old: int, new: int) -> bool:
        return self._alike(self.old.all[old].value, self.new.all[new].value)

    def _array(self, old: int, new: int) -> bool:
        (element, count), (other, more) = self.old.array(old), self.new.array(new)
        return count == more and self._alike(element, other)

    def _prototype(self, old: int, new: int) -> bool:
        before, after = self.old.parameters(old), self.new.parameters(new)
        if not self._pointer(old, new):
            return False
        if len(before) != len(after):
            # Whoever calls it, or provides it, does not compile unless it is changed as well
            # (plan/neutral.py), but for `()` and `...`, which BTF has as a last one of type 0.
            return 0 not in {*before[-1:], *after[-1:]} and bool(before and after)
        return all(self._alike(a, b) for a, b in zip(before, after, strict=True))

    def _name(self, old: int, new: int) -> bool:
        before, after = self.old.all[old], self.new.all[new]
        return (before.name, before.value) == (after.name, after.value)

    def _difference(self, old: int, new: int) -> str:
        """For a person: the first member that is not what it was."""
        before, after = self.old.all[old], self.new.all[new]
        if before.kind is Kind.TYPEDEF or after.kind is Kind.TYPEDEF:
            one, other = self.old.describe(before.value), self.new.describe(after.value)
            return f"{one} before, {other} after"
        size = f"{before.value} bytes before, {after.value} after"
        known = {member.name: member for member in _flat(self.old, old)}
        for member in _flat(self.new, new):
            was = known.get(member.name)
            if member.name and was is None:
                return f"{size}; {member.name} is new"
            if was is not None and was.offset != member.offset:
                places = f"{was.offset // 8} to {member.offset // 8}"
                return f"{size}; {member.name} moves from byte {places}"
            if was is not None and not self._member(was, member, tuple(known.values())):
                width = f":{member.width}" if member.width else ""
                return f"{size}; {member.name} becomes {self.new.describe(member.type)}{width}"
        return size


def _flat(types: Types, number: int, base: int = 0) -> Iterator[Member]:
    """The members, those of structures and unions without a name in place of these."""
    for member in types.members(number):
        inner = types.bare(member.type)
        offset = base + member.offset
        if not member.name and types.all[inner].kind in AGGREGATES:
            yield from _flat(types, inner, offset)
        else:
            yield Member(member.name, offset, member.width, member.type)


def _closed(types: Types, tags: frozenset[str]) -> Iterator[int]:
    """The structures of these names, and those without a name that are part of one."""
    waiting = [n for n, one in enumerate(types.all) if one.kind is Kind.STRUCT and one.name in tags]
    while waiting:
        number = waiting.pop()
        yield number
        inner = (types.bare(member.type) for member in types.members(number))
        waiting += [n for n in inner if _unnamed(types.all[n])]


def _unnamed(one: Type) -> bool:
    return one.kind in AGGREGATES and not one.name


def _unused(types: Types, members: tuple[Member, ...]) -> tuple[Member, ...]:
    """The bit-fields that nobody uses and no other member has a part of."""
    whole = [
        (m.offset, m.offset + 8 * types.size(m.type))
        for m in members
        if not m.width and not _unnamed(types.all[types.bare(m.type)])
    ]
    found = (member for member in members if member.width and spare(member.name))
    return tuple(
        one
        for one in found
        if not any(start < one.offset + one.width and one.offset < end for start, end in whole)
    )


def _within(one: Member, other: Member) -> bool:
    return other.offset <= one.offset and one.offset + one.width <= other.offset + other.width


def _tag(one: Type) -> str:
    """How a named structure, union or enumeration is referred to."""
    if one.kind is Kind.FWD:
        # Whether the unit sees a structure's members is no property of the structure.
        return f"{'UNION' if one.flag else 'STRUCT'} {one.name}"
    return f"{one.kind.name} {one.name}" if one.name and one.kind in _TAGGED else ""


_TAGGED = (*AGGREGATES, *ENUMS)
_ALIKE: dict[Kind, Callable[[_Both, int, int], bool]] = {
    Kind.VOID: lambda both, old, new: True,
    Kind.INT: _Both._integer,
    Kind.FLOAT: _Both._name,
    Kind.PTR: _Both._pointer,
    Kind.ARRAY: _Both._array,
    Kind.STRUCT: _Both._aggregate,
    Kind.UNION: _Both._aggregate,
    Kind.FUNC_PROTO: _Both._prototype,
}


def _enumerators(before: Types, after: Types) -> Iterator[TypeChange]:
    old, new = _enumerated(before), _enumerated(after)
    for name in old.keys() & new.keys():
        if changes(name, old, new):
            evidence = f"{old[name].value} before, {new[name].value} after"
            yield TypeChange(f"enumerator {name}", evidence)


def _enumerated(types: Types) -> dict[str, Enumerator]:
    found: dict[str, Enumerator] = {}
    for number, one in enumerate(types.all):
        if one.kind in ENUMS:
            found |= enumeration(types.values(number), types.complete(number))
    return found
