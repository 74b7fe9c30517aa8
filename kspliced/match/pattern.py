# SPDX-License-Identifier: GPL-2.0-or-later
"""What code of a pre object may look like in a running kernel: bytes, fields and sites.

A *field* is where a relocation goes: the bytes there say where the run kernel has the symbol.
A *site* is where the kernel may rewrite instructions; it has a closed set of *variants*.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

ADDRESS_MASK = (1 << 64) - 1

# In the order of their encoding.
REGISTERS = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)


@dataclass(frozen=True, slots=True)
class Bound:
    """The field shows symbol ``label``, which lies ``offset`` bytes into the entity ``key``.

    ``key`` is a section index of the pre object, for what it defines, or an undefined symbol's
    name. All fields with one key must show the same address, less their offsets.
    """

    key: int | str
    offset: int
    label: str


@dataclass(frozen=True, slots=True)
class Content:
    """``shift`` bytes behind what the field shows lies merged constant ``data``: the linker may
    have put equal constants of many units in one place, so only content counts."""

    data: bytes
    shift: int


@dataclass(frozen=True, slots=True)
class Constant:
    """The field shows an absolute symbol's value."""

    value: int


class Allowed(str, Enum):
    """Where a rewritten instruction may lead; the detail names what it depends on."""

    FTRACE = "ftrace"
    RETURN_THUNK = "return thunk"
    INDIRECT_THUNK = "indirect thunk"
    STATIC_CALL = "static call"
    STATIC_TAIL_CALL = "static tail call"
    PARAVIRT = "paravirt operation"
    RUNTIME_POINTER = "runtime constant"
    RUNTIME_SHIFT = "runtime shift"


@dataclass(frozen=True, slots=True)
class Destination:
    """The field shows a destination, or a value, that the kernel chose: ``detail`` is the static
    call's name, the register, the index of the paravirt operation, or the variable's name."""

    allowed: Allowed
    detail: str


@dataclass(frozen=True, slots=True)
class Thunked:
    """The field shows the call thunk in the padding before ``function``."""

    function: Bound


Want = Bound | Content | Constant | Destination | Thunked


@dataclass(frozen=True, slots=True)
class Field:
    """``size`` bytes at ``offset`` that hold S + ``addend``, minus the place if ``relative``."""

    offset: int
    size: int
    relative: bool
    signed: bool
    addend: int
    want: Want

    def shown(self, found: bytes, base: int, at: int) -> int:
        """The S that ``found`` shows here; the code's byte 0 is at ``base`` in the kernel and at
        ``at`` in ``found``."""
        start = at + self.offset
        raw = int.from_bytes(found[start : start + self.size], "little", signed=self.signed)
        if self.relative:
            raw += base + self.offset
        return (raw - self.addend) & ADDRESS_MASK

    def moved(self, distance: int) -> Field:
        """The same field, ``distance`` bytes further on."""
        return replace(self, offset=self.offset + distance)


@dataclass(frozen=True, slots=True)
class Variant:
    """One allowed encoding: ``data`` with zeros where ``fields`` are."""

    data: bytes
    fields: tuple[Field, ...] = ()

    def spliced(self, offset: int, other: Variant) -> Variant:
        """This encoding with ``other`` written over it at ``offset``."""
        end = offset + len(other.data)
        kept = [f for f in self.fields if f.offset + f.size <= offset or f.offset >= end]
        return Variant(
            self.data[:offset] + other.data + self.data[end:],
            (*kept, *(f.moved(offset) for f in other.fields)),
        )


class SiteKind(str, Enum):
    """Who rewrites a site."""

    FTRACE = "ftrace"
    JUMP_LABEL = "jump label"
    STATIC_CALL = "static call"
    ALTERNATIVE = "alternative"
    PARAVIRT = "paravirt"
    SMP_LOCK = "SMP lock"
    CALL_THUNK = "call thunk"
    RUNTIME_CONST = "runtime constant"
    RETPOLINE = "retpoline"
    RETURN = "return thunk"
    ENDBR = "endbr"


# Rewritten at any moment while the kernel runs; the others only while code is being loaded.
VOLATILE = frozenset({SiteKind.FTRACE, SiteKind.JUMP_LABEL, SiteKind.STATIC_CALL})


@dataclass(frozen=True, slots=True)
class Site:
    """``size`` bytes at ``offset`` that hold one of ``variants``."""

    offset: int
    size: int
    kind: SiteKind
    variants: tuple[Variant, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A range of a pre object: ``data`` with zeros where fields and sites are."""

    data: bytes
    fields: tuple[Field, ...]
    sites: tuple[Site, ...]

    def first_difference(self, found: bytes) -> int | None:
        """Offset of the first byte, fields and sites aside, that ``found`` has otherwise."""
        masked = bytearray(found)
        for field in self.fields:
            masked[field.offset : field.offset + field.size] = bytes(field.size)
        for site in self.sites:
            masked[site.offset : site.offset + site.size] = bytes(site.size)
        if masked == self.data:
            return None
        pairs = enumerate(zip(masked, self.data, strict=False))
        return next((at for at, (a, b) in pairs if a != b), min(len(masked), len(self.data)))

    def mask(self) -> bytes:
        """0xff for each byte, 0x00 where the kernel may rewrite it at any moment."""
        mask = bytearray(b"\xff" * len(self.data))
        for site in self.sites:
            if site.kind in VOLATILE:
                mask[site.offset : site.offset + site.size] = bytes(site.size)
        return bytes(mask)


def blank(data: bytes, fields: Iterable[Field]) -> bytes:
    """``data`` with zeros where ``fields`` are."""
    result = bytearray(data)
    for field in fields:
        result[field.offset : field.offset + field.size] = bytes(field.size)
    return bytes(result)
