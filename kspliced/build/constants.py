# SPDX-License-Identifier: GPL-2.0-or-later
"""What is written over the running kernel's own data (docs/differencing.md).

The new content of constants; and among data that are written since, a pointer to a function where
none was: a callback. Nothing else of such data is told by what they begin as.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kspliced.build.body import Bodies
from kspliced.build.diff import ChangedData, UnitDiff
from kspliced.build.layout import Entity, EntityKind, Target
from kspliced.elf.object import Binding, Relocation
from kspliced.elf.x86 import R_X86_64_64

# KSPLICED_MAX_DATUM of kmod/data.h.
_LARGEST = 65536
_POINTER = 8
# Per-CPU data, data of start-up and others have names with two dots.
_WRITTEN = (".data..read_mostly", ".data..ro_after_init")


@dataclass(frozen=True)
class Written:
    """``size`` bytes at ``offset`` of a datum; as much as ``value``, their new content."""

    changed: ChangedData
    offset: int
    size: int
    value: bytes


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


def callback(diff: UnitDiff, changed: ChangedData) -> int:
    """Where a variable has a pointer to a function, and had none; -1 if that is not all that
    changes of what it begins as. One is added by itself: a second may be about what the first has
    prepared, which was not called for what exists."""
    pre, post = changed.pre, changed.post
    old = {relocation.offset for relocation, _ in diff.pre.references(pre)}
    new = [(r, t) for r, t in diff.post.references(post) if r.offset not in changed.kept]
    if not _may_be_written(diff, changed) or len(new) != 1 or old - changed.kept:
        return -1
    ((relocation, target),) = new
    offset = relocation.offset
    if relocation.type != R_X86_64_64 or offset % _POINTER or target.delta or not _function(target):
        return -1
    before, after = _words(diff.pre, pre), _words(diff.post, post)
    # What the linker makes of references stands in no object.
    same = all(before[at] == after[at] for at in before if at != offset and at not in old)
    return offset if same and not any(before[offset]) else -1


def _may_be_written(diff: UnitDiff, changed: ChangedData) -> bool:
    """Whether a variable is plain data, the only one of its name, where pointers are aligned."""
    pre, post = changed.pre, changed.post
    section = diff.pre.layout.section(pre.section)
    named = section.name.startswith((".data.", *_WRITTEN)) or section.name == ".data"
    special = section.name.startswith(".data..") and not section.name.startswith(_WRITTEN)
    weak = diff.pre.layout.object.symbols[pre.symbol].binding is Binding.WEAK
    aligned = section.align >= _POINTER and pre.offset % _POINTER == 0
    return named and not special and not weak and aligned and pre.size == post.size


def _words(bodies: Bodies, datum: Entity) -> dict[int, bytes]:
    """The content, by offset, in as much as a pointer takes."""
    content = bodies.layout.content(datum)
    return {at: content[at : at + _POINTER] for at in range(0, len(content), _POINTER)}


def _function(target: Target) -> bool:
    return target.entity is not None and target.entity.kind is EntityKind.FUNCTION


def in_place(diff: UnitDiff) -> tuple[Written, ...]:
    """What of a unit's data the update changes in place."""
    return tuple(_written(diff))


def _written(diff: UnitDiff) -> Iterator[Written]:
    for changed in diff.data:
        content = diff.post.layout.content(changed.post)
        if not changed.writable:
            if not obstacle(diff, changed):
                yield Written(changed, 0, changed.post.size, content)
            continue
        offset = callback(diff, changed)
        if offset >= 0:
            yield Written(changed, offset, _POINTER, content[offset : offset + _POINTER])


def new_references(diff: UnitDiff, written: Written) -> Iterator[tuple[Relocation, Target]]:
    """What the value refers to now and did not before; the rest stays as it is. Offsets are those
    within the datum."""
    for relocation, target in diff.post.references(written.changed.post):
        if relocation.offset not in written.changed.kept:
            yield relocation, target


def _lasting(bodies: Bodies) -> Iterator[Entity]:
    """The functions and data that are there after start-up."""
    for entity in bodies.layout.entities():
        lasts = not bodies.layout.passing(entity)
        if entity.kind in (EntityKind.FUNCTION, EntityKind.DATA) and lasts:
            yield entity


def _reads(bodies: Bodies, entity: Entity, datum: Entity) -> bool:
    return any(target.entity == datum for _, target in bodies.references(entity))


def _local(bodies: Bodies, datum: Entity) -> bool:
    symbol = bodies.layout.object.symbols[datum.symbol]
    return symbol.binding.name == "LOCAL"
