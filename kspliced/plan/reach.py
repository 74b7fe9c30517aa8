# SPDX-License-Identifier: GPL-2.0-or-later
"""Which source files a changed inline function, macro or prototype of a header concerns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from kspliced.model import Refusal
from kspliced.plan.edits import SourceText
from kspliced.plan.headers import HeaderChange, HeaderEdit
from kspliced.plan.text import identifiers

# Units that one edit of a header may make us compile; what more would concern is refused.
MOST = 40

Mentions = Callable[[frozenset[str]], Mapping[str, frozenset[str]]]


@dataclass(frozen=True)
class Reach:
    """A judged edit, and the sources that mention what it changes."""

    header: HeaderEdit
    sources: frozenset[str]


def settle(
    judged: list[HeaderEdit], text: Callable[[str], SourceText], mentions: Mentions
) -> tuple[Reach, ...]:
    """Find what each edit concerns.

    An addition that the old tree mentions is no addition. A change that other headers or
    assembly mention, or too many sources, is refused.

    :param text: gives the old text of a changed header.
    """
    wanted = {header: _names(header, text(header.edit.path)) for header in judged}
    found = mentions(frozenset(name for some in wanted.values() for name in some))
    return tuple(_settled(header, wanted[header], found) for header in judged)


def _names(header: HeaderEdit, text: SourceText) -> frozenset[str]:
    """What code has to mention for the edit to concern it, in the header's other declarations
    too: those that use what changes change with it."""
    if header.change is HeaderChange.ADDS:
        return header.names
    if header.change is not HeaderChange.CHANGES:
        return frozenset()
    names = set(header.names)
    used = {
        d.name: identifiers(text.lines(d.start, d.end - d.start + 1)) for d in text.declarations
    }
    while more := {name for name, words in used.items() if words & names} - names:
        names |= more
    return frozenset(names)


def _settled(
    header: HeaderEdit, names: frozenset[str], found: Mapping[str, frozenset[str]]
) -> Reach:
    files = frozenset(path for name in names for path in found[name]) - {header.edit.path}
    files = frozenset(path for path in files if not path.startswith("scripts/"))
    if not files:
        change = HeaderChange.ADDS if header.change is HeaderChange.CHANGES else header.change
        return Reach(replace(header, change=change), frozenset())
    sources = frozenset(path for path in files if path.endswith(".c"))
    others = sorted(files - sources)
    if others or len(sources) > MOST:
        symbol = min(header.names)
        much = f"{others[0]} uses it too" if others else f"{len(sources)} source files use it"
        reason = "what the header gives is used too widely to follow"
        refusal = Refusal("header_changed", header.edit.path, symbol, reason, much)
        return Reach(replace(header, change=HeaderChange.REFUSED, refusal=refusal), frozenset())
    return Reach(replace(header, change=HeaderChange.CHANGES), sources)
