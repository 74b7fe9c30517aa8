# SPDX-License-Identifier: GPL-2.0-or-later
"""A pre object prepared for matching: its functions, and recipes of its code and constants."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container
from dataclasses import dataclass
from functools import cached_property

from kspliced.elf.object import (
    SHF_MERGE,
    SHF_STRINGS,
    SHF_WRITE,
    SHN_ABS,
    SHT_NOBITS,
    Binding,
    Object,
    Relocation,
    Section,
    Symbol,
    SymbolType,
)
from kspliced.elf.read import read_object
from kspliced.elf.section_class import is_transient
from kspliced.elf.special import CODE_CHUNKS
from kspliced.elf.x86 import KINDS, R_X86_64_NONE
from kspliced.match.pattern import (
    Bound,
    Constant,
    Content,
    Field,
    Recipe,
    Site,
    Variant,
    Want,
    blank,
)
from kspliced.match.sites import find_sites

_DATA = (SymbolType.OBJECT, SymbolType.NOTYPE)
# The link of vmlinux fills it in (tools/bpf/resolve_btfids).
_FILLED_BY_LINK = ".BTF_ids"

# objtool's names for the padding before functions, where call thunks go.
_PADDING = "__pfx_"


@dataclass(frozen=True)
class Function:
    """A function symbol of the pre object; ``value`` and ``size`` within section ``section``.

    ``weak``: another unit may override it, then the name leads elsewhere.
    """

    index: int
    name: str
    section: int
    value: int
    size: int
    weak: bool


class Unit:
    """A pre object, indexed.

    :raises BuildError: OBJECT_MALFORMED when it cannot be read.
    :raises ValueError: a special section or a relocation is malformed.
    """

    def __init__(self, target: str, name: str, content: bytes) -> None:
        self.target = target
        self.name = name
        self.object: Object = read_object(content, f"the pre object of {name}")
        self.sections: dict[int, Section] = {s.index: s for s in self.object.sections}
        self._offsets = {i: [r.offset for r in s.relocations] for i, s in self.sections.items()}
        self._recipes: dict[tuple[int, int, int], Recipe] = {}
        self.sites: dict[int, list[Site]] = find_sites(self)

    @cached_property
    def functions(self) -> tuple[Function, ...]:
        """The functions in code sections, in the order of the symbol table."""
        return tuple(
            Function(s.index, s.name, s.section, s.value, s.size, s.binding is Binding.WEAK)
            for s in self.object.symbols
            if s.type == SymbolType.FUNC and s.size and s.section in self.sections
            if self.sections[s.section].executable
            if self.sections[s.section].name not in CODE_CHUNKS
            if not s.name.startswith(_PADDING)
        )

    @cached_property
    def names(self) -> dict[int, tuple[Symbol, ...]]:
        """For each section the symbols in it that kallsyms should know: functions in code, data
        elsewhere; weak ones excepted, whose name may be another unit's."""
        result: dict[int, tuple[Symbol, ...]] = {}
        for s in self.object.symbols:
            section = self.sections.get(s.section)
            if section is None or not s.name or s.binding is Binding.WEAK:
                continue
            if s.type == SymbolType.FUNC if section.executable else s.type in _DATA:
                result[s.section] = (*result.get(s.section, ()), s)
        return result

    def transient(self, section: int) -> bool:
        """Whether the section is gone once the target runs: its content cannot be compared."""
        return is_transient(self.sections[section].name)

    def constant(self, section: int) -> bool:
        """Whether the section is read-only data whose content can be compared."""
        s = self.sections[section]
        return bool(
            s.alloc
            and not s.executable
            and not s.flags & SHF_WRITE
            and s.type != SHT_NOBITS
            and not self.transient(section)
            and not s.name.startswith(_FILLED_BY_LINK)
        )

    def data(self, section: int) -> bool:
        """Whether the section is data that may be written and have an initial value."""
        s = self.sections[section]
        written = s.alloc and not s.executable and bool(s.flags & SHF_WRITE)
        return written and s.type != SHT_NOBITS and not self.transient(section)

    def leads_to(self, section: int, known: Container[int]) -> bool:
        """Whether a section of data that may be written refers to this unit's sections, and to
        ``known`` ones only: other data of that name do not lead there."""
        if not self.data(section):
            return False
        s = self.sections[section]
        wanted = [field.want for field in self.fields(section, 0, s.size)]
        own = [want.key for want in wanted if isinstance(want, Bound) and isinstance(want.key, int)]
        return bool(own) and all(key in known for key in own)

    def recipe(self, section: int, start: int, size: int) -> Recipe:
        """The recipe of ``size`` bytes at ``start`` of ``section``.

        :raises ValueError: a relocation cannot be understood or crosses the border.
        """
        key = (section, start, size)
        if key not in self._recipes:
            end = start + size
            sites = [s for s in self.sites.get(section, ()) if start <= s.offset < end]
            holes = [(s.offset, s.offset + s.size) for s in sites]
            fields = tuple(
                f.moved(-start)
                for f in self.fields(section, start, end)
                if not any(a <= f.offset < b for a, b in holes)
            )
            moved = tuple(Site(s.offset - start, s.size, s.kind, s.variants) for s in sites)
            data = bytearray(blank(self.sections[section].data[start:end], fields))
            for site in moved:
                if site.offset + site.size > size:
                    raise ValueError(f"a {site.kind.value} site crosses a function's end")
                data[site.offset : site.offset + site.size] = bytes(site.size)
            self._recipes[key] = Recipe(bytes(data), fields, moved)
        return self._recipes[key]

    def original(self, section: int, start: int, size: int) -> Variant:
        """The bytes as compiled, as a variant.

        :raises ValueError: they are not all in the section.
        """
        data = self.sections[section].data[start : start + size]
        if start < 0 or size <= 0 or len(data) != size:
            raise ValueError(f"a site lies outside {self.sections[section].name}")
        fields = tuple(f.moved(-start) for f in self.fields(section, start, start + size))
        return Variant(blank(data, fields), fields)

    def fields(self, section: int, start: int, end: int) -> list[Field]:
        """The fields between ``start`` and ``end``, offsets within the section.

        :raises ValueError: one cannot be understood or crosses the end.
        """
        relocations = self.sections[section].relocations
        first = bisect_left(self._offsets[section], start)
        result = []
        for relocation in relocations[first:]:
            if relocation.offset >= end:
                break
            if relocation.type == R_X86_64_NONE:
                continue
            field = self.field(relocation)
            if field.offset + field.size > end:
                raise ValueError("a relocation crosses the end of its function or datum")
            result.append(field)
        return result

    def field(self, relocation: Relocation) -> Field:
        """What ``relocation`` leaves in the run kernel.

        :raises ValueError: the type is none that kernel code has.
        """
        kind = KINDS.get(relocation.type)
        if kind is None:
            raise ValueError(f"relocation type {relocation.type} is not known")
        symbol = self.object.symbols[relocation.symbol]
        return Field(
            offset=relocation.offset,
            size=kind.size,
            relative=kind.relative,
            signed=kind.signed,
            addend=relocation.addend,
            want=self._want(symbol, relocation.addend, kind.relative),
        )

    def _want(self, symbol: Symbol, addend: int, relative: bool) -> Want:
        if symbol.section == SHN_ABS:
            return Constant(symbol.value)
        if not symbol.defined or (symbol.binding is Binding.WEAK and symbol.name):
            # ld may have resolved a weak name to another unit's definition.
            return Bound(symbol.name, 0, symbol.name)
        section = self.sections.get(symbol.section)
        if section is None:
            raise ValueError(f"symbol {symbol.name} lies in a section without content")
        if section.flags & SHF_MERGE and not section.executable:
            # gas keeps the constant's own symbol except in absolute references, where the
            # section's symbol and an addend may stand for it (tc_x86_64_fix_adjustable).
            shift = addend if symbol.type == SymbolType.SECTION and not relative else 0
            return Content(_merged(section, symbol.value + shift), shift)
        return Bound(symbol.section, symbol.value, symbol.name or section.name)


def _merged(section: Section, start: int) -> bytes:
    """The constant at ``start`` of a mergeable section."""
    size = max(section.entsize, 1)
    if not 0 <= start < len(section.data):
        raise ValueError(f"a reference points outside {section.name}")
    if not section.flags & SHF_STRINGS:
        return section.data[start : start + size]
    end = start
    while any(section.data[end : end + size]):
        end += size
    return section.data[start : end + size]
