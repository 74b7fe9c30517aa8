# SPDX-License-Identifier: GPL-2.0-or-later
"""What a header's edit does to each declaration it touches."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from kspliced.plan.declarations import TYPES, Declaration, DeclarationKind
from kspliced.plan.edits import Edit, SourceText
from kspliced.plan.enumerators import Value
from kspliced.plan.members import closing, normal, parameters, tokens
from kspliced.plan.neutral import (
    ADDED,
    callbacks,
    carved,
    difference,
    enumerated,
    moved,
    padded,
)

CALLABLE = frozenset({DeclarationKind.FUNCTION, DeclarationKind.MACRO, DeclarationKind.PROTOTYPE})
_DECLARED = CALLABLE | {DeclarationKind.EXTERN}
_FORWARD = re.compile(r"(?:struct|union|enum)\s+(\w+)\s*;")
# What ctags takes for a variable behind the brace of a type is an attribute of it.
_ATTRIBUTE = re.compile(r"__(?:packed|aligned|attribute__|randomize_layout|no_randomize_layout)\b")
_OUTSIDE = "what changes outside of declarations may concern any unit"
_VARIABLE = "what a header defines is part of each unit that includes it"
_GONE = "the type is no longer there, and objects of it exist"
_STANDS = "what a name stands for changes, and objects of it exist"
_TWICE = "the type is declared in several ways, which cannot be told apart"

Key = tuple[DeclarationKind, str]
Tell = Callable[[Iterable[str], Iterable[str]], frozenset[str]]


@dataclass(frozen=True)
class Touched:
    """``changed`` names functions, macros, prototypes and counters that are not as before,
    ``added`` what is new to the header, ``macros`` what of that the preprocessor may find in code
    that means something else; ``moved`` those of either that another header has alike;
    ``forward`` types that it only names; ``callbacks`` members that point to functions of other
    parameters now, of the types ``called``; ``carved`` types with bit-fields that take bits which
    nobody used; ``padded`` types of constants with new members; ``kept`` if it touches a type that
    both sides have.
    ``valued`` all enumerators of a type of which values change, where that is the reason.
    ``reason`` says why objects that exist, or code that nobody compiles, would not fit, with the
    ``symbol``; '' if they do; ``typed`` if it is a type's objects."""

    changed: frozenset[str] = frozenset()
    added: frozenset[str] = frozenset()
    macros: frozenset[str] = frozenset()
    moved: frozenset[str] = frozenset()
    forward: frozenset[str] = frozenset()
    callbacks: frozenset[str] = frozenset()
    called: frozenset[str] = frozenset()
    carved: frozenset[str] = frozenset()
    padded: frozenset[str] = frozenset()
    reason: str = ""
    symbol: str = ""
    typed: bool = False
    kept: bool = False
    valued: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Side:
    """The declarations of one side of a header, by kind and name; a name may have several."""

    text: SourceText
    found: dict[Key, list[Declaration]]

    def lines(self, key: Key) -> list[list[str]]:
        """The lines of each declaration of that name."""
        return [_lines(self.text, one) for one in self.found.get(key, ())]

    def words(self, key: Key) -> list[tuple[str, ...]]:
        """What of each matters to those that use it."""
        return [_words(self.text, one) for one in self.found.get(key, ())]


def _side(text: SourceText) -> _Side:
    found: dict[Key, list[Declaration]] = defaultdict(list)
    for one in text.declarations:
        found[one.kind, one.name].append(one)
    return _Side(text, found)


