# SPDX-License-Identifier: GPL-2.0-or-later
"""Emit a part of the update module: carried code and data with the spans and data it replaces, or
the glue. match/compose.py makes the module of several.

The layout of .kspliced.spans and .kspliced.data is that of kmod/kspliced_abi.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from kspliced.build.closure import Closure, Elsewhere, extern_import, unit_import
from kspliced.build.constants import Written, in_place, new_references
from kspliced.build.diff import UnitDiff
from kspliced.build.layout import Entity
from kspliced.build.plain import Plain
from kspliced.build.rules import jump_offset
from kspliced.elf.module import DATA, RODATA, TEXT, ModuleWriter, Place, Reference
from kspliced.elf.object import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_WRITE,
    SHN_UNDEF,
    SHT_NOBITS,
    SHT_NOTE,
    Object,
    Relocation,
    Section,
    Symbol,
)
from kspliced.elf.special import IGNORED_PREFIXES, runtime_constant
from kspliced.elf.write import write_object
from kspliced.elf.x86 import R_X86_64_64
from kspliced.model import VMLINUX, Datum, Import, ImportKind, RuntimeConstant, Span

PERCPU, DYNDBG = ".data..percpu", "__dyndbg"
EXPECT, MASK, VALUES = ".kspliced.expect", ".kspliced.mask", ".kspliced.values"
# struct kspliced_update, which match/compose.py writes.
_HEADER_SYMBOL = "kspliced_update"
CORE_SYMBOLS = ("kspliced_register_update", "kspliced_unregister_update")

_SPAN = struct.Struct("<QQQQQQII")
_DATUM = struct.Struct("<QQQQQII")
_WORD = 8


@dataclass(frozen=True)
class UnitPart:
    """A unit's contribution to the update. ``plain``: the object that it is matched with, where
    that is not ``diff``'s pre object."""

    target: str
    unit: str
    diff: UnitDiff
    closure: Closure
    plain: Plain | None = None

    def matched(self, pre: Entity) -> Entity:
        """An entity of the pre object in the object that is matched."""
        return pre if self.plain is None else self.plain.entity(pre)


@dataclass(frozen=True)
class Emitted:
    """An object that becomes part of the update module, and what the linker must know of it;
    ``borrowed`` is what it refers to that other parts have."""

    content: bytes
    imports: tuple[Import, ...]
    spans: tuple[Span, ...]
    data: tuple[Datum, ...]
    constants: tuple[RuntimeConstant, ...]
    borrowed: frozenset[Elsewhere] = frozenset()


def emit(parts: tuple[UnitPart, ...], lent: frozenset[Elsewhere] = frozenset()) -> Emitted:
    """Merge ``parts`` into one object.

    :param lent: what others refer to; what of it these parts have is defined by its name.
    """
    emitter = _Emitter(parts)
    for part in parts:
        emitter.place_unit(part)
    for part in parts:
        emitter.relocate_unit(part)
    spans = emitter.add_spans(parts)
    data = emitter.add_data(parts)
    emitter.lend(lent)
    content = write_object(emitter.writer.finish())
    constants, borrowed = tuple(emitter.constants), frozenset(emitter.borrowed)
    return Emitted(content, emitter.imports(), spans, data, constants, borrowed)


def emit_glue(glue: Object) -> Emitted:
    """The compiled glue (init, exit, modinfo, __this_module) with the names that imports have."""
    sections = tuple(s for s in glue.sections if _wanted(s.name, s.flags, s.type, s.size))
    symbols = tuple(_glue_symbol(symbol) for symbol in glue.symbols)
    writer = ModuleWriter()
    writer.merge(Object(sections, symbols))
    undefined = {s.name: glue.symbols[s.index].name for s in symbols if s.section == SHN_UNDEF}
    imports = tuple(
        _glue_import(name, undefined[name]) for name in writer.imports if name != _HEADER_SYMBOL
    )
    return Emitted(write_object(writer.finish()), imports, (), (), ())


def _glue_symbol(symbol: Symbol) -> Symbol:
    if symbol.section != SHN_UNDEF or symbol.name in (*CORE_SYMBOLS, _HEADER_SYMBOL, ""):
        return symbol
    return replace(symbol, name=extern_import(VMLINUX, symbol.name).name)


def _glue_import(name: str, symbol: str) -> Import:
    if symbol in CORE_SYMBOLS:
        return Import(name, ImportKind.CORE, "kspliced", "", symbol, -1)
    return extern_import(VMLINUX, symbol)


