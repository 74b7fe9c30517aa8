# SPDX-License-Identifier: GPL-2.0-or-later
"""The likely cause of a mismatch, from the bytes found and from how many functions differ."""

from __future__ import annotations

from dataclasses import replace

from kspliced.kernel.image import KernelImage
from kspliced.match.compare import Failure
from kspliced.match.report import Cause, Mismatch

_INT3 = 0xCC
_JMP32 = 0xE9
_KPROBE_SLOTS = "__builtin__kprobes"  # kallsyms' pseudo module (kernel/kprobes.c)
# Differences of single functions have other causes; below this nothing is said of the unit.
_FEW = 4


def diagnose(kernel: KernelImage, failure: Failure, address: int, code: bytes) -> Failure:
    """``failure`` with a better cause and reason where ``code``, found at ``address``, tells."""
    if failure.cause is not Cause.OTHER_CODE:
        return failure
    at = failure.offset
    if code[at : at + 1] == bytes((_INT3,)):
        return replace(
            failure,
            cause=Cause.KPROBE,
            reason="a breakpoint stands in it: a kprobe of perf, bpftrace, SystemTap or the like",
        )
    # The first byte that differs may lie behind a jump's opcode that the old code has as well.
    for start in range(max(0, at - 4), at + 1):
        if code[start] != _JMP32 or start + 5 > len(code):
            continue
        displacement = int.from_bytes(code[start + 1 : start + 5], "little", signed=True)
        reason = _jump(kernel, address + start + 5 + displacement)
        if reason is not None:
            return replace(failure, cause=reason[0], reason=reason[1])
    return failure


def _jump(kernel: KernelImage, destination: int) -> tuple[Cause, str] | None:
    symbol = kernel.symbols.nearest(destination)
    if symbol is None:
        return None
    if symbol.target == _KPROBE_SLOTS:
        return Cause.KPROBE, "a jump to an optimised kprobe stands in it"
    # A function's own jumps stay in it, and tail calls are relocated fields: any other jump to
    # the start of a function was put there.
    if symbol.address == destination:
        name = f"{symbol.name} of {symbol.target}"
        return Cause.HOT_PATCH, f"a jump to {name} stands in it: another hot patch"
    return None


def judge_unit(failures: dict[int, Mismatch], matched: int) -> dict[int, Mismatch]:
    """``failures`` of one unit, with the cause that their number suggests.

    One function that differs points at that function; most of them point at the compiler, or at
    a source of another version.
    """
    other = [m for m in failures.values() if m.cause is Cause.OTHER_CODE]
    if len(other) < _FEW or len(other) <= matched:
        return failures
    early = sum(1 for m in other if m.offset < 64)
    cause = Cause.OTHER_COMPILER if matched == 0 or early * 2 > len(other) else Cause.OTHER_SOURCE
    what = "compiler or options" if cause is Cause.OTHER_COMPILER else "version of the source"
    reason = (
        f"the code is not as compiled, as in {len(other)} of the unit's "
        f"{len(other) + matched} functions: probably another {what}"
    )
    return {
        i: replace(m, cause=cause, reason=reason) if m.cause is Cause.OTHER_CODE else m
        for i, m in failures.items()
    }
