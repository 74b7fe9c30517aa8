# SPDX-License-Identifier: GPL-2.0-or-later
"""Link an update module to the running kernel, in place: no section moves or grows.

Undefined symbols become SHN_ABS with their run-time address, so that the module loader's own
apply_relocate_add() puts them in; only the core's interface stays undefined, with its checksums
in ``__versions`` (struct modversion_info, include/linux/module.h). The buffers of
.kspliced.expect and .kspliced.mask get what matching found (kmod/kspliced_abi.h).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kspliced.elf.object import SHN_ABS, SHN_UNDEF
from kspliced.errors import Code, MatchError, PackError
from kspliced.kernel.core import SymbolCrc
from kspliced.match.report import Matched
from kspliced.model import ImportKind
from kspliced.pack import Pack

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMBOL_SECTION = 6  # offset of st_shndx in a symbol; st_value follows it
_SHNDX_VALUE = struct.Struct("<HQ")
_VERSION = struct.Struct("<Q56s")
_ADDRESS = 8
_SHT_SYMTAB = 2
_SHT_NOBITS = 8


def link(pack: Pack, matched: Matched, crcs: Iterable[SymbolCrc]) -> bytes:
    """The module to load: the pack's, linked to what matching found.

    :param crcs: the core's checksums (Core.crcs()); none on a kernel without MODVERSIONS.
    :raises PackError: PACK_MALFORMED.
    :raises MatchError: UNRESOLVED when a symbol would stay undefined.
    """
    try:
        return _link(pack, matched, tuple(crcs))
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise PackError(
            Code.PACK_MALFORMED,
            f"the pack's update module is malformed: {error}",
            "build the pack again",
        ) from error


@dataclass(frozen=True)
class _Section:
    name: str
    type: int
    offset: int
    size: int
    link: int


class _Image:
    """An object file's bytes, changed in place."""

    def __init__(self, content: bytes) -> None:
        self.data = bytearray(content)
        header = _HEADER.unpack_from(content)
        if header[0][:6] != b"\x7fELF\x02\x01" or header[11] != _SECTION.size:
            raise ValueError("it is not an ELF64 little-endian file")
        table, count, names = header[6], header[12], header[13]
        raw = [_SECTION.unpack_from(content, table + i * _SECTION.size) for i in range(count)]
        if names >= count:
            raise ValueError("it has no section names")
        strings = content[raw[names][4] : raw[names][4] + raw[names][5]]
        self.sections = [_Section(_text(strings, r[0]), r[1], r[4], r[5], r[6]) for r in raw]
        for section in self.sections:
            if section.type != _SHT_NOBITS and section.offset + section.size > len(content):
                raise ValueError(f"section {section.name} lies outside the file")

    def named(self, name: str) -> _Section | None:
        """The section called ``name``, which has content."""
        found = [s for s in self.sections if s.name == name and s.type != _SHT_NOBITS]
        if len(found) > 1:
            raise ValueError(f"it has two sections {name}")
        return found[0] if found else None

    def bytes_of(self, section: _Section) -> bytes:
        """The content of ``section``."""
        return bytes(self.data[section.offset : section.offset + section.size])

    def undefined(self) -> Iterator[tuple[str, int]]:
        """Each undefined symbol: name, and offset of its entry in the file."""
        tables = [s for s in self.sections if s.type == _SHT_SYMTAB]
        if len(tables) != 1:
            raise ValueError("it has not exactly one symbol table")
        table = tables[0]
        strings = self.bytes_of(self.sections[table.link])
        entries = _SYMBOL.iter_unpack(self.bytes_of(table))
        for number, (name, _, _, section, _, _) in enumerate(entries):
            if number and section == SHN_UNDEF:
                yield _text(strings, name), table.offset + number * _SYMBOL.size


def _text(strings: bytes, offset: int) -> str:
    return strings[offset : strings.index(b"\0", offset)].decode()


def _link(pack: Pack, matched: Matched, crcs: tuple[SymbolCrc, ...]) -> bytes:
    image = _Image(pack.module)
    core = {i.name for i in pack.manifest.imports if i.kind is ImportKind.CORE}
    _resolve(image, {i.name: i.address for i in matched.imports}, core)
    for span in matched.spans:
        offset, name = span.span.buffer_offset, span.span.symbol
        _fill(image, ".kspliced.expect", offset, name, span.expect)
        _fill(image, ".kspliced.mask", offset, name, span.mask)
    for datum in matched.data:
        place, name = datum.datum.buffer_offset, datum.datum.symbol
        _fill(image, ".kspliced.expect", place, name, datum.expect)
        for at in datum.datum.kept:
            address = datum.expect[at : at + _ADDRESS]
            _fill(image, ".kspliced.values", datum.datum.value_offset + at, name, address)
    if crcs:
        _version(image, core, crcs)
    return bytes(image.data)


def _resolve(image: _Image, addresses: dict[str, int], core: set[str]) -> None:
    for name, entry in list(image.undefined()):
        if name in core:
            continue
        if name not in addresses:
            raise MatchError(
                Code.UNRESOLVED,
                f"the update module needs {name[:120]!r}, which its manifest does not import",
                "build the pack again",
            )
        _SHNDX_VALUE.pack_into(image.data, entry + _SYMBOL_SECTION, SHN_ABS, addresses[name])


def _fill(image: _Image, name: str, start: int, symbol: str, data: bytes) -> None:
    section = image.named(name)
    if section is None or start < 0 or start + len(data) > section.size:
        raise ValueError(f"there is no room for {symbol[:80]!r} in {name}")
    at = section.offset + start
    image.data[at : at + len(data)] = data


def _version(image: _Image, core: set[str], crcs: tuple[SymbolCrc, ...]) -> None:
    section = image.named("__versions")
    if section is None or section.size % _VERSION.size:
        raise ValueError("it has no well-formed __versions")
    known = {crc.name: crc.crc for crc in crcs}
    versioned = set()
    for at in range(section.offset, section.offset + section.size, _VERSION.size):
        _, raw = _VERSION.unpack_from(image.data, at)
        name = raw.split(b"\0", 1)[0].decode()
        if name in known:
            struct.pack_into("<Q", image.data, at, known[name])
            versioned.add(name)
    missing = sorted((core & set(known)) - versioned)
    if missing:
        raise ValueError(f"__versions has no entry for {missing[0]}")
