# SPDX-License-Identifier: GPL-2.0-or-later
"""The last line before what everybody may read."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspliced.engine.journal import shown
from kspliced.public import public, public_text
from kspliced.service.objects import sendable

HIGH = st.integers(0xFF00_0000_0000_0000, (1 << 64) - 1)
FORMS = st.sampled_from(["{:#x}", "{:x}", "{:X}", "{:016X}", "0X{:X}", "{:d}"])
AROUND = st.sampled_from(
    [" {} ", "at {}", "<{}>", "({})", "[{}]", "x={},", '"{}"', "_{}", "\n{}\n", "{}\\n", "\\\\{}"]
)
KEPT = (
    "fs/ext4/mballoc.o: ext4_mb_load_buddy_gfp+0x1f: the code is not as compiled",
    "ks_0123456789abcdef0123456789abcdef",
    "ks_fffffffffffffffff",
    "0123456789abcdef" * 4,
    "1da177e4c3f41524e886b7f1b8a0c1fc7321cac2",
    "0f5b8a3c-9e1d-4d6a-8a55-0123456789ab",
    "kworker\\x20u4:1[7] in ext4_read+0x1f",
    "6.1.0-56-amd64 6.1.192-2",
    "0x7fffffffffff 0xffff 0xffffffff -1 1764300000000000000",
    "the CPUs were held for 1180 µs",
)


@given(HIGH, FORMS, AROUND)
def test_no_address_of_the_kernel_gets_through(address: int, form: str, around: str) -> None:
    text = around.format(form.format(address))
    for result in (public_text(text), shown(text), sendable([text])[0], public([text])[0]):
        assert not re.search("ff[0-9a-f]{14}", result, re.IGNORECASE), text
        assert str(address) not in result
    assert public({"address": address}) == {"address": 0}


@given(st.binary(min_size=16, max_size=64), st.sampled_from(["", " ", ":"]))
def test_no_dump_of_bytes_gets_through(data: bytes, between: str) -> None:
    dump = data.hex(between) if between else data.hex()
    if len(dump) in (40, 64) or dump.isdecimal():
        return
    assert dump not in public_text(f"expected {dump}, found it")
    code = "".join(f"\\x{byte:02x}" for byte in data)
    assert code not in public_text(f"it is b'{code}'")


@pytest.mark.parametrize("text", KEPT)
def test_what_is_public_stays_as_it_is(text: str) -> None:
    assert public_text(text) == text and public([text, 5, None, True]) == [text, 5, None, True]


@given(st.lists(st.one_of(HIGH.map(hex), st.binary().map(repr), st.text()), max_size=8))
def test_json_stays_json(texts: list[str]) -> None:
    """The bus is sent JSON as a string: withholding must not break its quoting."""
    assert len(json.loads(sendable(json.dumps(texts)))) == len(texts)
