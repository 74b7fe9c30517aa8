# SPDX-License-Identifier: GPL-2.0-or-later
"""A changed source file in parts, for when not all of it can go live.

A stable upgrade changes a large file in several commits, of which one may need what cannot go live.
Edits stay together wherever something says that they may be of one commit: they change the use of
the same name, one changes what the other's functions use, or one changelog entry may have made
both (attribution.py). Where that leaves too much together, hunks that beyond doubt are of
different entries are cut apart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from kspliced.plan.declarations import TYPES, Declaration, DeclarationKind
from kspliced.plan.edits import Edit, SourceText, Spot, joined, split
from kspliced.plan.makers import Makers
from kspliced.plan.text import KEYWORDS, identifiers

# A tag is another name than what has its letters.
_WORD = re.compile(r"(?:\b(?:struct|union|enum)\s+)?[A-Za-z_]\w*")
# What is reached through an object, called, or a constant; a local variable is none of these.
_SHARED = re.compile(r"(?:->|\.)\s*([A-Za-z_]\w*)|\b([A-Za-z_]\w*)\s*\(|\b([A-Z][A-Z0-9_]{2,})\b")
# Every function has error numbers and messages, and tells the compiler what is likely.
_COMMON = re.compile(
    r"E[A-Z0-9]{2,}|KERN_[A-Z]+|(?:[a-z]+_)*(?:emerg|alert|crit|err|warn|warning|notice|info|dbg|debug)"
    r"(?:_once|_ratelimited)?|printk\w*|verbose|WARN\w*|NL_SET_ERR_MSG\w*"
)
# Lines between two hunks that patch(1) and git want to see unchanged.
_CONTEXT = 3
# What a module says of itself, and of no code: MODULE_ALIAS("a"); MODULE_FIRMWARE(NAME(1));
_OF_MODULE = re.compile(
    r'(?:MODULE_[A-Z0-9_]+\s*\((?:"(?:\\.|[^"\\])*"|[^"();]|\([^"();]*\))*\)\s*;\s*)*'
)
_TAGS = TYPES - {DeclarationKind.TYPEDEF}
_NO_LINK = frozenset({"likely", "unlikely", "if", "for", "while", "switch", "return", "sizeof"})

_T = TypeVar("_T")


@dataclass(frozen=True)
class _Piece:
    """An edit with what links it to others: ``words`` whose use it changes, ``borrowed`` those of
    them that it calls and other files have, ``names`` that it declares, ``uses`` of the whole
    declarations it lies in, ``makers`` of its hunks, one of them beyond doubt if it is ``sure``."""

    edit: Edit
    words: frozenset[str]
    borrowed: frozenset[str]
    names: frozenset[str]
    uses: frozenset[str]
    makers: frozenset[int]
    sure: bool


def divide(
    edits: tuple[Edit, ...], old: SourceText, new: SourceText, makers: Makers
) -> tuple[tuple[Edit, ...], ...]:
    """Group the edits of one file by what may be one commit, in the order of the file.

    What includes headers goes with every group. An edit outside of declarations may concern all
    of the file, which then is not divided, but where it is what a module says of itself.
    """

    def groups(rest: list[Edit]) -> Iterator[tuple[Edit, ...]]:
        pieces = (_piece(edit, old, new, makers) for edit in rest)
        for group in _grouped(pieces, _linked):
            yield tuple(piece.edit for piece in group)

    return _with_includes(edits, groups)


def cut(
    edits: tuple[Edit, ...], old: SourceText, new: SourceText, makers: Makers
) -> tuple[tuple[Edit, ...], ...]:
    """As :func:`divide`, hunk by hunk: those that beyond doubt are of different entries stay
    together only where both use what the upgrade brings or takes away, or where they are so near
    that the one could not be picked without the other."""
    fresh = identifiers(old.code) ^ identifiers(new.code)

    def groups(rest: list[Edit]) -> Iterator[tuple[Edit, ...]]:
        hunks = (
            _Hunk(_piece(one, old, new, makers), one.identifiers & fresh)
            for edit in rest
            for one in split(edit, old, new)
        )
        for group in _grouped(hunks, _inseparable):
            yield joined(hunk.piece.edit for hunk in group)

    return _with_includes(edits, groups)


def _with_includes(
    edits: tuple[Edit, ...], groups: Callable[[list[Edit]], Iterable[tuple[Edit, ...]]]
) -> tuple[tuple[Edit, ...], ...]:
    """The groups of what does not include headers, each with what does; all edits as one where
    some are outside of declarations."""
    includes = tuple(edit for edit in edits if _only_includes(edit))
    rest = [edit for edit in edits if edit not in includes]
    if any(not edit.names and not _only_of_module(edit) for edit in rest):
        return (edits,)
    return tuple((*includes, *group) for group in groups(rest)) or (edits,)


@dataclass(frozen=True)
class _Hunk:
    """A piece of one hunk; ``fresh`` is what it uses of names that only one side of the file
    has."""

    piece: _Piece
    fresh: frozenset[str]


def _inseparable(one: _Hunk, other: _Hunk) -> bool:
    if not _told_apart(one.piece, other.piece):
        return _linked(one.piece, other.piece)
    if one.fresh & other.fresh:
        return True
    first, second = sorted(
        (hunk.piece.edit.hunks[0] for hunk in (one, other)), key=lambda hunk: hunk.old_start
    )
    return second.old_start - first.old_start - first.old_count < _CONTEXT


def first_uses(edits: tuple[Edit, ...], known: Container[str]) -> Iterator[tuple[Spot, Spot]]:
    """Hunks that only use, and alone, a static declaration that another one adds, with that one:
    they are of one commit, as nobody adds what nothing uses.

    :param known: what the old file declares, as far as the edits may add it.
    """
    for edit in edits:
        for one in edit.added:
            makers = [h for h in edit.hunks if 0 <= one.start - h.new_start < h.new_count]
            if not (one.local and makers) or one.name in known:
                continue
            users = [e for e in edits if e is not edit and one.name in e.identifiers]
            if len(users) == 1 and _only_uses(users[0], one.name):
                yield users[0].spots[0], Spot(edit.path, makers[0])


def _only_uses(edit: Edit, name: str) -> bool:
    whole = all(name in identifiers([line]) for line in edit.new_lines)
    return whole and not edit.old_lines and len(edit.hunks) == 1


def _grouped(items: Iterable[_T], linked: Callable[[_T, _T], bool]) -> list[list[_T]]:
    """Items by what links them, directly or through others."""
    groups: list[list[_T]] = []
    for item in items:
        near = [group for group in groups if any(linked(item, other) for other in group)]
        groups = [group for group in groups if group not in near]
        groups.append([*(other for group in near for other in group), item])
    return groups


def _piece(edit: Edit, old: SourceText, new: SourceText, makers: Makers) -> _Piece:
    declared = frozenset(_spelt(d) for text in (old, new) for d in text.declarations)
    sides = ((old, edit.removed), (new, edit.added))
    words = _changed_words(edit, declared)
    uses = frozenset().union(
        *(identifiers(t.lines(d.start, d.end - d.start + 1)) for t, some in sides for d in some)
    )
    return _Piece(
        edit=edit,
        words=words,
        borrowed=words & _called(edit) - declared,
        names=edit.names,
        uses=uses,
        makers=frozenset().union(*(makers.of(spot) for spot in edit.spots)),
        sure=all(map(makers.sure, edit.spots)),
    )


def _spelt(one: Declaration) -> str:
    """How code refers to what is declared."""
    return f"{one.kind.value} {one.name}" if one.kind in _TAGS else one.name


def _changed_words(edit: Edit, declared: frozenset[str]) -> frozenset[str]:
    """Names that the two sides use a different number of times, without local variables."""
    before, after = (Counter(_WORD.findall(" ".join(s))) for s in (edit.old_lines, edit.new_lines))
    changed = {w for w in before.keys() | after.keys() if before[w] != after[w]}
    shared = {word for found in _shared(edit) for word in found} | declared
    return frozenset(
        word
        for word in changed & shared
        if word not in KEYWORDS and word not in _NO_LINK and not _COMMON.fullmatch(word)
    )


def _shared(edit: Edit) -> list[tuple[str, str, str]]:
    """What either side reaches through an object, calls, or names as a constant: one of three."""
    return _SHARED.findall(" \n".join(edit.old_lines + edit.new_lines))


def _called(edit: Edit) -> frozenset[str]:
    """What is called on either side, and not reached through an object."""
    found = _shared(edit)
    return frozenset(name for _, name, _ in found) - {name for name, _, _ in found} - {""}


def _told_apart(one: _Piece, other: _Piece) -> bool:
    """Whether two edits are of different entries beyond doubt."""
    return one.sure and other.sure and not one.makers & other.makers


def _linked(one: _Piece, other: _Piece) -> bool:
    words = one.words & other.words
    if _told_apart(one, other):
        # What the kernel has for everybody, such as locks and lists.
        words -= one.borrowed & other.borrowed
    return bool(
        words or one.names & other.uses or other.names & one.uses or one.makers & other.makers
    )


def _only_includes(edit: Edit) -> bool:
    lines = edit.old_lines + edit.new_lines
    return all(line.startswith("#include") for line in lines)


def _only_of_module(edit: Edit) -> bool:
    return all(_OF_MODULE.fullmatch(" ".join(some)) for some in (edit.old_lines, edit.new_lines))
