# SPDX-License-Identifier: GPL-2.0-or-later
"""What matching needs to know of a kernel: its symbols and the bytes in its memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kspliced.elf.section_class import SectionClass


@dataclass(frozen=True)
class KernelSymbol:
    """One line of kallsyms.

    ``type`` is nm's letter; for vmlinux upper case means global, for a module it means exported to
    any module (kernel/kallsyms.c, s_show). ``target`` is ``vmlinux`` or the module.
    """

    name: str
    address: int
    type: str
    target: str


@dataclass(frozen=True)
class AddressRange:
    """``start`` included, ``end`` not."""

    start: int
    end: int

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.end


class SymbolTable(Protocol):
    """The kernel's symbols. Names may repeat; nothing here chooses between them."""

    def named(self, name: str, target: str) -> tuple[KernelSymbol, ...]:
        """Every symbol of ``target`` called exactly ``name``, in the table's order."""

    def stem(self, stem: str, target: str) -> tuple[KernelSymbol, ...]:
        """Every symbol of ``target`` whose name is ``stem`` or begins with ``stem`` and a dot."""

    def at(self, address: int, target: str) -> tuple[KernelSymbol, ...]:
        """Every symbol of ``target`` with exactly this address."""

    def nearest(self, address: int) -> KernelSymbol | None:
        """The last symbol at or below ``address`` in the same target, for messages."""

    def exported(self, name: str) -> tuple[KernelSymbol, ...]:
        """Every symbol called ``name`` that a target exports to modules."""


class KernelImage(Protocol):
    """A kernel to match against, running or on disk."""

    @property
    def release(self) -> str:
        """``uname -r``."""

    @property
    def symbols(self) -> SymbolTable:
        """The symbol table."""

    def loaded(self, target: str) -> bool:
        """Whether ``target`` is in the kernel now."""

    def table(self, section: str, target: str) -> AddressRange | None:
        """Where special section ``section`` (``__jump_table``) of ``target`` lies, if anywhere.

        The end may lie behind the table's own.
        """

    def memory(self, address: int, target: str) -> SectionClass | None:
        """What kind of memory of ``target`` an address lies in; None where that is not known."""

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes of kernel memory, as if no update of ours were applied.

        :raises KernelError: KERNEL_UNREADABLE when any of them is not there.
        """

    def redirected(self, name: str, target: str) -> str:
        """Who else redirects function ``name`` of ``target``: a livepatch's name, or ``""``."""
