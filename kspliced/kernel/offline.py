# SPDX-License-Identifier: GPL-2.0-or-later
"""A KernelImage made from shipped modules: laid out and relocated as the module loader would.

Nothing runs, so nothing is patched: the code is as objtool left it. What none of the modules
exports gets an address of its own in a made-up vmlinux whose bytes cannot be read.
Source: kernel/module/main.c, layout_sections(), simplify_symbols(); apply_relocate_add().
"""

from __future__ import annotations

import lzma
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kspliced.elf.object import (
    SHF_WRITE,
    SHN_ABS,
    SHT_NOBITS,
    Binding,
    Section,
    Symbol,
    SymbolType,
)
from kspliced.elf.read import read_object
from kspliced.elf.section_class import SectionClass, section_class
from kspliced.elf.x86 import KINDS, R_X86_64_NONE
from kspliced.errors import BuildError, Code, KernelError
from kspliced.kernel.image import AddressRange, KernelSymbol
from kspliced.model import VMLINUX
from kspliced.named import read_named

_VMLINUX_BASE = 0xFFFF_FFFF_8100_0000
_MODULE_BASE = 0xFFFF_FFFF_C010_0000
_PERCPU_BASE = 0x3_0000
_PAGE = 0x1000
_SPACING = 64
_XZ_MAGIC = b"\xfd7zXZ\0"
_MAX_MODULE = 256 << 20
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class ModuleFile:
    """A module to lay out: its name as in /proc/modules and the content of its .ko."""

    target: str
    content: bytes


@dataclass(frozen=True)
class _Region:
    start: int
    data: bytes


class OfflineSymbols:
    """A SymbolTable over a list of symbols."""

    def __init__(self, symbols: Iterable[KernelSymbol]) -> None:
        self._all = sorted(symbols, key=lambda s: s.address)
        self._names: dict[tuple[str, str], list[KernelSymbol]] = {}
        self._stems: dict[tuple[str, str], list[KernelSymbol]] = {}
        for symbol in self._all:
            dot = symbol.name.find(".", 1)
            stem = symbol.name if dot < 0 else symbol.name[:dot]
            self._names.setdefault((symbol.name, symbol.target), []).append(symbol)
            self._stems.setdefault((stem, symbol.target), []).append(symbol)

    def named(self, name: str, target: str) -> tuple[KernelSymbol, ...]:
        """Every symbol of ``target`` called exactly ``name``."""
        return tuple(self._names.get((name, target), ()))

    def stem(self, stem: str, target: str) -> tuple[KernelSymbol, ...]:
        """Every symbol of ``target`` whose name is ``stem`` or begins with ``stem`` and a dot."""
        return tuple(self._stems.get((stem, target), ()))

    def at(self, address: int, target: str) -> tuple[KernelSymbol, ...]:
        """Every symbol of ``target`` with exactly this address."""
        last = bisect_right(self._all, address, key=lambda s: s.address)
        found = []
        while last and self._all[last - 1].address == address:
            last -= 1
            if self._all[last].target == target:
                found.append(self._all[last])
        return tuple(found)

    def nearest(self, address: int) -> KernelSymbol | None:
        """The last symbol at or below ``address``."""
        last = bisect_right(self._all, address, key=lambda s: s.address)
        return self._all[last - 1] if last else None

    def exported(self, name: str) -> tuple[KernelSymbol, ...]:
        """Upper-case symbols called ``name``, of any target."""
        targets = {s.target for s in self._all}
        found = [s for target in sorted(targets) for s in self.named(name, target)]
        return tuple(s for s in found if s.type.isupper())


