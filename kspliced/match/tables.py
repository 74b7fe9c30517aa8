# SPDX-License-Identifier: GPL-2.0-or-later
"""Find data that only jump labels and static calls refer to, through the kernel's own tables.

A static key is not named by the code it controls; the running kernel's ``__jump_table`` says, for
each place in the code, where the key is, and ``.static_call_sites`` does for static calls.
Source: struct jump_entry (include/linux/jump_label.h), struct static_call_site
(include/linux/static_call_types.h); all members are relative to themselves.
"""

from __future__ import annotations

import struct

from kspliced.elf.special import TABLES, special_entries
from kspliced.errors import KernelError
from kspliced.kernel.image import KernelImage
from kspliced.match.pattern import ADDRESS_MASK
from kspliced.match.unit import Unit

_FLAGS = 3  # the low bits of a key hold the branch's kind
_LAYOUTS = {
    "__jump_table": (struct.Struct("<iiq"), 8),
    ".static_call_sites": (struct.Struct("<ii"), 4),
}


class KeyTables:
    """The tables of one target, read when first asked for."""

    def __init__(self, kernel: KernelImage, target: str) -> None:
        self._kernel = kernel
        self._target = target
        self._keys: dict[str, dict[int, int]] = {}

    def key_base(self, unit: Unit, section: int, bases: dict[int, int]) -> int | None:
        """The run-time base of data ``section`` of ``unit``, if an entry for matched code has it.

        ``bases`` are the run-time bases of the unit's sections that are known.
        """
        for table in TABLES:
            if table.name not in _LAYOUTS:
                continue
            for entry in special_entries(unit.object, table):
                key = entry.relocations[-1]
                symbol = unit.object.symbols[key.symbol]
                code = unit.object.symbols[entry.relocations[0].symbol]
                if symbol.section != section or code.section not in bases:
                    continue
                place = bases[code.section] + code.value + entry.relocations[0].addend
                found = self._table(table.name).get(place)
                if found is not None:
                    inside = symbol.value + (key.addend & ~_FLAGS)
                    return (found - inside) & ADDRESS_MASK
        return None

    def _table(self, name: str) -> dict[int, int]:
        """Address of the key by address of the code."""
        if name not in self._keys:
            layout, key_offset = _LAYOUTS[name]
            keys: dict[int, int] = {}
            place = self._kernel.table(name, self._target)
            if place is not None:
                try:
                    data = self._kernel.read(place.start, place.end - place.start)
                except KernelError:
                    data = b""
                whole = len(data) // layout.size * layout.size
                for number, entry in enumerate(layout.iter_unpack(data[:whole])):
                    at = place.start + number * layout.size
                    keys[at + entry[0]] = (at + key_offset + (entry[-1] & ~_FLAGS)) & ADDRESS_MASK
            self._keys[name] = keys
        return self._keys[name]
