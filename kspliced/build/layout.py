# SPDX-License-Identifier: GPL-2.0-or-later
"""What an object consists of: functions, data, strings and chunks, and what each refers to.

Compiled with -ffunction-sections and -fdata-sections, nearly every section holds one entity; the
rest (.init.text, .data..percpu, string sections) is told apart by symbols and strings.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from kspliced.elf import special
from kspliced.elf.disasm import is_branch, leaving_branches, operand_distance
from kspliced.elf.object import (
    SHF_MERGE,
    SHF_STRINGS,
    Object,
    Relocation,
    Section,
    Symbol,
    SymbolType,
)
from kspliced.elf.section_class import Place, is_start_up_table, is_transient, place_of
from kspliced.elf.x86 import KINDS, R_X86_64_PC8, R_X86_64_PLT32


class EntityKind(Enum):
    """FUNCTION and DATA have a symbol; STRING, CONSTANT and CHUNK (code) have none."""

    FUNCTION = "function"
    DATA = "data"
    STRING = "string"
    CONSTANT = "constant"
    CHUNK = "chunk"


@dataclass(frozen=True)
class Entity:
    """``size`` bytes at ``offset`` of section ``section``; ``symbol`` is -1 without a symbol."""

    kind: EntityKind
    section: int
    offset: int
    size: int
    symbol: int
    name: str

    @property
    def stem(self) -> str:
        """The name without what the compiler numbers."""
        return stem(self.name)

    @property
    def cold_parent(self) -> str:
        """The name of the function that this is the cold part of, or ''."""
        match = _COLD.fullmatch(self.name)
        return match.group(1) if match else ""

    @property
    def parent(self) -> str:
        """The name of the function that this is the cold part of, or the padding before, or ''."""
        if self.name.startswith(PADDING):
            return self.name.removeprefix(PADDING)
        return self.cold_parent


@dataclass(frozen=True)
class Target:
    """What a relocation refers to: an entity of this object, or an external name.

    ``delta`` is the relocation's addend relative to the entity's start (or to the external
    symbol); it still holds the distance to the instruction's end where the type is PC-relative.
    """

    entity: Entity | None
    name: str
    delta: int
    branch: bool


# objtool's names for the padding before functions, where call thunks go.
PADDING = "__pfx_"
_COLD = re.compile(r"(.+)\.cold(?:\.\d+)?")
_CLONE = re.compile(r"\.(isra|constprop|part|cold)\.\d+")
_UNIQUE = re.compile(r"(__UNIQUE_ID_.*?)\d+(?=\.\d+$|$)")
# BTF_ID() counts its lists (include/linux/btf_ids.h).
_BTF_ID = re.compile(r"(__BTF_ID__\w+__)\d+$")
_TRAILING = re.compile(r"\.\d+$")
# MODULE_DEVICE_TABLE() gives a table of the unit a second name, for modpost.
_DEVICE_TABLE = re.compile(r"__mod_device_table__.+|__mod_.+_device_table")


@lru_cache(1 << 16)
def stem(name: str) -> str:
    """``name`` without the numbers that GCC and __UNIQUE_ID() give out in order of appearance."""
    name = _CLONE.sub(r".\1", name)
    name = _UNIQUE.sub(r"\1", name, count=1)
    return _TRAILING.sub("", _BTF_ID.sub(r"\1", name))


def is_device_table(name: str) -> bool:
    """Whether a symbol says that a table is one of device ids."""
    return _DEVICE_TABLE.fullmatch(name) is not None


class Layout:
    """An object's entities, found by place."""

    def __init__(self, obj: Object) -> None:
        """
        :raises ValueError: for a layout that does not make sense (a chunk outside its section).
        """
        self.object = obj
        self._sections = {section.index: section for section in obj.sections}
        self._places: dict[int, Place] = {}
        self._chunk_starts = self._find_chunk_starts()
        self._entities: dict[int, tuple[Entity, ...]] = {}
        symbols: dict[int, list[Symbol]] = {}
        for symbol in obj.symbols:
            if symbol.type in (SymbolType.FUNC, SymbolType.OBJECT) and symbol.defined:
                symbols.setdefault(symbol.section, []).append(symbol)
        for section in obj.sections:
            if self._ordinary(section):
                found = self._split(section, symbols.get(section.index, []))
                self._entities[section.index] = tuple(found)
        self._resolved = {s.index: tuple(self._find_resolved(s)) for s in obj.sections}

    @staticmethod
    def _ordinary(section: Section) -> bool:
        if section.name.startswith(special.IGNORED_PREFIXES):
            return False
        return section.alloc and not special.is_table(section.name)

    def known(self, index: int) -> bool:
        """Whether a section consists of entities: not so tables of special entries."""
        return index in self._entities

    def section(self, index: int) -> Section:
        """The section of header index ``index``."""
        return self._sections[index]

    def place(self, entity: Entity) -> Place:
        """The kind of memory that an entity is in."""
        if entity.section not in self._places:
            self._places[entity.section] = place_of(self._sections[entity.section])
        return self._places[entity.section]

    def passing(self, entity: Entity) -> bool:
        """Whether an entity is for a target's start or end only."""
        name = self._sections[entity.section].name
        return is_transient(name) or is_start_up_table(name)

    def entities(self) -> Iterable[Entity]:
        """Every entity but strings, which are found by reference."""
        for entities in self._entities.values():
            yield from entities

    def functions(self) -> tuple[Entity, ...]:
        """Every function, cold parts included."""
        return tuple(e for e in self.entities() if e.kind is EntityKind.FUNCTION)

    def content(self, entity: Entity) -> bytes:
        """The entity's bytes; zeros for .bss."""
        section = self._sections[entity.section]
        if not section.data:
            return bytes(entity.size)
        return section.data[entity.offset : entity.offset + entity.size]

    def relocations(self, entity: Entity) -> tuple[Relocation, ...]:
        """The relocations inside the entity, offsets relative to its start.

        With those that the assembler resolved: branches between functions of one section.
        """
        end = entity.offset + entity.size
        written = self._sections[entity.section].relocations
        resolved = self._resolved[entity.section]
        every = sorted((*written, *resolved), key=lambda r: r.offset) if resolved else written
        return tuple(
            Relocation(r.offset - entity.offset, r.type, r.symbol, r.addend)
            for r in every
            if entity.offset <= r.offset < end
        )

    def _find_resolved(self, section: Section) -> Iterator[Relocation]:
        """Direct branches from one function to another for which there is no relocation.

        Functions with a section of their own making (.sched.text, .init.text) share it.
        :raises ValueError: a branch into the middle of another function.
        """
        functions = [e for e in self._entities.get(section.index, ()) if e.symbol >= 0]
        if not section.executable or len(functions) < 2:
            return
        starts = {entity.offset: entity for entity in functions}
        written = {relocation.offset for relocation in section.relocations}
        for entity in functions:
            for field, width, place in leaving_branches(self.content(entity)):
                offset = entity.offset + field
                if offset in written:
                    continue
                to = starts.get(entity.offset + place)
                if to is None and is_transient(section.name):
                    continue  # never replaced
                if to is None:
                    raise ValueError(f"{entity.name} branches into the middle of another function")
                kind = R_X86_64_PLT32 if width == 4 else R_X86_64_PC8
                yield Relocation(offset, kind, to.symbol, -width)

    def target(self, section: Section, relocation: Relocation) -> Target:
        """What ``relocation``, its offset relative to ``section``, refers to."""
        symbol = self.object.symbols[relocation.symbol]
        kind = KINDS.get(relocation.type)
        relative = kind is not None and kind.relative
        branch = relative and section.executable and is_branch(section.data, relocation.offset)
        branch = branch or relocation.type == R_X86_64_PC8
        if not symbol.defined:
            return Target(None, symbol.name, relocation.addend, branch)
        if symbol.section not in self._entities:
            return Target(None, self._sections[symbol.section].name, relocation.addend, branch)
        if symbol.type is not SymbolType.SECTION:
            entity = self.at(symbol.section, symbol.value)
        else:
            entity = self._by_addend(section, relocation, symbol, relative)
        delta = symbol.value + relocation.addend - entity.offset
        return Target(entity, entity.name, delta, branch)

    def _by_addend(
        self, section: Section, relocation: Relocation, symbol: Symbol, relative: bool
    ) -> Entity:
        entities = self._entities[symbol.section]
        whole = not _is_strings(self._sections[symbol.section])
        whole = whole and not _is_pool(self._sections[symbol.section])
        if len(entities) == 1 and whole:
            return entities[0]
        place = relocation.addend
        if relative and section.executable:
            place += operand_distance(section.data, relocation.offset)
        return self.at(symbol.section, place)

    def at(self, section_index: int, place: int) -> Entity:
        """The entity that holds byte ``place`` of a section; a string starts where asked."""
        section = self._sections[section_index]
        entities = self._entities[section_index]
        if _is_strings(section):
            return _string_at(section, place)
        if _is_pool(section):
            start = place - place % section.entsize
            return Entity(EntityKind.CONSTANT, section_index, start, section.entsize, -1, "")
        starts = [entity.offset for entity in entities]
        number = max(bisect_right(starts, place) - 1, 0)
        return entities[number]

    def _split(self, section: Section, symbols: list[Symbol]) -> list[Entity]:
        if _is_strings(section):
            return [Entity(EntityKind.STRING, section.index, 0, section.size, -1, "")]
        if section.name in special.CODE_CHUNKS:
            return self._chunks(section)
        if not symbols:
            kind = EntityKind.CHUNK if section.executable else EntityKind.CONSTANT
            return [Entity(kind, section.index, 0, section.size, -1, "")]
        return _by_symbols(section, symbols)

    def _chunks(self, section: Section) -> list[Entity]:
        starts = sorted(self._chunk_starts.get(section.index, {0}) | {0})
        ends = [*starts[1:], section.size]
        return [
            Entity(EntityKind.CHUNK, section.index, start, end - start, -1, "")
            for start, end in zip(starts, ends, strict=True)
        ]

    def _find_chunk_starts(self) -> dict[int, set[int]]:
        """Where code or .altinstructions point into the chunk sections."""
        chunks = {s.index for s in self.object.sections if s.name in special.CODE_CHUNKS}
        starts: dict[int, set[int]] = {index: set() for index in chunks}
        for section in self.object.sections:
            if not chunks or not (section.executable or section.name == ".altinstructions"):
                continue
            for relocation in section.relocations:
                symbol = self.object.symbols[relocation.symbol]
                if symbol.section in chunks and section.index not in chunks:
                    place = symbol.value + relocation.addend
                    place += 4 if section.executable else 0
                    starts[symbol.section].add(place)
        return starts


