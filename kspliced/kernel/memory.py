# SPDX-License-Identifier: GPL-2.0-or-later
"""What kind of memory an address of a kernel lies in, by what the linker and the loader put there.

Sources: include/asm-generic/vmlinux.lds.h and arch/x86/kernel/vmlinux.lds.S, whose symbols kallsyms
has; kernel/module/sysfs.c for a module's sections.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

from kspliced.elf.section_class import SectionClass, class_of_name
from kspliced.kernel.image import SymbolTable
from kspliced.model import VMLINUX

# The first range that an address is in counts: one lies within another. What start-up has freed is
# one of two classes, which nobody needs to tell apart.
RANGES = (
    ("_sinittext", "_einittext", SectionClass.INIT_TEXT),
    ("__init_begin", "__init_end", SectionClass.INIT_DATA),
    ("__start_ro_after_init", "__end_ro_after_init", SectionClass.RO_AFTER_INIT),
    ("__start_rodata", "__end_rodata", SectionClass.READ_ONLY),
    ("_text", "_etext", SectionClass.TEXT),
    ("_sdata", "_edata", SectionClass.WRITTEN),
    ("__bss_start", "__bss_stop", SectionClass.WRITTEN),
)


class VmlinuxMemory:
    """The kernel proper's; a range of which kallsyms does not have both ends is unknown."""

    def __init__(self, symbols: SymbolTable) -> None:
        self._ranges: list[tuple[int, int, SectionClass]] = []
        for first, last, kind in RANGES:
            start, end = (symbols.named(name, VMLINUX) for name in (first, last))
            if len(start) == len(end) == 1:
                self._ranges.append((start[0].address, end[0].address, kind))

    def at(self, address: int) -> SectionClass | None:
        """The class of what is at ``address``; None where it is not known."""
        for start, end, kind in self._ranges:
            if start <= address < end:
                return kind
        return None


class ModuleMemory:
    """A module's, by the addresses of its sections, which say where each begins."""

    def __init__(self, places: Mapping[str, int]) -> None:
        self._places = sorted((address, class_of_name(name)) for name, address in places.items())

    def at(self, address: int) -> SectionClass | None:
        """The class of the section that begins last at or before ``address``, which is one of the
        module's."""
        number = bisect_right(self._places, address, key=lambda place: place[0])
        return self._places[number - 1][1] if number else None


def is_gone(found: SectionClass | None) -> bool:
    """Whether what is there was freed with start-up."""
    return found in (SectionClass.INIT_TEXT, SectionClass.INIT_DATA, SectionClass.INIT_CONST)