class Headers:
    """All headers that change, as what may have what one of them no longer has.

    :param old: gives a header's old text, ``new`` the new one.
    :param zeroed: whether all objects of ``struct`` a tag begin as zeroes.
    :param constant: whether all are constants.
    """

    def __init__(
        self,
        paths: Iterable[str],
        old: Callable[[str], SourceText],
        new: Callable[[str], SourceText],
        zeroed: Callable[[str], bool] = lambda tag: False,
        constant: Callable[[str], bool] = lambda tag: False,
    ) -> None:
        self._zeroed, self._constant = zeroed, constant
        self._sides = {path: (_side(old(path)), _side(new(path))) for path in paths}
        self._places: dict[Key, list[str]] = defaultdict(list)
        for path, sides in self._sides.items():
            for key in sides[0].found.keys() ^ sides[1].found.keys():
                self._places[key].append(path)

    def sides(self, path: str) -> tuple[_Side, _Side]:
        """A header before and after."""
        return self._sides[path]

    def changed_type(self, path: str, key: Key) -> str:
        """Why objects of a header's type do not fit; '' if they do, or there are none."""
        reason = _changed_type(key, *self._sides[path])
        for members, room in ((self.carved, self._zeroed), (self.padded, self._constant)):
            has_room = key[0] is DeclarationKind.STRUCT and room(key[1])
            if not reason and members(path, key) and not has_room:
                return ADDED
        return reason

    def carved(self, path: str, key: Key) -> frozenset[str]:
        """The bit-fields of a type that take bits which nobody used."""
        return _names_of(carved, key, *self._sides[path])

    def padded(self, path: str, key: Key) -> frozenset[str]:
        """The members that a type has more than before, if that is all that changes."""
        return _names_of(padded, key, *self._sides[path])

    def moved(self, path: str, key: Key) -> bool:
        """Whether what is on one side of the header is, alike, on the other side of another."""
        for other in self._places.get(key, ()):
            for here, there in ((0, 1), (1, 0)):
                mine, its = self._sides[path][here], self._sides[other][there]
                if other == path or key not in mine.found or key not in its.found:
                    continue
                if key[0] in TYPES and not _changed_type(key, mine, its):
                    if any(_names_of(tell, key, mine, its) for tell in (carved, padded)):
                        return False
                    return _values(mine, [key]) == _values(its, [key])
                if key[0] not in TYPES and mine.words(key) == its.words(key):
                    return True
        return False


def macros_of(found: Iterable[Declaration]) -> frozenset[Key]:
    """The macros of some declarations."""
    return frozenset((d.kind, d.name) for d in found if d.kind is DeclarationKind.MACRO)


def removes(edit: Edit, headers: Headers) -> bool:
    """Whether an edit only takes whole declarations out of a header."""
    if edit.new_lines or not edit.removed:
        return False
    return not any((d.kind, d.name) in headers.sides(edit.path)[1].found for d in edit.removed)


def forward(lines: Iterable[str]) -> frozenset[str] | None:
    """The types that lines name; None if they say anything but that, and what to include."""
    found = set()
    for line in lines:
        match = _FORWARD.fullmatch(line)
        if match is not None:
            found.add(match.group(1))
        elif not line.startswith("#include"):
            return None
    return frozenset(found)


def touched(edit: Edit, headers: Headers) -> Touched:
    """Judge an edit of a header that was there."""
    old, new = headers.sides(edit.path)
    keys = sorted({(d.kind, d.name) for d in edit.removed + edit.added})
    types = [key for key in keys if key[0] in TYPES]
    lines = (*_outside(edit, old.text, after=False), *_outside(edit, new.text, after=True))
    outside = forward(lines)
    if outside is None and (not keys or (types and not _only_adds(edit, old))):
        return Touched(reason=_OUTSIDE, symbol=min(edit.names, default=""))
    for kind, name in keys:
        if kind is DeclarationKind.VARIABLE and not _ATTRIBUTE.match(name):
            return Touched(reason=_VARIABLE, symbol=name)
    away = frozenset(key for key in keys if headers.moved(edit.path, key))
    for key in types:
        reason = "" if key in away else headers.changed_type(edit.path, key)
        if reason:
            return Touched(reason=reason, symbol=key[1], typed=True)
    counters, reason = moved(_values(old, [k for k in types if k not in away]), _values(new, types))
    if reason:
        valued = frozenset(_values(old, types)) | frozenset(_values(new, types))
        return Touched(reason=reason, symbol=types[0][1], typed=True, valued=valued)
    known = frozenset(d.name for d in old.text.declarations)
    changed = {k[1] for k in keys if k[0] in _DECLARED and old.words(k) != new.words(k)}
    if outside is None:
        # Directives around declarations, say.
        changed = {name for kind, name in keys if kind in _DECLARED}
    added = frozenset(d.name for d in edit.added) - known
    called = {key: _names_of(callbacks, key, old, new) for key in types if key not in away}
    return Touched(
        changed=(frozenset(changed) & known) | counters,
        added=added,
        macros=frozenset(name for _, name in macros_of(edit.added)) & added,
        moved=frozenset(name for _, name in away) | _held(away, old, new),
        forward=outside or frozenset(),
        callbacks=frozenset(name for some in called.values() for name in some),
        called=frozenset(key[1] for key, some in called.items() if some),
        carved=frozenset(key[1] for key in called if headers.carved(edit.path, key)),
        padded=frozenset(key[1] for key in called if headers.padded(edit.path, key)),
        kept=any(key in old.found and key in new.found for key in types),
    )


