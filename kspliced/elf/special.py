# SPDX-License-Identifier: GPL-2.0-or-later
"""The one table of special sections: tables whose entries belong to code, by relocation.

An entry belongs to the function its first relocation points into. Sizes are not in the table:
they follow from the number of relocations, since they differ between kernel versions.
Sources: include/asm-generic/vmlinux.lds.h, arch/x86/include/asm/{alternative,bug,extable,
jump_label,paravirt_types,static_call,orc_types}.h, tools/objtool/check.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kspliced.elf.object import Object, Relocation, Section


@dataclass(frozen=True)
class SpecialTable:
    """``relocations``: how many an entry has. ``compared``: whether an entry is part of what its
    function means (an unwind entry or a call-site list only follows from the code).
    ``companion``: a section with one record, without relocations, for each entry."""

    name: str
    relocations: int
    compared: bool
    companion: str = ""


TABLES = (
    SpecialTable(".altinstructions", 2, True),
    SpecialTable(".parainstructions", 1, True),
    SpecialTable(".smp_locks", 1, True),
    SpecialTable("__bug_table", 2, True),
    SpecialTable("__ex_table", 2, True),
    SpecialTable("__jump_table", 3, True),
    SpecialTable(".static_call_sites", 2, True),
    SpecialTable(".retpoline_sites", 1, False),
    SpecialTable(".return_sites", 1, False),
    SpecialTable(".call_sites", 1, False),
    SpecialTable("__mcount_loc", 1, False),
    SpecialTable(".orc_unwind_ip", 1, False, ".orc_unwind"),
)

# Chunks of code that belong to a function without a symbol of their own.
CODE_CHUNKS = (".altinstr_replacement", ".altinstr_aux")

# Metadata that the linker discards, that only the build reads, or that an update does without: what
# is read off a module's file (build/module_info.py); x86 finds fentry slots by __mcount_loc; and
# objtool lists the functions whose endbr64 may go by what one object refers to, which says nothing
# of an update, whose code others refer to.
IGNORED_PREFIXES = (
    *(".discard.", ".comment", ".note.", ".modinfo", ".debug_", ".llvm"),
    *("__patchable_function_entries", ".ibt_endbr_seal"),
)

# Where code holds what a variable of vmlinux holds: 8 bytes, or one (asm/runtime-const.h).
RUNTIME_POINTER, RUNTIME_SHIFT = "runtime_ptr_", "runtime_shift_"

_NAMES = frozenset(t.name for t in TABLES) | {t.companion for t in TABLES}


def is_table(name: str) -> bool:
    """Whether a section consists of entries that belong to code."""
    return name in _NAMES or name.startswith((RUNTIME_POINTER, RUNTIME_SHIFT))


def tables_of(obj: Object) -> tuple[SpecialTable, ...]:
    """The tables of ``obj``, those that are named for a variable included."""
    runtime = (RUNTIME_POINTER, RUNTIME_SHIFT)
    names = (s.name for s in obj.sections if s.name.startswith(runtime))
    return (*TABLES, *(SpecialTable(name, 1, True) for name in names))


def runtime_constant(table: str) -> tuple[str, int] | None:
    """The variable and the size of the constants that section ``table`` lists, if it does."""
    for prefix, size in ((RUNTIME_POINTER, 8), (RUNTIME_SHIFT, 1)):
        if table.startswith(prefix):
            return table.removeprefix(prefix), size
    return None


@dataclass(frozen=True)
class SpecialEntry:
    """One entry: where it lies in its section, and its relocations (offsets in the section)."""

    table: SpecialTable
    offset: int
    data: bytes
    relocations: tuple[Relocation, ...]
    companion: bytes


def special_entries(obj: Object, table: SpecialTable) -> Iterator[SpecialEntry]:
    """The entries of ``table`` in ``obj``, in order.

    :raises ValueError: the section's size or relocations do not make whole entries.
    """
    section = obj.section_named(table.name)
    if section is None or not section.size:
        return
    count, rest = divmod(len(section.relocations), table.relocations)
    if rest or not count or section.size % count:
        raise ValueError(f"{table.name}: {len(section.relocations)} relocations, {section.size} B")
    size = section.size // count
    companion = _companion(obj, table, count)
    record = len(companion) // count
    for number in range(count):
        yield SpecialEntry(
            table=table,
            offset=number * size,
            data=section.data[number * size : (number + 1) * size],
            relocations=_entry_relocations(section, table, number, size),
            companion=companion[number * record : (number + 1) * record],
        )


def _entry_relocations(
    section: Section, table: SpecialTable, number: int, size: int
) -> tuple[Relocation, ...]:
    first = number * table.relocations
    relocations = section.relocations[first : first + table.relocations]
    if any(r.offset // size != number for r in relocations):
        raise ValueError(f"{table.name}: relocations do not fall into entries of {size} B")
    return relocations


def _companion(obj: Object, table: SpecialTable, count: int) -> bytes:
    if not table.companion:
        return b""
    section = obj.section_named(table.companion)
    if section is None or section.size % count or section.relocations:
        raise ValueError(f"{table.companion} does not go with {table.name}")
    return section.data
