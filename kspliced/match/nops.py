# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's x86-64 no-ops, and how alternatives turn single ones into long ones.

Source: arch/x86/include/asm/nops.h; add_nops() and optimize_nops() in
arch/x86/kernel/alternative.c, as they were up to Linux 6.3 and, add_nop() then, after it.
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
# Since 6.3 there are longer ones, and what is longer still is jumped over.
_PREFIXED = tuple(bytes.fromhex(p) + NOPS[8] for p in ("2e", "662e", "66662e"))
_JMP8, _INT3 = b"\xeb", b"\xcc"


def nops(size: int) -> bytes:
    """``size`` bytes of no-ops as add_nops() writes them: the longest first."""
    whole, rest = divmod(size, _LONGEST)
    return NOPS[_LONGEST] * whole + NOPS[rest]


def skipped(size: int) -> bytes:
    """``size`` bytes of no-ops, 127 at most, as add_nop() writes them since 6.3."""
    each = NOPS + _PREFIXED
    if size < len(each):
        return each[size]
    return _JMP8 + bytes((size - 2,)) + _INT3 * (size - 2)


def _behind_nop(code: bytes, at: int) -> int:
    """Where the no-op at ``at`` ends, or ``at`` where there is none."""
    for nop in (*NOPS[1:], *_PREFIXED):
        if code.startswith(nop, at):
            return at + len(nop)
    return at


def _tails(code: bytes, fixed: frozenset[int]) -> tuple[bytes, ...]:
    """``code`` with the no-ops at its end made one, if they are several.

    As above, what looks like the first no-op may be the end of an instruction.
    """
    results = []
    for start in range(len(code)):
        at = _behind_nop(code, start)
        if at in (start, len(code)):
            continue
        while at < len(code) and _behind_nop(code, at) != at:
            at = _behind_nop(code, at)
        if at == len(code) and not any(n in fixed for n in range(start, at)):
            results.append(code[:start] + skipped(at - start))
            if len(results) == 2:
                break
    return tuple(results)


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
    results += [tail for tail in _tails(code, fixed) if tail not in results]
    return tuple(results)
