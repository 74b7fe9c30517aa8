# SPDX-License-Identifier: GPL-2.0-or-later
"""What an edit of a header means for the code that includes it.

A header is included by thousands of units that nobody changed. An edit that only adds names nobody
uses yet cannot change them; one that changes an inline function or a macro concerns those that
mention it, directly or through other headers; one that changes a type concerns objects that exist
in memory, and is refused unless these are as they were (touched.py).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from enum import Enum

from kspliced.model import Refusal
from kspliced.plan.declarations import TYPES, DeclarationKind
from kspliced.plan.edits import Edit
from kspliced.plan.neutral import ADDED, REMOVED
from kspliced.plan.touched import Headers, Touched, forward, macros_of, removes, touched

_MEMBER = re.compile(
    r"\b([A-Za-z_]\w*)\s*(?:\[[^]]*\]\s*)*(?::\s*\w+\s*[;,]|;)|\(\s*\*\s*(\w+)\s*\)"
)
# Of members in one declaration, each before the last; parameters stand in parentheses.
_SEVERAL = re.compile(r"^[^()]*,[^()]*;")
_BEFORE = re.compile(r"\b([A-Za-z_]\w*)\s*(?:\[[^]]*\]\s*)*,")


class HeaderChange(str, Enum):
    """What an edit does to those who include the header."""

    ADDS = "adds"
    REMOVES = "removes"
    CHANGES = "changes"
    NEUTRAL = "neutral"
    REFUSED = "refused"


@dataclass(frozen=True)
class HeaderEdit:
    """``names``: what code must mention to need the edit; ``concerns``: what of it unchanged code
    must mention for the edit to concern that; ``refusal`` if REFUSED; ``new`` if the whole header
    is. ``proven``: those of ``names`` that come with the edit, so that code which means them does
    not compile without it; it may mean another type's. ``called``: types of which it changes how
    a member is called; sources that mention one are concerned too. ``carved``: types of which bits
    that nobody used have a meaning now; no object has them set. ``padded``: types of constants that
    have new members between the old ones. ``valued``: what may change its
    value, if that is why the edit is refused."""

    edit: Edit
    change: HeaderChange
    names: frozenset[str]
    concerns: frozenset[str]
    refusal: Refusal | None
    new: bool
    proven: frozenset[str] = frozenset()
    called: frozenset[str] = frozenset()
    carved: frozenset[str] = frozenset()
    padded: frozenset[str] = frozenset()
    valued: frozenset[str] = frozenset()

    @property
    def only_members(self) -> bool:
        """Whether it is refused for members that it adds to types, and does nothing else."""
        if self.refusal is None or self.refusal.reason != ADDED:
            return False
        declared = {d.kind for d in self.edit.removed + self.edit.added}
        lines = Counter(self.edit.old_lines) - Counter(self.edit.new_lines)
        return not lines and declared <= TYPES

    @property
    def prepares(self) -> bool:
        """Whether it only includes headers and names types, for what else the header says."""
        named = self.change is HeaderChange.NEUTRAL and not self.edit.names
        return named and forward(self.edit.new_lines) is not None


def classify(edit: Edit, new: bool, headers: Headers) -> HeaderEdit:
    """Judge one edit of a header, which is ``new`` or was there."""
    if new:
        macros = macros_of(edit.added)
        moved = {name for kind, name in macros if headers.moved(edit.path, (kind, name))}
        concerns = frozenset(name for _, name in macros) - moved
        return HeaderEdit(edit, HeaderChange.ADDS, edit.names, concerns, None, new)
    if removes(edit, headers):
        return HeaderEdit(edit, HeaderChange.REMOVES, edit.names, frozenset(), None, new)
    found = touched(edit, headers)
    if found.reason:
        return _refused(edit, found)
    return _accepted(edit, found)


def _accepted(edit: Edit, found: Touched) -> HeaderEdit:
    changed = found.changed | found.callbacks
    concerns = (changed | found.macros) - found.moved
    if concerns & changed:
        change = HeaderChange.CHANGES
    elif found.added - found.moved:
        change = HeaderChange.ADDS
    elif not edit.new_lines:
        change = HeaderChange.REMOVES
    else:
        change = HeaderChange.NEUTRAL
    names = changed | found.added | found.forward | found.moved
    if found.kept:
        names |= frozenset(members(_changed_lines(edit)))
    return HeaderEdit(
        edit,
        change,
        names,
        concerns,
        None,
        False,
        called=found.called,
        carved=found.carved,
        padded=found.padded,
    )


def _refused(edit: Edit, found: Touched) -> HeaderEdit:
    used = frozenset(members(_changed_lines(edit)))
    where = (edit.path, found.symbol, found.reason, _evidence(edit))
    none: frozenset[str] = frozenset()
    if not found.typed:
        refusal = Refusal("header_changed", *where)
        return HeaderEdit(edit, HeaderChange.REFUSED, edit.names | used, none, refusal, False)
    # Code that only uses the type by name is not concerned, what uses these members is.
    names = used | _enumerators(edit)
    if found.reason == REMOVED and not edit.new_lines:
        # Code that no longer uses a member is right as long as objects still have it.
        names = none
    proven = names - _members_before(edit)
    refusal = Refusal("type_changed", *where)
    return HeaderEdit(
        edit, HeaderChange.REFUSED, names, none, refusal, False, proven, valued=found.valued
    )


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
