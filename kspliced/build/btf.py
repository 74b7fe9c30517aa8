# SPDX-License-Identifier: GPL-2.0-or-later
"""The types of an object, as the compiler's BTF has them.

Format: Documentation/bpf/btf.rst; include/uapi/linux/btf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

SECTION = ".BTF"

_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_ENTRY = struct.Struct("<III")
_PAIR = struct.Struct("<II")
_WORD = struct.Struct("<I")
_MAGIC = 0xEB9F
_POINTER_SIZE = 8
# Of the greatest that has no value that is no int.
_ENUM_SIZE = 4
# BTF_INT_*; BTF_INT_CHAR is no property of the number.
_SIGNED = 1
_BOOL = 4


class Kind(IntEnum):
    """BTF_KIND_*."""

    VOID = 0
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


AGGREGATES = (Kind.STRUCT, Kind.UNION)
ENUMS = (Kind.ENUM, Kind.ENUM64)
# What says how a type may be used, and nothing of what it looks like.
_QUALIFIERS = (Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG)
# Bytes behind the three words of a type, for each of its vlen entries.
_EACH = {
    Kind.STRUCT: 12, Kind.UNION: 12, Kind.ENUM: 8, Kind.FUNC_PROTO: 8, Kind.DATASEC: 12,
    Kind.ENUM64: 12,
}  # fmt: skip
_FIXED = {Kind.INT: 4, Kind.ARRAY: 12, Kind.VAR: 4, Kind.DECL_TAG: 4}


@dataclass(frozen=True)
class Type:
    """``value`` is the size in bytes, or the number of the type it refers to; ``flag`` the
    kind_flag; ``data`` what follows, by kind."""

    kind: Kind
    name: str
    flag: bool
    value: int
    data: bytes


@dataclass(frozen=True)
class Member:
    """``offset`` and ``width`` in bits, ``width`` 0 if it is no bit-field; ``type`` by number."""

    name: str
    offset: int
    width: int
    type: int


@dataclass(frozen=True)
class Scalar:
    """An integer or enumeration: ``width`` in bits; ``encoding`` says if it is signed, or bool."""

    width: int
    encoding: int


def _flagged(one: Type) -> bool:
    return one.kind is Kind.ENUM and one.flag


def _number(bits: int, width: int, signed: bool) -> int:
    return bits - (1 << width) if signed and bits >> width - 1 else bits


class Types:
    """The types of one object, by number.

    ``signs``: the compiler says which enumerations are signed. GCC 12 does not; it leaves out
    what is no ``int``, so that with it all are read as if they were.

    :raises ValueError: the section is malformed.
    """

    def __init__(self, data: bytes) -> None:
        try:
            self.all = (Type(Kind.VOID, "", False, 0, b""), *self._parse(data))
        except (struct.error, IndexError) as error:
            raise ValueError(f"malformed BTF: {error}") from error
        self.signs = any(one.kind is Kind.ENUM64 or _flagged(one) for one in self.all)

    def _parse(self, data: bytes) -> Iterator[Type]:
        magic, _, _, size, at, length, strings, _ = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError("no BTF header")
        self._strings = data[size + strings :]
        place, end = size + at, size + at + length
        while place < end:
            name, info, value = _TYPE.unpack_from(data, place)
            kind, vlen = Kind(info >> 24 & 0x1F), info & 0xFFFF
            extra = _FIXED.get(kind, 0) + _EACH.get(kind, 0) * vlen
            place += _TYPE.size
            rest = data[place : place + extra]
            yield Type(kind, self._text(name), bool(info >> 31), value, rest)
            place += extra

    def _text(self, offset: int) -> str:
        end = self._strings.index(b"\0", offset)
        return self._strings[offset:end].decode("utf-8", "replace")

    def bare(self, number: int) -> int:
        """The type without qualifiers."""
        while self.all[number].kind in _QUALIFIERS:
            number = self.all[number].value
        return number

    def plain(self, number: int) -> int:
        """The type without qualifiers and typedefs."""
        while self.all[number].kind in (*_QUALIFIERS, Kind.TYPEDEF):
            number = self.all[number].value
        return number

    def members(self, number: int) -> tuple[Member, ...]:
        """Of a structure or union."""
        found = []
        one = self.all[number]
        for name, type_id, offset in _ENTRY.iter_unpack(one.data):
            # With bit-fields the high byte is a width (btf.rst, kind_flag).
            width = offset >> 24 if one.flag else 0
            place = offset & 0xFFFFFF if one.flag else offset
            found.append(Member(self._text(name), place, width, type_id))
        return tuple(found)

    def array(self, number: int) -> tuple[int, int]:
        """What an array is of, and of how many."""
        element, _, count = _ENTRY.unpack(self.all[number].data)
        return element, count

    def parameters(self, number: int) -> tuple[int, ...]:
        """The types of a prototype's parameters."""
        return tuple(word for _, word in struct.iter_unpack("<II", self.all[number].data))

    def values(self, number: int) -> tuple[tuple[str, int], ...]:
        """The enumerators of an enumeration."""
        one = self.all[number]
        signed = one.flag or not self.signs
        if one.kind is Kind.ENUM:
            pairs = _PAIR.iter_unpack(one.data)
            return tuple((self._text(name), _number(low, 32, signed)) for name, low in pairs)
        found = _ENTRY.iter_unpack(one.data)
        return tuple(
            (self._text(name), _number(high << 32 | low, 64, signed)) for name, low, high in found
        )

    def complete(self, number: int) -> bool:
        """Whether an enumeration has all its enumerators, as far as can be told."""
        return self.all[number].kind is not Kind.ENUM or self.all[number].value <= _ENUM_SIZE

    def scalar(self, number: int) -> Scalar | None:
        """What an integer or enumeration is made of; None if the type is neither."""
        one = self.all[self.plain(number)]
        if one.kind is Kind.INT:
            (word,) = _WORD.unpack(one.data)
            return Scalar(word & 0xFF, word >> 24 & (_SIGNED | _BOOL))
        if one.kind in ENUMS:
            # GCC makes an enumeration unsigned unless a value is negative.
            signed = one.flag or any(value < 0 for _, value in self.values(self.plain(number)))
            return Scalar(8 * one.value, _SIGNED if signed else 0)
        return None

    def size(self, number: int) -> int:
        """In bytes; 0 where it has none, or it is not known."""
        one = self.all[self.plain(number)]
        if one.kind is Kind.ARRAY:
            element, count = self.array(self.plain(number))
            return count * self.size(element)
        if one.kind is Kind.PTR:
            return _POINTER_SIZE
        known = (*AGGREGATES, *ENUMS, Kind.INT, Kind.FLOAT)
        return one.value if one.kind in known else 0

    def describe(self, number: int) -> str:
        """The type as one would name it, for a person."""
        number = self.bare(number)
        one = self.all[number]
        if one.kind is Kind.PTR:
            return f"{self.describe(one.value)} *"
        if one.kind is Kind.ARRAY:
            element, count = self.array(number)
            return f"{self.describe(element)}[{count}]"
        if one.kind is Kind.FUNC_PROTO:
            words = ", ".join(self.describe(word) for word in self.parameters(number))
            return f"{self.describe(one.value)}({words})"
        if one.kind in (*AGGREGATES, *ENUMS):
            word = {Kind.ENUM64: "enum"}.get(one.kind, one.kind.name.lower())
            return f"{word} {one.name or '{…}'}"
        if one.kind is Kind.FWD:
            return f"{'union' if one.flag else 'struct'} {one.name}"
        return one.name or "void"
