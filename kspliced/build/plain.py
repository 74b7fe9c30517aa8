# SPDX-License-Identifier: GPL-2.0-or-later
"""The plain object of a unit, compiled as the kernel was, and the proof that it is the split one.

With a section for each function, where a function lies is not known, so a loop that the compiler
aligns to more than functions may get other padding than in the kernel. Such a unit is compiled
plainly as well, and the pack has the plain object for matching. Everything else speaks of the
split object, so both have to be the same: each function, but for no-ops between its instructions
and for how far its branches reach, each datum, each reference and each special entry.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kspliced.build.layout import Entity
from kspliced.elf.disasm import Branch, direct_branch, instructions, is_branch, is_nop
from kspliced.elf.object import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_MERGE,
    SHF_STRINGS,
    SHF_WRITE,
    Binding,
    Object,
    Relocation,
    Section,
    Symbol,
    SymbolType,
)
from kspliced.elf.section_class import is_transient
from kspliced.elf.special import (
    IGNORED_PREFIXES,
    TABLES,
    SpecialTable,
    is_table,
    special_entries,
)
from kspliced.elf.x86 import KINDS, R_X86_64_NONE, R_X86_64_PC32, R_X86_64_PLT32

# Where the compiler puts a function by itself, and how it aligns functions on x86-64.
_SPLIT, _ALIGN = ".text.", 16
_NAMED = (SymbolType.NOTYPE, SymbolType.OBJECT, SymbolType.FUNC)
_KIND = SHF_WRITE | SHF_ALLOC | SHF_EXECINSTR
# Entries of these speak of no-ops that are more than padding.
_SITES = tuple(table for table in TABLES if table.compared or table.name == "__mcount_loc")
_JUMP_LABELS = "__jump_table"

# What a reference means in either object: a symbol's or a section's name, and numbers.
Meaning = tuple[str, object, int, int]


class Unlike(Exception):
    """The objects are not the same: ``symbol`` differs, and how."""

    def __init__(self, symbol: str, reason: str) -> None:
        super().__init__(f"{symbol}: {reason}")
        self.symbol, self.reason = symbol, reason


@dataclass(frozen=True)
class Plain:
    """A plain object: its file, and its symbols by number of the same one in the split object."""

    content: bytes
    symbols: Mapping[int, Symbol]

    def entity(self, pre: Entity) -> Entity:
        """What a function or datum of the split object is in this one."""
        symbol = self.symbols[pre.symbol]
        return replace(
            pre,
            section=symbol.section,
            offset=symbol.value,
            size=symbol.size,
            symbol=symbol.index,
        )


def needs_plain(split: Object) -> bool:
    """Whether padding in the code depends on where the kernel has it."""
    return any(s.name.startswith(_SPLIT) and s.align > _ALIGN for s in split.sections)


def prove_alike(split: Object, plain: Object) -> dict[int, Symbol]:
    """Symbols of ``plain`` by number of the same symbol in ``split``.

    :raises Unlike: when anything that lasts beyond start-up is not the same in both.
    :raises ValueError: a special section is malformed.
    """
    return _Proof(_Side(split), _Side(plain)).run()


@dataclass(frozen=True)
class _Code:
    """A function: its ``instructions`` but padding, as (start, end); None where both objects have
    the same bytes, and offsets do."""

    symbol: Symbol
    instructions: tuple[tuple[int, int], ...] | None

    def place(self, offset: int) -> tuple[int, int]:
        """An offset as (instruction, bytes into it); padding is the start of what follows it."""
        if self.instructions is None:
            return offset, 0
        number = bisect_right(self.instructions, offset, key=lambda i: i[0])
        if number:
            start, end = self.instructions[number - 1]
            if offset < end:
                return number - 1, offset - start
        return number, 0


class _Side:
    """One of the objects, indexed."""

    def __init__(self, obj: Object) -> None:
        self.object = obj
        self.sections = {section.index: section for section in obj.sections}
        self.named: dict[str, Symbol] = {}
        starts: dict[tuple[int, int], Symbol] = {}
        for symbol in sorted(obj.symbols, key=lambda s: s.name):
            section = self.sections.get(symbol.section)
            if section is None or not symbol.name or symbol.type not in _NAMED:
                continue
            if self.named.setdefault(symbol.name, symbol) is not symbol:
                raise Unlike(symbol.name, "there are two of that name")
            # Of aliases one stands for all; a label inside a function is no start.
            if symbol.type is SymbolType.FUNC or not section.executable:
                starts.setdefault((symbol.section, symbol.value), symbol)
        self._starts: dict[int, list[Symbol]] = {}
        for place in sorted(starts):
            self._starts.setdefault(place[0], []).append(starts[place])
        self.sites = self._find_sites()

    def _find_sites(self) -> dict[int, dict[int, tuple[int, str]]]:
        """By section and offset: the size of a special entry's code, and its table."""
        found: dict[int, dict[int, tuple[int, str]]] = {}
        for table in _SITES:
            for entry in special_entries(self.object, table):
                first = entry.relocations[0]
                symbol = self.object.symbols[first.symbol]
                size = entry.data[-2] if table.name == ".altinstructions" else 1
                places = found.setdefault(symbol.section, {})
                places[symbol.value + first.addend] = (size, table.name)
        return found

    def lasts(self, section: int) -> bool:
        """Whether a section is in memory after start-up."""
        name = self.sections[section].name
        return not is_transient(name) and not name.startswith(IGNORED_PREFIXES)

    def at(self, section: int, offset: int) -> Symbol | None:
        """The function or datum at a place, the nearest before it where there is none."""
        starts = self._starts.get(section)
        if not starts:
            return None
        number = bisect_right(starts, offset, key=lambda s: s.value)
        return starts[max(number - 1, 0)]

    def content(self, symbol: Symbol) -> bytes:
        """A function's or datum's bytes; none of .bss."""
        data = self.sections[symbol.section].data
        return data[symbol.value : symbol.value + symbol.size]

    def relocations(self, section: int, start: int, size: int) -> dict[int, Relocation]:
        """Those inside a range that relocate something, by offset from its start."""
        every = self.sections[section].relocations
        first = bisect_right(every, start - 1, key=lambda r: r.offset)
        last = bisect_right(every, start + size - 1, key=lambda r: r.offset)
        return {r.offset - start: r for r in every[first:last] if r.type != R_X86_64_NONE}


