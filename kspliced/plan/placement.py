# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a function or datum is the same as before, but for words that say where it is placed.

The compiler makes other code of a function that is no longer ``__init`` (include/linux/init.h: it
is cold no more), and of those who call it. Its text tells that it does what it did.
"""

from __future__ import annotations

from collections.abc import Iterator

from kspliced.plan.components import Texts
from kspliced.plan.declarations import DeclarationKind
from kspliced.plan.edits import SourceText
from kspliced.plan.members import tokens

# What only says in which section something is, or how much to inline; const is no matter of what a
# valid program does.
_PLACED = frozenset({
    "__init", "__initdata", "__initconst", "__exit", "__exitdata", "__meminit", "__meminitdata",
    "__meminitconst", "__memexit", "__memexitdata", "__ref", "__refdata", "__refconst",
    "__ro_after_init", "__read_mostly", "const", "inline", "noinline", "__always_inline",
})  # fmt: skip
# What the compiler makes part of a function. What another variable holds is no part of it.
_PART = frozenset(DeclarationKind) - {DeclarationKind.VARIABLE, DeclarationKind.EXTERN}

Words = dict[tuple[DeclarationKind, str], list[tuple[str, ...]]]


def only_placed(texts: Texts, source: str, name: str) -> bool:
    """Whether ``name`` of ``source`` and all that it mentions there, directly or not, differ in
    nothing but such words, and no directive outside of declarations does."""
    if not (texts.known(source) and texts.changed(source)):
        return False
    name = name.partition(".")[0]
    old, new = texts.old(source), texts.new(source)
    reached = old.reached(name, _PART) | new.reached(name, _PART)
    if not reached or list(_directives(old)) != list(_directives(new)):
        return False
    return _words(old, reached) == _words(new, reached)


def _words(text: SourceText, names: frozenset[str]) -> Words:
    """The declarations of some names, without what says where they are."""
    found: Words = {}
    for one in text.declarations:
        if one.name in names:
            lines = (text.code[number - 1] for number in range(text.head(one), one.end + 1))
            words = tuple(word for word in tokens(lines) if word not in _PLACED)
            found.setdefault((one.kind, one.name), []).append(words)
    return found


def _directives(text: SourceText) -> Iterator[str]:
    """What is included and on what the code depends."""
    for number, line in enumerate(text.code, 1):
        if line.startswith("#") and number not in text.decided:
            yield line
