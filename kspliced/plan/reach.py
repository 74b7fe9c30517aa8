# SPDX-License-Identifier: GPL-2.0-or-later
"""Which source files a changed inline function, macro or prototype of a header concerns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from kspliced.model import Refusal
from kspliced.plan.declarations import DeclarationKind
from kspliced.plan.edits import SourceText
from kspliced.plan.headers import HeaderChange, HeaderEdit
from kspliced.plan.text import identifiers

# Units that one edit of a header may make us compile; what more would concern is refused.
MOST = 40
# Other headers whose inline functions and macros may pass on what an edit changes.
_FEW = 8
# Headers that the kernel's headers package has for modules.
_PUBLIC = ("include/", "arch/x86/include/")
_PASSES_ON = frozenset({DeclarationKind.FUNCTION, DeclarationKind.MACRO})

Mentions = Callable[[frozenset[str]], Mapping[str, frozenset[str]]]


@dataclass(frozen=True)
class Reach:
    """A judged edit, and the sources that mention what it changes."""

    header: HeaderEdit
    sources: frozenset[str]


@dataclass(frozen=True)
class _Passed:
    """``names`` of the header ``path`` that use what another one changes."""

    path: str
    names: frozenset[str]


def settle(
    judged: list[HeaderEdit],
    text: Callable[[str], SourceText],
    mentions: Mentions,
    included: Mapping[str, frozenset[str]],
    foreign: frozenset[str] = frozenset(),
) -> tuple[Reach, ...]:
    """Find what each edit concerns.

    An addition that the old tree mentions is no addition. Inline functions and macros of a few
    other headers that use what changes change with it, and whoever mentions these is concerned. A
    change that headers use in another way, or assembly, or too many sources, is refused. Values
    that change and that nobody mentions are no matter.

    :param text: gives the old text of a header, whether it changes or not.
    :param included: the sources that include each .c file among the headers: these are concerned.
    :param foreign: modules that run and may have been compiled with what public headers gave: where
        that changes, the edit is refused.
    """
    shared = [header for header in judged if header.edit.path not in included]
    wanted = {header: _names(header, text(header.edit.path)) for header in shared}
    types = frozenset(name for header in shared for name in header.called)
    found = mentions(types.union(*wanted.values()))
    passed = {header: _passed(header, wanted[header], found, text) for header in shared}
    more = frozenset(name for some in passed.values() for one in some for name in one.names)
    found = {**mentions(more), **found} if more else found
    return tuple(
        _known_to(foreign, header, _settled(header, wanted[header], passed[header], found))
        if header in wanted
        else _part(header, included[header.edit.path])
        for header in judged
    )


def _known_to(foreign: frozenset[str], header: HeaderEdit, reach: Reach) -> Reach:
    """What becomes of an edit where modules run that may know what it changes."""
    if not (foreign and header.edit.path.startswith(_PUBLIC)):
        return reach
    if header.valued:
        return Reach(header, frozenset())
    if reach.header.change is not HeaderChange.CHANGES:
        return reach
    reason = "a module that is not of this kernel's package may have been compiled with it"
    symbol = min(header.concerns, default="")
    refusal = Refusal(
        "header_changed", header.edit.path, symbol, reason, ", ".join(sorted(foreign))
    )
    return Reach(replace(header, change=HeaderChange.REFUSED, refusal=refusal), frozenset())


def _part(header: HeaderEdit, sources: frozenset[str]) -> Reach:
    """An edit of a source that others include: whatever it does, it is done to these."""
    if header.change is HeaderChange.REFUSED:
        return Reach(header, sources)
    return Reach(replace(header, change=HeaderChange.CHANGES), sources)


def _names(header: HeaderEdit, text: SourceText) -> frozenset[str]:
    """What code has to mention for the edit to concern it, in the header's other declarations
    too: those that use what changes change with it."""
    if header.change is HeaderChange.ADDS:
        return header.concerns
    edited = {d.name for d in header.edit.removed if d.kind is DeclarationKind.ENUM}
    if header.change is HeaderChange.CHANGES:
        return _closed(header.concerns, text, edited | header.called)
    return _closed(header.valued, text, edited)


def _closed(names: frozenset[str], text: SourceText, without: Iterable[str] = ()) -> frozenset[str]:
    """``names``, and the declarations of a header that use them."""
    left_out = frozenset(without)
    used = {
        d.name: identifiers(text.lines(d.start, d.end - d.start + 1))
        for d in text.declarations
        if d.name not in left_out
    }
    while more := {name for name, words in used.items() if words & names} - names:
        names |= more
    return names


def _files(
    header: HeaderEdit, names: Iterable[str], found: Mapping[str, frozenset[str]]
) -> frozenset[str]:
    files = frozenset(path for name in names for path in found[name]) - {header.edit.path}
    return frozenset(path for path in files if not path.startswith("scripts/"))


def _passed(
    header: HeaderEdit,
    names: frozenset[str],
    found: Mapping[str, frozenset[str]],
    text: Callable[[str], SourceText],
) -> tuple[_Passed, ...]:
    """What other headers make of what the edit changes; () where that cannot be followed."""
    others = sorted(path for path in _files(header, names, found) if not path.endswith(".c"))
    if len(others) > _FEW or not all(path.endswith(".h") for path in others):
        return ()
    result = []
    for path in others:
        mine = frozenset(name for name in names if path in found[name])
        more = _passed_by(text(path), mine)
        if not more:
            return ()
        result.append(_Passed(path, more))
    return tuple(result)


def _passed_by(text: SourceText, names: frozenset[str]) -> frozenset[str]:
    """The functions and macros of a header that use ``names``, with what uses those; none if
    anything else in it does."""
    lines = {n + 1 for n, line in enumerate(text.code) if identifiers([line]) & names}
    users = [
        d
        for d in text.declarations
        if d.kind in _PASSES_ON and any(d.start <= line <= d.end for line in lines)
    ]
    if any(not any(text.head(d) <= line <= d.end for d in users) for line in lines):
        return frozenset()
    return _closed(frozenset(d.name for d in users), text)


def _settled(
    header: HeaderEdit,
    names: frozenset[str],
    passed: tuple[_Passed, ...],
    found: Mapping[str, frozenset[str]],
) -> Reach:
    files = _files(header, names, found)
    if header.valued:
        unused = replace(header, change=HeaderChange.NEUTRAL, refusal=None)
        return Reach(header if files else unused, frozenset())
    # An initialiser need not name the members, but the type.
    files |= {path for path in _files(header, header.called, found) if path.endswith(".c")}
    known = frozenset(one.path for one in passed)
    others = {path for path in files - known if not path.endswith(".c")}
    for one in passed:
        further = frozenset(path for name in one.names for path in found[name]) - {one.path}
        files |= further
        others |= {path for path in further if not path.endswith(".c")}
    sources = frozenset(path for path in files if path.endswith(".c"))
    if not files:
        change = HeaderChange.ADDS if header.change is HeaderChange.CHANGES else header.change
        return Reach(replace(header, change=change), frozenset())
    if others or len(sources) > MOST:
        symbol = min(header.concerns)
        much = f"{min(others)} uses it too" if others else f"{len(sources)} source files use it"
        reason = "what the header gives is used too widely to follow"
        refusal = Refusal("header_changed", header.edit.path, symbol, reason, much)
        return Reach(replace(header, change=HeaderChange.REFUSED, refusal=refusal), frozenset())
    return Reach(replace(header, change=HeaderChange.CHANGES), sources)