class _Proof:
    def __init__(self, split: _Side, plain: _Side) -> None:
        self._split, self._plain = split, plain
        self._codes: dict[str, tuple[_Code, _Code]] = {}
        # Where a section without symbols is in the plain object: section and offset.
        self._homes: dict[int, tuple[int, int]] = {}

    def run(self) -> dict[int, Symbol]:
        one, other = self._split.named, self._plain.named
        for name in one.keys() ^ other.keys():
            raise Unlike(name, "only one of the objects has it")
        pairs = [(symbol, other[symbol.name]) for symbol in one.values()]
        for mine, theirs in pairs:
            self._check_kind(mine, theirs)
        for mine, theirs in pairs:
            if self._split.lasts(mine.section):
                self._check_symbol(mine, theirs)
        self._check_tables()
        checked: set[int] = set()
        while len(checked) < len(self._homes):
            for section in self._homes.keys() - checked:
                checked.add(section)
                self._check_home(section)
        return {mine.index: theirs for mine, theirs in pairs}

    def _check_kind(self, mine: Symbol, theirs: Symbol) -> None:
        flags = [
            side.sections[symbol.section].flags & _KIND
            for side, symbol in ((self._split, mine), (self._plain, theirs))
        ]
        if (mine.type, mine.binding) != (theirs.type, theirs.binding) or flags[0] != flags[1]:
            raise Unlike(mine.name, "it is of another kind")
        if mine.size != theirs.size and mine.type is not SymbolType.FUNC:
            raise Unlike(mine.name, "it has another size")

    def _check_symbol(self, mine: Symbol, theirs: Symbol) -> None:
        places = [
            self._place(side, symbol.section, symbol.value)
            for side, symbol in ((self._split, mine), (self._plain, theirs))
        ]
        self._same(mine.name, *places)
        if mine.type is not SymbolType.FUNC:
            self._check_range(mine.name, mine, theirs)
        elif self._split.at(mine.section, mine.value) is mine:
            self._check_function(mine, theirs)

    # References

    def _meaning(self, side: _Side, section: Section, relocation: Relocation) -> Meaning:
        """What a relocation in ``section`` refers to."""
        symbol = side.object.symbols[relocation.symbol]
        kind = KINDS.get(relocation.type)
        if kind is None:
            raise ValueError(f"relocation type {relocation.type} is not known")
        if not symbol.defined or symbol.section not in side.sections:
            return ("name", symbol.name or symbol.section, symbol.value, relocation.addend)
        # A displacement counts from the instruction's end. Where that is not the field's, the
        # reference is to data, in which only distances count.
        place = symbol.value + relocation.addend
        place += kind.size if kind.relative and section.executable else 0
        return self._place(side, symbol.section, place)

    def _place(self, side: _Side, index: int, offset: int) -> Meaning:
        """What lies at ``offset`` of a section, in terms that both objects have."""
        section = side.sections[index]
        if section.flags & SHF_MERGE and not section.executable:
            return ("constant", *_merged(section, offset))
        symbol = side.at(index, offset)
        if section.executable and symbol is not None:
            mine, theirs = self._code(symbol.name)
            code = mine if side is self._split else theirs
            return ("code", symbol.name, *code.place(offset - code.symbol.value))
        if side is self._plain:
            return ("data", "", index, offset)
        if symbol is not None:
            theirs_at = self._plain.named[symbol.name]
            return ("data", "", theirs_at.section, theirs_at.value + offset - symbol.value)
        if index in self._homes:
            home, start = self._homes[index]
            return ("data", "", home, start + offset)
        return ("unknown", "", index, offset)

    def _same(self, name: str, mine: Meaning, theirs: Meaning) -> None:
        if mine[0] == "unknown" and theirs[0] == "data":
            # The first reference says where it is, the others and the content have to agree.
            section, offset = mine[2], mine[3]
            self._homes[section] = (theirs[2], theirs[3] - offset)
        elif mine != theirs:
            raise Unlike(name, f"a reference is to {_words(mine)} and to {_words(theirs)}")

    def _same_field(
        self, name: str, sections: tuple[Section, Section], fields: tuple[Relocation, Relocation]
    ) -> None:
        if _kind(fields[0]) != _kind(fields[1]):
            raise Unlike(name, "a reference is of another type")
        mine = self._meaning(self._split, sections[0], fields[0])
        self._same(name, mine, self._meaning(self._plain, sections[1], fields[1]))

    # Data

    def _check_range(self, name: str, mine: Symbol, theirs: Symbol) -> None:
        """``mine.size`` bytes from each symbol on are the same."""
        sections = self._split.sections[mine.section], self._plain.sections[theirs.section]
        ones = self._split.relocations(mine.section, mine.value, mine.size)
        others = self._plain.relocations(theirs.section, theirs.value, mine.size)
        if ones.keys() != others.keys():
            raise Unlike(name, "it refers to something at another place")
        content = self._split.content(mine)
        other = self._plain.content(replace(theirs, size=mine.size))
        if _without(content, ones) != _without(other, others):
            raise Unlike(name, "its content is another")
        for offset, field in ones.items():
            self._same_field(name, sections, (field, others[offset]))

    def _check_home(self, index: int) -> None:
        """A section without symbols is the same where the plain object has it."""
        section = self._split.sections[index]
        home, start = self._homes[index]
        if not self._split.lasts(index) or is_table(section.name):
            return
        mine = Symbol(-1, section.name, 0, section.size, SymbolType.OBJECT, Binding.LOCAL, index)
        theirs = replace(mine, section=home, value=start)
        if start < 0 or start + section.size > self._plain.sections[home].size:
            raise Unlike(section.name, "it lies outside its section")
        self._check_range(section.name, mine, theirs)

    # Code

    def _code(self, name: str) -> tuple[_Code, _Code]:
        """A function in either object."""
        if name not in self._codes:
            mine, theirs = self._split.named[name], self._plain.named[name]
            if self._same_bytes(mine, theirs):
                self._codes[name] = _Code(mine, None), _Code(theirs, None)
            else:
                one, other = _real(self._split, mine), _real(self._plain, theirs)
                self._codes[name] = _Code(mine, _extents(one)), _Code(theirs, _extents(other))
        return self._codes[name]

    def _same_bytes(self, mine: Symbol, theirs: Symbol) -> bool:
        """Whether two functions are the same outside references."""
        ones = self._split.relocations(mine.section, mine.value, mine.size)
        others = self._plain.relocations(theirs.section, theirs.value, theirs.size)
        same = mine.size == theirs.size and others.keys() <= ones.keys()
        return same and _without(self._split.content(mine), ones) == _without(
            self._plain.content(theirs), ones
        )

    def _check_function(self, mine: Symbol, theirs: Symbol) -> None:
        code, _ = self._code(mine.name)
        if code.instructions is not None:
            self._check_instructions(mine, theirs)
            return
        sections = self._split.sections[mine.section], self._plain.sections[theirs.section]
        others = self._plain.relocations(theirs.section, theirs.value, theirs.size)
        ones = self._split.relocations(mine.section, mine.value, mine.size)
        for offset, field in ones.items():
            if offset in others:
                self._same_field(mine.name, sections, (field, others[offset]))
                continue
            meaning = self._meaning(self._split, sections[0], field)
            self._same(mine.name, meaning, self._resolved(theirs, offset))

    def _resolved(self, function: Symbol, offset: int) -> Meaning:
        """Where a branch goes whose field, ``offset`` into a plain function, gas filled in."""
        data, at = self._plain.sections[function.section].data, function.value + offset
        if not is_branch(data, at):
            raise Unlike(function.name, "a reference is resolved that is no branch")
        distance = int.from_bytes(data[at : at + 4], "little", signed=True)
        return self._place(self._plain, function.section, at + 4 + distance)

    def _check_instructions(self, mine: Symbol, theirs: Symbol) -> None:
        ones, others = _real(self._split, mine), _real(self._plain, theirs)
        if len(ones) != len(others):
            raise Unlike(mine.name, f"it has {len(ones)} instructions and {len(others)}")
        for one, other in zip(ones, others, strict=True):
            self._check_instruction(mine, theirs, one, other)

    def _check_instruction(
        self, mine: Symbol, theirs: Symbol, one: _Instruction, other: _Instruction
    ) -> None:
        if one.label and other.label:
            return  # a jump or a no-op, as long as it takes: its entry says what it is
        branches = direct_branch(one.code), direct_branch(other.code)
        if branches[0] is not None and branches[1] is not None:
            if branches[0].condition != branches[1].condition:
                raise Unlike(mine.name, f"another branch at +{one.offset:#x}")
            meaning = self._goal(self._split, mine, one, branches[0])
            self._same(mine.name, meaning, self._goal(self._plain, theirs, other, branches[1]))
            return
        sections = self._split.sections[mine.section], self._plain.sections[theirs.section]
        same = len(one.code) == len(other.code) and one.fields.keys() == other.fields.keys()
        if not same or _without(one.code, one.fields) != _without(other.code, other.fields):
            raise Unlike(mine.name, f"another instruction at +{one.offset:#x}")
        for offset, field in one.fields.items():
            self._same_field(mine.name, sections, (field, other.fields[offset]))

    def _goal(self, side: _Side, function: Symbol, one: _Instruction, branch: Branch) -> Meaning:
        """Where a branch leads."""
        field = one.fields.get(branch.field)
        if field is not None:
            return self._meaning(side, side.sections[function.section], field)
        place = function.value + one.offset + len(one.code) + branch.distance
        return self._place(side, function.section, place)

    # Special entries

    def _check_tables(self) -> None:
        for table in TABLES:
            if not table.compared:
                continue
            ones, others = self._entries(self._split, table), self._entries(self._plain, table)
            if {k: len(v) for k, v in ones.items()} != {k: len(v) for k, v in others.items()}:
                raise Unlike(table.name, "its entries speak of other places")
            for place, entries in ones.items():
                for (data, mine), (other, theirs) in zip(entries, others[place], strict=True):
                    if data != other:
                        raise Unlike(str(place[1]), f"an entry of {table.name} is another")
                    for one, two in zip(mine, theirs, strict=True):
                        self._same(str(place[1]), one, two)

    def _entries(self, side: _Side, table: SpecialTable) -> dict[Meaning, list[_Entry]]:
        """By the code that they speak of: content and what they refer to."""
        found: dict[Meaning, list[_Entry]] = {}
        section = side.object.section_named(table.name)
        for entry in special_entries(side.object, table):
            assert section is not None
            owner = side.object.symbols[entry.relocations[0].symbol].section
            if owner in side.sections and not side.lasts(owner):
                continue
            meanings = tuple(self._meaning(side, section, r) for r in entry.relocations)
            found.setdefault(meanings[0], []).append((entry.data, meanings))
        return found


