# SPDX-License-Identifier: GPL-2.0-or-later
"""The link: undefined symbols get addresses, buffers and checksums get their content."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kspliced.elf.object import SHN_ABS, SHN_UNDEF
from kspliced.elf.read import read_object
from kspliced.errors import Code, KsplicedError, MatchError, PackError
from kspliced.kernel.core import SymbolCrc
from kspliced.match import Matched, link, match
from kspliced.model import Import, ImportKind
from kspliced.pack import Pack
from tests.corpus.match.kit import (
    compiled,
    extern_import,
    linked,
    packed,
    running,
    span_of,
    unit_import,
)

SOURCE = """
int other(int);
static int total;
int entry(int n) { total += other(n); return total; }
"""
MODULE = """
    .section .text
    call "::other"
    .quad "a.o:total", "a.o:entry"
    call kspliced_register_update
    .section .kspliced.expect, "aw"
    .skip 64
    .section .kspliced.mask, "aw"
    .skip 64
    .section __versions, "a"
    .quad 0x1111
    .asciz "module_layout"
    .balign 64
    .quad 0
    .asciz "kspliced_register_update"
    .balign 64
"""
CORE = Import("kspliced_register_update", ImportKind.CORE, "kspliced", "", "", -1)
PRE = compiled(SOURCE)
IMPORTS = (extern_import("other"), unit_import(PRE, "total"), unit_import(PRE, "entry"), CORE)
SPAN = replace(span_of(PRE, "entry"), buffer_offset=16)
KERNEL = running(linked(compiled(SOURCE, split=False)))
CRCS = (SymbolCrc("kspliced_register_update", 0xDEADBEEF), SymbolCrc("unused", 5))

SITES = compiled(
    (Path(__file__).parents[2] / "corpus/match/sites.S").read_text(), language="assembler"
)
SITES_KERNEL = running(SITES)


def pack_of(module: bytes) -> Pack:
    return packed({"a.o": PRE}, IMPORTS, (SPAN,), module)


PACK = pack_of(compiled(MODULE, language="assembler"))
MATCHED: Matched = match(PACK, KERNEL)


def test_symbols_become_absolute_and_nothing_moves() -> None:
    content = link(PACK, MATCHED, CRCS)
    assert len(content) == len(PACK.module)
    addresses = {i.name: i.address for i in MATCHED.imports}
    assert len(addresses) == 3
    found = {s.name: s for s in read_object(content).symbols if s.name}
    for name, address in addresses.items():
        assert (found[name].section, found[name].value) == (SHN_ABS, address)
    assert found["kspliced_register_update"].section == SHN_UNDEF


def test_buffers_hold_what_was_found() -> None:
    linked_object = read_object(link(PACK, MATCHED, CRCS))
    (span,) = MATCHED.spans
    for name, data in ((".kspliced.expect", span.expect), (".kspliced.mask", span.mask)):
        section = linked_object.section_named(name)
        assert section is not None
        assert section.data == bytes(16) + data + bytes(64 - 16 - len(data))


def test_checksums() -> None:
    versions = read_object(link(PACK, MATCHED, CRCS)).section_named("__versions")
    assert versions is not None
    crcs = [struct.unpack_from("<Q", versions.data, at)[0] for at in (0, 64)]
    assert crcs == [0x1111, 0xDEADBEEF]
    assert link(PACK, MATCHED, ()) != link(PACK, MATCHED, CRCS)


def test_a_symbol_that_the_manifest_does_not_import() -> None:
    short = replace(MATCHED, imports=MATCHED.imports[1:])
    with pytest.raises(MatchError) as caught:
        link(PACK, short, CRCS)
    assert caught.value.code is Code.UNRESOLVED


@pytest.mark.parametrize("offset", [-1, 60, 1 << 40])
def test_a_buffer_that_does_not_fit(offset: int) -> None:
    (span,) = MATCHED.spans
    wrong = replace(span, span=replace(span.span, buffer_offset=offset))
    with pytest.raises(PackError) as caught:
        link(PACK, replace(MATCHED, spans=(wrong,)), CRCS)
    assert caught.value.code is Code.PACK_MALFORMED


def test_no_room_for_a_checksum() -> None:
    entry = b"kspliced_register_update" + bytes(24)
    module = PACK.module.replace(entry, entry.upper())
    assert module != PACK.module
    with pytest.raises(PackError):
        link(pack_of(module), MATCHED, CRCS)


@pytest.mark.parametrize("cut", [0, 3, 63, 64, 200, -1, -400])
def test_a_module_cut_short(cut: int) -> None:
    with pytest.raises(PackError):
        link(pack_of(PACK.module[:cut]), MATCHED, CRCS)


BLOBS = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=8)


def flipped(content: bytes, flips: list[tuple[int, int]]) -> bytes:
    result = bytearray(content)
    for at, value in flips:
        result[at % len(result)] = value
    return bytes(result)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(BLOBS)
def test_any_damage_to_the_module_is_an_error_or_harmless(flips: list[tuple[int, int]]) -> None:
    module = flipped(PACK.module, flips)
    try:
        content = link(pack_of(module), MATCHED, CRCS)
    except KsplicedError:
        return
    assert len(content) == len(module)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(BLOBS)
def test_any_damage_to_a_pre_object_is_an_error_or_harmless(
    flips: list[tuple[int, int]],
) -> None:
    damaged = packed({"a.o": flipped(PRE, flips)}, IMPORTS[:3], (SPAN,))
    try:
        match(damaged, KERNEL)
    except KsplicedError as error:
        assert str(error)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(BLOBS)
def test_so_it_is_to_one_with_special_sections(flips: list[tuple[int, int]]) -> None:
    damaged = packed({"a.o": flipped(SITES, flips)}, IMPORTS[:1])
    try:
        match(damaged, SITES_KERNEL)
    except KsplicedError as error:
        assert str(error)
