# SPDX-License-Identifier: GPL-2.0-or-later
"""Which units go live together: those of one component, with what they need, or borrow from.

What goes live together may be in vmlinux and in modules that load at other times. It waits for
all of them: half of a change is not one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from kspliced.build.emit import Emitted, emit, emit_glue
from kspliced.build.unit import DiffedUnit
from kspliced.build.workspace import source_of
from kspliced.elf.object import Object
from kspliced.model import Group
from kspliced.pack import Blob
from kspliced.plan.components import Component


@dataclass(frozen=True)
class Parts:
    """The parts of the update module, for the manifest, and their content."""

    glue: Group
    groups: tuple[Group, ...]
    blobs: tuple[Blob, ...]


def emit_parts(
    units: Iterable[DiffedUnit],
    components: Iterable[Component],
    glue: Object,
    loaded: frozenset[str] = frozenset(),
) -> Parts:
    """Emit the glue and each group of units as a part of its own.

    :param loaded: vmlinux and the modules that are; empty for all.
    """
    emitted = emit_glue(glue)
    glue_group = Group("part/glue", (), (), emitted.imports, (), (), (), False)
    groups, blobs = [], [Blob(glue_group.blob, emitted.content)]
    found = group_units(units, components, loaded)
    for (waits, members), emitted in zip(found, _emit([some for _, some in found]), strict=True):
        group = Group(
            blob=f"part/{members[0].unit.path}",
            targets=waits.targets,
            units=tuple(d.unit.path for d in members),
            imports=emitted.imports,
            spans=emitted.spans,
            data=emitted.data,
            constants=emitted.constants,
            pinned=any(d.part.closure.carried.pinned for d in members if d.part is not None),
            required=(waits.required,) if waits.required else (),
            together=waits.together,
        )
        groups.append(group)
        blobs.append(Blob(group.blob, emitted.content))
    return Parts(glue_group, tuple(groups), tuple(blobs))


def _emit(groups: Iterable[tuple[DiffedUnit, ...]]) -> list[Emitted]:
    """Each group of units as an object. A module that comes later may use what is added where the
    rest of its change is: the rest waits for nothing that it does not wait for."""
    parts = [tuple(d.part for d in members if d.part is not None) for members in groups]
    emitted = [emit(some) for some in parts]
    lent = frozenset().union(*(one.borrowed for one in emitted))
    return [emit(some, lent) for some in parts] if lent else emitted


@dataclass(frozen=True, order=True)
class Waits:
    """What units wait for: all of ``targets``. Where their own module is not loaded yet, and the
    rest of what they are made for goes live without it, it is ``required``, else "". ``together``
    is the first source of all that go live together."""

    targets: tuple[str, ...]
    required: str
    together: str


def group_units(
    units: Iterable[DiffedUnit],
    components: Iterable[Component],
    loaded: frozenset[str] = frozenset(),
) -> tuple[tuple[Waits, tuple[DiffedUnit, ...]], ...]:
    """Partition units by what goes live together, and of that by what they wait for, in the order
    of that. The parts of a pack are no larger, so that one can be left out of it later."""
    live = tuple(units)
    leader = {source_of(diffed.unit): source_of(diffed.unit) for diffed in live}

    def find(path: str) -> str:
        while leader[path] != path:
            path = leader[path]
        return path

    def unite(paths: Iterable[str]) -> None:
        found = sorted({find(path) for path in paths if path in leader})
        for path in found[1:]:
            leader[path] = found[0]

    by_id = {component.id: component for component in components}
    for component in by_id.values():
        needed = (by_id[name].files for name in component.needs if name in by_id)
        unite((*component.files, *(path for files in needed for path in files)))
    source = {diffed.unit.path: source_of(diffed.unit) for diffed in live}
    for diffed in live:
        unite((source_of(diffed.unit), *(source[unit] for unit in diffed.lenders)))
    targets: dict[str, set[str]] = defaultdict(set)
    for diffed in live:
        targets[find(source_of(diffed.unit))].add(diffed.unit.target)
    groups: dict[Waits, list[DiffedUnit]] = defaultdict(list)
    for diffed in live:
        first = find(source_of(diffed.unit))
        every = targets[first]
        there = every & loaded if loaded else every
        own = diffed.unit.target
        required = "" if own in there or not there else own
        groups[Waits(tuple(sorted(there | {own})), required, first)].append(diffed)
    return tuple((waits, tuple(members)) for waits, members in sorted(groups.items()))
