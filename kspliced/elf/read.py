# SPDX-License-Identifier: GPL-2.0-or-later
"""Read a relocatable x86-64 object with pyelftools; no pyelftools object leaves this module."""

from __future__ import annotations

import io
import struct

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from kspliced.elf.object import (
    SHN_ABS,
    SHN_COMMON,
    SHN_LORESERVE,
    SHT_NOBITS,
    Binding,
    Object,
    Relocation,
    Section,
    Symbol,
    SymbolType,
)
from kspliced.errors import BuildError, Code

_TABLES = {"SHT_NULL", "SHT_SYMTAB", "SHT_STRTAB", "SHT_RELA", "SHT_GROUP"}
# pyelftools trusts its input in places, so garbage can end in any of these.
_MALFORMED = (
    *(ELFError, ValueError, KeyError, IndexError, struct.error, OverflowError),
    *(TypeError, AttributeError, AssertionError, UnicodeDecodeError, RecursionError),
)
_RELA = struct.Struct("<QQq")
_SYM = struct.Struct("<IBBHQQ")


def read_object(data: bytes, name: str = "object") -> Object:
    """Parse ``data`` as ELF64 little-endian x86-64 ET_REL.

    :param name: what to call the file in errors.
    :raises BuildError: OBJECT_MALFORMED for anything that is not such a file, or is cut short.
    """
    try:
        return _read(data)
    except _MALFORMED as error:
        raise BuildError(
            Code.OBJECT_MALFORMED,
            f"{name} is not a well-formed x86-64 relocatable object ({error})",
            "rebuild it with the kernel's own compiler",
        ) from error


def _read(data: bytes) -> Object:
    elf = ELFFile(io.BytesIO(data))
    if elf.elfclass != 64 or not elf.little_endian or elf["e_machine"] != "EM_X86_64":
        raise ValueError("not ELF64 little-endian x86-64")
    if elf["e_type"] != "ET_REL":
        raise ValueError("not relocatable")
    # gABI, "Extended section numbering": the true numbers are elsewhere, and symbols need a table.
    extended = elf["e_shoff"] and not elf["e_shnum"]
    if extended or elf["e_shstrndx"] >= SHN_LORESERVE or elf["e_shnum"] >= SHN_LORESERVE:
        raise ValueError(f"{SHN_LORESERVE} sections or more are not supported")
    headers = [(section.name, section.header) for section in elf.iter_sections()]
    symbols: tuple[Symbol, ...] = ()
    relocations: dict[int, tuple[Relocation, ...]] = {}
    for _, header in headers:
        if header.sh_type == "SHT_SYMTAB_SHNDX":
            raise ValueError("symbols with extended section numbers are not supported")
        if header.sh_type == "SHT_SYMTAB":
            strings = _content(data, headers[header.sh_link][1])
            symbols = _symbols(_content(data, header), strings, len(headers))
    for _, header in headers:
        if header.sh_type == "SHT_RELA":
            relocations[header.sh_info] = _relocations(_content(data, header), len(symbols))
    sections = []
    for index, (name, header) in enumerate(headers):
        if header.sh_type in _TABLES:
            continue
        nobits = header.sh_type == "SHT_NOBITS"
        sections.append(
            Section(
                index=index,
                name=name,
                type=_type_number(data, elf["e_shoff"] + index * elf["e_shentsize"]),
                flags=header.sh_flags,
                align=header.sh_addralign,
                entsize=header.sh_entsize,
                size=header.sh_size,
                data=b"" if nobits else _content(data, header),
                relocations=relocations.get(index, ()),
            )
        )
    _check(sections, symbols)
    return Object(tuple(sections), symbols)


def _type_number(data: bytes, offset: int) -> int:
    number = struct.unpack_from("<I", data, offset + 4)[0]
    return int(number)


def _content(data: bytes, header: object) -> bytes:
    offset, size = header["sh_offset"], header["sh_size"]  # type: ignore[index]
    content = data[offset : offset + size]
    if len(content) != size:
        raise ValueError("a section lies outside the file")
    return content


def _string(strings: bytes, offset: int) -> str:
    end = strings.index(b"\0", offset)
    return strings[offset:end].decode("utf-8")


def _symbols(table: bytes, strings: bytes, nr_sections: int) -> tuple[Symbol, ...]:
    result = []
    for index, (name, info, other, shndx, value, size) in enumerate(_SYM.iter_unpack(table)):
        if shndx >= SHN_LORESERVE and shndx not in (SHN_ABS, SHN_COMMON):
            raise ValueError(f"a symbol is in section {shndx:#x}, which is reserved")
        if shndx < SHN_LORESERVE and shndx >= nr_sections:
            raise ValueError("a symbol names a section that does not exist")
        result.append(
            Symbol(
                index=index,
                name=_string(strings, name) if name else "",
                value=value,
                size=size,
                type=SymbolType(info & 0xF),
                binding=Binding(info >> 4),
                section=shndx,
                other=other,
            )
        )
    return tuple(result)


def _relocations(table: bytes, nr_symbols: int) -> tuple[Relocation, ...]:
    result = []
    for offset, info, addend in _RELA.iter_unpack(table):
        if info >> 32 >= nr_symbols:
            raise ValueError("a relocation names a symbol that does not exist")
        result.append(Relocation(offset, info & 0xFFFFFFFF, info >> 32, addend))
    return tuple(sorted(result, key=lambda r: r.offset))


def _check(sections: list[Section], symbols: tuple[Symbol, ...]) -> None:
    sizes = {section.index: section.size for section in sections}
    for section in sections:
        if section.relocations and section.type == SHT_NOBITS:
            raise ValueError(f"relocations in {section.name}, which has no content")
        for relocation in section.relocations:
            if relocation.offset + 4 > section.size:
                raise ValueError(f"a relocation lies outside {section.name}")
    for symbol in symbols:
        if symbol.section in sizes and symbol.value + symbol.size > sizes[symbol.section]:
            raise ValueError(f"symbol {symbol.name} lies outside its section")
