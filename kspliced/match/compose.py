# SPDX-License-Identifier: GPL-2.0-or-later
"""The update module out of the parts of a pack that can go live now.

Each part is an object of its own (build/emit.py); together with the glue and struct
kspliced_update (kmod/kspliced_abi.h) they are one module.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from kspliced.elf.module import DATA, ModuleWriter, Place, Reference
from kspliced.elf.read import read_object
from kspliced.elf.write import write_object
from kspliced.elf.x86 import R_X86_64_64
from kspliced.model import CORE_ABI, Group
from kspliced.pack import Pack

_UPDATE = struct.Struct("<IIQQQII")
_WORD = 8


@dataclass(frozen=True)
class Composed:
    """A relocatable module. ``places`` has, for the blob of each group, where the group's part of
    each section begins, in bytes."""

    content: bytes
    places: Mapping[str, Mapping[str, int]]


def compose(pack: Pack, groups: tuple[Group, ...], name: str) -> Composed:
    """The module called ``name`` of the glue and ``groups``.

    :raises BuildError: OBJECT_MALFORMED.
    :raises ValueError: the glue has no room for the name.
    """
    writer = ModuleWriter()
    glue = pack.manifest.glue
    writer.merge(read_object(pack.glue(name), glue.blob))
    places = {}
    for group in groups:
        bases = writer.merge(read_object(pack.blob(group.blob), group.blob))
        places[group.blob] = {section: base.offset for section, base in bases.items()}
    _add_header(writer, groups)
    return Composed(write_object(writer.finish()), places)


def _add_header(writer: ModuleWriter, groups: tuple[Group, ...]) -> None:
    spans = sum(len(group.spans) for group in groups)
    data = sum(len(group.data) for group in groups)
    header = _UPDATE.pack(CORE_ABI, spans, 0, 0, 0, data, 0)
    update = writer.append(".kspliced.update", DATA, _WORD, header)
    pointers: list[tuple[int, Place | str]] = [(24, "__this_module")]
    if spans:
        pointers.append((8, Place(".kspliced.spans", 0)))
    if data:
        pointers.append((16, Place(".kspliced.data", 0)))
    for offset, to in pointers:
        place = Place(update.section, update.offset + offset)
        writer.refer(Reference(place, R_X86_64_64, to, 0))
    writer.export("kspliced_update", update, _UPDATE.size)
