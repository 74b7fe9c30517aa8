# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions and data that are in memory of another kind than before (elf/section_class.py), and
what of them the update can bring to those who use them. docs/differencing.md has the whole table.

The running kernel has what it was compiled to: it writes where a constant was, or jumps into memory
that start-up has freed, however alike the bytes are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kspliced.build.body import Bodies
from kspliced.build.layout import Entity, EntityKind, Target
from kspliced.build.pairing import Pairing, fingerprint, message_state
from kspliced.elf.disasm import accesses
from kspliced.elf.object import Binding, Relocation
from kspliced.elf.section_class import SectionClass, is_start_up_table

_GLOBAL = "other units may use it, and they use what is gone"
_KEPT = "its address may be kept somewhere, and nothing is there any more"
_RAN = "its content changes as well, and what start-up made of it stays"
_CLONE = "it may be another one of that name"


_PASSING = frozenset({
    SectionClass.INIT_TEXT, SectionClass.EXIT_TEXT, SectionClass.INIT_CONST,
    SectionClass.INIT_DATA, SectionClass.EXIT_DATA,
})  # fmt: skip
_MEANT = frozenset({SectionClass.SPECIAL, SectionClass.SPECIAL_TEXT})
_READ = frozenset({SectionClass.READ_ONLY, SectionClass.RO_AFTER_INIT})


def why_not(before: SectionClass, after: SectionClass) -> str:
    """What is wrong with the running kernel's own, where a class changes."""
    if before is after or before in _MEANT or after in _MEANT:
        return "the kernel treats it by the section it is in, and goes on to do so"
    if before in _PASSING:
        return "it was for start-up, or for a module's end, and the running kernel has it no more"
    if after in _PASSING:
        return "it becomes part of start-up, or of a module's end; the running kernel keeps it"
    if SectionClass.PER_CPU in (before, after):
        return "one for each processor is not one for all"
    if before in _READ and after in _READ:
        return "start-up may write to the one and not to the other"
    if before in _READ:
        return "new code may write to it, and in the running kernel it is in read-only memory"
    return "it is read-only from now on, and the running kernel may have written to it"


@dataclass(frozen=True)
class ClassChange:
    """``pre`` is in section ``before``, ``post`` in ``after``. ``carried``: it is new to those that
    use it from now on, if there is no ``obstacle``."""

    pre: Entity
    post: Entity
    before: tuple[SectionClass, str]
    after: tuple[SectionClass, str]
    carried: bool = False
    obstacle: str = ""

    @property
    def evidence(self) -> str:
        """Which classes, and which sections."""
        (old, old_name), (new, new_name) = self.before, self.after
        return f"{old.value} ({old_name}) before, {new.value} ({new_name}) after"


def class_changes(
    pre: Bodies, post: Bodies, pairing: Pairing, equal: Callable[[Entity, Entity], bool]
) -> Iterator[ClassChange]:
    """Everything that changes its class, in no order.

    :param equal: whether two functions, or data, are the same but for that.
    """

    changes = _Changes(pre, post)
    for one, other in pairing.pairs():
        if not other.parent and pre.layout.place(one) != post.layout.place(other):
            yield changes.make(one, other)
    for one, other in pairing.moved():
        yield changes.make(one, other, True, _obstacle(pre, post, one, other, equal))
    for one, other in _strays(pre, post, pairing):
        yield changes.make(one, other, False, _CLONE)


@dataclass(frozen=True)
class _Changes:
    pre: Bodies
    post: Bodies

    def make(
        self, one: Entity, other: Entity, carried: bool = False, obstacle: str = ""
    ) -> ClassChange:
        before, after = _where(self.pre, one), _where(self.post, other)
        return ClassChange(one, other, before, after, carried, obstacle)


def _where(bodies: Bodies, entity: Entity) -> tuple[SectionClass, str]:
    return bodies.layout.place(entity)[0], bodies.layout.section(entity.section).name


def _obstacle(
    pre: Bodies,
    post: Bodies,
    one: Entity,
    other: Entity,
    equal: Callable[[Entity, Entity], bool],
) -> str:
    """Why something that moves cannot be brought to its users, or ``""``."""
    for bodies, entity in ((pre, one), (post, other)):
        if bodies.layout.object.symbols[entity.symbol].binding is not Binding.LOCAL:
            return _GLOBAL
    ran = False
    for user, relocation, target in _references(pre, one):
        if not _passes(pre, user, relocation, target):
            return _KEPT
        ran |= pre.layout.passing(user)
    return _RAN if ran and not equal(one, other) else ""


