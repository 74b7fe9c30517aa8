# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a pack agrees with itself: what its manifest says is what its parts are made of.

The digest tells damage; this tells a pack that no builder of ours made. The core compares and
jumps as the tables in the parts say, people and the daemon read the manifest, and the linker fills
the tables by it: where the two differ, something else would be compared than what was matched.

The tables are laid out as kmod/kspliced_abi.h says.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kspliced.elf.object import Object, Section, Symbol
from kspliced.elf.read import read_object
from kspliced.elf.x86 import R_X86_64_64
from kspliced.errors import BuildError, Code, PackError
from kspliced.model import ChangeKind, Datum, Group, Import, ImportKind, Manifest, Span
from kspliced.pack import Pack

_UPDATE_NAME = re.compile(r"ks_[0-9a-z_]{1,40}")
_CORE = "kspliced"
_WORD = 8


@dataclass(frozen=True)
class _Table:
    """A table of a part: the offsets of its pointers and of the numbers behind them, in bytes."""

    section: str
    size: int
    name: int
    target: int
    numbers: int


_SPANS = _Table(".kspliced.spans", 56, name=32, target=40, numbers=48)
_DATA = _Table(".kspliced.data", 48, name=24, target=32, numbers=40)


def check_coherence(pack: Pack) -> None:
    """Prove that the manifest and the parts of ``pack`` say the same.

    :raises PackError: PACK_MALFORMED.
    """
    try:
        _check_manifest(pack.manifest)
        for group in pack.manifest.groups:
            _check_part(read_object(pack.blob(group.blob), group.blob), group)
    except (BuildError, ValueError, struct.error, LookupError) as error:
        raise PackError(
            Code.PACK_MALFORMED,
            f"the pack contradicts itself: {error!s:.200}",
            "build it again, or fetch it again",
        ) from error


def _check_manifest(manifest: Manifest) -> None:
    if not _UPDATE_NAME.fullmatch(manifest.update):
        raise ValueError(f"its update cannot be called {manifest.update!r:.80}")
    groups, units = manifest.groups, manifest.units
    _once("blob", [*(u.blob for u in units), manifest.glue.blob, *(g.blob for g in groups)])
    _once("unit", [u.unit for u in units])
    _once("unit of a group", [unit for group in groups for unit in group.units])
    _once("span", [_place(span) for group in groups for span in group.spans])
    owners = {u.unit: u.target for u in units}
    _check_functions(manifest)
    if manifest.glue.units or manifest.glue.targets or manifest.glue.spans or manifest.glue.data:
        raise ValueError("its glue has something of the kernel")
    for group in groups:
        _check_group(group, owners)
    for group in (manifest.glue, *groups):
        _once("import", [wanted.name for wanted in group.imports])
        for wanted in group.imports:
            _check_import(wanted, owners)


def _check_functions(manifest: Manifest) -> None:
    """What people are told is replaced is what gets a jump; names may differ by their numbers."""
    told = Counter((f.target, f.unit) for f in manifest.functions if f.kind is ChangeKind.CHANGED)
    jumps = Counter(
        (span.target, span.unit)
        for group in manifest.groups
        for span in group.spans
        if span.jump_offset >= 0
    )
    if told != jumps:
        target, unit = next(iter((told - jumps) | (jumps - told)))
        raise ValueError(f"it does not replace what it says of {unit} ({target})")
    if not any(group.spans or group.data for group in manifest.groups):
        raise ValueError("it replaces nothing")


def _check_group(group: Group, owners: dict[str, str]) -> None:
    _once("target", group.targets)
    if not group.targets or not set(group.required) <= set(group.targets):
        raise ValueError(f"{group.blob} has not the targets that it requires")
    for unit in group.units:
        if owners.get(unit) not in group.targets:
            raise ValueError(f"{group.blob} has {unit}, which is of none of its targets")
    imports = {wanted.name: wanted for wanted in group.imports}
    used: tuple[Span | Datum, ...] = (*group.spans, *group.data)
    for place in used:
        wanted = imports.get(place.import_name)
        if place.unit not in group.units or owners[place.unit] != place.target:
            raise ValueError(f"{group.blob} replaces {place.symbol}, which is of another")
        if wanted is None or _place(wanted) != _place(place):
            raise ValueError(f"{group.blob} has another address for {place.symbol}")
        if place.size <= 0:
            raise ValueError(f"{group.blob} has {place.symbol} without a size")
    _apart([(p.buffer_offset, p.size) for p in used])
    _apart([(datum.value_offset, datum.size) for datum in group.data])


def _place(it: Span | Datum | Import) -> tuple[str, str, str, int]:
    return it.target, it.unit, it.symbol, it.index


