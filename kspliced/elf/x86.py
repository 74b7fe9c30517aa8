# SPDX-License-Identifier: GPL-2.0-or-later
"""x86-64 relocation types and what the kernel's linker and module loader do with them.

Source: System V ABI AMD64 supplement, section 4.4; arch/x86/kernel/module.c apply_relocate_add().
"""

from __future__ import annotations

from dataclasses import dataclass

R_X86_64_NONE = 0
R_X86_64_64 = 1
R_X86_64_PC32 = 2
R_X86_64_PLT32 = 4
R_X86_64_32 = 10
R_X86_64_32S = 11
R_X86_64_PC8 = 15
R_X86_64_PC64 = 24


@dataclass(frozen=True)
class RelocationKind:
    """``size`` bytes at the place hold S + A, minus P when ``relative``; ``signed`` on read."""

    size: int
    relative: bool
    signed: bool


KINDS = {
    R_X86_64_64: RelocationKind(8, False, False),
    R_X86_64_PC32: RelocationKind(4, True, True),
    R_X86_64_PLT32: RelocationKind(4, True, True),
    R_X86_64_32: RelocationKind(4, False, False),
    R_X86_64_32S: RelocationKind(4, False, True),
    R_X86_64_PC8: RelocationKind(1, True, True),
    R_X86_64_PC64: RelocationKind(8, True, True),
}
