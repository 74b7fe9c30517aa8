# SPDX-License-Identifier: GPL-2.0-or-later
"""The object-code difference of a unit: which functions changed, what is new, what is refused.

Two pieces of code are equal when their bytes outside relocations are, and each relocation refers
to the same thing: the paired entity, an equal string or constant, the same external symbol. How
the assembler wrote the reference does not count (Ksplice, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kspliced.build.body import Bodies
from kspliced.build.layout import Entity, EntityKind, Layout, Target
from kspliced.build.moves import ClassChange, class_changes
from kspliced.build.pairing import Pairing, place
from kspliced.elf.object import Object
from kspliced.elf.x86 import KINDS


@dataclass(frozen=True)
class ChangedFunction:
    """A function to replace; neither entity is a cold part."""

    pre: Entity
    post: Entity


@dataclass(frozen=True)
class ChangedData:
    """A datum whose initial content differs; ``kept`` are the offsets of references that do not."""

    pre: Entity
    post: Entity
    writable: bool
    kept: frozenset[int]


@dataclass(frozen=True)
class UnitDiff:
    """What differs between the pre and the post object of one unit.

    ``sections`` names sections without symbols (initcalls, set-up tables) that changed; ``moved``
    is what is in memory of another kind now.
    """

    pre: Bodies
    post: Bodies
    pairing: Pairing
    changed: tuple[ChangedFunction, ...]
    data: tuple[ChangedData, ...]
    sections: tuple[str, ...]
    removed_exports: tuple[str, ...]
    new_exports: tuple[str, ...]
    moved: tuple[ClassChange, ...] = ()


OnlyPlaced = Callable[[str], bool]


def diff_objects(
    pre_object: Object, post_object: Object, only_placed: OnlyPlaced = lambda name: False
) -> UnitDiff:
    """Compare two compilations of one unit.

    :param only_placed: whether a function's or datum's source, and that of all it is made of,
        says nothing else than before but where it is: other code of it does the same.
    :raises ValueError: an object whose special sections or strings do not make sense.
    """
    pre, post = Bodies(Layout(pre_object)), Bodies(Layout(post_object))
    comparison = _Comparison(pre, post, Pairing(pre, post))
    changed: list[ChangedFunction] = []
    data: list[ChangedData] = []
    for one, other in comparison.pairing.pairs():
        if other.cold_parent and _parent_is_paired(comparison, other):
            continue
        if other.kind is EntityKind.FUNCTION:
            early = pre.layout.passing(one) and post.layout.passing(other)
            if comparison.functions_equal(one, other) or (early and only_placed(other.name)):
                continue
            changed.append(ChangedFunction(one, other))
        elif not comparison.data_equal(one, other):
            writable = pre.layout.section(one.section).writable
            kept = comparison.equal_references(one, other)
            data.append(ChangedData(one, other, writable, kept))

    def same(one: Entity, other: Entity) -> bool:
        code = other.kind is EntityKind.FUNCTION
        equal = (comparison.functions_equal if code else comparison.data_equal)(one, other)
        return equal or only_placed(other.name)

    before, after = exports(pre_object), exports(post_object)
    return UnitDiff(
        pre=pre,
        post=post,
        pairing=comparison.pairing,
        changed=tuple(changed),
        data=tuple(data),
        sections=comparison.changed_sections(),
        removed_exports=tuple(sorted(before - after)),
        new_exports=tuple(sorted(after - before)),
        moved=tuple(class_changes(pre, post, comparison.pairing, same)),
    )


def _parent_is_paired(comparison: _Comparison, cold: Entity) -> bool:
    return any(
        entity.name == cold.cold_parent and comparison.pairing.pre_of(entity)
        for entity in comparison.post.layout.functions()
    )


def exports(obj: Object) -> set[str]:
    """What the unit exports; since 6.4 modpost makes the table, out of .export_symbol."""
    prefixes = ("__ksymtab_", "__export_symbol_")
    return {s.name.removeprefix(p) for s in obj.symbols for p in prefixes if s.name.startswith(p)}


def _constants(bodies: Bodies) -> dict[str, Entity]:
    found = {}
    for entity in bodies.layout.entities():
        name = bodies.layout.section(entity.section).name
        if entity.kind is EntityKind.CONSTANT and entity.size and not name.startswith(".rodata"):
            found[name] = entity
    return found


class _Comparison:
    """Equality of entities under a pairing."""

    def __init__(self, pre: Bodies, post: Bodies, pairing: Pairing) -> None:
        self.pre, self.post, self.pairing = pre, post, pairing
        self._comparing: set[tuple[Entity, Entity]] = set()

    def functions_equal(self, pre: Entity, post: Entity) -> bool:
        cold_pre, cold_post = self.pre.cold(pre), self.post.cold(post)
        if (cold_pre is None) != (cold_post is None):
            return False
        if cold_pre is not None and cold_post is not None and not self._code(cold_pre, cold_post):
            return False
        return self._code(pre, post)

    def data_equal(self, pre: Entity, post: Entity) -> bool:
        """Same size, bytes and references; per-CPU data and .bss included."""
        return self._content(pre, post)

    def equal_references(self, pre: Entity, post: Entity) -> frozenset[int]:
        """The offsets at which two data refer to the same thing in the same way."""
        before = {place(r): target for r, target in self.pre.references(pre)}
        return frozenset(
            r.offset
            for r, target in self.post.references(post)
            if place(r) in before and self._same(before[place(r)], target, passing=False)
        )

    def changed_sections(self) -> tuple[str, ...]:
        """Names of symbol-less sections outside .rodata whose content differs or that come or go.

        Read-only constants belong to the code that refers to them and are compared there.
        """
        before, after = _constants(self.pre), _constants(self.post)
        changed = before.keys() ^ after.keys()
        changed |= {
            name
            for name in before.keys() & after.keys()
            if not self._content(before[name], after[name])
        }
        return tuple(sorted(changed))

    def _code(self, pre: Entity, post: Entity) -> bool:
        return self._content(pre, post) and self._sites(pre, post)

    def _content(self, pre: Entity, post: Entity) -> bool:
        if (pre, post) in self._comparing:
            return True
        if pre.size != post.size:
            return False
        self._comparing.add((pre, post))
        try:
            before, after = list(self.pre.references(pre)), list(self.post.references(post))
            if [place(r) for r, _ in before] != [place(r) for r, _ in after]:
                return False
            fields = [(r.offset, KINDS[r.type].size) for r, _ in before if r.type in KINDS]
            if _masked(self.pre, pre, fields) != _masked(self.post, post, fields):
                return False
            passing = self.pre.layout.passing(pre)
            targets = zip(before, after, strict=True)
            return all(self._same(one, other, passing) for (_, one), (_, other) in targets)
        finally:
            self._comparing.discard((pre, post))

    def _sites(self, pre: Entity, post: Entity) -> bool:
        before = [site for site in self.pre.sites(pre) if site.entry.table.compared]
        after = [site for site in self.post.sites(post) if site.entry.table.compared]
        if len(before) != len(after):
            return False
        passing = self.pre.layout.passing(pre)
        return all(
            one.entry.table == other.entry.table
            and one.offset == other.offset
            and one.entry.data == other.entry.data
            and all(
                self._same(a, b, passing) for a, b in zip(one.targets, other.targets, strict=True)
            )
            for one, other in zip(before, after, strict=True)
        )

    def _same(self, pre: Target, post: Target, passing: bool) -> bool:
        """Whether two references mean the same; ``passing`` ones meant what moves since."""
        one, other = pre.entity, post.entity
        if one is None or other is None:
            return one is other and pre.name == post.name and pre.delta == post.delta
        if one.kind is not other.kind or pre.delta != post.delta:
            return False
        if one.symbol >= 0 or other.symbol >= 0:
            if self.pairing.pre_of(other) == one:
                return True
            return passing and self.pairing.moved_from(other) == one
        if one.kind is EntityKind.STRING:
            return self.pre.layout.content(one) == self.post.layout.content(other)
        return self._content(one, other) and self._sites(one, other)


def _masked(bodies: Bodies, entity: Entity, fields: list[tuple[int, int]]) -> bytes:
    content = bytearray(bodies.layout.content(entity))
    for offset, size in fields:
        content[offset : offset + size] = bytes(size)
    return bytes(content)
