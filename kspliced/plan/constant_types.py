# SPDX-License-Identifier: GPL-2.0-or-later
"""Types whose objects are all constants, told by every place of the old tree that names them.

The compiler fills what lies between the members of a constant with zeroes, and nothing writes it.
So a member may come to lie there, of which every object has 0: what the compiler gives it where no
source says otherwise. A type of which an object may be anything else, a part of another or a copy,
is not told.
"""

from __future__ import annotations

from kspliced.plan.declarations import TYPES, DeclarationKind
from kspliced.plan.edits import SourceText
from kspliced.plan.members import closing, tokens
from kspliced.plan.told_types import MOST, ToldTypes

_BODIES = TYPES | {DeclarationKind.FUNCTION}


class Constant(ToldTypes):
    """Whether all objects of a structure are constants of static storage."""

    def _told(self, tag: str) -> bool:
        files = self._mentions(frozenset({tag}))[tag]
        return len(files) <= MOST and all(_only_constants(self._text(path), tag) for path in files)


def _only_constants(text: SourceText, tag: str) -> bool:
    inside = [(d.start, d.end) for d in text.declarations if d.kind in _BODIES]
    found = [(word, number) for number, line in enumerate(text.code, 1) for word in tokens([line])]
    words = tuple(word for word, _ in found)
    for place, (word, number) in enumerate(found):
        if word.startswith("#"):
            # A macro may be used anywhere.
            if tag in tokens([word[1:]]):
                return False
        elif word == tag:
            macro = any(line.endswith("\\") for line in text.code[max(0, number - 2) : number])
            # Macros that define functions are no declarations; but then their bodies are indented.
            indented = text.raw[number - 1][:1].isspace()
            alone = not indented and not any(start < number <= end for start, end in inside)
            if macro or not _constant(words, place, alone):
                return False
    return True


def _constant(words: tuple[str, ...], place: int, alone: bool) -> bool:
    """Whether a place that names a type says what it is, points to constants, or is one: outside of
    all else (``alone``), or static."""
    if words[place - 1 : place] != ("struct",):
        return False
    follows = words[place + 1 : place + 2]
    if follows == (";",):
        return True
    if follows == ("{",):
        end = closing(words, place + 1) + 1
        return alone and words[end : end + 1] == (";",)
    if words[place - 2 : place - 1] != ("const",) or not follows:
        return False
    if follows == ("*",):
        return True
    static = "static" in words[max(0, place - 3) : place - 1]
    named = follows[0].isidentifier() and words[place + 2 : place + 3] != ("(",)
    return named and (alone or static)
