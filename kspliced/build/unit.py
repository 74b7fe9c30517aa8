# SPDX-License-Identifier: GPL-2.0-or-later
"""One unit from two objects to what it adds to the update, or to refusals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from kspliced.build.closure import Carried, Closure
from kspliced.build.diff import OnlyPlaced, UnitDiff, diff_objects
from kspliced.build.emit import UnitPart
from kspliced.build.join import Joined, Member, join
from kspliced.build.kbuild import Unit
from kspliced.build.layout import Entity
from kspliced.build.nmi import Exposed, interruptible
from kspliced.build.plain import Plain, Unlike, needs_plain, prove_alike
from kspliced.build.rules import JUMP_SIZE, check, jump_offset
from kspliced.build.strip import stripped
from kspliced.build.types import Room, TypeChange, changed_types
from kspliced.elf.read import read_object
from kspliced.model import ChangeKind, FunctionChange, Refusal


@dataclass(frozen=True)
class Origin:
    """What of a unit's source differs: functions by name, headers by path; ``digest`` of the
    objects."""

    touched: tuple[str, ...]
    headers: tuple[str, ...]
    digest: bytes


@dataclass(frozen=True)
class DiffedUnit:
    """``pre`` is the pre object's file; ``part`` is None when the unit is refused;
    ``origin`` says what of its source differs. ``needed``: nothing in the unit changes, but another
    unit refers to something that only this one's pre object locates; ``lenders``: such units, for
    this one; ``interruptible`` are changed functions that a non-maskable interrupt may run."""

    unit: Unit
    pre: bytes
    part: UnitPart | None
    functions: tuple[FunctionChange, ...]
    refused: tuple[Refusal, ...]
    origin: Origin
    needed: bool = False
    lenders: tuple[str, ...] = ()
    interruptible: tuple[Exposed, ...] = ()

    @property
    def digest(self) -> bytes:
        """Of the objects, before and after, without what tells where they were made."""
        return self.origin.digest

    @property
    def matched(self) -> bytes:
        """The object that the pack has for matching."""
        plain = self.part.plain if self.part is not None else None
        return self.pre if plain is None else plain.content

    @property
    def live(self) -> bool:
        """Whether the update has a part of this unit."""
        return self.part is not None and (bool(self.functions) or self.needed)


def diff_unit(
    unit: Unit,
    pre: bytes,
    post: bytes,
    touched: tuple[str, ...],
    headers: tuple[str, ...] = (),
    room: Room | None = None,
    only_placed: OnlyPlaced = lambda name: False,
) -> DiffedUnit:
    """Compare, close and judge a unit by itself; :func:`join_units` follows.

    :param touched: the functions of the unit's source that differ.
    :param headers: the headers that differ and that the unit reads, to say why.
    :param room: where structures may have new members.
    :param only_placed: as :func:`kspliced.build.diff.diff_objects` has it.
    :raises BuildError: OBJECT_MALFORMED.
    """
    # The pack needs no types, and they are ten times the rest.
    bare, bare_post = stripped(pre), stripped(post)
    digest = hashlib.sha256(bare).digest() + hashlib.sha256(bare_post).digest()
    origin = Origin(touched, headers, digest)
    try:
        bares = read_object(bare, unit.path), read_object(bare_post, unit.path)
        diff = diff_objects(*bares, only_placed)
        closure = Closure(diff, unit.target, unit.path)
        types: tuple[TypeChange, ...] = ()
        if _has_new_content(diff):
            before, after = (read_object(side, unit.path) for side in (pre, post))
            types = changed_types(before, after, room)
    except ValueError as error:
        refusal = Refusal("object_unknown", unit.path, "", f"the object is unusual: {error}")
        return DiffedUnit(unit, bare, None, (), (refusal,), origin)
    diffed = _judged(unit, bare, UnitPart(unit.target, unit.path, diff, closure), origin)
    if not types:
        return diffed
    layout = layout_refusals(unit.path, types)
    return replace(diffed, part=None, functions=(), refused=(*diffed.refused, *layout))


def layout_refusals(path: str, types: Iterable[TypeChange]) -> tuple[Refusal, ...]:
    """Why a unit cannot go live in which types change."""
    reason = "a type changes, and the running kernel has data of the old layout"
    return tuple(Refusal("layout_changed", path, t.name, reason, t.evidence) for t in types)


def _has_new_content(diff: UnitDiff) -> bool:
    functions = diff.post.layout.functions()
    return bool(diff.changed or diff.data) or any(diff.pairing.pre_of(f) is None for f in functions)


def join_units(diffed: Iterable[DiffedUnit]) -> tuple[DiffedUnit, ...]:
    """Units that go live together: what one adds and another uses is carried, too."""
    units = tuple(diffed)
    parts = [unit.part for unit in units if unit.part is not None]
    joined = iter(join(tuple(Member(part.target, part.unit, part.diff) for part in parts)))
    return tuple(unit if unit.part is None else _rejudged(unit, next(joined)) for unit in units)


class PlainProofs:
    """Gives units that go live a plain object where one is needed; refuses those where it is not
    the same as the split one. What was proved once is not proved again.

    :param compiled: gives the plain objects of some units, by path.
    """

    def __init__(self, compiled: Callable[[tuple[Unit, ...]], Mapping[str, bytes]]) -> None:
        self._compiled = compiled
        self._known: dict[tuple[str, bytes], tuple[UnitDiff, Plain | Refusal]] = {}

    def prove(self, diffed: Iterable[DiffedUnit]) -> tuple[DiffedUnit, ...]:
        """The units with what they need."""
        units = tuple(diffed)
        wanted = tuple(d.unit for d in units if d.live and d.part is not None and _padded(d.part))
        objects = self._compiled(wanted) if wanted else {}
        return tuple(
            self._proved(d, objects[d.unit.path]) if d.unit in wanted else d for d in units
        )

    def _proved(self, diffed: DiffedUnit, content: bytes) -> DiffedUnit:
        assert diffed.part is not None
        key, diff = (diffed.unit.path, content), diffed.part.diff
        if key not in self._known or self._known[key][0] is not diff:
            self._known[key] = (diff, _proof(diff, diffed.unit.path, content))
        found = self._known[key][1]
        if isinstance(found, Plain):
            return replace(diffed, part=replace(diffed.part, plain=found))
        return replace(diffed, part=None, functions=(), refused=(found,))


def _padded(part: UnitPart) -> bool:
    return needs_plain(part.diff.pre.layout.object)


def _proof(diff: UnitDiff, path: str, content: bytes) -> Plain | Refusal:
    """A unit's plain object as the same code as the split one, or why it is not."""
    bare = stripped(content)
    try:
        obj = read_object(bare, path)
        plain = Plain(bare, prove_alike(diff.pre.layout.object, obj))
        for changed in diff.changed:
            entity, jump = plain.entity(changed.pre), jump_offset(diff.pre, changed.pre)
            code = obj.section(entity.section).data[entity.offset : entity.offset + entity.size]
            if len(code) < jump + JUMP_SIZE or not diff.pre.layout.content(changed.pre).startswith(
                code[:jump]
            ):
                raise Unlike(changed.pre.name, "it begins otherwise")
    except Unlike as unlike:
        reason = "the compiler makes other code of it with a section for each function"
        return Refusal("compiled_otherwise", path, unlike.symbol, reason, unlike.reason)
    except ValueError as error:
        return Refusal("object_unknown", path, "", f"the plain object is unusual: {error}")
    return plain


