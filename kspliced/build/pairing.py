# SPDX-License-Identifier: GPL-2.0-or-later
"""Which entity of the post object is which entity of the pre object.

A name that is unique in both objects is an identity. Names that the compiler numbers (static
locals, clones) are told apart by who uses them: walking two paired functions side by side, the
n-th such reference of one is the n-th of the other. Nothing is paired by number or by guess.
"""

from __future__ import annotations

from collections import defaultdict

from kspliced.build.body import Bodies
from kspliced.build.layout import Entity, EntityKind

_Key = tuple[str, EntityKind, str]


class Pairing:
    """A one-to-one relation between entities of the post and the pre object."""

    def __init__(self, pre: Bodies, post: Bodies) -> None:
        self._pre_of: dict[Entity, Entity] = {}
        self._post_of: dict[Entity, Entity] = {}
        self._pre, self._post = pre, post
        self._pair_unique()
        self._pair_by_users()

    def pre_of(self, post: Entity) -> Entity | None:
        """The pre entity that ``post`` is, or None if it is new."""
        return self._pre_of.get(post)

    def post_of(self, pre: Entity) -> Entity | None:
        """The post entity that ``pre`` has become, or None if it is gone."""
        return self._post_of.get(pre)

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
        section = bodies.layout.section(entity.section)
        kind = f"{section.flags & 0x7:x}"
        return entity.stem, entity.kind, kind

    def _pair_unique(self) -> None:
        pre_names = _by_name(self._pre)
        post_names = _by_name(self._post)
        pre_stems, post_stems = self._by_key(self._pre), self._by_key(self._post)
        for key, posts in post_stems.items():
            pres = pre_stems.get(key, [])
            if len(posts) == 1 and len(pres) == 1:
                self._add(pres[0], posts[0])
        for name, post in post_names.items():
            pre = pre_names.get(name)
            # A name without a number is the programmer's own.
            if pre is not None and name == post.stem and pre.kind is post.kind:
                self._add(pre, post)

    def _by_key(self, bodies: Bodies) -> dict[_Key, list[Entity]]:
        groups: dict[_Key, list[Entity]] = defaultdict(list)
        for entity in bodies.layout.entities():
            if entity.symbol >= 0:
                groups[self._key(bodies, entity)].append(entity)
        return groups

    def _pair_by_users(self) -> None:
        done: set[Entity] = set()
        while True:
            waiting = [
                (pre, post)
                for pre, post in self.pairs()
                if post.kind is EntityKind.FUNCTION and post not in done
            ]
            if not waiting:
                return
            for pre, post in waiting:
                done.add(post)
                self._pair_references(pre, post)

    def _pair_references(self, pre: Entity, post: Entity) -> None:
        pre_used = self._numbered(self._pre, pre)
        post_used = self._numbered(self._post, post)
        for key, posts in post_used.items():
            pres = pre_used.get(key, [])
            if len(pres) != len(posts):
                continue
            for one, other in zip(pres, posts, strict=True):
                if _same_shape(self._pre, one, self._post, other):
                    self._add(one, other)

    def _numbered(self, bodies: Bodies, function: Entity) -> dict[_Key, list[Entity]]:
        """Entities with compiler-numbered names that the function uses, by first use."""
        used: dict[_Key, list[Entity]] = defaultdict(list)
        for part in bodies.parts(function):
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


def _by_name(bodies: Bodies) -> dict[str, Entity]:
    names: dict[str, Entity] = {}
    twice: set[str] = set()
    for entity in bodies.layout.entities():
        if entity.symbol >= 0:
            if entity.name in names:
                twice.add(entity.name)
            names[entity.name] = entity
    return {name: entity for name, entity in names.items() if name not in twice}


def _same_shape(pre: Bodies, one: Entity, post: Bodies, other: Entity) -> bool:
    """Functions always; data only with the same bytes, so that state is never mixed up."""
    if one.kind is EntityKind.FUNCTION:
        return True
    return pre.layout.content(one) == post.layout.content(other)