def _is_strings(section: Section) -> bool:
    wanted = SHF_MERGE | SHF_STRINGS
    return section.flags & wanted == wanted and section.entsize == 1


def _is_pool(section: Section) -> bool:
    """Whether a section holds constants of one size, shared by their users (.rodata.cst16)."""
    wanted = SHF_MERGE | SHF_STRINGS
    sized = section.entsize > 1 and section.size % section.entsize == 0
    return section.flags & wanted == SHF_MERGE and sized and not section.relocations


def _string_at(section: Section, place: int) -> Entity:
    end = section.data.find(b"\0", place)
    if place < 0 or end < 0:
        raise ValueError(f"{section.name}+{place:#x} is not a string")
    return Entity(EntityKind.STRING, section.index, place, end + 1 - place, -1, "")


def _by_symbols(section: Section, symbols: list[Symbol]) -> list[Entity]:
    # Aliases share a place; the first sized, global-most name stands for all of them.
    def rank(symbol: Symbol) -> tuple[int, bool, int, int, int]:
        second = is_device_table(symbol.name)
        return symbol.value, second, -symbol.size, -symbol.binding, symbol.index

    ordered = sorted(symbols, key=rank)
    entities: list[Entity] = []
    for symbol in ordered:
        if entities and symbol.value == entities[-1].offset:
            continue
        kind = EntityKind.FUNCTION if symbol.type is SymbolType.FUNC else EntityKind.DATA
        entities.append(
            Entity(kind, section.index, symbol.value, symbol.size, symbol.index, symbol.name)
        )
    return entities
