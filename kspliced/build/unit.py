# SPDX-License-Identifier: GPL-2.0-or-later
"""One unit from two objects to what it adds to the update, or to refusals."""

from __future__ import annotations

from dataclasses import dataclass

from kspliced.build.closure import Carried, Closure
from kspliced.build.diff import UnitDiff, diff_objects
from kspliced.build.emit import UnitPart
from kspliced.build.kbuild import Unit
from kspliced.build.rules import check
from kspliced.elf.read import read_object
from kspliced.model import ChangeKind, FunctionChange, Refusal


@dataclass(frozen=True)
class DiffedUnit:
    """``pre`` is the pre object's file; ``part`` is None when the unit is refused."""

    unit: Unit
    pre: bytes
    part: UnitPart | None
    functions: tuple[FunctionChange, ...]
    refused: tuple[Refusal, ...]


def diff_unit(unit: Unit, pre: bytes, post: bytes, touched: tuple[str, ...]) -> DiffedUnit:
    """Compare, close and judge; ``touched`` names the functions whose source differs.

    :raises BuildError: OBJECT_MALFORMED.
    """
    try:
        diff = diff_objects(read_object(pre, unit.path), read_object(post, unit.path))
        closure = Closure(diff, unit.target, unit.path)
    except ValueError as error:
        refusal = Refusal("object_unknown", unit.path, "", f"the object is unusual: {error}")
        return DiffedUnit(unit, pre, None, (), (refusal,))
    carried = closure.carried
    refused = check(diff, carried, unit.path)
    if refused:
        return DiffedUnit(unit, pre, None, (), refused)
    part = UnitPart(unit.target, unit.path, diff, closure)
    return DiffedUnit(unit, pre, part, _functions(unit, diff, carried, touched), ())


def _functions(
    unit: Unit, diff: UnitDiff, carried: Carried, touched: tuple[str, ...]
) -> tuple[FunctionChange, ...]:
    def change(name: str, kind: ChangeKind, why: str) -> FunctionChange:
        return FunctionChange(unit.target, unit.path, name, kind, why)

    symbols = {function.name.partition(".")[0] for function in diff.post.layout.functions()}
    inlined = [name for name in touched if name not in symbols]
    found = [
        change(c.pre.name, ChangeKind.CHANGED, _why(c.pre.name, touched, inlined))
        for c in diff.changed
    ]
    found += [
        change(e.name, ChangeKind.NEW, "only in the new source") for e in carried.new_functions
    ]
    found += [change(e.name, ChangeKind.DATA, "only in the new source") for e in carried.new_data]
    return tuple(found)


def _why(name: str, touched: tuple[str, ...], inlined: list[str]) -> str:
    if name.partition(".")[0] in touched:
        return "own source"
    if inlined:
        return f"inlined callee: {', '.join(inlined)}"
    return "a macro, type or constant it uses"
