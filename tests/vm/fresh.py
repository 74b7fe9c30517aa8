# SPDX-License-Identifier: GPL-2.0-or-later
"""Update modules under another name: one that was applied stays loaded until the reboot."""

from __future__ import annotations

import io

from elftools.elf.elffile import ELFFile

# What holds the name of a module: the first for the kernel, the other for modinfo.
_SECTIONS = (".gnu.linkonce.this_module", ".modinfo")


def offsets(content: bytes, name: str) -> list[int]:
    """Where a module's file has its name, as bytes that may be overwritten with as many."""
    elf, found = ELFFile(io.BytesIO(content)), []
    for section in map(elf.get_section_by_name, _SECTIONS):
        at = section.data().find(name.encode() + b"\0")
        assert at >= 0, f"{section.name} has no {name}"
        found.append(section["sh_offset"] + at)
    return found


def name(old: str, number: int) -> str:
    """The name ``old`` with a number in it, of the same length."""
    return f"u{number:03}{old[4:]}"


def renamed(content: bytes, old: str, number: int) -> bytes:
    """A module's file under the name that :func:`name` gives."""
    changed = bytearray(content)
    for at in offsets(content, old):
        changed[at : at + len(old)] = name(old, number).encode()
    return bytes(changed)
