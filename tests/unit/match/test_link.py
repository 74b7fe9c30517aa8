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
from kspliced.match.known import from_bytes, to_bytes
from kspliced.model import Group, Hold, Import, ImportKind
from kspliced.pack import Blob, Pack
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
    .section .kspliced.spans, "aw"
    .skip 56
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
    pack = packed({"a.o": PRE}, IMPORTS, (SPAN,), module)
    glue = replace(pack.manifest.glue, imports=(CORE,))
    return replace(pack, manifest=replace(pack.manifest, glue=glue))


PART = compiled(MODULE, language="assembler")
PACK = pack_of(PART)
MATCHED: Matched = match(PACK, KERNEL)


def linked_content(pack: Pack = PACK, crcs: tuple[SymbolCrc, ...] = CRCS) -> bytes:
    linked = link(pack, MATCHED, crcs)
    assert (linked.name, linked.waiting, linked.held) == (pack.manifest.update, (), ())
    return linked.content


def test_symbols_become_absolute() -> None:
    content = linked_content()
    addresses = {i.name: i.address for i in MATCHED.imports}
    assert len(addresses) == 3
    found = {s.name: s for s in read_object(content).symbols if s.name}
    for name, address in addresses.items():
        assert (found[name].section, found[name].value) == (SHN_ABS, address)
    assert found["kspliced_register_update"].section == SHN_UNDEF


def test_buffers_hold_what_was_found() -> None:
    linked_object = read_object(linked_content())
    (span,) = MATCHED.spans
    for name, data in ((".kspliced.expect", span.expect), (".kspliced.mask", span.mask)):
        section = linked_object.section_named(name)
        assert section is not None
        assert section.data == bytes(16) + data + bytes(64 - 16 - len(data))


def test_what_the_kernel_rewrites_does_not_make_another_module() -> None:
    """A tracer was on when it was linked first, and is off now."""
    (span,) = MATCHED.spans
    free = replace(span, mask=b"\x00" * 5 + b"\xff" * (len(span.mask) - 5))
    traced = replace(free, expect=b"\xe8abcd" + span.expect[5:])
    one, other = (link(PACK, replace(MATCHED, spans=(s,)), CRCS) for s in (free, traced))
    assert one.content == other.content
    changed = replace(free, expect=span.expect[:-1] + bytes([span.expect[-1] ^ 1]))
    assert link(PACK, replace(MATCHED, spans=(changed,)), CRCS).content != one.content


def test_its_memory_is_whole_pages_by_rights() -> None:
    linked = link(PACK, MATCHED, CRCS)
    # Code; constants and symbols; what is written.
    assert linked.size == 3 * 4096


def test_checksums() -> None:
    versions = read_object(linked_content()).section_named("__versions")
    assert versions is not None
    crcs = [struct.unpack_from("<Q", versions.data, at)[0] for at in (0, 64)]
    assert crcs == [0x1111, 0xDEADBEEF]
    assert linked_content(crcs=()) != linked_content()


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
    module = PART.replace(entry, entry.upper())
    assert module != PART
    with pytest.raises(PackError):
        link(pack_of(module), MATCHED, CRCS)


@pytest.mark.parametrize("cut", [0, 3, 63, 64, 200, -1, -400])
def test_a_module_cut_short(cut: int) -> None:
    with pytest.raises(PackError):
        link(pack_of(PART[:cut]), MATCHED, CRCS)


BLOBS = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=8)


def flipped(content: bytes, flips: list[tuple[int, int]]) -> bytes:
    result = bytearray(content)
    for at, value in flips:
        result[at % len(result)] = value
    return bytes(result)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(BLOBS)
def test_any_damage_to_the_module_is_an_error_or_harmless(flips: list[tuple[int, int]]) -> None:
    try:
        content = link(pack_of(flipped(PART, flips)), MATCHED, CRCS).content
    except KsplicedError:
        return
    assert content.startswith(b"\x7fELF")


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


GLUE = compiled('char __this_module[64] = "12345678ks_test"; int absent;')
ABSENT = Group("part/absent", ("absent",), ("b.o",), (), (), (), (), True)


