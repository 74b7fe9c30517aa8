# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of a changed header: of each edit what becomes of those that need it."""

from __future__ import annotations

import pytest

from kspliced.build.fates import Decision, Fate, header_fates
from kspliced.model import Refusal
from kspliced.plan.components import Component, SourceNode
from kspliced.plan.declarations import Declaration, DeclarationKind
from kspliced.plan.edits import Edit
from kspliced.plan.headers import HeaderChange, HeaderEdit
from kspliced.plan.neutral import ADDED, OTHER
from kspliced.source.lines import Hunk

NONE: frozenset[str] = frozenset()
PATH = "include/h.h"


def edit(line: int, name: str, kind: DeclarationKind, *new: str) -> Edit:
    declared = Declaration(PATH, name, kind, line, line, False)
    return Edit(PATH, (Hunk(line, 0, line, 1),), (declared,), (declared,), (), new)


def helper(line: int, name: str) -> HeaderEdit:
    """An inline function that is new."""
    one = edit(line, name, DeclarationKind.FUNCTION, f"static inline int {name}(void);")
    return HeaderEdit(one, HeaderChange.ADDS, frozenset({name}), NONE, None, False)


def member(
    name: str, reason: str = ADDED, kind: DeclarationKind = DeclarationKind.STRUCT
) -> HeaderEdit:
    """A type that gets a member."""
    one = edit(50, "thing", kind, f"int {name};")
    refusal = Refusal("type_changed", PATH, "thing", reason)
    return HeaderEdit(one, HeaderChange.REFUSED, frozenset({name}), NONE, refusal, False)


def fate(
    path: str,
    decision: Decision,
    *headers: HeaderEdit,
    mentions: str = "",
    refused: HeaderEdit | None = None,
) -> Fate:
    node = SourceNode(path, path, (), (), frozenset(mentions.split()), NONE, NONE)
    refusals = (refused.refusal,) if refused is not None and refused.refusal is not None else ()
    return Fate(Component(path, (path,), headers, (), refusals, (node,)), decision, (), ())


def found(headers: list[HeaderEdit], *fates: Fate, idle: bool = False) -> dict[str, str]:
    """The decision of each part of the header."""
    made = header_fates(headers, fates, {PATH} if idle else ())
    return {one.component.id: one.decision.value for one in made}


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        ((Decision.LIVE,), "live"),
        ((Decision.LIVE, Decision.LATER), "later"),
        ((Decision.LIVE, Decision.ASK), "ask"),
        ((Decision.ASK, Decision.REBOOT), "reboot"),
        ((), "irrelevant"),
    ],
)
def test_an_edit_has_the_worst_fate_of_those_that_need_it(
    users: tuple[Decision, ...], expected: str
) -> None:
    one = helper(10, "one")
    fates = [fate(f"{n}.c", decision, one) for n, decision in enumerate(users)]
    assert found([one], *fates) == {PATH: expected}


def test_edits_of_a_header_have_fates_of_their_own() -> None:
    one, two, three = helper(10, "one"), helper(20, "two"), helper(30, "three")
    users = (
        fate("a.c", Decision.LIVE, one),
        fate("b.c", Decision.REBOOT, two),
        fate("c.c", Decision.LIVE, three),
    )
    assert found([one, two, three], *users) == {f"{PATH}:one": "live", f"{PATH}:two": "reboot"}
    made = {f.component.id: f for f in header_fates([one, two, three], users, ())}
    assert made[f"{PATH}:one"].component.edits(PATH) == (one.edit, three.edit)
    assert all(f.component.files == f.component.divided == (PATH,) for f in made.values())
    assert [r.code for r in made[f"{PATH}:two"].reasons] == ["needs_refused"]


@pytest.mark.parametrize(
    ("fates", "expected"),
    [
        # Nobody who runs means it.
        ((fate("a.c", Decision.LATER, mentions="fresh"),), "later"),
        ((fate("a.c", Decision.LIVE, mentions="other"),), "irrelevant"),
        ((fate("a.c", Decision.REBOOT, mentions="fresh"),), "reboot"),
        # It may mean another type's of that name.
        ((fate("a.c", Decision.LIVE, mentions="fresh"),), "reboot"),
        ((fate("a.c", Decision.REBOOT, refused=member("fresh")),), "reboot"),
    ],
)
def test_a_new_member_matters_to_who_mentions_it(fates: tuple[Fate, ...], expected: str) -> None:
    assert found([member("fresh")], *fates) == {PATH: expected}


def test_a_new_member_that_another_header_uses() -> None:
    one = edit(10, "get", DeclarationKind.FUNCTION, "return t->fresh;")
    use = HeaderEdit(one, HeaderChange.CHANGES, frozenset({"get"}), NONE, None, False)
    found_ = found([member("fresh"), use], fate("a.c", Decision.LIVE, use))
    assert found_ == {f"{PATH}:get": "live", f"{PATH}:thing": "reboot"}


@pytest.mark.parametrize(
    "header",
    [
        # Who merely uses the type is another one with it.
        member("fresh", OTHER),
        # A function in the same edit.
        member("fresh", ADDED, DeclarationKind.FUNCTION),
    ],
)
def test_what_else_a_type_does_matters_to_all(header: HeaderEdit) -> None:
    assert found([header], fate("a.c", Decision.LATER, mentions="fresh")) == {PATH: "reboot"}


def test_what_only_modules_read_that_are_not_loaded_is_later() -> None:
    assert found([member("fresh", OTHER)], idle=True) == {PATH: "later"}
    one = helper(10, "one")
    assert found([one], fate("a.c", Decision.LIVE, one), idle=True) == {PATH: "live"}
