# SPDX-License-Identifier: GPL-2.0-or-later
"""A function with everything that is part of it: the padding before it, its cold part, code
chunks, special entries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kspliced.build.layout import PADDING, Entity, EntityKind, Layout, Target
from kspliced.elf.object import Relocation
from kspliced.elf.special import SpecialEntry, special_entries, tables_of


@dataclass(frozen=True)
class Site:
    """A special entry of a function: it speaks of the code ``offset`` bytes into ``owner``."""

    owner: Entity
    offset: int
    entry: SpecialEntry
    targets: tuple[Target, ...]


class Bodies:
    """An object's special entries by the entity that owns them, and the parts of functions."""

    def __init__(self, layout: Layout) -> None:
        """
        :raises ValueError: a special section does not consist of whole entries.
        """
        self.layout = layout
        self._sites: dict[Entity, list[Site]] = {}
        self._cold: dict[str, Entity] = {}
        self._padding: dict[str, Entity] = {}
        for entity in layout.functions():
            if entity.cold_parent:
                self._cold[entity.cold_parent] = entity
            elif entity.name.startswith(PADDING):
                self._padding[entity.parent] = entity
        for table in tables_of(layout.object):
            section = layout.object.section_named(table.name)
            for entry in special_entries(layout.object, table):
                assert section is not None
                targets = tuple(layout.target(section, r) for r in entry.relocations)
                owner = targets[0].entity
                if owner is None:
                    raise ValueError(f"an entry of {table.name} belongs to no code of this unit")
                site = Site(owner, targets[0].delta, entry, targets)
                self._sites.setdefault(owner, []).append(site)

    def sites(self, entity: Entity) -> tuple[Site, ...]:
        """The special entries of an entity, table by table, in order of their sections."""
        return tuple(self._sites.get(entity, ()))

    def cold(self, function: Entity) -> Entity | None:
        """The function's cold part."""
        return self._cold.get(function.name)

    def padding(self, function: Entity) -> Entity | None:
        """The padding before the function, in which the kernel may put a call thunk."""
        return self._padding.get(function.name)

    def references(self, entity: Entity) -> Iterator[tuple[Relocation, Target]]:
        """The entity's relocations (offsets relative to it) with what they refer to."""
        section = self.layout.section(entity.section)
        for relocation in self.layout.relocations(entity):
            placed = Relocation(
                relocation.offset + entity.offset,
                relocation.type,
                relocation.symbol,
                relocation.addend,
            )
            yield relocation, self.layout.target(section, placed)

    def parts(self, function: Entity) -> tuple[Entity, ...]:
        """The function, the padding before it, its cold part, and the code chunks that they and
        their entries reach."""
        own = (self.padding(function), self.cold(function))
        parts = [function, *(part for part in own if part is not None)]
        for part in parts:
            reached = [target.entity for _, target in self.references(part)]
            reached += [t.entity for site in self.sites(part) for t in site.targets]
            for entity in reached:
                if entity is None or entity in parts or not entity.size:
                    continue
                if entity.kind is EntityKind.CHUNK:
                    parts.append(entity)
        return tuple(parts)