def _rejudged(unit: DiffedUnit, joined: Joined) -> DiffedUnit:
    assert unit.part is not None
    part = replace(unit.part, closure=joined.closure)
    judged = _judged(unit.unit, unit.pre, part, unit.origin)
    if joined.refused:
        refused = judged.refused + joined.refused
        return replace(judged, part=None, functions=(), refused=refused)
    return replace(judged, needed=joined.needed, lenders=joined.lenders)


def _judged(unit: Unit, pre: bytes, part: UnitPart, origin: Origin) -> DiffedUnit:
    carried = part.closure.carried
    refused = check(part.diff, carried, unit.path)
    if refused:
        return DiffedUnit(unit, pre, None, (), refused, origin)
    functions = tuple(_functions(unit, part.diff, carried, origin))
    exposed = interruptible(part.diff, unit.path)
    return DiffedUnit(unit, pre, part, functions, (), origin, interruptible=exposed)


def _functions(
    unit: Unit, diff: UnitDiff, carried: Carried, origin: Origin
) -> Iterator[FunctionChange]:
    def change(name: str, kind: ChangeKind, why: str) -> FunctionChange:
        return FunctionChange(unit.target, unit.path, name, kind, why)

    symbols = {function.name.partition(".")[0] for function in diff.post.layout.functions()}
    inlined = [name for name in origin.touched if name not in symbols]
    for changed in diff.changed:
        name = changed.pre.name
        yield change(name, ChangeKind.CHANGED, _why(name, origin, inlined))
    users = _users(diff, carried)
    for entity in carried.new_functions:
        yield change(entity.name, ChangeKind.NEW, _new("called by", users.get(entity)))
    for entity in carried.new_data:
        yield change(entity.name, ChangeKind.DATA, _new("used by", users.get(entity)))
    for value in carried.values:
        yield change(value.name, ChangeKind.CONSTANT, "own source, in place")


def _users(diff: UnitDiff, carried: Carried) -> dict[Entity, str]:
    """By entity, the first function or datum of the update that refers to it."""
    users: dict[Entity, str] = {}
    for entity in carried.code + carried.data:
        name = entity.parent or entity.name
        targets = [target for _, target in diff.post.references(entity)]
        targets += [target for site in diff.post.sites(entity) for target in site.targets]
        for target in targets:
            if target.entity is not None and name and target.entity != entity:
                users.setdefault(target.entity, name)
    return users


def _new(word: str, user: str | None) -> str:
    return f"new, {word} {user}" if user else "new, for another unit"


def _why(name: str, origin: Origin, inlined: list[str]) -> str:
    if name.partition(".")[0] in origin.touched:
        return "own source"
    if inlined:
        return f"inlined callee: {', '.join(inlined)}"
    if origin.headers:
        return f"header: {', '.join(origin.headers)}"
    if origin.touched:
        return f"what the compiler knows of {', '.join(origin.touched)}"
    return "constant, macro or type outside functions"
