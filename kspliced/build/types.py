# SPDX-License-Identifier: GPL-2.0-or-later
"""Types whose layout differs between two compilations of a unit, from the BTF that GCC writes.

What a unit does to data is in its code; what the data looks like is not, and data of the old
layout lives on. So a type that both sources have must not change. Types by name: a structure or
union by size and members, an enumeration by values, a typedef by what it stands for.
Format: Documentation/bpf/btf.rst; include/uapi/linux/btf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from kspliced.elf.object import Object

SECTION = ".BTF"

_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_ENTRY = struct.Struct("<III")
_PAIR = struct.Struct("<Ii")
_MAGIC = 0xEB9F


class _Kind(IntEnum):
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


_AGGREGATES = (_Kind.STRUCT, _Kind.UNION)
_ENUMS = (_Kind.ENUM, _Kind.ENUM64)
# Bytes behind the three words of a type, for each of its vlen entries.
_EACH = {
    _Kind.STRUCT: 12, _Kind.UNION: 12, _Kind.ENUM: 8, _Kind.FUNC_PROTO: 8,
    _Kind.DATASEC: 12, _Kind.ENUM64: 12,
}  # fmt: skip
_FIXED = {_Kind.INT: 4, _Kind.ARRAY: 12, _Kind.VAR: 4, _Kind.DECL_TAG: 4}


@dataclass(frozen=True)
class TypeChange:
    """``name`` as in C (``struct kthread``); ``evidence`` says what is different."""

    name: str
    evidence: str


@dataclass(frozen=True)
class _Member:
    """``offset`` is in bits; ``type`` describes it, named types by name only."""

    name: str
    offset: int
    type: str


@dataclass(frozen=True)
class _Layout:
    size: int
    members: tuple[_Member, ...]


@dataclass(frozen=True)
class _Raw:
    kind: _Kind
    name: str
    vlen: int
    bits: bool
    size: int
    data: bytes


def changed_types(pre: Object, post: Object) -> tuple[TypeChange, ...]:
    """Types of both objects that are not the same in both, by name.

    :raises ValueError: an object has no BTF, or it is malformed.
    """
    before, after = _Types(_content(pre)), _Types(_content(post))
    found = [*_layouts(before, after), *_enumerators(before, after)]
    return tuple(sorted(found, key=lambda change: change.name))


def _content(obj: Object) -> bytes:
    section = obj.section_named(SECTION)
    if section is None:
        raise ValueError("the compiler wrote no BTF")
    return section.data


def _layouts(before: _Types, after: _Types) -> Iterator[TypeChange]:
    old, new = before.layouts(), after.layouts()
    for name in old.keys() & new.keys():
        if old[name] != new[name]:
            yield TypeChange(name, _difference(old[name][0], new[name][0]))


def _difference(old: _Layout, new: _Layout) -> str:
    size = f"{old.size} bytes before, {new.size} after"
    before = {member.name: member for member in old.members if member.name}
    for member in new.members:
        was = before.get(member.name)
        if member.name and was is None:
            return f"{size}; {member.name} is new"
        if was is not None and was.offset != member.offset:
            return (
                f"{size}; {member.name} moves from byte {was.offset // 8} to {member.offset // 8}"
            )
        if was is not None and was.type != member.type:
            return f"{size}; {member.name} becomes {member.type:.80}"
    return size


def _enumerators(before: _Types, after: _Types) -> Iterator[TypeChange]:
    old, new = before.enumerators(), after.enumerators()
    for name in old.keys() & new.keys():
        # The last one usually counts the others, and what it is the size of is compared itself.
        if old[name].value != new[name].value and not (old[name].last and new[name].last):
            evidence = f"{old[name].value} before, {new[name].value} after"
            yield TypeChange(f"enumerator {name}", evidence)


@dataclass(frozen=True)
class _Enumerator:
    value: int
    last: bool


class _Types:
    """The types of one object."""

    def __init__(self, data: bytes) -> None:
        try:
            self._types = [None, *self._parse(data)]
        except (struct.error, IndexError) as error:
            raise ValueError(f"malformed BTF: {error}") from error
        self._described: dict[int, str] = {}

    def _parse(self, data: bytes) -> Iterator[_Raw]:
        magic, _, _, size, at, length, strings, _ = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError("no BTF header")
        self._strings = data[size + strings :]
        place, end = size + at, size + at + length
        while place < end:
            name, info, value = _TYPE.unpack_from(data, place)
            kind, vlen = _Kind(info >> 24 & 0x1F), info & 0xFFFF
            extra = _FIXED.get(kind, 0) + _EACH.get(kind, 0) * vlen
            place += _TYPE.size
            rest = data[place : place + extra]
            yield _Raw(kind, self._text(name), vlen, bool(info >> 31), value, rest)
            place += extra

    def _text(self, offset: int) -> str:
        end = self._strings.index(b"\0", offset)
        return self._strings[offset:end].decode("utf-8", "replace")

    def layouts(self) -> dict[str, tuple[_Layout, ...]]:
        """Every named structure, union and typedef; a name may stand for several types."""
        found: dict[str, set[_Layout]] = {}
        for raw in self._types:
            if raw is None or not raw.name:
                continue
            if raw.kind in _AGGREGATES:
                word = raw.kind.name.lower()
                found.setdefault(f"{word} {raw.name}", set()).add(self._layout(raw))
            elif raw.kind is _Kind.TYPEDEF:
                layout = _Layout(0, (_Member("", 0, self._describe(raw.size)),))
                found.setdefault(raw.name, set()).add(layout)
        return {name: tuple(sorted(same, key=repr)) for name, same in found.items()}

    def enumerators(self) -> dict[str, _Enumerator]:
        """The value of each enumerator, and whether none of its type is greater."""
        found = {}
        for raw in self._types:
            if raw is not None and raw.kind in _ENUMS:
                pairs = list(self._values(raw))
                top = max((value for _, value in pairs), default=0)
                found.update({name: _Enumerator(value, value == top) for name, value in pairs})
        return found

    def _values(self, raw: _Raw) -> Iterator[tuple[str, int]]:
        if raw.kind is _Kind.ENUM:
            for name, value in _PAIR.iter_unpack(raw.data):
                yield self._text(name), value
        else:
            for name, low, high in _ENTRY.iter_unpack(raw.data):
                yield self._text(name), high << 32 | low

    def _layout(self, raw: _Raw) -> _Layout:
        members = []
        for name, type_id, offset in _ENTRY.iter_unpack(raw.data):
            # With bit-fields the high byte is a width (btf.rst, kind_flag).
            text = self._describe(type_id)
            if raw.bits and offset >> 24:
                text = f"{text}:{offset >> 24}"
            place = offset & 0xFFFFFF if raw.bits else offset
            members.append(_Member(self._text(name), place, text))
        return _Layout(raw.size, tuple(members))

    def _describe(self, number: int) -> str:
        if number not in self._described:
            self._described[number] = self._describe_new(number)
        return self._described[number]

    def _describe_new(self, number: int) -> str:
        raw = self._types[number]
        if raw is None:
            return "void"
        if raw.kind in _AGGREGATES:
            word = raw.kind.name.lower()
            return f"{word} {raw.name}" if raw.name else f"{word} {self._layout(raw)}"
        if raw.kind in _ENUMS:
            return f"enum {raw.name or [name for name, _ in self._values(raw)]}"
        return _DESCRIBE[raw.kind](self, raw)

    def _array(self, raw: _Raw) -> str:
        element, _, count = _ENTRY.unpack(raw.data)
        return f"{self._describe(element)}[{count}]"

    def _prototype(self, raw: _Raw) -> str:
        words = struct.iter_unpack("<II", raw.data)
        return f"{self._describe(raw.size)}({', '.join(self._describe(w) for _, w in words)})"


_DESCRIBE: dict[_Kind, Callable[[_Types, _Raw], str]] = {
    _Kind.INT: lambda types, raw: f"{raw.name}/{raw.size}",
    _Kind.FLOAT: lambda types, raw: f"{raw.name}/{raw.size}",
    _Kind.PTR: lambda types, raw: f"{types._describe(raw.size)} *",
    _Kind.ARRAY: _Types._array,
    # Whether the unit sees a structure's members is no property of the structure.
    _Kind.FWD: lambda types, raw: f"{'union' if raw.bits else 'struct'} {raw.name}",
    _Kind.TYPEDEF: lambda types, raw: raw.name,
    _Kind.VOLATILE: lambda types, raw: types._describe(raw.size),
    _Kind.CONST: lambda types, raw: types._describe(raw.size),
    _Kind.RESTRICT: lambda types, raw: types._describe(raw.size),
    _Kind.TYPE_TAG: lambda types, raw: types._describe(raw.size),
    _Kind.FUNC_PROTO: _Types._prototype,
    _Kind.FUNC: lambda types, raw: raw.name,
    _Kind.VAR: lambda types, raw: raw.name,
    _Kind.DATASEC: lambda types, raw: raw.name,
    _Kind.DECL_TAG: lambda types, raw: raw.name,
}
