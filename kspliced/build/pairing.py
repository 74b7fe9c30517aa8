# SPDX-License-Identifier: GPL-2.0-or-later
"""Which entity of the post object is which entity of the pre object.

A name that is unique in both objects is an identity, unless the running kernel has nothing of its
new class (elf/section_class.py). Names that the compiler numbers (static locals, clones) are told
apart by who uses them: walking two paired functions or data side by side, what they refer to under
such a name is paired. Nothing is paired by number or by guess.

For code and constants any one-to-one relation is right, since what differs under it is replaced,
and what refers to it alike means the same. Only variables have an identity: their state.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from kspliced.build.body import Bodies
from kspliced.build.layout import Entity, EntityKind
from kspliced.elf.object import Relocation
from kspliced.elf.section_class import Move, Place, move
from kspliced.elf.x86 import KINDS, R_X86_64_PC32, R_X86_64_PLT32

_MESSAGE_SECTIONS = ("__dyndbg", ".data.once", ".data..once")
# DEFINE_RATELIMIT_STATE() in printk_ratelimited() and its like (include/linux/printk.h).
_RATELIMIT = "_rs"

_Key = tuple[str, EntityKind, Place]


class Pairing:
    """A one-to-one relation between entities of the post and the pre object."""

    def __init__(self, pre: Bodies, post: Bodies) -> None:
        self._pre_of: dict[Entity, Entity] = {}
        self._post_of: dict[Entity, Entity] = {}
        self._moved: dict[Entity, Entity] = {}
        self._pre, self._post = pre, post
        self._pair_unique()
        self._pair_by_users()

    def pre_of(self, post: Entity) -> Entity | None:
        """The pre entity that ``post`` is, or None if it is new."""
        return self._pre_of.get(post)

    def post_of(self, pre: Entity) -> Entity | None:
        """The post entity that ``pre`` has become, or None if it is gone."""
        return self._post_of.get(pre)

    def moved_from(self, post: Entity) -> Entity | None:
        """What ``post``, which is new to the running kernel, was in memory that it has no more."""
        return self._moved.get(post)

    def moved(self) -> tuple[tuple[Entity, Entity], ...]:
        """What :meth:`moved_from` says of all, as (pre, post)."""
        return tuple((pre, post) for post, pre in self._moved.items())

    def pairs(self) -> tuple[tuple[Entity, Entity], ...]:
        """All (pre, post) pairs in the order of the post object."""
        found = [(pre, post) for post, pre in self._pre_of.items()]
        return tuple(sorted(found, key=lambda pair: (pair[1].section, pair[1].offset)))

    def _add(self, pre: Entity, post: Entity) -> bool:
        if pre in self._post_of or post in self._pre_of:
            return False
        self._pre_of[post] = pre
        self._post_of[pre] = post
        return True

    def _key(self, bodies: Bodies, entity: Entity) -> _Key:
        # Constant and writable data of one stem are different things.
        return entity.stem, entity.kind, bodies.layout.place(entity)

    def _pair_unique(self) -> None:
        pre_names = _by_name(self._pre)
        post_names = _by_name(self._post)
        pre_stems, post_stems = self._by_key(self._pre), self._by_key(self._post)
        for key, posts in post_stems.items():
            pres = pre_stems.get(key, [])
            # The only two static locals of one name may still be those of two functions.
            if len(posts) != 1 or len(pres) != 1 or self._stateful(self._post, posts[0]):
                continue
            if self._may_pair(pres[0], posts[0]):
                self._add(pres[0], posts[0])
        for name, post in post_names.items():
            pre = pre_names.get(name)
            # A name without a number is the programmer's own.
            if pre is not None and name == post.stem and pre.kind is post.kind:
                places = self._pre.layout.place(pre), self._post.layout.place(post)
                if move(*places) is Move.CARRIED:
                    self._moved[post] = pre
                else:
                    self._add(pre, post)

    def _may_pair(self, pre: Entity, post: Entity) -> bool:
        """Functions always; numbered data only with the same content: variables so that state is
        never mixed up, the rest because a copy is as good."""
        if post.kind is EntityKind.FUNCTION or post.name == post.stem:
            return True
        if self._stateful(self._post, post):
            return self._pre.layout.content(pre) == self._post.layout.content(post)
        return fingerprint(self._pre, pre) == fingerprint(self._post, post)

    def _stateful(self, bodies: Bodies, entity: Entity) -> bool:
        """Whether an entity with a number is a variable whose content matters."""
        if entity.kind is EntityKind.FUNCTION or entity.name == entity.stem or not entity.size:
            return False
        writable = bodies.layout.section(entity.section).writable
        return writable and not message_state(bodies, entity)

    def _by_key(self, bodies: Bodies) -> dict[_Key, list[Entity]]:
        groups: dict[_Key, list[Entity]] = defaultdict(list)
        for entity in bodies.layout.entities():
            if entity.symbol >= 0:
                groups[self._key(bodies, entity)].append(entity)
        return groups

    def _pair_by_users(self) -> None:
        done: set[Entity] = set()
        while True:
            waiting = [(pre, post) for pre, post in self.pairs() if post not in done]
            if not waiting:
                return
            for pre, post in waiting:
                done.add(post)
                self._pair_references(pre, post)

    def _pair_references(self, pre: Entity, post: Entity) -> None:
        if self._pair_by_place(pre, post):
            return
        pre_used = self._numbered(self._pre, pre)
        post_used = self._numbered(self._post, post)
        for key, posts in post_used.items():
            pres = [e for e in pre_used.get(key, []) if e not in self._post_of]
            posts = [e for e in posts if e not in self._pre_of]
            pres, posts = self._pair_equal(pres, posts)
            if len(pres) != len(posts):
                continue
            if len(posts) > 1 and self._stateful(self._post, posts[0]):
                continue
            for one, other in zip(pres, posts, strict=True):
                if self._may_pair(one, other):
                    self._add(one, other)

    def _pair_by_place(self, pre: Entity, post: Entity) -> bool:
        """Pair what code or data that is the same but for its references refers to, one by one."""
        code = post.kind is EntityKind.FUNCTION
        befores = self._pre.parts(pre) if code else (pre,)
        afters = self._post.parts(post) if code else (post,)
        if [_shape(self._pre, e) for e in befores] != [_shape(self._post, e) for e in afters]:
            return False
        for before, after in zip(befores, afters, strict=True):
            ones = [t for _, t in self._pre.references(before)]
            others = [t for _, t in self._post.references(after)]
            sites = self._pre.sites(before), self._post.sites(after)
            if [s.entry.table for s in sites[0]] == [s.entry.table for s in sites[1]]:
                ones += [t for site in sites[0] for t in site.targets]
                others += [t for site in sites[1] for t in site.targets]
            for one, other in zip(ones, others, strict=True):
                if one.entity is None or other.entity is None:
                    continue
                if self._key(self._pre, one.entity) == self._key(self._post, other.entity):
                    self._pair_numbered(one.entity, other.entity)
        return True

    def _pair_numbered(self, pre: Entity, post: Entity) -> None:
        if post.symbol >= 0 and post.name != post.stem and self._may_pair(pre, post):
            self._add(pre, post)

    def _pair_equal(
        self, pres: list[Entity], posts: list[Entity]
    ) -> tuple[list[Entity], list[Entity]]:
        """Pair what has the same content on both sides once; returns the rest."""
        if len(pres) == len(posts) == 1:
            return pres, posts
        before = Counter(fingerprint(self._pre, entity) for entity in pres)
        after = {fingerprint(self._post, entity): entity for entity in posts}
        counts = Counter(fingerprint(self._post, entity) for entity in posts)
        for entity in pres:
            mark = fingerprint(self._pre, entity)
            if before[mark] == 1 and counts[mark] == 1:
                self._add(entity, after[mark])
        return (
            [entity for entity in pres if entity not in self._post_of],
            [entity for entity in posts if entity not in self._pre_of],
        )

    def _numbered(self, bodies: Bodies, function: Entity) -> dict[_Key, list[Entity]]:
        """Entities with compiler-numbered names that the entity uses, by first use."""
        used: dict[_Key, list[Entity]] = defaultdict(list)
        code = function.kind is EntityKind.FUNCTION
        for part in bodies.parts(function) if code else (function,):
            targets = [target for _, target in bodies.references(part)]
            targets += [t for site in bodies.sites(part) for t in site.targets]
            for target in targets:
                entity = target.entity
                if entity is None or entity.symbol < 0 or entity.name == entity.stem:
                    continue
                key = self._key(bodies, entity)
                if entity not in used[key]:
                    used[key].append(entity)
        return used


def message_state(bodies: Bodies, entity: Entity) -> bool:
    """Whether a datum only limits how often a message is printed, or whether it is: a fresh copy,
    or that of another message, does no harm."""
    section = bodies.layout.section(entity.section).name
    return entity.stem == _RATELIMIT or section in _MESSAGE_SECTIONS


def _by_name(bodies: Bodies) -> dict[str, Entity]:
    names: dict[str, Entity] = {}
    twice: set[str] = set()
    for entity in bodies.layout.entities():
        if entity.symbol >= 0:
            if entity.name in names:
                twice.add(entity.name)
            names[entity.name] = entity
    return {name: entity for name, entity in names.items() if name not in twice}


def place(relocation: Relocation) -> tuple[int, int]:
    """Where a relocation is and what it writes; a branch is PLT32 or PC32 as its symbol is global
    or local, which comes to the same (x86.py)."""
    kind = R_X86_64_PC32 if relocation.type == R_X86_64_PLT32 else relocation.type
    return relocation.offset, kind


def _shape(bodies: Bodies, entity: Entity) -> tuple[object, ...]:
    """An entity's bytes and where it refers to something, whatever that is."""
    content, places = _masked(bodies, entity)
    return (content, tuple(places))


def _masked(bodies: Bodies, entity: Entity) -> tuple[bytes, list[tuple[int, int]]]:
    content = bytearray(bodies.layout.content(entity))
    places = []
    for relocation, _ in bodies.references(entity):
        size = KINDS[relocation.type].size if relocation.type in KINDS else 0
        content[relocation.offset : relocation.offset + size] = bytes(size)
        places.append(place(relocation))
    return bytes(content), places


def fingerprint(bodies: Bodies, entity: Entity) -> tuple[object, ...]:
    """What an entity holds, its references by content or by name."""
    content, places = _masked(bodies, entity)
    marks: list[object] = []
    for _, target in bodies.references(entity):
        found = target.entity
        marks.append(target.delta)
        if found is None or found.symbol < 0:
            marks.append(target.name if found is None else bodies.layout.content(found))
        elif found.name.startswith("__func__."):
            marks.append(bodies.layout.content(found))
        else:
            marks.append(found.stem)
    return (content, tuple(places), *marks)
