# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's x86-64 no-ops, and how alternatives turn single ones into long ones.

Source: arch/x86/include/asm/nops.h; add_nops() and optimize_nops() in
arch/x86/kernel/alternative.c.
"""

from __future__ import annotations

NOPS = (
    b"",
    bytes.fromhex("90"),
    bytes.fromhex("6690"),
    bytes.fromhex("0f1f00"),
    bytes.fromhex("0f1f4000"),
    bytes.fromhex("0f1f440000"),
    bytes.fromhex("660f1f440000"),
    bytes.fromhex("0f1f8000000000"),
    bytes.fromhex("0f1f840000000000"),
)
_LONGEST = len(NOPS) - 1


def nops(size: int) -> bytes:
    """``size`` bytes of no-ops as add_nops() writes them: the longest first."""
    whole, rest = divmod(size, _LONGEST)
    return NOPS[_LONGEST] * whole + NOPS[rest]


def optimized(code: bytes, fixed: frozenset[int] = frozenset()) -> tuple[bytes, ...]:
    """What optimize_nops() may make of ``code``; bytes at ``fixed`` offsets are not opcodes.

    The kernel decodes instructions. Here each run of 0x90 is taken from its first byte and, as
    that byte may be the last of an instruction before it, also from its second.
    """
    results: list[bytes] = []
    for skip in (0, 1):
        result = bytearray(code)
        at = 0
        while at < len(code):
            end = at
            while end < len(code) and code[end] == 0x90 and end not in fixed:
                end += 1
            start = at + skip if at else at
            if end - start > 1:
                result[start:end] = nops(end - start)
            at = max(end, at + 1)
        if bytes(result) not in results:
            results.append(bytes(result))
    return tuple(results)
