# SPDX-License-Identifier: GPL-2.0-or-later
"""What lines store in members of objects, told from their text."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kspliced.plan.edits import Edit
from kspliced.plan.text import identifiers

_SET_UP = re.compile(
    r"(?:->|\.)(\w+)\s*(?:\[[^]]*\]\s*)?[-+|&^]?=(?!=)|\b(?:INIT_\w+|\w*_init\w*)\s*\(\s*&?[\w>.()-]*?(?:->|\.)(\w+)"
)
# What is on a list has the member that it hangs by.
_LISTED = re.compile(r"\bh?list_add\w*\s*\(\s*&\w+->[\w.>-]*?(\w+)\s*,")
_COPIED = re.compile(r"\bmem(?:cpy|set)\s*\(\s*&?\w+->[\w.>-]*?(\w+)\s*,")
# Only through a pointer: what a function stores in its own variables is gone when it returns.
_KEPT = re.compile(
    r"->[\w.]*?(\w+)\s*(?:(?:\[[^]]*\]\s*)?[-+|&^]?=(?!=)|\+\+|--)"
    r"|(?:\+\+|--)\s*\w+->[\w.>-]*?(\w+)\s*[;)]"
    rf"|{_COPIED.pattern}"
)


def set_up(lines: Iterable[str]) -> list[str]:
    """The members that lines assign to or initialise."""
    return [a or b for line in lines for a, b in _SET_UP.findall(line)]


def filled(lines: Sequence[str]) -> frozenset[str]:
    """The members that objects have something in after lines: also by a list or a copy."""
    text = "\n".join(lines)
    return frozenset((*set_up(lines), *_LISTED.findall(text), *_COPIED.findall(text)))


def kept(lines: Iterable[str]) -> list[str]:
    """The members of what lives longer that lines store something in."""
    return [next(filter(None, found)) for found in _KEPT.findall("\n".join(lines))]


def _values(lines: Iterable[str]) -> dict[str, frozenset[str]]:
    """The members that lines store something in, with what else a line of these names."""
    found: dict[str, frozenset[str]] = {}
    for line in lines:
        for member in kept([line]):
            others = frozenset(name for name in identifiers([line]) if "_" in name) - {member}
            found[member] = found.get(member, frozenset()) | others
    return found


@dataclass(frozen=True)
class _Store:
    name: str
    path: str
    values: frozenset[str]


def handed_over(
    some: Iterable[tuple[str, str, tuple[Edit, ...]]],
) -> Iterator[tuple[str, str]]:
    """Pairs of changes of which one no longer stores what the other does from now on: an object
    that went through one of the two alone would have it twice, or not at all.

    :param some: a name, a path, and what is changed there. Only files of one directory are told
        to be about the same member, and only if what they store has a name in common.
    """
    gone: dict[tuple[str, str], list[_Store]] = defaultdict(list)
    come: dict[tuple[str, str], list[_Store]] = defaultdict(list)
    for name, path, edits in some:
        before = _values(line for edit in edits for line in edit.old_lines)
        after = _values(line for edit in edits for line in edit.new_lines)
        for found, here, there in ((gone, before, after), (come, after, before)):
            for member in here.keys() - there.keys():
                key = posixpath.dirname(path), member
                found[key].append(_Store(name, path, here[member]))
    for key in sorted(gone.keys() & come.keys()):
        for one in gone[key]:
            for other in come[key]:
                if one.path != other.path and one.values & other.values:
                    yield (one.name, other.name)