class OfflineKernel:
    """Modules in memory at made-up addresses.

    :raises KernelError: KERNEL_UNREADABLE when a file is not a module that can be laid out.
    """

    def __init__(self, release: str, files: Iterable[ModuleFile]) -> None:
        self._release = release
        self._targets = {VMLINUX}
        self._tables: dict[tuple[str, str], AddressRange] = {}
        self._overlay: tuple[_Region, ...] = ()
        layouts: list[_Layout] = []
        symbols: list[KernelSymbol] = []
        base = _MODULE_BASE
        for file in files:
            layout = _Layout(file, base)
            layouts.append(layout)
            symbols += layout.symbols
            self._targets.add(file.target)
            for name, place in layout.tables():
                self._tables[name, file.target] = place
            base = layout.end + _PAGE
        globals_ = {s.name: s.address for s in symbols if s.type.isupper()}
        made_up = {n for layout in layouts for n in layout.undefined() if n not in globals_}
        for number, name in enumerate(sorted(made_up)):
            globals_[name] = _VMLINUX_BASE + _SPACING * number
            symbols.append(KernelSymbol(name, globals_[name], "T", VMLINUX))
        self._symbols = OfflineSymbols(symbols)
        classes = [place for layout in layouts for place in layout.classes()]
        self._classes = sorted(classes, key=lambda place: place[0].start)
        regions = [region for layout in layouts for region in layout.regions(globals_)]
        self._regions = sorted(regions, key=lambda r: r.start)

    @property
    def release(self) -> str:
        """The release that was given."""
        return self._release

    @property
    def symbols(self) -> OfflineSymbols:
        """The modules' symbols and the made-up addresses of what they import."""
        return self._symbols

    def loaded(self, target: str) -> bool:
        """Whether the module was given."""
        return target in self._targets

    def table(self, section: str, target: str) -> AddressRange | None:
        """Where the module's section lies."""
        return self._tables.get((section, target))

    def memory(self, address: int, target: str) -> SectionClass | None:
        """By the section that the address lies in."""
        number = bisect_right(self._classes, address, key=lambda place: place[0].start) - 1
        if number < 0 or address not in self._classes[number][0]:
            return None
        return self._classes[number][1]

    def read(self, address: int, size: int) -> bytes:
        """Bytes of one section."""
        number = bisect_right(self._regions, address, key=lambda r: r.start) - 1
        if number >= 0:
            region = self._regions[number]
            offset = address - region.start
            data = bytearray(region.data[offset : offset + size])
            if len(data) == size:
                for patch in self._overlay:
                    for at, byte in enumerate(patch.data, patch.start - address):
                        if 0 <= at < size:
                            data[at] = byte
                return bytes(data)
        raise KernelError(
            Code.KERNEL_UNREADABLE,
            f"the image has no {size} bytes where they were sought",
            evidence=(f"{size} bytes at {address:#x}",),
        )

    def redirected(self, name: str, target: str) -> str:
        """Nobody redirects what does not run."""
        return ""

    def write(self, address: int, data: bytes) -> None:
        """Change memory, as the kernel patches itself when it runs."""
        self._overlay = (*self._overlay, _Region(address, data))


def read_module_file(path: Path) -> ModuleFile:
    """The module at ``path``, plain or .xz; its target is the file name as /proc/modules has it.

    :raises KernelError: IO, KERNEL_UNREADABLE.
    """
    try:
        content = read_named(path, _MAX_MODULE)
    except OSError as error:
        raise KernelError(
            Code.IO, f"cannot read {path}: {error.strerror}", "name a readable .ko file"
        ) from error
    if content.startswith(_XZ_MAGIC):
        try:
            content = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(content, _MAX_MODULE)
        except lzma.LZMAError as error:
            raise KernelError(
                Code.KERNEL_UNREADABLE, f"{path} is damaged: {error}", "name a whole .ko file"
            ) from error
    return ModuleFile(path.name.split(".", 1)[0].replace("-", "_"), content)


