# SPDX-License-Identifier: GPL-2.0-or-later
"""Link an update module to the running kernel, in place: once composed, no section moves or grows.

Undefined symbols become SHN_ABS with their run-time address, so that the module loader's own
apply_relocate_add() puts them in; only the core's interface stays undefined, with its checksums
in ``__versions`` (struct modversion_info, include/linux/module.h). The buffers of
.kspliced.expect and .kspliced.mask get what matching found (kmod/kspliced_abi.h).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from kspliced.elf.object import SHN_ABS, SHN_UNDEF
from kspliced.errors import BuildError, Code, MatchError, PackError
from kspliced.kernel.core import SymbolCrc
from kspliced.match.compose import compose
from kspliced.match.report import Matched, MatchedDatum, MatchedSpan
from kspliced.model import VMLINUX, Hold, ImportKind, Linked
from kspliced.pack import Pack

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMBOL_SECTION = 6  # offset of st_shndx in a symbol; st_value follows it
_SHNDX_VALUE = struct.Struct("<HQ")
_VERSION = struct.Struct("<Q56s")
_ADDRESS = 8
_SHT_SYMTAB = 2
_SHT_STRTAB = 3
_SHT_NOBITS = 8
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR = 1, 2, 4
_PAGE = 4096


def link(
    pack: Pack,
    matched: Matched,
    crcs: Iterable[SymbolCrc],
    taken: frozenset[str] = frozenset(),
) -> Linked:
    """The module to load: the pack's ready groups, linked to what matching found.

    Its name is the pack's where all groups are ready; else it says which are, as two modules of a
    pack are loaded while one takes the other's place.

    :param crcs: the core's checksums (Core.crcs()); none on a kernel without MODVERSIONS.
    :param taken: names that it may not have.
    :raises PackError: PACK_MALFORMED.
    :raises MatchError: UNRESOLVED when a symbol would stay undefined.
    """
    try:
        name = _name(pack, matched, taken)
        content = _link(pack, matched, name, tuple(crcs))
    except BuildError as error:
        raise PackError(Code.PACK_MALFORMED, error.message, "build the pack again") from error
    except (struct.error, ValueError, LookupError, OverflowError) as error:
        raise PackError(
            Code.PACK_MALFORMED,
            f"the pack's update module is malformed: {error}",
            "build the pack again",
        ) from error
    held = (u for g in pack.manifest.groups if g not in matched.groups for u in g.units)
    size = _memory(content)
    return Linked(name, content, size, matched.waiting, tuple(held), _holds(pack, matched))


def _name(pack: Pack, matched: Matched, taken: frozenset[str]) -> str:
    update = pack.manifest.update
    if len(matched.groups) == len(pack.manifest.groups) and update not in taken:
        return update
    ready = "\n".join(group.blob for group in matched.groups)
    while True:
        name = f"{update}_{hashlib.sha256(ready.encode()).hexdigest()[:4]}"
        if name not in taken:
            return name
        ready += "\n"


def _holds(pack: Pack, matched: Matched) -> tuple[Hold, ...]:
    """All modules of the pack: one that is loaded may go, and come again."""
    required: dict[str, bool] = {}
    for group in pack.manifest.groups:
        others = set(group.targets) - set(group.required)
        live = not others & set(matched.waiting)
        for target in set(group.targets) - {VMLINUX}:
            needs = live and target in group.required
            required[target] = required.get(target, False) or needs
    return tuple(Hold(module, needs) for module, needs in sorted(required.items()))


def _memory(content: bytes) -> int:
    """About how many bytes of kernel memory a module takes: layout_sections() of the kernel, pages
    for each kind of rights; symbols go with the data. What is for init only is given back."""
    sizes: dict[int, int] = {}
    for section in _Image(content).sections:
        kind = section.flags & (_SHF_WRITE | _SHF_EXECINSTR)
        kept = section.flags & _SHF_ALLOC and not section.name.startswith(".init")
        if kept or section.type in (_SHT_SYMTAB, _SHT_STRTAB):
            sizes[kind] = sizes.get(kind, 0) + section.size
    return sum(-(-size // _PAGE) * _PAGE for size in sizes.values())


@dataclass(frozen=True)
class _Section:
    name: str
    type: int
    flags: int
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
        self.sections = [_Section(_text(strings, r[0]), *r[1:3], *r[4:7]) for r in raw]
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


def _link(pack: Pack, matched: Matched, name: str, crcs: tuple[SymbolCrc, ...]) -> bytes:
    composed = compose(pack, matched.groups, name)
    image = _Image(composed.content)
    core = {i.name for i in pack.manifest.glue.imports if i.kind is ImportKind.CORE}
    _resolve(image, {i.name: i.address for i in matched.imports}, core)
    spans, data, constants = iter(matched.spans), iter(matched.data), iter(matched.constants)
    for group in matched.groups:
        places = composed.places[group.blob]
        for _, span in zip(group.spans, spans, strict=False):
            _fill_span(image, places, span)
        for _, datum in zip(group.data, data, strict=False):
            _fill_datum(image, places, datum)
        for _, found in zip(group.constants, constants, strict=False):
            constant = found.constant
            place, name = constant.offset, constant.variable
            _fill(image, constant.section, places, place, name, found.value)
    if crcs:
        _version(image, core, crcs)
    return bytes(image.data)


def _fill_span(image: _Image, places: Mapping[str, int], span: MatchedSpan) -> None:
    offset, name = span.span.buffer_offset, span.span.symbol
    # What the kernel may rewrite is not compared: without it, what is the same links the same.
    bits = int.from_bytes(span.expect) & int.from_bytes(span.mask)
    _fill(image, ".kspliced.expect", places, offset, name, bits.to_bytes(len(span.expect)))
    _fill(image, ".kspliced.mask", places, offset, name, span.mask)


def _fill_datum(image: _Image, places: Mapping[str, int], matched: MatchedDatum) -> None:
    datum, found = matched.datum, matched.expect
    _fill(image, ".kspliced.expect", places, datum.buffer_offset, datum.symbol, found)
    for at in datum.kept:
        address, place = found[at : at + _ADDRESS], datum.value_offset + at
        _fill(image, ".kspliced.values", places, place, datum.symbol, address)


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


def _fill(
    image: _Image, name: str, places: Mapping[str, int], offset: int, symbol: str, data: bytes
) -> None:
    section = image.named(name)
    start = places.get(name, 0) + offset
    if section is None or offset < 0 or start + len(data) > section.size:
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