@dataclass(frozen=True)
class _Instruction:
    """An instruction that is not padding, ``offset`` bytes into its function; ``fields`` by their
    offset in it; ``label``: a jump label, which the kernel rewrites."""

    offset: int
    code: bytes
    fields: Mapping[int, Relocation]
    label: bool


_Entry = tuple[bytes, tuple[Meaning, ...]]


def _real(side: _Side, function: Symbol) -> tuple[_Instruction, ...]:
    """A function's instructions without padding: no-ops of which no special entry speaks."""
    sites = side.sites.get(function.section, {})
    found = []
    kept = 0
    for offset, code in instructions(side.content(function)):
        at = function.value + offset
        size, table = sites.get(at, (0, ""))
        kept = max(kept, at + size)
        if at >= kept and is_nop(code):
            continue
        fields = side.relocations(function.section, at, len(code))
        found.append(_Instruction(offset, code, fields, table == _JUMP_LABELS))
    return tuple(found)


def _extents(code: tuple[_Instruction, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((one.offset, one.offset + len(one.code)) for one in code)


def _without(content: bytes, fields: Mapping[int, Relocation]) -> bytes:
    """``content`` with zeros where relocations go."""
    result = bytearray(content)
    for offset, field in fields.items():
        size = KINDS[field.type].size if field.type in KINDS else 0
        result[offset : offset + size] = bytes(size)
    return bytes(result)


def _kind(field: Relocation) -> int:
    """A branch is PLT32 or PC32 as its symbol is global or local."""
    return R_X86_64_PC32 if field.type == R_X86_64_PLT32 else field.type


def _merged(section: Section, offset: int) -> tuple[bytes, int, int]:
    """The constant that holds ``offset`` of a mergeable section, and the offset in it."""
    if section.flags & SHF_STRINGS:
        end = section.data.find(b"\0" * section.entsize, offset)
        return section.data[max(offset, 0) : max(end, 0)], 0, 0
    inside = offset % section.entsize
    return section.data[offset - inside : offset - inside + section.entsize], inside, 0


def _words(meaning: Meaning) -> str:
    return " ".join(str(word) for word in meaning)
