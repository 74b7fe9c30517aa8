# SPDX-License-Identifier: GPL-2.0-or-later
"""The little that must be known of x86-64 instructions: branches and where an operand ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

_CALL, _JMP, _JMP8 = 0xE8, 0xE9, 0xEB
_FREE = ("call", "jmp", "lcall", "ljmp")  # that may go where a register says
_HINTS = (0x2E, 0x3E)  # "branch not taken", "branch taken"


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


def branches_indirectly(code: bytes) -> bool:
    """Whether some call or jump goes where a register or memory says."""
    import capstone

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.skipdata = True
    return any(
        mnemonic.split()[-1] in _FREE and not operands[:1].isdigit()
        for _, _, mnemonic, operands in decoder.disasm_lite(code, 0)
    )


def accesses(code: bytes, field: int) -> bool:
    """Whether the field at ``field`` says where the memory is that its instruction reads or writes:
    not so where it makes an address of that."""
    import capstone

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    decoder.skipdata = True
    for found in decoder.disasm(code, 0):
        if found.address + found.size > field:
            known = found.id != 0 and found.mnemonic != "lea"
            return bool(known and found.address + found.disp_offset == field)
    return False


@dataclass(frozen=True)
class Branch:
    """A direct branch: ``field`` is where its displacement begins, ``distance`` how far it goes
    from its end; ``condition`` says which branch it is, however far it reaches."""

    condition: str
    field: int
    distance: int


def direct_branch(code: bytes) -> Branch | None:
    """The branch that one instruction is, if it is one without prefixes but hints.

    Source: Intel SDM volume 2, CALL, JMP, Jcc, LOOPcc; 2.1.1, branch hints.
    """
    first, size = code[0], len(code)
    if size > 1 and first in _HINTS:
        bare = direct_branch(code[1:])
        return bare and Branch(f"{first:x} {bare.condition}", bare.field + 1, bare.distance)
    if size == 5 and first in (_CALL, _JMP):
        condition, field = "call" if first == _CALL else "jmp", 1
    elif size == 6 and first == 0x0F and 0x80 <= code[1] <= 0x8F:
        condition, field = f"j{code[1] & 15:x}", 2
    elif size == 2 and first == _JMP8:
        condition, field = "jmp", 1
    elif size == 2 and 0x70 <= first <= 0x7F:
        condition, field = f"j{first & 15:x}", 1
    elif size == 2 and 0xE0 <= first <= 0xE3:
        condition, field = f"loop{first & 3}", 1
    else:
        return None
    return Branch(condition, field, int.from_bytes(code[field:], "little", signed=True))


def is_nop(code: bytes) -> bool:
    """Whether one instruction does nothing: 90, or 0f 1f, behind any number of 66 and 2e."""
    bare = code.lstrip(b"\x66\x2e")
    return bare == b"\x90" or bare.startswith(b"\x0f\x1f")


def instructions(code: bytes) -> Iterator[tuple[int, bytes]]:
    """The instructions of ``code`` with their offsets; what is none, byte by byte."""
    import capstone

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.skipdata = True
    for address, size, _, _ in decoder.disasm_lite(code, 0):
        yield address, code[address : address + size]


def operand_distance(code: bytes, field: int) -> int:
    """Bytes from the start of a 32-bit field to the end of its instruction (4 unless an immediate
    follows it): what a PC-relative relocation subtracts beside the place."""
    if is_branch(code, field):
        return 4
    for end in _instruction_ends(code):
        if end >= field + 4:
            return end - field
    return 4
