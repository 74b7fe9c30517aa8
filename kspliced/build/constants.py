# SPDX-License-Identifier: GPL-2.0-or-later
"""Constants whose new content is written over the running kernel's own (docs/differencing.md)."""

from __future__ import annotations

from collections.abc import Iterator

from kspliced.build.body import Bodies
from kspliced.build.diff import ChangedData, UnitDiff
from kspliced.build.layout import Entity, EntityKind, Target
from kspliced.elf.object import Binding, Relocation
from kspliced.elf.x86 import R_X86_64_64

# KSPLICED_MAX_DATUM of kmod/kspliced.h.
_LARGEST = 65536
_GONE = (".init.", ".exit.")


def obstacle(diff: UnitDiff, changed: ChangedData) -> str:
    """Why a constant cannot be changed in place, or ``""``."""
    pre, post = changed.pre, changed.post
    if pre.size != post.size:
        return f"{pre.size} bytes before, {post.size} after"
    if diff.pre.layout.object.symbols[pre.symbol].binding is Binding.WEAK:
        return "it is weak: the kernel may have another unit's"
    if not 0 < post.size <= _LARGEST:
        return f"{post.size} bytes"
    sections = (diff.pre.layout.section(pre.section), diff.post.layout.section(post.section))
    for section in sections:
        if not section.name.startswith(".rodata"):
            return f"it lies in {section.name}"
    # The value is relocated in the update module, not where it will stand.
    if any(r.type != R_X86_64_64 for r, _ in diff.post.references(post)):
        return "it refers to something relative to its own place"
    if not any(_reads(diff.post, entity, post) for entity in _lasting(diff.post)):
        return "only start-up reads it" if _local(diff.post, post) else ""
    return ""


def in_place(diff: UnitDiff) -> tuple[ChangedData, ...]:
    """The constants of a unit that the update changes in place."""
    return tuple(c for c in diff.data if not c.writable and not obstacle(diff, c))


def new_references(diff: UnitDiff, changed: ChangedData) -> Iterator[tuple[Relocation, Target]]:
    """What the value of a constant refers to now and did not before; the rest stays as it is."""
    for relocation, target in diff.post.references(changed.post):
        if relocation.offset not in changed.kept:
            yield relocation, target


def _lasting(bodies: Bodies) -> Iterator[Entity]:
    """The functions and data that are there after start-up."""
    for entity in bodies.layout.entities():
        name = bodies.layout.section(entity.section).name
        if entity.kind in (EntityKind.FUNCTION, EntityKind.DATA) and not name.startswith(_GONE):
            yield entity


def _reads(bodies: Bodies, entity: Entity, datum: Entity) -> bool:
    return any(target.entity == datum for _, target in bodies.references(entity))


def _local(bodies: Bodies, datum: Entity) -> bool:
    symbol = bodies.layout.object.symbols[datum.symbol]
    return symbol.binding.name == "LOCAL"
