# SPDX-License-Identifier: GPL-2.0-or-later
"""The instructions around a mismatch, expected and found."""

from __future__ import annotations

from dataclasses import dataclass

from kspliced.elf.read import read_object
from kspliced.errors import KsplicedError
from kspliced.match import Mismatch
from kspliced.pack import Pack


@dataclass(frozen=True)
class Disassembly:
    """A few instructions of either side, from the one that the first different byte is in."""

    expected: tuple[str, ...]
    found: tuple[str, ...]


def disassembly(pack: Pack, mismatch: Mismatch) -> Disassembly:
    """What a mismatch is as instructions; nothing where the pack does not hold its code."""
    if not mismatch.expected or not mismatch.found:
        return Disassembly((), ())
    code = _function(pack, mismatch)
    start = _instruction_start(code, mismatch.offset)
    # Up to the first difference both sides are one, relocated fields aside.
    head = code[start : mismatch.offset]
    at = mismatch.offset - len(head)
    return Disassembly(_lines(head + mismatch.expected, at), _lines(head + mismatch.found, at))


def _function(pack: Pack, mismatch: Mismatch) -> bytes:
    """The function's bytes in the pack's pre object, or nothing."""
    blob = next((u.blob for u in pack.manifest.units if u.unit == mismatch.unit), "")
    try:
        found = read_object(pack.blob(blob), mismatch.unit)
    except KsplicedError:
        return b""
    for symbol in found.symbols:
        if symbol.name == mismatch.function and symbol.defined and symbol.size:
            data = found.section(symbol.section).data
            return data[symbol.value : symbol.value + symbol.size]
    return b""


def _instruction_start(code: bytes, offset: int) -> int:
    import capstone

    start = offset
    for address, size, _, _ in capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm_lite(
        code, 0
    ):
        if address > offset:
            break
        if offset < address + size:
            start = address
    return start


def _lines(code: bytes, offset: int) -> tuple[str, ...]:
    import capstone

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    return tuple(
        f"+{address:#x}: {name} {operands}".rstrip()
        for address, _, name, operands in decoder.disasm_lite(code, offset)
    )
