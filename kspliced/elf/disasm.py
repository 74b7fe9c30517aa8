# SPDX-License-Identifier: GPL-2.0-or-later
"""The little that must be known of x86-64 instructions: branches and where an operand ends."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

_CALL, _JMP = 0xE8, 0xE9


def is_branch(code: bytes, field: int) -> bool:
    """Whether the 32-bit field at ``field`` is the displacement of a direct call or jump.

    Decidable from the bytes before it: a rip-relative ModRM is 05, 0d, … 3d and never e8, e9
    or 80..8f behind 0f (Intel SDM volume 2, table 2-2).
    """
    if field >= 1 and code[field - 1] in (_CALL, _JMP):
        return True
    return field >= 2 and code[field - 2] == 0x0F and 0x80 <= code[field - 1] <= 0x8F


@lru_cache(maxsize=256)
def _instruction_ends(code: bytes) -> tuple[int, ...]:
    import capstone

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    # Decode on past data in code (an alternative's padding, ud2's payload): one byte at a time.
    decoder.skipdata = True
    return tuple(address + size for address, size, _, _ in decoder.disasm_lite(code, 0))


def leaving_branches(code: bytes) -> Iterator[tuple[int, int, int]]:
    """Direct branches of a function to somewhere outside its bytes: (offset of the displacement,
    its size in bytes, where the branch goes relative to the function's start)."""
    import capstone

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.skipdata = True
    for address, size, mnemonic, operands in decoder.disasm_lite(code, 0):
        if not mnemonic.startswith(("call", "j")) or not operands.startswith(("0x", "-0x")):
            continue
        width = 4 if size > 4 else 1
        field = address + size - width
        displacement = int.from_bytes(code[field : field + width], "little", signed=True)
        place = address + size + displacement
        if not 0 <= place < len(code):
            yield field, width, place


def operand_distance(code: bytes, field: int) -> int:
    """Bytes from the start of a 32-bit field to the end of its instruction (4 unless an immediate
    follows it): what a PC-relative relocation subtracts beside the place."""
    if is_branch(code, field):
        return 4
    for end in _instruction_ends(code):
        if end >= field + 4:
            return end - field
    return 4
