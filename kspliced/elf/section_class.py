# SPDX-License-Identifier: GPL-2.0-or-later
"""What memory a section's functions and data are in while the kernel runs: who may write there, and
how long it stays. A class is part of what a function or datum is; docs/differencing.md has the
table of what is done where it changes.

Sources: include/asm-generic/vmlinux.lds.h, include/linux/{init,cache,compiler_types,percpu-defs}.h,
kernel/module/main.c (module_init_section(), module_exit_section(), layout_sections()).
"""

from __future__ import annotations

from enum import Enum

from kspliced.elf.object import Section


class SectionClass(str, Enum):
    """INIT_* is freed once start-up is over. EXIT_* is freed with it or, in a module, runs when the
    module goes. SPECIAL_TEXT and SPECIAL are what the kernel treats by the section's name: code
    that may not be probed or that the scheduler looks for, tables that start-up or the loader
    reads."""

    TEXT = "text"
    SPECIAL_TEXT = "special text"
    INIT_TEXT = "init text"
    EXIT_TEXT = "exit text"
    READ_ONLY = "read-only"
    RO_AFTER_INIT = "read-only after init"
    WRITTEN = "written"
    PER_CPU = "per-CPU"
    INIT_CONST = "init read-only"
    INIT_DATA = "init data"
    EXIT_DATA = "exit data"
    SPECIAL = "special"


# A class and, where sections of it differ by more than where they lie, the section's name.
Place = tuple[SectionClass, str]


class Move(Enum):
    """What becomes of a function or datum whose class changes. CARRIED: the running kernel has none
    of the new class, so that the update brings it to those who use it."""

    STAYS = "stays"
    CARRIED = "carried"
    REFUSED = "refused"


# Freed or kept as the kernel is configured (.mem*, .dev*), else freed, or never run.
_INIT, _EXIT = (".init.", ".meminit.", ".devinit."), (".exit.", ".memexit.", ".devexit.")
# Where the compiler puts what no attribute places (-fdata-sections adds the name), and what is
# only placed beside others of its kind: all of it is written, and stays.
_BY_COMPILER = (".data.", ".bss.")
_PLACED = frozenset({
    ".data", ".bss", ".ref.data", ".data..read_mostly", ".data..cacheline_aligned",
    ".data..page_aligned", ".bss..page_aligned",
})  # fmt: skip
_UNNAMED = ".data..L"
# One dot, and yet of a meaning: what is printed once, and what is relocated and then read-only.
_MEANT = (".data.once", ".data.rel.ro")
_PLAIN = frozenset({
    SectionClass.TEXT, SectionClass.READ_ONLY, SectionClass.RO_AFTER_INIT, SectionClass.WRITTEN,
})  # fmt: skip
# Who used these is over, or jumps into memory that is freed; code, and constants that nobody
# writes to, are the same wherever they lie.
_CARRIED = frozenset({
    (SectionClass.INIT_TEXT, SectionClass.TEXT),
    (SectionClass.EXIT_TEXT, SectionClass.TEXT),
    (SectionClass.INIT_CONST, SectionClass.READ_ONLY),
    (SectionClass.INIT_DATA, SectionClass.READ_ONLY),
})  # fmt: skip


def section_class(section: Section) -> SectionClass:
    """The class of an allocated section of a relocatable object."""
    if section.executable:
        return _text_class(section.name)
    return _data_class(section.name, section.writable)


def class_of_name(name: str) -> SectionClass:
    """The class of a section of which the name is all that is known, as of a module that runs."""
    if ".text" in name:
        return _text_class(name)
    return _data_class(name, not name.startswith((".rodata", ".ref.rodata")))


def disagree(compiled: SectionClass, found: SectionClass) -> bool:
    """Whether what was compiled to one class cannot be what the running kernel has in another. What
    the kernel gives a meaning may be anywhere."""
    special = found in (SectionClass.SPECIAL, SectionClass.SPECIAL_TEXT)
    return compiled in _PLAIN and not special and found is not compiled


def _text_class(name: str) -> SectionClass:
    if name in (".text", ".ref.text") or (name.startswith(".text.") and ".." not in name):
        return SectionClass.TEXT
    if name.startswith(_INIT):
        return SectionClass.INIT_TEXT
    return SectionClass.EXIT_TEXT if name.startswith(_EXIT) else SectionClass.SPECIAL_TEXT


def _data_class(name: str, writable: bool) -> SectionClass:
    if name.startswith(".data..percpu"):
        return SectionClass.PER_CPU
    if name == ".data..ro_after_init":
        return SectionClass.RO_AFTER_INIT
    if name.startswith((*_INIT, *_EXIT)):
        return _passing_class(name)
    if not writable:
        constant = name.startswith(".rodata") or name == ".ref.rodata"
        return SectionClass.READ_ONLY if constant else SectionClass.SPECIAL
    return SectionClass.WRITTEN if _is_written(name) else SectionClass.SPECIAL


def _passing_class(name: str) -> SectionClass:
    """Of data that are not there for long; a table of start-up (.init.setup) is special."""
    kind = name.rpartition(".")[2]
    if kind == "data":
        return SectionClass.INIT_DATA if name.startswith(_INIT) else SectionClass.EXIT_DATA
    if kind == "rodata" and name.startswith(_INIT):
        return SectionClass.INIT_CONST
    return SectionClass.SPECIAL


def _is_written(name: str) -> bool:
    if name in _PLACED or name.startswith(_UNNAMED):
        return True
    return name.startswith(_BY_COMPILER) and ".." not in name and not name.startswith(_MEANT)


def is_transient(name: str) -> bool:
    """Whether what is in a section may be gone once its target runs, or never runs before the
    target goes."""
    return name.startswith((*_INIT, *_EXIT))


def is_start_up_table(name: str) -> bool:
    """Whether a section holds what only start-up calls, or the end of a module."""
    return ".initcall" in name or ".exitcall" in name or name == ".init.setup"


def place_of(section: Section) -> Place:
    """Equal for two sections if what is in them is in the same kind of memory."""
    found = section_class(section)
    return found, "" if found in _PLAIN else section.name


def move(before: Place, after: Place) -> Move:
    """What becomes of what was in one place and is in the other now."""
    if before == after:
        return Move.STAYS
    return Move.CARRIED if (before[0], after[0]) in _CARRIED else Move.REFUSED