def _references(
    bodies: Bodies, entity: Entity
) -> Iterator[tuple[Entity, Relocation | None, Target]]:
    """Who refers to an entity, itself aside, and where."""
    own = bodies.parts(entity) if entity.kind is EntityKind.FUNCTION else (entity,)
    for user in bodies.layout.entities():
        if user in own:
            continue
        for relocation, target in bodies.references(user):
            if target.entity == entity:
                yield user, relocation, target
        for site in bodies.sites(user):
            for target in site.targets[1:]:
                if target.entity == entity:
                    yield user, None, target


def _passes(bodies: Bodies, user: Entity, relocation: Relocation | None, target: Target) -> bool:
    """Whether a reference leaves no address behind: a call, a load, a table that is read once."""
    if target.branch:
        return True
    section = bodies.layout.section(user.section)
    if not section.executable:
        return is_start_up_table(section.name)
    assert target.entity is not None
    if relocation is None or target.entity.kind is EntityKind.FUNCTION:
        return False
    return accesses(bodies.layout.content(user), relocation.offset)


def _strays(pre: Bodies, post: Bodies, pairing: Pairing) -> Iterator[tuple[Entity, Entity]]:
    """What is new, with what is gone and may be it under another number, of another class."""
    moved = frozenset(entity for pair in pairing.moved() for entity in pair)
    gone: dict[tuple[str, EntityKind], list[Entity]] = defaultdict(list)
    for entity in pre.layout.entities():
        if pairing.post_of(entity) is None and _may_stray(pre, entity, moved):
            gone[_root(entity), entity.kind].append(entity)
    for entity in post.layout.entities() if gone else ():
        if pairing.pre_of(entity) is not None or not _may_stray(post, entity, moved):
            continue
        for old in gone.get((_root(entity), entity.kind), ()):
            if pre.layout.place(old) != post.layout.place(entity):
                yield old, entity
                break


def _may_stray(bodies: Bodies, entity: Entity, moved: frozenset[Entity]) -> bool:
    named = entity.symbol >= 0 and not entity.parent
    return named and entity not in moved and not message_state(bodies, entity)


def _root(entity: Entity) -> str:
    """The name without what the compiler appends: of a clone that of its function."""
    clone = entity.kind is EntityKind.FUNCTION
    return entity.name.partition(".")[0] if clone else entity.stem


def alignment_changes(
    pre: Bodies, post: Bodies, pairing: Pairing
) -> Iterator[tuple[Entity, int, int]]:
    """Data that have to be aligned to more than what the running kernel has is sure to be, with
    both, in bytes. Where several share a section, what each needs is not known."""
    sizes = Counter(entity.section for entity in post.layout.entities())
    for one, other in pairing.pairs():
        section = post.layout.section(other.section)
        if other.kind is EntityKind.DATA and sizes[other.section] == 1:
            before = pre.layout.section(one.section).align
            before = min(before, one.offset & -one.offset) if one.offset else before
            if section.align > max(before, 1):
                yield other, before, section.align


def registered_changes(pre: Bodies, post: Bodies, pairing: Pairing) -> Iterator[tuple[str, str]]:
    """Entries of the kernel's tables that come or go, as (what they speak of, section): such an
    entry has a symbol, but no code refers to it."""
    before = Counter(_entries(pre, pairing.post_of))
    after = Counter(_entries(post, pairing.pre_of))
    for spoken, section, *_ in (*(before - after), *(after - before)):
        yield spoken, section


def _entries(
    bodies: Bodies, counterpart: Callable[[Entity], Entity | None]
) -> Iterator[tuple[str, str, str, tuple[object, ...]]]:
    found = [
        entity
        for entity in bodies.layout.entities()
        if entity.kind is EntityKind.DATA and entity.size and counterpart(entity) is None
        if bodies.layout.place(entity)[0] is SectionClass.SPECIAL
        if not message_state(bodies, entity)
    ]
    if not found:
        return
    used = {
        target.entity
        for user in bodies.layout.entities()
        for _, target in bodies.references(user)
        if target.entity != user
    }
    for entity in found:
        if entity not in used:
            spoken = [t.name for _, t in bodies.references(entity) if t.entity and t.name]
            named, (_, section) = (spoken or [entity.name])[-1], _where(bodies, entity)
            yield named, section, entity.stem, fingerprint(bodies, entity)
