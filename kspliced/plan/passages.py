# SPDX-License-Identifier: GPL-2.0-or-later
"""What the changed files of an upgrade say, hunk by hunk: the material of attribution.

Comments count here: they often say what a commit's subject says. Files that are no part of this
kernel count too, for the entries that are about them.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kspliced.plan.bound import Recalled, moved, recalled
from kspliced.plan.declarations import TYPES, Declaration, DeclarationKind, declarations
from kspliced.plan.edits import SourceText
from kspliced.plan.headers import members
from kspliced.plan.subject import WORD
from kspliced.plan.text import KEYWORDS, code_lines
from kspliced.source.compare import ChangeType, FileChange
from kspliced.source.lines import Hunk, hunks

_OPTION = re.compile(r"\s*(?:menu)?config\s+(\w+)")
_OBJECT = re.compile(r"([\w-]+)\.o\b")
_EXPORT = re.compile(r"EXPORT_SYMBOL\w*\s*\(\s*(\w+)")
_BODIES = TYPES | {DeclarationKind.FUNCTION, DeclarationKind.MACRO}
# Lines of a declaration that are read around a hunk.
_AROUND = 400


@dataclass(frozen=True)
class Passage:
    """A hunk of a changed file. ``owners`` are the declarations it lies in; ``touched`` the words
    of which its sides have different numbers, ``kept`` its other words, ``around`` those of its
    owners. ``code`` are the identifiers of its lines without comments, ``given`` those that it
    gives to other files: members of types in headers, exports; ``recalled`` what takes another
    number of arguments. ``size`` is in words; ``hunk`` is None where nothing is known of the file.
    """

    owners: frozenset[str] = frozenset()
    touched: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()
    around: frozenset[str] = frozenset()
    code: frozenset[str] = frozenset()
    given: frozenset[str] = frozenset()
    recalled: tuple[Recalled, ...] = ()
    size: int = 0
    hunk: Hunk | None = None


@dataclass(frozen=True)
class ChangedFile:
    """A changed file with at least one passage, an empty one where nothing is known of it.

    ``labels`` are what its hunks are about where its name does not say it: options of a Kconfig,
    objects of a Makefile. ``old`` and ``new`` are the words of the two versions; ``moved`` pairs
    of passages, by number, of which one takes out what the other brings."""

    path: str
    passages: tuple[Passage, ...]
    defined: frozenset[str]
    labels: frozenset[str]
    old: frozenset[str]
    new: frozenset[str]
    moved: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class _Side:
    """One version of a file: its lines as they are, and as code with declarations."""

    raw: list[str]
    text: SourceText

    def lines(self, start: int, count: int) -> list[str]:
        return self.raw[start - 1 : start - 1 + count] if count else []

    def owners(self, start: int, count: int) -> tuple[Declaration, ...]:
        return self.text.owners(start, count) if count else ()


def read_changes(
    old_top: Path, new_top: Path, changes: Iterable[FileChange]
) -> tuple[ChangedFile, ...]:
    """Read what ``changes`` change from the two trees, which need not hold all of it.

    :raises SourceError: TOOL_MISSING, SOURCE_UNREADABLE.
    """
    wanted = tuple(changes)
    parsed = [path.path for path in wanted if path.path.endswith((".c", ".h"))]
    old, new = _parsed(old_top, parsed), _parsed(new_top, parsed)
    return tuple(
        _read(change, old_top, new_top, old[change.path], new[change.path]) for change in wanted
    )


def _parsed(top: Path, paths: list[str]) -> dict[str, list[Declaration]]:
    found: dict[str, list[Declaration]] = defaultdict(list)
    for declaration in declarations(top, paths):
        found[declaration.path].append(declaration)
    return found


def _read(
    change: FileChange, old_top: Path, new_top: Path, *found: list[Declaration]
) -> ChangedFile:
    path = change.path
    old, new = _side(old_top / path, found[0]), _side(new_top / path, found[1])
    # What a modified file was is not kept for all of them; then nothing is known of its hunks.
    whole = bool(old.raw) or change.type is not ChangeType.MODIFIED
    there = [place for place in (old_top / path, new_top / path) if place.exists()]
    readable = there and all(place.is_file() for place in there)
    parts = hunks(old_top / path, new_top / path) if whole and readable else ()
    passages = tuple(_passage(path, hunk, old, new) for hunk in parts)
    return ChangedFile(
        path=path,
        passages=passages or (Passage(),),
        defined=frozenset(d.name for side in found for d in side),
        labels=frozenset(word for hunk in parts for word in _labels(path, hunk, old, new)),
        old=_vocabulary(old.raw),
        new=_vocabulary(new.raw),
        moved=moved(parts, old.text, new.text) if path.endswith(".c") else (),
    )


def _side(file: Path, found: list[Declaration]) -> _Side:
    data = file.read_bytes() if file.is_file() else b""
    text = data.decode("utf-8", "replace")
    return (
        _Side(text.split("\n"), SourceText([], code_lines(text), tuple(found)))
        if data
        else (_Side([], SourceText([], [], ())))
    )


def _words(lines: Iterable[str]) -> Counter[str]:
    return Counter(WORD.findall("\n".join(lines)))


def _vocabulary(lines: list[str]) -> frozenset[str]:
    # Thousands of files have most of their words in common: each is kept once.
    return frozenset(map(sys.intern, set(WORD.findall("\n".join(lines)))))


def _passage(path: str, hunk: Hunk, old: _Side, new: _Side) -> Passage:
    sides = (
        (old, hunk.old_start, hunk.old_count),
        (new, hunk.new_start, hunk.new_count),
    )
    before, after = (_words(side.lines(start, count)) for side, start, count in sides)
    owners = [side.owners(start, count) for side, start, count in sides]
    inner = [(new, d) for d in owners[1]] or [(old, d) for d in owners[0]]
    code = [line for side, start, n in sides if n for line in side.text.lines(start, n)]
    both = before.keys() | after.keys()
    touched = {word for word in both if before[word] != after[word]}
    return Passage(
        owners=frozenset(d.name for some in owners for d in some),
        touched=frozenset(touched - KEYWORDS),
        kept=frozenset(both - touched - KEYWORDS),
        around=frozenset(_around(inner)),
        code=frozenset(_words(code).keys() - KEYWORDS),
        given=_given(path, [d for some in owners for d in some], code),
        recalled=recalled(hunk, old.text, new.text) if path.endswith((".c", ".h")) else (),
        size=before.total() + after.total(),
        hunk=hunk,
    )


def _around(owners: list[tuple[_Side, Declaration]]) -> set[str]:
    found: set[str] = set()
    for side, owner in owners:
        if owner.kind in _BODIES:
            count = min(owner.end - owner.start + 1, _AROUND)
            found.update(_vocabulary(side.lines(owner.start, count)))
    return found - KEYWORDS


def _given(path: str, owners: list[Declaration], code: list[str]) -> frozenset[str]:
    found = [name for line in code for name in _EXPORT.findall(line)]
    if path.endswith(".h") and any(owner.kind in TYPES for owner in owners):
        found += members(tuple(code))
    return frozenset(found)


def _labels(path: str, hunk: Hunk, old: _Side, new: _Side) -> set[str]:
    name = PurePosixPath(path).name
    if name.startswith("Kconfig"):
        above = reversed(new.raw[: hunk.new_start + hunk.new_count])
        option = next((found for line in above if (found := _OPTION.match(line))), None)
        return set(option.group(1).lower().split("_")) if option else set()
    if name.startswith(("Makefile", "Kbuild")):
        lines = old.lines(hunk.old_start, hunk.old_count)
        lines += new.lines(hunk.new_start, hunk.new_count)
        objects = [name for line in lines for name in _OBJECT.findall(line)]
        return {word for one in objects for word in re.split(r"[_-]", one.lower())}
    return set()
