# SPDX-License-Identifier: GPL-2.0-or-later
"""Enumerators that have another value, as the preprocessed text of a unit has them.

The compiler's own description of types (build/types.py) lacks some: GCC 12 leaves out what is no
``int``, and no version has what is declared inside a function. The text has all of them, its macros
expanded and its conditions decided. A value is compared as it is spelt: what is only spelt
otherwise counts as another.

Only units are preprocessed that read an edit which can give an enumerator another value
(plan/enumerators.py): one of a directive, a macro or an enumeration.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from kspliced.build.diff import UnitDiff
from kspliced.build.kbuild import Kbuild
from kspliced.build.late import Pre
from kspliced.build.types import TypeChange, enumerators_told
from kspliced.build.unit import DiffedUnit, layout_refusals
from kspliced.build.workspace import source_of
from kspliced.elf.read import read_object
from kspliced.plan.components import Component, Texts
from kspliced.plan.edits import Edit
from kspliced.plan.enumerators import (
    Enumerator,
    Value,
    changes,
    enumeration,
    may_change_one,
    values,
)
from kspliced.plan.members import tokens

# Units whose texts are there at a time: they have several megabytes each.
_AT_ONCE = 8
_MARKER = re.compile(r"^#.*$", re.MULTILINE)
_ATTRIBUTE = r"__attribute__\s*\(\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)\)\s*"
_HEAD = re.compile(rf"\benum(?:\s+|\b)(?:{_ATTRIBUTE})*(?:\w+\s*)?(?:{_ATTRIBUTE})*\{{")
_BRACE = re.compile(r"'(?:\\.|[^'\\])+'|[{}]")
_NAME = re.compile(r"[A-Za-z_]\w*")

_Enumerators = Mapping[str, tuple[Enumerator, ...]]


@dataclass(frozen=True)
class _Text:
    """``bodies`` of all enumerations, and the ``rest``."""

    bodies: tuple[str, ...]
    rest: str

    def enumerators(self) -> _Enumerators:
        """All, in order; a name has several where functions declare it again."""
        found: dict[str, list[Enumerator]] = {}
        for body in self.bodies:
            spelt = values((tokens((body,)),)).items()
            pairs = ((name, value if value.base else value.step) for name, value in spelt)
            for name, one in enumeration(pairs, whole=True).items():
                found.setdefault(name, []).append(one)
        return {name: tuple(some) for name, some in found.items()}


def _text(preprocessed: str) -> _Text:
    text = _MARKER.sub("", preprocessed)
    bodies, rest, place = [], [], 0
    while (head := _HEAD.search(text, place)) is not None:
        rest.append(text[place : head.start()])
        place = _closing(text, head.end())
        bodies.append(" ".join(text[head.end() : place].split()))
    return _Text(tuple(bodies), "\n".join((*rest, text[place:])))


def _closing(text: str, start: int) -> int:
    """Where the braces close that open before ``start``."""
    depth = 1
    for found in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(found.group(), 0)
        if not depth:
            return found.start()
    return len(text)


def changed_enumerators(
    old: str, new: str, told: Callable[[], frozenset[str]]
) -> tuple[TypeChange, ...]:
    """The enumerators of both texts that have another value and are named outside of enumerations.

    :param told: gives those that the compiler's description has on both sides.
    """
    before, after = _text(old), _text(new)
    if before.bodies == after.bodies:
        return ()
    olds, news = before.enumerators(), after.enumerators()
    differ = _Differ(olds, news)
    found = [name for name in sorted(olds.keys() & news.keys()) if differ(name)]
    if not found:
        return ()
    named = set(re.findall(rf"\b(?:{'|'.join(found)})\b", f"{before.rest}\n{after.rest}"))
    known = {name for name in told() if len(olds.get(name, ())) == len(news.get(name, ())) == 1}
    return tuple(
        TypeChange(f"enumerator {name}", f"{_spelt(olds[name])} before, {_spelt(news[name])} after")
        for name in found
        if name in named - known
    )


class _Differ:
    """Whether an enumerator of both sides has another value, by itself or by what it is made of."""

    def __init__(self, old: _Enumerators, new: _Enumerators) -> None:
        self._old, self._new = old, new
        # Of those that have one value on either side.
        self._one, self._other = (
            {name: some[0] for name, some in side.items() if len(some) == 1} for side in (old, new)
        )
        self._known: dict[str, bool] = {}

    def __call__(self, name: str) -> bool:
        if not self._moves(name):
            return False
        before, after = self._one.get(name), self._other.get(name)
        if before is None or after is None or before.value == after.value:
            return True
        return changes(name, self._one, self._other)

    def _moves(self, name: str) -> bool:
        if name not in self._known:
            self._known[name] = False  # one that is declared again may be made of the other
            before, after = ([e.value for e in side[name]] for side in (self._old, self._new))
            bases = (value.base for value in before if isinstance(value, Value))
            parts = {part for base in bases for part in _NAME.findall(base)} & self._old.keys()
            self._known[name] = before != after or any(
                self._moves(part) for part in sorted(parts & self._new.keys())
            )
        return self._known[name]


def _spelt(some: tuple[Enumerator, ...]) -> str:
    return " or ".join(_value(one.value) for one in some)


def _value(value: int | Value) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value.base} + {value.step}" if value.step else value.base


class EnumeratorProofs:
    """Refuses units that go live if an enumerator has another value in them. What was looked at
    once is not looked at again.

    :param kbuild: gives the object trees that were compiled, ``pre`` and ``post``.
    :param texts: of what changed.
    :param pre: gives the old units, with what each reads.
    """

    def __init__(
        self, kbuild: Callable[[str], Kbuild], texts: Texts, pre: Callable[[], Pre]
    ) -> None:
        self._kbuild, self._texts, self._pre = kbuild, texts, pre
        self._known: dict[str, tuple[UnitDiff, tuple[TypeChange, ...]]] = {}
        self._open: dict[Edit, bool] = {}

    def prove(
        self, diffed: Iterable[DiffedUnit], live: Iterable[Component]
    ) -> tuple[DiffedUnit, ...]:
        """The units, or why not.

        :param live: what the new tree has of the change.
        """
        concerned = self._concerned(live)
        units = [(d, bool(d.functions) and self._reads(d, concerned)) for d in diffed]
        open_ones = [d for d, wanted in units if wanted and not self._looked_at(d)]
        for start in range(0, len(open_ones), _AT_ONCE):
            self._look(open_ones[start : start + _AT_ONCE])
        return tuple(self._judged(d) if wanted else d for d, wanted in units)

    def _concerned(self, live: Iterable[Component]) -> frozenset[str]:
        """The files with an edit that may give an enumerator another value."""
        by_path: dict[str, set[Edit]] = defaultdict(set)
        for component in live:
            for node in component.nodes:
                by_path[node.path].update(node.edits)
            for header in component.headers:
                by_path[header.edit.path].add(header.edit)
        return frozenset(path for path, edits in by_path.items() if self._may_change(path, edits))

    def _may_change(self, path: str, edits: set[Edit]) -> bool:
        unknown = edits - self._open.keys()
        if unknown:
            old, new = self._texts.old(path), self._texts.new(path)
            self._open |= {edit: may_change_one(edit, old, new) for edit in unknown}
        return any(self._open[edit] for edit in edits)

    def _reads(self, diffed: DiffedUnit, paths: frozenset[str]) -> bool:
        source = source_of(diffed.unit)
        return source in paths or not paths.isdisjoint(self._pre().reads.get(source, paths))

    def _looked_at(self, diffed: DiffedUnit) -> bool:
        assert diffed.part is not None
        known = self._known.get(diffed.unit.path)
        return known is not None and known[0] is diffed.part.diff

    def _look(self, some: list[DiffedUnit]) -> None:
        sides = [self._kbuild(name) for name in ("pre", "post")]
        before, after = (side.preprocess(d.unit for d in some) for side in sides)
        for d in some:
            assert d.part is not None
            path = d.unit.path

            def told(d: DiffedUnit = d) -> frozenset[str]:
                objects = (side.object_path(d.unit).read_bytes() for side in sides)
                return enumerators_told(*(read_object(one, d.unit.path) for one in objects))

            self._known[path] = d.part.diff, changed_enumerators(before[path], after[path], told)

    def _judged(self, diffed: DiffedUnit) -> DiffedUnit:
        found = self._known[diffed.unit.path][1]
        if not found:
            return diffed
        refused = layout_refusals(diffed.unit.path, found)
        return replace(diffed, part=None, functions=(), refused=(*diffed.refused, *refused))
