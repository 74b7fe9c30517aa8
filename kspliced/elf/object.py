# SPDX-License-Identifier: GPL-2.0-or-later
"""A relocatable object file as typed values (ELF-64, x86-64, gABI chapters 4 and 5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

SHN_UNDEF = 0
SHN_LORESERVE = 0xFF00  # from here on, no number of a section
SHN_ABS = 0xFFF1
SHN_COMMON = 0xFFF2

SHT_PROGBITS = 1
SHT_NOTE = 7
SHT_NOBITS = 8

SHF_WRITE = 0x1
SHF_ALLOC = 0x2
SHF_EXECINSTR = 0x4
SHF_MERGE = 0x10
SHF_STRINGS = 0x20


class SymbolType(IntEnum):
    """st_info's low nibble."""

    NOTYPE = 0
    OBJECT = 1
    FUNC = 2
    SECTION = 3
    FILE = 4
    COMMON = 5
    TLS = 6


class Binding(IntEnum):
    """st_info's high nibble."""

    LOCAL = 0
    GLOBAL = 1
    WEAK = 2


@dataclass(frozen=True)
class Relocation:
    """One Elf64_Rela: ``offset`` in the section, ``symbol`` an index into Object.symbols."""

    offset: int
    type: int
    symbol: int
    addend: int


@dataclass(frozen=True)
class Section:
    """A section with its content and relocations, ordered by offset.

    ``size`` equals len(data) except for SHT_NOBITS, whose data is empty.
    """

    index: int
    name: str
    type: int
    flags: int
    align: int
    entsize: int
    size: int
    data: bytes
    relocations: tuple[Relocation, ...]

    @property
    def alloc(self) -> bool:
        """Whether the section is in memory at run time."""
        return bool(self.flags & SHF_ALLOC)

    @property
    def executable(self) -> bool:
        """Whether the section holds code."""
        return bool(self.flags & SHF_EXECINSTR)

    @property
    def writable(self) -> bool:
        """Whether the section may be written to at run time, for some time at least."""
        return bool(self.flags & SHF_WRITE)


@dataclass(frozen=True)
class Symbol:
    """A symbol; ``section`` is a section header index or SHN_UNDEF, SHN_ABS, SHN_COMMON."""

    index: int
    name: str
    value: int
    size: int
    type: SymbolType
    binding: Binding
    section: int
    other: int = 0

    @property
    def defined(self) -> bool:
        """Whether this object defines the symbol in one of its sections."""
        return self.section not in (SHN_UNDEF, SHN_ABS, SHN_COMMON)


@dataclass(frozen=True)
class Object:
    """A relocatable object.

    ``sections`` holds every section but symbol, string and relocation tables; section numbers
    keep those of the file, so look sections up with :meth:`section`. ``symbols`` is the whole
    symbol table, entry 0 included, so that ``symbols[i].index == i``.
    """

    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]

    def section(self, index: int) -> Section:
        """The section of header index ``index``; KeyError when it is not a content section."""
        for section in self.sections:
            if section.index == index:
                return section
        raise KeyError(index)

    def section_named(self, name: str) -> Section | None:
        """The first section called ``name``."""
        for section in self.sections:
            if section.name == name:
                return section
        return None
