# SPDX-License-Identifier: GPL-2.0-or-later
"""A relocatable module under construction: sections that grow, relocations, symbols."""

from __future__ import annotations

from dataclasses import dataclass, field

from kspliced.elf.object import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_WRITE,
    SHN_UNDEF,
    SHT_NOBITS,
    SHT_PROGBITS,
    Binding,
    Object,
    Relocation,
    Section,
    Symbol,
    SymbolType,
)

TEXT = SHF_ALLOC | SHF_EXECINSTR
RODATA = SHF_ALLOC
DATA = SHF_ALLOC | SHF_WRITE

_NOP = b"\x90"
_PAGE = 4096
_LARGEST = 256 << 20


@dataclass(frozen=True)
class Place:
    """``offset`` bytes into the output section called ``section``."""

    section: str
    offset: int


@dataclass(frozen=True)
class Reference:
    """A relocation to write: at ``place``, of ELF type ``type``, to a place or an import."""

    place: Place
    type: int
    to: Place | str
    addend: int


@dataclass
class _Output:
    flags: int
    align: int = 1
    data: bytearray = field(default_factory=bytearray)


class ModuleWriter:
    """Collects content and gives an :class:`Object`; the order of calls is the order of bytes."""

    def __init__(self) -> None:
        self._outputs: dict[str, _Output] = {}
        self._references: list[Reference] = []
        self._functions: list[tuple[str, Place, int]] = []
        self._exported: list[tuple[str, Place, int]] = []
        self._imports: dict[str, None] = {}

    def append(self, section: str, flags: int, align: int, data: bytes) -> Place:
        """Put ``data`` at the next ``align``-ed offset of an output section."""
        output = self._outputs.setdefault(section, _Output(flags))
        align = max(align, 1)
        filler = _NOP if flags & SHF_EXECINSTR else b"\0"
        output.data += filler * (-len(output.data) % align)
        output.align = max(output.align, align)
        output.flags |= flags
        place = Place(section, len(output.data))
        output.data += data
        return place

    def merge(self, obj: Object) -> dict[str, Place]:
        """Append all that ``obj`` has in memory, with its symbols and relocations.

        Undefined symbols stay imports unless something merged exports them. Returns where the
        first byte of each section went.

        :raises ValueError: a section that no module has.
        """
        bases: dict[int, Place] = {}
        for section in obj.sections:
            if section.alloc and section.size:
                if section.align > _PAGE or section.size > _LARGEST:
                    raise ValueError(f"section {section.name[:80]!r} is too large")
                data = section.data or bytes(section.size)
                flags = section.flags & (SHF_ALLOC | SHF_WRITE | SHF_EXECINSTR)
                bases[section.index] = self.append(section.name, flags, section.align, data)
        for symbol in obj.symbols:
            self._merge_symbol(symbol, bases)
        for section in obj.sections:
            base = bases.get(section.index)
            for relocation in section.relocations if base is not None else ():
                assert base is not None
                symbol = obj.symbols[relocation.symbol]
                home = bases.get(symbol.section)
                to: Place | str = symbol.name
                if home is not None:
                    to = Place(home.section, home.offset + symbol.value)
                place = Place(base.section, base.offset + relocation.offset)
                self.refer(Reference(place, relocation.type, to, relocation.addend))
        return {obj.section(index).name: place for index, place in bases.items()}

    def _merge_symbol(self, symbol: Symbol, bases: dict[int, Place]) -> None:
        base = bases.get(symbol.section)
        if base is None:
            return
        place = Place(base.section, base.offset + symbol.value)
        if symbol.binding is not Binding.LOCAL:
            self.export(symbol.name, place, symbol.size)
        elif symbol.type is SymbolType.FUNC:
            self.name_function(symbol.name, place, symbol.size)

    def refer(self, reference: Reference) -> None:
        """Add a relocation; an import is known by its symbol name."""
        if isinstance(reference.to, str):
            self._imports.setdefault(reference.to)
        self._references.append(reference)

    def name_function(self, name: str, place: Place, size: int) -> None:
        """Give code a local symbol, which backtraces show."""
        self._functions.append((name, place, size))

    def export(self, name: str, place: Place, size: int) -> None:
        """Define a global symbol of the module (init_module, ...)."""
        self._exported.append((name, place, size))

    @property
    def imports(self) -> tuple[str, ...]:
        """The undefined symbols so far, by first use."""
        defined = {name for name, _, _ in self._exported}
        return tuple(name for name in self._imports if name not in defined)

    def finish(self) -> Object:
        """The module as an object: sections 1..n, locals first, then globals and imports."""
        numbers = {name: number for number, name in enumerate(self._outputs, start=1)}
        symbols = [Symbol(0, "", 0, 0, SymbolType.NOTYPE, Binding.LOCAL, SHN_UNDEF)]

        def add(
            name: str, kind: SymbolType, binding: Binding, section: int, value: int, size: int
        ) -> None:
            symbols.append(Symbol(len(symbols), name, value, size, kind, binding, section))

        for number in numbers.values():
            add("", SymbolType.SECTION, Binding.LOCAL, number, 0, 0)
        for name, place, size in self._functions:
            number = numbers[place.section]
            add(name, SymbolType.FUNC, Binding.LOCAL, number, place.offset, size)
        by_name: dict[str, int] = {}
        for name, place, size in self._exported:
            by_name[name] = len(symbols)
            number = numbers[place.section]
            add(name, SymbolType.NOTYPE, Binding.GLOBAL, number, place.offset, size)
        for name in self.imports:
            by_name[name] = len(symbols)
            add(name, SymbolType.NOTYPE, Binding.GLOBAL, SHN_UNDEF, 0, 0)
        sections = tuple(
            self._section(name, number, numbers, by_name) for name, number in numbers.items()
        )
        return Object(sections, tuple(symbols))

    def _section(
        self, name: str, number: int, numbers: dict[str, int], by_name: dict[str, int]
    ) -> Section:
        output = self._outputs[name]
        relocations = []
        for reference in self._references:
            if reference.place.section != name:
                continue
            if isinstance(reference.to, str):
                symbol, addend = by_name[reference.to], reference.addend
            else:
                symbol = numbers[reference.to.section]
                addend = reference.to.offset + reference.addend
            relocations.append(Relocation(reference.place.offset, reference.type, symbol, addend))
        empty = not any(output.data) and name.startswith(".bss")
        return Section(
            index=number,
            name=name,
            type=SHT_NOBITS if empty else SHT_PROGBITS,
            flags=output.flags,
            align=output.align,
            entsize=0,
            size=len(output.data),
            data=b"" if empty else bytes(output.data),
            relocations=tuple(sorted(relocations, key=lambda r: r.offset)),
        )
