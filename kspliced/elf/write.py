# SPDX-License-Identifier: GPL-2.0-or-later
"""Write a relocatable x86-64 object. The inverse of read.py, byte-reproducible."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from kspliced.elf.object import (
    SHN_LORESERVE,
    SHT_NOBITS,
    Binding,
    Object,
    Relocation,
    Section,
    Symbol,
)
from kspliced.errors import BuildError, Code

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")
_IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)
_ET_REL, _EM_X86_64 = 1, 62
_SHT_SYMTAB, _SHT_STRTAB, _SHT_RELA = 2, 3, 4
_SHF_INFO_LINK = 0x40


class _Strings:
    """A string table under construction."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self._offsets: dict[str, int] = {"": 0}

    def add(self, text: str) -> int:
        if text not in self._offsets:
            self._offsets[text] = len(self.data)
            self.data += text.encode("utf-8") + b"\0"
        return self._offsets[text]


@dataclass(frozen=True)
class _Header:
    name: str
    type: int
    flags: int
    data: bytes
    size: int
    link: int
    info: int
    align: int
    entsize: int


def write_object(obj: Object) -> bytes:
    """Serialise ``obj``.

    Its sections must be numbered 1..n in order and its symbols must start with the null symbol
    and hold all local ones before the others (gABI, chapter 4, "Symbol Table").

    :raises ValueError: when they are not.
    :raises BuildError: OBJECT_MALFORMED for more sections than the header can number.
    """
    if [s.index for s in obj.sections] != list(range(1, len(obj.sections) + 1)):
        raise ValueError("sections must be numbered 1..n")
    bindings = [symbol.binding is Binding.LOCAL for symbol in obj.symbols]
    if not bindings or bindings != sorted(bindings, reverse=True):
        raise ValueError("local symbols must come first")
    headers = [_content_header(section) for section in obj.sections]
    with_relocations = [section for section in obj.sections if section.relocations]
    symtab_index = len(headers) + len(with_relocations) + 1
    headers += [_rela_header(section, symtab_index) for section in with_relocations]
    # Also the null section, and the tables of symbols, their names and the sections' names.
    count = len(headers) + 4
    if count > SHN_LORESERVE - 1:
        raise BuildError(
            Code.OBJECT_MALFORMED,
            f"an object of {count} sections cannot be written",
            f"make the update smaller: it may have fewer than {SHN_LORESERVE} sections",
        )
    strings = _Strings()
    symtab = b"".join(_symbol(symbol, strings) for symbol in obj.symbols)
    headers.append(
        _Header(
            ".symtab", _SHT_SYMTAB, 0, symtab, len(symtab), symtab_index + 1, sum(bindings), 8, 24
        )
    )
    text = bytes(strings.data)
    headers.append(_Header(".strtab", _SHT_STRTAB, 0, text, len(text), 0, 0, 1, 0))
    return _assemble(headers)


def _content_header(section: Section) -> _Header:
    return _Header(
        section.name,
        section.type,
        section.flags,
        section.data,
        section.size,
        0,
        0,
        max(section.align, 1),
        section.entsize,
    )


def _rela_header(section: Section, symtab_index: int) -> _Header:
    data = b"".join(_rela(relocation) for relocation in section.relocations)
    return _Header(
        f".rela{section.name}",
        _SHT_RELA,
        _SHF_INFO_LINK,
        data,
        len(data),
        symtab_index,
        section.index,
        8,
        24,
    )


def _rela(relocation: Relocation) -> bytes:
    info = relocation.symbol << 32 | relocation.type
    return _RELA.pack(relocation.offset, info, relocation.addend)


def _symbol(symbol: Symbol, strings: _Strings) -> bytes:
    info = symbol.binding << 4 | symbol.type
    return _SYM.pack(
        strings.add(symbol.name), info, symbol.other, symbol.section, symbol.value, symbol.size
    )


def _assemble(headers: list[_Header]) -> bytes:
    names = _Strings()
    offsets = [names.add(header.name) for header in headers]
    shstrtab_name = names.add(".shstrtab")
    table = bytes(names.data)
    headers = [*headers, _Header(".shstrtab", _SHT_STRTAB, 0, table, len(table), 0, 0, 1, 0)]
    offsets.append(shstrtab_name)
    body = bytearray(_EHDR.size)
    rows = [_SHDR.pack(*(0,) * 10)]
    for header, name in zip(headers, offsets, strict=True):
        body += bytes(-len(body) % header.align)
        place = len(body)
        if header.type != SHT_NOBITS:
            body += header.data
        rows.append(
            _SHDR.pack(
                name,
                header.type,
                header.flags,
                0,
                place,
                header.size,
                header.link,
                header.info,
                header.align,
                header.entsize,
            )
        )
    body += bytes(-len(body) % 8)
    body[: _EHDR.size] = _EHDR.pack(
        _IDENT,
        _ET_REL,
        _EM_X86_64,
        1,
        0,
        0,
        len(body),
        0,
        _EHDR.size,
        0,
        0,
        _SHDR.size,
        len(rows),
        len(rows) - 1,
    )
    return bytes(body) + b"".join(rows)
