# SPDX-License-Identifier: GPL-2.0-or-later
"""What the changed functions of a unit need: which code and data the update carries, and which
symbols of the running kernel it refers to.

- A changed function called by new code: the new one, directly. Its address taken: the old one,
  so that nothing outlives an undo.
- A function or datum that the running kernel has: the running kernel's, never a copy.
- A string or an anonymous constant: a copy.
- What the value of a constant refers to now and did not before, as above.
- A function or datum that only the post object has: carried, with what it needs in turn; also
  where another unit of the target needs it (join.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kspliced.build.body import Bodies
from kspliced.build.constants import in_place, new_references
from kspliced.build.diff import UnitDiff
from kspliced.build.layout import Entity, EntityKind, Target
from kspliced.elf.disasm import accesses
from kspliced.elf.object import Relocation
from kspliced.model import Import, ImportKind


@dataclass(frozen=True)
class Carried:
    """What the update carries of one unit's post object, each list in the object's order.

    ``code`` holds functions, their padding, cold parts and chunks; ``data`` data, strings and
    constants. ``new_functions`` and ``new_data`` have no counterpart in the running kernel;
    ``values`` are what constants of it become. ``pinned`` says that the kernel may keep an address
    inside the update. What was applied once stays in memory until the reboot in any case.
    """

    code: tuple[Entity, ...]
    data: tuple[Entity, ...]
    new_functions: tuple[Entity, ...]
    new_data: tuple[Entity, ...]
    values: tuple[Entity, ...]
    pinned: bool


@dataclass(frozen=True)
class Elsewhere:
    """A function or datum that the update carries of another unit, and what it is called where that
    is in another part of the update."""

    target: str
    unit: str
    entity: Entity

    @property
    def name(self) -> str:
        """Not the name of any import."""
        return f"{self.target}:{self.unit}:new:{self.entity.name}"


Shared = Mapping[str, Elsewhere | Import]


class Closure:
    """Resolves each target that carried code or data refers to.

    :param wanted: what other units need of this one although nothing here refers to it.
    :param shared: names of external linkage that the running kernel does not have under that name
        for all of the target, with what they are.
    """

    def __init__(
        self,
        diff: UnitDiff,
        target: str,
        unit: str,
        wanted: frozenset[Entity] = frozenset(),
        shared: Shared | None = None,
    ) -> None:
        self._diff, self._target, self._unit = diff, target, unit
        self._wanted, self._shared = wanted, shared or {}
        self._changed = {changed.post for changed in diff.changed}
        self._written = in_place(diff)
        self._carried: set[Entity] = set()
        self._pinned = False
        self._collect()

    @property
    def carried(self) -> Carried:
        """Everything the update carries of this unit."""
        ordered = sorted(self._carried, key=lambda e: (e.section, e.offset))
        code = (EntityKind.FUNCTION, EntityKind.CHUNK)
        new = [e for e in ordered if e.symbol >= 0 and self._is_new(e)]
        return Carried(
            code=tuple(e for e in ordered if e.kind in code),
            data=tuple(e for e in ordered if e.kind not in code),
            new_functions=tuple(e for e in new if e.kind is EntityKind.FUNCTION),
            new_data=tuple(e for e in new if e.kind is EntityKind.DATA),
            values=tuple(written.changed.post for written in self._written),
            pinned=self._pinned,
        )

    @property
    def externs(self) -> frozenset[str]:
        """The names of external linkage that what is carried refers to."""
        found = set()
        for written in self._written:
            found |= {t.name for _, t in new_references(self._diff, written) if t.entity is None}
        for entity in self._carried:
            found |= {t.name for _, t in self._post.references(entity) if t.entity is None}
            for site in self._post.sites(entity):
                found |= {t.name for t in site.targets if t.entity is None}
        return frozenset(found)

    def users(self, name: str) -> tuple[str, ...]:
        """What of the update refers to a name of external linkage."""
        found = {
            written.changed.post.name
            for written in self._written
            if any(_names(t, name) for _, t in new_references(self._diff, written))
        }
        for entity in self._carried:
            targets = [target for _, target in self._post.references(entity)]
            targets += [target for site in self._post.sites(entity) for target in site.targets]
            if any(_names(target, name) for target in targets):
                found.add(entity.parent or entity.name)
        return tuple(sorted(found - {""}))

    def lent(self, name: str) -> bool:
        """Whether the update knows where something of external linkage is that the kernel has
        under no such name."""
        return name in self._shared

    def resolve(self, target: Target) -> Entity | Elsewhere | Import:
        """What ``target``, referred to by carried code or data, is in the update module."""
        entity = target.entity
        if entity is None:
            shared = self._shared.get(target.name)
            return shared or extern_import(self._target, target.name)
        if entity not in self._carried:
            return self.running(entity)
        if entity in self._changed and takes_address(target):
            return self.running(entity)
        return entity

    def resolve_site(self, target: Target) -> Entity | Elsewhere | Import:
        """The same for an entry of a special section, which always speaks of the new code."""
        entity = target.entity
        if entity is not None and entity in self._carried:
            return entity
        return self.resolve(target)

    def running(self, post: Entity) -> Import:
        """The import of the running kernel's counterpart of ``post``."""
        pre = self._diff.pairing.pre_of(post)
        if pre is None:
            raise ValueError(f"{post.name or 'a constant'} is not in the running kernel")
        return unit_import(self._target, self._unit, pre.symbol, pre.name)

    @property
    def _post(self) -> Bodies:
        return self._diff.post

    def _is_new(self, entity: Entity) -> bool:
        if entity.parent:
            return False
        return self._diff.pairing.pre_of(entity) is None

    def _collect(self) -> None:
        waiting: list[Entity] = []
        for function in self._changed:
            waiting += self._post.parts(function)
        for entity in self._wanted:
            waiting += self._post.parts(entity)
        for written in self._written:
            for _, target in new_references(self._diff, written):
                needed = self._needs(target)
                waiting += needed
                self._pinned |= bool(needed) or isinstance(self.resolve(target), Elsewhere)
        while waiting:
            entity = waiting.pop()
            if entity in self._carried:
                continue
            self._carried.add(entity)
            for relocation, target in self._post.references(entity):
                waiting += self._needs(target)
                self._pinned = self._pinned or self._escapes(entity, relocation, target)
            for site in self._post.sites(entity):
                for target in site.targets:
                    waiting += self._needs(target)

    def _escapes(self, user: Entity, relocation: Relocation, target: Target) -> bool:
        """Whether a reference makes an address of what the update carries: it is no call, and not
        where code reads or writes."""
        found = self._shared.get(target.name) if target.entity is None else None
        inside = isinstance(found, Elsewhere) or bool(self._needs(target))
        if not inside or target.branch:
            return False
        layout = self._post.layout
        code = layout.section(user.section).executable
        return not (code and accesses(layout.content(user), relocation.offset))

    def _needs(self, target: Target) -> tuple[Entity, ...]:
        entity = target.entity
        if entity is None:
            return ()
        if entity.kind is EntityKind.FUNCTION:
            if not self._is_new(entity):
                return ()
            return self._post.parts(entity)
        if entity.kind is EntityKind.DATA and not self._is_new(entity):
            return ()
        return (entity,)


def _names(target: Target, name: str) -> bool:
    return target.entity is None and target.name == name


def takes_address(target: Target) -> bool:
    """Whether a reference is to a function's first byte other than by a direct branch.

    A PC-relative reference to the start has a negative delta (the distance to the end of the
    instruction); a positive one is to a label inside, as jump tables have.
    """
    return not target.branch and target.delta <= 0


def unit_import(target: str, unit: str, index: int, symbol: str) -> Import:
    """The import that stands for a symbol of a unit's pre object."""
    name = f"{target}:{unit}:{index}:{symbol}"
    return Import(name, ImportKind.UNIT, target, unit, symbol, index)


def extern_import(target: str, symbol: str) -> Import:
    """The import that stands for a symbol of external linkage, seen from ``target``."""
    return Import(f"{target}::{symbol}", ImportKind.EXTERN, target, "", symbol, -1)
