# SPDX-License-Identifier: GPL-2.0-or-later
"""Doubts about a component that compiles and differs as it may: what only reading it can settle.

Objects that exist when the switch comes were made by the old code. Each rule looks for one way in
which new code may be wrong about them. A doubt is not a proof; who asks decides by policy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from kspliced.model import Refusal
from kspliced.plan.edits import Edit
from kspliced.plan.text import identifiers


class Policy(str, Enum):
    """What goes live by itself: ``conservative`` only what is beyond doubt, ``normal`` also what
    is in weak doubt, ``manual`` nothing."""

    CONSERVATIVE = "conservative"
    NORMAL = "normal"
    MANUAL = "manual"


@dataclass(frozen=True)
class Doubt:
    """``strong``: normal policy does not pass over it either."""

    refusal: Refusal
    strong: bool


Rule = Callable[[tuple[Edit, ...]], Iterator[Doubt]]

# What one function does to an object and another undoes: (does, undoes), by the end of the name.
_PAIRS = (
    ("get", "put"), ("hold", "put"), ("get", "release"), ("inc", "dec"), ("grab", "put"),
    ("lock", "unlock"), ("trylock", "unlock"), ("down", "up"), ("read", "up"), ("write", "up"),
    ("alloc", "free"), ("malloc", "free"), ("zalloc", "free"), ("create", "destroy"),
    ("init", "destroy"), ("init", "exit"), ("init", "cleanup"), ("setup", "teardown"),
    ("register", "unregister"), ("add", "del"), ("add", "remove"), ("enable", "disable"),
    ("attach", "detach"), ("start", "stop"), ("open", "close"), ("map", "unmap"),
    ("set", "clear"), ("queue", "cancel"), ("link", "unlink"), ("insert", "erase"),
    ("enter", "exit"), ("begin", "end"), ("pin", "unpin"), ("charge", "uncharge"),
)  # fmt: skip
_CALL = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
_LOCK = re.compile(
    r"\b(?:mutex_lock|mutex_lock_\w+|(?:raw_)?(?:spin|read|write)_lock\w*|down_(?:read|write)\w*"
    r"|lock_sock\w*|rtnl_lock|inode_lock\w*|device_lock\w*|bh_lock_sock\w*)\s*\("
)
_STORED = re.compile(
    r"(?:->|\.)(\w+)\s*(?:\[[^]]*\]\s*)?[-+|&^]?=(?!=)|\b(?:INIT_\w+|\w*_init\w*)\s*\(\s*&?[\w>.()-]*?(?:->|\.)(\w+)"
)
_MAKER = re.compile(
    r"(?:^|_)(?:probe|create|alloc|new|init|setup|open|attach|register|bind|mount|fill_super)(?:_|$)"
)
_NEVER_LEAVES = re.compile(r"\bkthread_(?:freezable_)?should_(?:stop|park)\b")


def doubts(edits: tuple[Edit, ...]) -> tuple[Doubt, ...]:
    """Every doubt about the edits of one component, in the order of the rules."""
    return tuple(doubt for rule in RULES for doubt in rule(edits))


def passes(policy: Policy, found: tuple[Doubt, ...]) -> bool:
    """Whether a component with these doubts goes live by itself."""
    if policy is Policy.MANUAL:
        return False
    if policy is Policy.NORMAL:
        return not any(doubt.strong for doubt in found)
    return not found


def _function(edit: Edit) -> str:
    functions = edit.changed_functions or tuple(edit.removed)
    return functions[0].name if functions else ""


def _net_calls(edit: Edit) -> Counter[str]:
    """How often each function is called more often than before."""
    net = Counter(name for line in edit.new_lines for name in _CALL.findall(line))
    net.subtract(name for line in edit.old_lines for name in _CALL.findall(line))
    return +net


def _pairs(edits: tuple[Edit, ...]) -> Iterator[Doubt]:
    """One changed function now does something that another now undoes."""
    net = [(edit, _net_calls(edit)) for edit in edits]
    for does, undoes in _PAIRS:
        doing = [(e, name) for e, calls in net for name in calls if _ends(name, does)]
        undoing = [(e, name) for e, calls in net for name in calls if _ends(name, undoes)]
        for edit, name in doing:
            other = next((o for o in undoing if o[0] is not edit and _akin(name, o[1])), None)
            if other is not None:
                where, undone = other
                reason = "objects of before the switch miss what the new code undoes"
                evidence = f"{_function(edit)} calls {name}, {_function(where)} calls {undone}"
                refusal = Refusal("invariant", edit.path, _function(edit), reason, evidence)
                yield Doubt(refusal, strong=True)
                return


def _ends(name: str, word: str) -> bool:
    return word in name.lower().split("_") or name.lower().endswith(word)


def _akin(one: str, other: str) -> bool:
    """Whether two functions are of one family: their names begin alike."""
    return one[:3].lower() == other[:3].lower()


def _state(edits: tuple[Edit, ...]) -> Iterator[Doubt]:
    """A function that makes objects now sets a member that other changed lines rely on."""
    for edit in edits:
        if not _MAKER.search(_function(edit)):
            continue
        before = set(_stored(edit.old_lines))
        for member in dict.fromkeys(_stored(edit.new_lines)):
            user = _user(edits, edit, member)
            if member not in before and user is not None:
                reason = "objects that exist already were made without this"
                evidence = f"{_function(edit)} sets {member}, {_function(user)} uses it"
                refusal = Refusal("existing_objects", edit.path, _function(edit), reason, evidence)
                yield Doubt(refusal, strong=True)
                return


def _stored(lines: tuple[str, ...]) -> list[str]:
    return [a or b for line in lines for a, b in _STORED.findall(line)]


def _user(edits: tuple[Edit, ...], maker: Edit, member: str) -> Edit | None:
    for edit in edits:
        if edit is not maker and member in identifiers(edit.new_lines):
            return edit
    return None


def _locks(edits: tuple[Edit, ...]) -> Iterator[Doubt]:
    """A function takes a lock that it did not take: the order of locks may change."""
    for edit in edits:
        locks = Counter(_LOCK.findall("\n".join(edit.new_lines)))
        locks.subtract(_LOCK.findall("\n".join(edit.old_lines)))
        taken = sorted((+locks).keys())
        if taken:
            reason = "it takes a lock that it did not take, and who waits holds others"
            name = taken[0].rstrip("( ")
            yield Doubt(Refusal("lock_order", edit.path, _function(edit), reason, name), False)
            return


RULES: tuple[Rule, ...] = (_pairs, _state, _locks)


def never_leaves(lines: list[str]) -> bool:
    """Whether a function is a kernel thread's loop, which is on its stack all the time."""
    return any(_NEVER_LEAVES.search(line) for line in lines)