class _Emitter:
    def __init__(self, parts: tuple[UnitPart, ...]) -> None:
        self.writer = ModuleWriter()
        self._plains = {(p.target, p.unit): p.plain for p in parts if p.plain is not None}
        self.constants: list[RuntimeConstant] = []
        self._imports: dict[str, Import] = {}
        self.borrowed: set[Elsewhere] = set()
        # Where each entity went, by target and unit.
        self._places: dict[tuple[str, str], dict[Entity, Place]] = {}

    def imports(self) -> tuple[Import, ...]:
        names = (name for name in self.writer.imports if name in self._imports)
        return tuple(self._imports[name] for name in names)

    def lend(self, lent: frozenset[Elsewhere]) -> None:
        """Define what other parts of the update refer to."""
        for one in sorted(lent, key=lambda one: one.name):
            place = self._places.get((one.target, one.unit), {}).get(one.entity)
            if place is not None:
                self.writer.export(one.name, place, one.entity.size)

    def place_unit(self, part: UnitPart) -> None:
        """Place what the unit carries."""
        carried = part.closure.carried
        self._places[part.target, part.unit] = {
            entity: self._place(part, entity) for entity in carried.code + carried.data
        }

    def relocate_unit(self, part: UnitPart) -> None:
        """Write the references of what the unit carries, and its special entries."""
        places = self._places[part.target, part.unit]
        for entity, place in places.items():
            for relocation, target in part.diff.post.references(entity):
                found = part.closure.resolve(target)
                self._relocate(part, place, relocation, found, target.delta)
        for entity in part.closure.carried.code:
            self._add_sites(part, entity, places[entity])

    def _place(self, part: UnitPart, entity: Entity) -> Place:
        layout = part.diff.post.layout
        section = layout.section(entity.section)
        content = layout.content(entity)
        if section.flags & SHF_EXECINSTR:
            padded = part.diff.post.padding(entity) is not None
            align = 1 if padded else _alignment(section, entity.offset)
            place = self.writer.append(_text_name(section.name), TEXT, align, content)
            if entity.name:
                self.writer.name_function(entity.name, place, entity.size)
            return place
        if section.name.startswith(PERCPU):
            # The module loader gives it a place on every CPU and resolves to its offset.
            return self.writer.append(PERCPU, DATA, max(section.align, _WORD), content)
        if section.name == DYNDBG:
            return self.writer.append(DYNDBG, DATA, section.align, content)
        if section.flags & SHF_WRITE:
            name = ".bss" if section.type == SHT_NOBITS else ".data"
            return self.writer.append(name, DATA, max(section.align, _WORD), content)
        return self.writer.append(".rodata", RODATA, section.align, content)

    def _relocate(
        self,
        part: UnitPart,
        base: Place,
        relocation: Relocation,
        to: Entity | Elsewhere | Import,
        delta: int,
    ) -> None:
        place = Place(base.section, base.offset + relocation.offset)
        goal: Place | str
        if isinstance(to, Import):
            goal = self._name(self._matched(to))
        elif isinstance(to, Elsewhere):
            goal = self._elsewhere(to)
        else:
            goal = self._places[part.target, part.unit][to]
        self.writer.refer(Reference(place, relocation.type, goal, delta))

    def _elsewhere(self, to: Elsewhere) -> Place | str:
        places = self._places.get((to.target, to.unit))
        if places is not None:
            return places[to.entity]
        self.borrowed.add(to)
        return to.name

    def _matched(self, wanted: Import) -> Import:
        """An import of something in a pre object, in the object that is matched."""
        plain = self._plains.get((wanted.target, wanted.unit))
        if wanted.kind is not ImportKind.UNIT or plain is None:
            return wanted
        symbol = plain.symbols[wanted.index]
        return unit_import(wanted.target, wanted.unit, symbol.index, symbol.name)

    def _name(self, wanted: Import) -> str:
        self._imports.setdefault(wanted.name, wanted)
        return wanted.name

    def _add_sites(self, part: UnitPart, entity: Entity, place: Place) -> None:
        layout = part.diff.post.layout
        for site in part.diff.post.sites(entity):
            table = site.entry.table
            constant = runtime_constant(table.name)
            if constant is not None:
                # The module loader knows none; the linker does what the kernel does at boot.
                variable, size = constant
                offset = place.offset + site.offset
                self.constants.append(RuntimeConstant(place.section, offset, size, variable))
                continue
            section = layout.object.section_named(table.name)
            assert section is not None
            base = self.writer.append(table.name, section.flags, section.align, site.entry.data)
            for relocation, target in zip(site.entry.relocations, site.targets, strict=True):
                inside = Relocation(
                    relocation.offset - site.entry.offset,
                    relocation.type,
                    relocation.symbol,
                    relocation.addend,
                )
                found = part.closure.resolve_site(target)
                self._relocate(part, base, inside, found, target.delta)
            if table.companion:
                self.writer.append(table.companion, RODATA, 1, site.entry.companion)

    def add_spans(self, parts: tuple[UnitPart, ...]) -> tuple[Span, ...]:
        """Write the span table; the linker fills expect and mask."""
        spans: list[Span] = []
        for part in parts:
            places = self._places[part.target, part.unit]
            for changed in part.diff.changed:
                jump = jump_offset(part.diff.pre, changed.pre)
                spans.append(self._add_span(part, changed.pre, jump, places[changed.post]))
                cold = part.diff.pre.cold(changed.pre)
                if cold is not None:
                    spans.append(self._add_span(part, cold, -1, None))
        return tuple(spans)

    def add_data(self, parts: tuple[UnitPart, ...]) -> tuple[Datum, ...]:
        """Write the table of constants with their new values; the linker fills expect."""
        return tuple(
            self._add_datum(part, written) for part in parts for written in in_place(part.diff)
        )

    def _add_datum(self, part: UnitPart, written: Written) -> Datum:
        pre, offset = part.matched(written.changed.pre), written.offset
        wanted = unit_import(part.target, part.unit, pre.symbol, pre.name)
        value = self.writer.append(VALUES, DATA, _WORD, written.value)
        start = Place(value.section, value.offset - offset)
        for relocation, target in new_references(part.diff, written):
            self._relocate(part, start, relocation, part.closure.resolve(target), target.delta)
        expect = self.writer.append(EXPECT, DATA, _WORD, bytes(written.size))
        name, target_name = self._text(pre.name), self._text(part.target)
        header = _DATUM.pack(0, 0, 0, 0, 0, written.size, 0)
        datum = self.writer.append(".kspliced.data", DATA, _WORD, header)
        self._point(datum, 0, self._name(wanted), offset)
        for field, place in ((8, expect), (16, value), (24, name), (32, target_name)):
            self._point(datum, field, place)
        return Datum(
            target=part.target,
            unit=part.unit,
            symbol=pre.name,
            index=pre.symbol,
            offset=offset,
            size=written.size,
            import_name=wanted.name,
            buffer_offset=expect.offset,
            value_offset=value.offset,
            kept=() if written.changed.writable else tuple(sorted(written.changed.kept)),
        )

    def _add_span(self, part: UnitPart, old: Entity, jump: int, new: Place | None) -> Span:
        pre = part.matched(old)
        wanted = unit_import(part.target, part.unit, pre.symbol, pre.name)
        expect = self.writer.append(EXPECT, DATA, _WORD, bytes(pre.size))
        mask = self.writer.append(MASK, DATA, _WORD, bytes(pre.size))
        name = self._text(pre.name)
        target = self._text(part.target)
        header = _SPAN.pack(0, 0, 0, 0, 0, 0, pre.size, max(jump, 0))
        span = self.writer.append(".kspliced.spans", DATA, _WORD, header)
        self._point(span, 0, self._name(wanted))
        if new is not None:
            self._point(span, 8, new)
        for offset, place in ((16, expect), (24, mask), (32, name), (40, target)):
            self._point(span, offset, place)
        return Span(
            target=part.target,
            unit=part.unit,
            symbol=pre.name,
            index=pre.symbol,
            size=pre.size,
            jump_offset=jump,
            import_name=wanted.name,
            buffer_offset=expect.offset,
        )

    def _text(self, text: str) -> Place:
        return self.writer.append(".kspliced.strings", RODATA, 1, text.encode() + b"\0")

    def _point(self, base: Place, offset: int, to: Place | str, distance: int = 0) -> None:
        place = Place(base.section, base.offset + offset)
        self.writer.refer(Reference(place, R_X86_64_64, to, distance))


def _alignment(section: Section, offset: int) -> int:
    """What a place in a section is certain to be a multiple of."""
    return min(section.align, offset & -offset) if offset else section.align


def _wanted(name: str, flags: int, kind: int, size: int) -> bool:
    if name == ".modinfo":
        return size > 0
    if name.startswith(IGNORED_PREFIXES) or kind == SHT_NOTE:
        return False
    return bool(flags & SHF_ALLOC) and size > 0


def _text_name(section: str) -> str:
    """Replacement chunks keep their section, which the module loader frees; code is .text."""
    return section if section == ".altinstr_replacement" else ".text"
