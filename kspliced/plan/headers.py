# SPDX-License-Identifier: GPL-2.0-or-later
"""What an edit of a header means for the code that includes it.

A header is included by thousands of units that nobody changed. An edit that only adds names nobody
uses yet cannot change them; one that changes an inline function or a macro concerns those that
mention it, directly or through other headers; one that changes a type concerns objects that exist
in memory, and is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from kspliced.model import Refusal
from kspliced.plan.declarations import TYPES, DeclarationKind
from kspliced.plan.edits import Edit

_MEMBER = re.compile(
    r"\b([A-Za-z_]\w*)\s*(?:\[[^]]*\]\s*)*(?::\s*\w+\s*[;,]|;)|\(\s*\*\s*(\w+)\s*\)"
)
# Of members in one declaration, each before the last; parameters stand in parentheses.
_SEVERAL = re.compile(r"^[^()]*,[^()]*;")
_BEFORE = re.compile(r"\b([A-Za-z_]\w*)\s*(?:\[[^]]*\]\s*)*,")
_CALLABLE = frozenset({DeclarationKind.FUNCTION, DeclarationKind.MACRO, DeclarationKind.PROTOTYPE})


class HeaderChange(str, Enum):
    """What an edit does to those who include the header."""

    ADDS = "adds"
    REMOVES = "removes"
    CHANGES = "changes"
    REFUSED = "refused"


@dataclass(frozen=True)
class HeaderEdit:
    """``names``: what code must mention for the edit to concern it; ``refusal`` if REFUSED;
    ``new`` if the whole header is. ``proven``: those of ``names`` that come with the edit, so that
    code which means them does not compile without it; it may mean another type's."""

    edit: Edit
    change: HeaderChange
    names: frozenset[str]
    refusal: Refusal | None
    new: bool
    proven: frozenset[str] = frozenset()


def classify(edit: Edit, new: bool) -> HeaderEdit:
    """Judge one edit of a header, which is ``new`` or was there."""
    kinds = {d.kind for d in edit.removed + edit.added}
    if not edit.new_lines and edit.removed:
        return HeaderEdit(edit, HeaderChange.REMOVES, edit.names, None, new)
    added = frozenset(d.name for d in edit.added) - {d.name for d in edit.removed}
    if new:
        return HeaderEdit(edit, HeaderChange.ADDS, added, None, new)
    if not edit.old_lines and edit.added and added == edit.names and _is_new(edit):
        return HeaderEdit(edit, HeaderChange.ADDS, added, None, new)
    if not kinds and all(line.startswith("#include") for line in edit.new_lines + edit.old_lines):
        # What is included where only decides whether accepted code compiles.
        change = HeaderChange.ADDS if edit.new_lines else HeaderChange.REMOVES
        return HeaderEdit(edit, change, frozenset(), None, new)
    if kinds and kinds <= _CALLABLE and edit.added:
        return HeaderEdit(edit, HeaderChange.CHANGES, edit.names, None, new)
    return _refused(edit, kinds, new)


def _is_new(edit: Edit) -> bool:
    """Whether all of each added declaration lies in the hunks."""
    lines = {
        line for h in edit.hunks for line in range(h.new_start, h.new_start + max(1, h.new_count))
    }
    return all(d.start in lines and d.end in lines for d in edit.added)


def _refused(edit: Edit, kinds: set[DeclarationKind], new: bool) -> HeaderEdit:
    lines = _changed_lines(edit)
    names = edit.names | frozenset(members(lines))
    proven: frozenset[str] = frozenset()
    types = sorted(d.name for d in edit.removed + edit.added if d.kind in TYPES)
    symbol = types[0] if types else next(iter(sorted(edit.names)), "")
    if types or DeclarationKind.ENUMERATOR in kinds:
        reason = "the type changes, and objects of it exist or its values are in use"
        refusal = Refusal("type_changed", edit.path, symbol, reason, _evidence(edit))
        # Code that only uses the type by name is not concerned, what uses these members is.
        names = frozenset(members(lines)) | _enumerators(edit)
        proven = names - _members_before(edit)
    else:
        reason = "it cannot be told which units this concerns"
        refusal = Refusal("header_changed", edit.path, symbol, reason, _evidence(edit))
    return HeaderEdit(edit, HeaderChange.REFUSED, names, refusal, new, proven)


def _members_before(edit: Edit) -> frozenset[str]:
    """What the old side of an edit declares, on lines that the new side does not have as well."""
    lines = tuple(line for line in edit.old_lines if line not in edit.new_lines)
    old = {d.name for d in edit.removed if d.kind is DeclarationKind.ENUMERATOR}
    return frozenset(members(lines)) | old


def _changed_lines(edit: Edit) -> tuple[str, ...]:
    """Lines that are not on both sides, as those are that only moved or were indented."""
    both = set(edit.old_lines) & set(edit.new_lines)
    return tuple(line for line in edit.old_lines + edit.new_lines if line not in both)


def _enumerators(edit: Edit) -> frozenset[str]:
    both = {d.name for d in edit.removed} & {d.name for d in edit.added}
    return frozenset(
        d.name
        for d in edit.removed + edit.added
        if d.kind is DeclarationKind.ENUMERATOR and d.name not in both
    )


def members(lines: tuple[str, ...]) -> tuple[str, ...]:
    """The members that lines of a struct declare."""
    found = []
    for line in lines:
        found += [a or b for a, b in _MEMBER.findall(line)]
        if _SEVERAL.match(line):
            found += [name for name in _BEFORE.findall(line) if name not in found]
    return tuple(found)


def _evidence(edit: Edit) -> str:
    lines = [f"-{line}" for line in edit.old_lines[:2]] + [
        f"+{line}" for line in edit.new_lines[:2]
    ]
    return "; ".join(lines)[:200]
