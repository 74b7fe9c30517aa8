# SPDX-License-Identifier: GPL-2.0-or-later
"""No-ops as the kernel writes them."""

from __future__ import annotations

import pytest

from kspliced.elf.disasm import operand_distance
from kspliced.match.nops import NOPS, nops, optimized


@pytest.mark.parametrize("size", range(1, 9))
def test_each_is_one_instruction_of_its_size(size: int) -> None:
    import capstone

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    (one,) = decoder.disasm_lite(NOPS[size], 0)
    assert one[1] == size and one[2].startswith("nop")
    assert operand_distance(NOPS[size], 0) >= 0


def test_the_longest_come_first() -> None:
    assert nops(0) == b""
    assert nops(11) == NOPS[8] + NOPS[3]
    assert nops(16) == NOPS[8] * 2


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("90", {"90"}),
        ("9090", {"6690"}),
        ("e800000000909090", {"e8000000000f1f00", "e8000000009066" + "90"}),
        ("e80000000090", {"e80000000090"}),
        ("b890", {"b890"}),
    ],
)
def test_single_ones_become_long_ones(code: str, expected: set[str]) -> None:
    assert {c.hex() for c in optimized(bytes.fromhex(code))} == expected


def test_a_displacement_is_no_instruction() -> None:
    code = bytes.fromhex("e890909090")
    assert optimized(code, frozenset(range(1, 5))) == (code,)
