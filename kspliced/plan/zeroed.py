# SPDX-License-Identifier: GPL-2.0-or-later
"""Types whose objects all begin as zeroes, told by every place of the old tree that names them.

A bit of such an object that no code writes is 0 as long as it lives, so a new meaning may be given
to it. What says how objects come to be is how their size is used: it has to be given to functions
that return zeroes, wherever it is. A type that is part of another, of a variable, or of anything
else that is not a pointer, is not told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kspliced.plan.declarations import TYPES
from kspliced.plan.edits import SourceText
from kspliced.plan.members import closing, tokens
from kspliced.plan.neutral import spare
from kspliced.plan.told_types import MOST, ToldTypes

_QUALIFIERS = frozenset({"const", "volatile", "__rcu", "__percpu", "__force", "restrict"})
_ZEROES = re.compile(r"\w*(?:zalloc|calloc)\w*")
# What makes a greater size of one.
_SIZES = frozenset({"", "struct_size", "size_add", "size_mul", "array_size", "ALIGN", "roundup"})
# What takes a type and makes nothing of it.
_NAMES_IT = re.compile(r"container_of\w*|offsetof\w*|typeof|__typeof__|\w*_entry\w*")


class Zeroed(ToldTypes):
    """Whether all objects of a structure begin as zeroes, and nobody uses what it has of members
    that are called unused."""

    def _told(self, tag: str) -> bool:
        files = self._mentions(frozenset({tag}))[tag]
        if len(files) > MOST:
            return False
        texts = [self._text(path) for path in sorted(files)]
        words = [tokens(text.code) for text in texts]
        if not all(_only_points(some, tag) and not _uses_spare(some) for some in words):
            return False
        members = frozenset(name for text in texts for name in _members(text, tag))
        names = members.union(*(_pointers(some, tag) for some in words))
        found = self._mentions(members) if members else {}
        others = frozenset().union(*found.values()) - files
        if len(others) > MOST:
            return False
        words += [tokens(self._text(path).code) for path in sorted(others)]
        made = [_makes(some, place) for some in words for place in _sizes(some, tag, names)]
        return all(how is not None for how in made) and "allocated" in made


def _next(words: tuple[str, ...], place: int) -> int:
    while place < len(words) and words[place] in _QUALIFIERS:
        place += 1
    return place


def _only_points(words: tuple[str, ...], tag: str) -> bool:
    """Whether code says nothing of a type but what it has, and where one is."""
    for place in (n for n, word in enumerate(words) if word == tag):
        if words[place - 1 : place] != ("struct",):
            return False
        then = _next(words, place + 1)
        follows = words[then] if then < len(words) else ""
        if follows == "{":
            end = closing(words, then) + 1
            if words[end : end + 1] != (";",):
                return False
        elif follows in (")", ","):
            outer, _ = _call(words, place)
            if not (outer == "sizeof" or _NAMES_IT.fullmatch(outer)):
                return False
        elif follows not in ("*", ";"):
            return False
    return True


def _uses_spare(words: tuple[str, ...]) -> bool:
    reached = (words[n + 1] for n, word in enumerate(words[:-1]) if word in (".", ">"))
    return any(spare(name) for name in reached)


def _pointers(words: tuple[str, ...], tag: str) -> Iterator[str]:
    """What is declared as a pointer to the type."""
    for place in (n for n, word in enumerate(words) if word == tag):
        place = _next(words, place + 1)
        while words[place : place + 1] == ("*",):
            while place < len(words) and (words[place] == "*" or words[place] in _QUALIFIERS):
                place += 1
            if place < len(words) and words[place].isidentifier():
                yield words[place]
            if words[place + 1 : place + 3] != (",", "*"):
                break
            place += 2


def _members(text: SourceText, tag: str) -> Iterator[str]:
    """The members of other types that point to it."""
    for one in text.declarations:
        if one.kind in TYPES:
            yield from _pointers(tokens(text.lines(one.start, one.end - one.start + 1)), tag)


def _sizes(words: tuple[str, ...], tag: str, names: frozenset[str]) -> Iterator[int]:
    """Where the size of the type is taken: of itself, or of what one of ``names`` points to."""
    for place, word in enumerate(words):
        if word not in ("sizeof", "struct_size", "struct_size_t", "flex_array_size"):
            continue
        start = place + 1
        inside = words[start : start + 1] == ("(",)
        end = closing(words, start) if inside else _operand(words, start)
        what = words[start + inside : end]
        if word != "sizeof":
            what = ("*", *what[: what.index(",") if "," in what else len(what)])
        itself = what[:2] == ("struct", tag) and "*" not in what
        if itself or ((what[:1] == ("*",) or "[" in what) and _last(what) in names):
            yield place


def _operand(words: tuple[str, ...], place: int) -> int:
    """Where an operand without parentheses ends."""
    while words[place : place + 1] and (words[place] in "*->." or words[place].isidentifier()):
        place += 1
    return place


def _last(words: tuple[str, ...]) -> str:
    """The name of what is pointed to, without what is in brackets."""
    found, place = "", 0
    while place < len(words):
        if words[place] == "[" or (words[place] == "(" and found):
            place = closing(words, place)
        elif words[place].isidentifier():
            found = words[place]
        place += 1
    return found


def _makes(words: tuple[str, ...], place: int) -> str | None:
    """What is done with a size: objects are ``allocated`` as zeroes, or ``cleared``; None where it
    is anything else."""
    outer, start = _call(words, place)
    while outer in _SIZES and start > 0:
        outer, start = _call(words, start - 1)
    if _ZEROES.fullmatch(outer):
        return "allocated"
    inside = words[start : closing(words, start)]
    zero = (",", "0", ",") in zip(inside, inside[1:], inside[2:], strict=False)
    return "cleared" if outer == "memset" and zero else None


def _call(words: tuple[str, ...], place: int) -> tuple[str, int]:
    """What the parentheses around a place are of, "" if of nothing, and where they open."""
    depth = 0
    for n in range(place - 1, -1, -1):
        if words[n] in (";", "{", "}") and not depth:
            break
        depth += {")": 1, "]": 1, "(": -1, "[": -1}.get(words[n], 0)
        if depth < 0:
            name = words[n - 1] if n and words[n] == "(" else ""
            return (name if name.isidentifier() else ""), n
    return "", 0