def waiting_pack(glue: bytes = GLUE) -> Pack:
    """The pack with a further group, of a module that is not loaded."""
    manifest = replace(PACK.manifest, groups=(*PACK.manifest.groups, ABSENT))
    blobs = [Blob(b.name, glue) if b.name == manifest.glue.blob else b for b in PACK.blobs]
    return replace(PACK, manifest=manifest, blobs=(*blobs, Blob(ABSENT.blob, b"")))


def test_a_group_waits_for_its_target() -> None:
    pack = waiting_pack()
    matched = match(pack, KERNEL)
    assert (matched.groups, matched.waiting) == (PACK.manifest.groups, ("absent",))
    linked = link(pack, matched, CRCS)
    assert (linked.waiting, linked.held) == (("absent",), ("b.o",))
    assert len(linked.name) == len("ks_test_0000") and linked.name.startswith("ks_test_")
    data = read_object(linked.content).section_named(".data.__this_module")
    assert data is not None and data.data[8:64] == linked.name.encode().ljust(56, b"\0")


def test_loads_of_modules_are_held() -> None:
    pack = waiting_pack()
    assert link(pack, match(pack, KERNEL), CRCS).holds == (
        Hold("absent", False),
        Hold("mod", False),
    )
    beside = replace(ABSENT, targets=("absent", "mod"), required=("absent",))
    apart = replace(ABSENT, blob="part/x", targets=("absent", "gone"), required=("gone",))
    manifest = replace(pack.manifest, groups=(*PACK.manifest.groups, beside, apart))
    pack = replace(pack, manifest=manifest)
    # What "gone" goes with is not loaded either, so nothing new runs that it would meet.
    assert link(pack, match(pack, KERNEL), CRCS).holds == (
        Hold("absent", True),
        Hold("gone", False),
        Hold("mod", False),
    )


def test_a_name_that_is_taken() -> None:
    pack, taken = waiting_pack(), {PACK.manifest.update}
    for _ in range(3):
        name = link(pack, match(pack, KERNEL), CRCS, frozenset(taken)).name
        assert name not in taken and name.startswith("ks_test_") and len(name) == 12
        taken.add(name)


def test_what_is_applied_is_not_matched_again() -> None:
    pack = waiting_pack()
    matched = match(pack, KERNEL)
    kept = from_bytes(pack, to_bytes(pack, matched))
    assert kept is not None and kept.groups == matched.groups
    # A kernel whose memory cannot be read is no hindrance to what is known.
    blind = running(linked(compiled("int nothing;", split=False)))
    again = match(pack, blind, known=kept)
    assert (again.spans, again.imports) == (matched.spans, matched.imports)
    assert again.waiting == ("absent",)
    assert link(pack, again, CRCS) == link(pack, matched, CRCS)
    with pytest.raises(MatchError):
        match(pack, blind)


def test_what_was_kept_is_of_one_pack_and_whole() -> None:
    pack = waiting_pack()
    content = to_bytes(pack, match(pack, KERNEL))
    assert from_bytes(replace(pack, digest="1" * 64), content) is None
    assert from_bytes(pack, content[:-1]) is None
    assert (
        from_bytes(
            pack, content.replace(b'"spans":[{', b'"spans":[{"address":1,"content":"","mask":""},{')
        )
        is None
    )


def test_glue_that_does_not_hold_the_name() -> None:
    pack = waiting_pack(compiled('char __this_module[64] = "12345678ks_other";'))
    with pytest.raises(PackError) as caught:
        link(pack, match(pack, KERNEL), CRCS)
    assert caught.value.code is Code.PACK_MALFORMED


def test_no_group_is_ready() -> None:
    pack = waiting_pack()
    pack = replace(pack, manifest=replace(pack.manifest, groups=(ABSENT,)))
    with pytest.raises(MatchError) as caught:
        match(pack, KERNEL)
    assert caught.value.code is Code.TARGET_NOT_LOADED
    assert caught.value.blamed == ("b.o",)