def _only_adds(edit: Edit, old: _Side) -> bool:
    """Whether all of what the edit touches is new, and whole in it."""
    lines = {
        line for h in edit.hunks for line in range(h.new_start, h.new_start + max(1, h.new_count))
    }
    whole = all(d.start in lines and d.end in lines for d in edit.added)
    return (
        whole and not edit.old_lines and not any((d.kind, d.name) in old.found for d in edit.added)
    )


def _held(keys: Iterable[Key], old: _Side, new: _Side) -> frozenset[str]:
    """The enumerators of types."""
    return frozenset(_values(old, keys)) | frozenset(_values(new, keys))


def _values(side: _Side, keys: Iterable[Key]) -> dict[str, Value]:
    return enumerated(lines for key in keys for lines in side.lines(key))


def _changed_type(key: Key, old: _Side, new: _Side) -> str:
    """Why objects of a type do not fit; '' if they do, or there are none."""
    before, after = old.lines(key), new.lines(key)
    if not before or before == after:
        return ""
    if not after:
        return _GONE
    if key[0] is DeclarationKind.TYPEDEF:
        same = [normal(tokens(some)) for some in before] == [normal(tokens(s)) for s in after]
        return "" if same else _STANDS
    if len(before) != len(after):
        return _TWICE
    reasons = (difference(one, other) for one, other in zip(before, after, strict=True))
    return next((reason for reason in reasons if reason), "")


def _names_of(tell: Tell, key: Key, old: _Side, new: _Side) -> frozenset[str]:
    """The members that ``tell`` names, by the lines of a type before and after."""
    pairs = zip(old.lines(key), new.lines(key), strict=False)
    return frozenset(name for before, after in pairs for name in tell(before, after))


def _outside(edit: Edit, text: SourceText, after: bool) -> Iterator[str]:
    """The changed lines of one side that lie in no declaration."""
    found = edit.added if after else edit.removed
    for hunk in edit.hunks:
        start, count = hunk.old_start, hunk.old_count
        if after:
            start, count = hunk.new_start, hunk.new_count
        for line in range(start, start + count):
            if text.code[line - 1] and not any(text.head(d) <= line <= d.end for d in found):
                yield text.code[line - 1]


def _lines(text: SourceText, one: Declaration) -> list[str]:
    lines = range(text.head(one), one.end + 1)
    return [text.code[n - 1] for n in lines if text.code[n - 1] and n not in text.decided]


def _words(text: SourceText, one: Declaration) -> tuple[str, ...]:
    words = tokens(_lines(text, one))
    if one.kind is not DeclarationKind.PROTOTYPE:
        return words
    words = tuple(word for word in normal(words) if word != "extern")
    place = words.index(one.name) + 1 if one.name in words else len(words)
    if words[place : place + 1] != ("(",):
        return words
    end = closing(words, place)
    return (*words[:place], *parameters(words[place : end + 1]), *words[end + 1 :])