class _Layout:
    """One module: addresses of its sections, relocated content, symbols."""

    def __init__(self, file: ModuleFile, base: int) -> None:
        self._target = file.target
        try:
            self._object = read_object(file.content, f"the image of {file.target}")
        except BuildError as error:
            raise KernelError(
                Code.KERNEL_UNREADABLE, error.message, "name an uncompressed .ko file"
            ) from error
        self._base: dict[int, int] = {}
        self.end = self._place(base)
        self.symbols = self._named_symbols()

    def undefined(self) -> Iterator[str]:
        """Names of the undefined symbols."""
        for symbol in self._object.symbols:
            if symbol.name and not symbol.defined and symbol.section != SHN_ABS:
                yield symbol.name

    def regions(self, externs: dict[str, int]) -> Iterator[_Region]:
        """Each section's place and relocated content; ``externs`` has all undefined names."""
        for section in self._object.sections:
            if section.alloc:
                yield self._region(section, externs)

    def tables(self) -> Iterator[tuple[str, AddressRange]]:
        """Each section's name and place."""
        for section, place in self._places():
            yield section.name, place

    def classes(self) -> Iterator[tuple[AddressRange, SectionClass]]:
        """Each section's place and class."""
        for section, place in self._places():
            yield place, section_class(section)

    def _places(self) -> Iterator[tuple[Section, AddressRange]]:
        for section in self._object.sections:
            if section.index in self._base:
                start = self._base[section.index]
                yield section, AddressRange(start, start + section.size)

    def _place(self, base: int) -> int:
        percpu = _PERCPU_BASE + (base & 0xFFFFF)
        for section in self._object.sections:
            if not section.alloc:
                continue
            align = max(section.align, 1)
            if section.name == ".data..percpu":
                self._base[section.index] = (percpu + align - 1) // align * align
                continue
            base = (base + align - 1) // align * align
            self._base[section.index] = base
            base += section.size
        return (base + _PAGE) // _PAGE * _PAGE

    def _value(self, symbol: Symbol, externs: dict[str, int]) -> int:
        if symbol.section == SHN_ABS:
            return symbol.value
        if not symbol.defined:
            return externs.get(symbol.name, 0)
        return self._base.get(symbol.section, 0) + symbol.value

    def _named_symbols(self) -> list[KernelSymbol]:
        sections = {s.index: s for s in self._object.sections}
        exported = {
            s.name.removeprefix("__ksymtab_")
            for s in self._object.symbols
            if s.name.startswith("__ksymtab_")
        }
        found = []
        for symbol in self._object.symbols:
            if not symbol.name or not symbol.defined or symbol.section not in self._base:
                continue
            if symbol.type in (SymbolType.SECTION, SymbolType.FILE):
                continue
            letter = _letter(sections[symbol.section])
            if symbol.name in exported or (
                self._target == VMLINUX and symbol.binding is not Binding.LOCAL
            ):
                letter = letter.upper()
            found.append(KernelSymbol(symbol.name, self._value(symbol, {}), letter, self._target))
        return found

    def _region(self, section: Section, externs: dict[str, int]) -> _Region:
        start = self._base[section.index]
        if section.type == SHT_NOBITS:
            return _Region(start, bytes(section.size))
        data = bytearray(section.data)
        for relocation in section.relocations:
            if relocation.type == R_X86_64_NONE:
                continue
            kind = KINDS.get(relocation.type)
            if kind is None or relocation.offset + kind.size > len(data):
                raise KernelError(
                    Code.KERNEL_UNREADABLE,
                    f"the image of {self._target} has a relocation of type {relocation.type} "
                    f"in {section.name} that a module cannot have",
                    "name the .ko file of the kernel package",
                )
            value = self._value(self._object.symbols[relocation.symbol], externs)
            value += relocation.addend
            if kind.relative:
                value -= start + relocation.offset
            field = (value & _MASK).to_bytes(8, "little")[: kind.size]
            data[relocation.offset : relocation.offset + kind.size] = field
        return _Region(start, bytes(data))


def _letter(section: Section) -> str:
    if section.executable:
        return "t"
    if section.type == SHT_NOBITS:
        return "b"
    return "d" if section.flags & SHF_WRITE else "r"