def _check_import(wanted: Import, owners: dict[str, str]) -> None:
    """Its name says what it is for (build/closure.py)."""
    if wanted.kind is ImportKind.CORE:
        fits = (wanted.target, wanted.unit, wanted.index) == (_CORE, "", -1)
        expected = wanted.symbol
    elif wanted.kind is ImportKind.EXTERN:
        fits = (wanted.unit, wanted.index) == ("", -1)
        expected = f"{wanted.target}::{wanted.symbol}"
    else:
        fits = owners.get(wanted.unit) == wanted.target and wanted.index > 0
        expected = f"{wanted.target}:{wanted.unit}:{wanted.index}:{wanted.symbol}"
    if not fits or wanted.name != expected:
        raise ValueError(f"the import {wanted.name!r:.120} is not what it is called")


def _once(what: str, values: Iterable[object]) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"the {what} {value!r:.120} is there twice")
        seen.add(value)


def _apart(ranges: list[tuple[int, int]]) -> None:
    """Buffers, as offset and size, of which none may lie in another."""
    end = 0
    for offset, size in sorted(ranges):
        if offset < end:
            raise ValueError("two buffers overlap")
        end = offset + size


def _check_part(part: Object, group: Group) -> None:
    spans = _rows(part, _SPANS, len(group.spans))
    for span, row in zip(group.spans, spans, strict=True):
        row.names(span, 0)
        row.points(16, ".kspliced.expect", span.buffer_offset)
        row.points(24, ".kspliced.mask", span.buffer_offset)
        if row.numbers != (span.size, max(span.jump_offset, 0)):
            raise ValueError(f"the table has another size or jump for {span.symbol}")
        if row.has(8) != (span.jump_offset >= 0):
            raise ValueError(f"the table has a replacement for {span.symbol}, or lacks it")
    data = _rows(part, _DATA, len(group.data))
    for datum, row in zip(group.data, data, strict=True):
        row.names(datum, datum.offset)
        row.points(8, ".kspliced.expect", datum.buffer_offset)
        row.points(16, ".kspliced.values", datum.value_offset)
        if row.numbers != (datum.size, 0):
            raise ValueError(f"the table has another size for {datum.symbol}")


@dataclass(frozen=True)
class _Row:
    """An entry of a table: by offset, what it points to, as symbol and distance in bytes."""

    part: Object
    table: _Table
    pointers: dict[int, tuple[Symbol, int]]
    numbers: tuple[int, int]

    def has(self, offset: int) -> bool:
        return offset in self.pointers

    def points(self, offset: int, section: str, distance: int) -> None:
        """Prove that the pointer at ``offset`` is to a place of one of our sections."""
        if (self._section(offset).name, self._distance(offset)) != (section, distance):
            raise ValueError(f"the table points elsewhere than to {section}")

    def names(self, place: Span | Datum, distance: int) -> None:
        """Prove that the entry is of this symbol of this target."""
        symbol, addend = self._pointer(0)
        if (symbol.name, symbol.defined, addend) != (place.import_name, False, distance):
            raise ValueError(f"the table has another address for {place.symbol}")
        if self._text(self.table.name) != place.symbol or (
            self._text(self.table.target) != place.target
        ):
            raise ValueError(f"the table has another name for {place.symbol}")

    def _pointer(self, offset: int) -> tuple[Symbol, int]:
        if offset not in self.pointers:
            raise ValueError(f"the table lacks a pointer at {offset}")
        return self.pointers[offset]

    def _section(self, offset: int) -> Section:
        symbol, _ = self._pointer(offset)
        return self.part.section(symbol.section)

    def _distance(self, offset: int) -> int:
        symbol, addend = self._pointer(offset)
        return symbol.value + addend

    def _text(self, offset: int) -> str:
        start = self._distance(offset)
        data = self._section(offset).data
        return data[start : data.index(b"\0", start)].decode()


def _rows(part: Object, table: _Table, count: int) -> Iterator[_Row]:
    section = part.section_named(table.section)
    size = 0 if section is None else section.size
    if size != count * table.size:
        raise ValueError(f"{table.section} has {size} bytes for {count} entries")
    if section is None:
        return
    places: list[dict[int, tuple[Symbol, int]]] = [{} for _ in range(count)]
    for relocation in section.relocations:
        number, offset = divmod(relocation.offset, table.size)
        if relocation.type != R_X86_64_64 or offset % _WORD or offset >= table.numbers:
            raise ValueError(f"{table.section} holds something else than pointers")
        if offset in places[number]:
            raise ValueError(f"{table.section} has two values for one pointer")
        places[number][offset] = (part.symbols[relocation.symbol], relocation.addend)
    for number, pointers in enumerate(places):
        at = number * table.size + table.numbers
        yield _Row(part, table, pointers, struct.unpack_from("<II", section.data, at))
