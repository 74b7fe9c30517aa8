# SPDX-License-Identifier: GPL-2.0-or-later
"""The values of enumerators, as text has them, and when it matters that one changes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kspliced.plan.declarations import Declaration, DeclarationKind
from kspliced.plan.edits import Edit, SourceText

_COUNTS = re.compile(
    r"^__|(?:^|_)(?:MAX|NUM|NR|N|COUNT|CNT|LAST|SIZE|END|N?BITS|TOTAL|LIMIT|ENTRIES|LEN)(?:_|$)",
    re.IGNORECASE,
)
_SUSPECT = frozenset({DeclarationKind.MACRO, DeclarationKind.ENUM, DeclarationKind.ENUMERATOR})
_INVOKES = re.compile(r"\b[A-Z][A-Z0-9_]*\s*\(")
# A directive, or a line that goes on: what surrounds it may be a macro.
_DIRECTS = re.compile(r"^\s*#|\\$")
_HEAD = re.compile(r"\benum\b(?:[^;(){}]|__attribute__\s*\(\(.*?\)\))*\{", re.DOTALL)
_NUMBER = re.compile(r"[0-9][0-9A-Fa-fxX]*[uUlL]*")


def counts(name: str) -> bool:
    """Whether an enumerator is called as one that counts the others is (IFLA_MAX, NR_ITEMS)."""
    return _COUNTS.search(name) is not None


def may_change_one(edit: Edit, old: SourceText, new: SourceText) -> bool:
    """Whether an edit can give an enumerator another value, by what of the file it changes: not
    where each of its lines is in a declaration that is no macro and has no enumeration, and none
    is of a directive or, outside of functions, uses what may be a macro.
    """
    return _may_change_one(
        old, edit.removed, ((h.old_start, h.old_count) for h in edit.hunks)
    ) or _may_change_one(new, edit.added, ((h.new_start, h.new_count) for h in edit.hunks))


def _may_change_one(
    text: SourceText, declared: Iterable[Declaration], ranges: Iterable[tuple[int, int]]
) -> bool:
    homes = [(range(text.head(d), d.end + 1), d.kind) for d in declared]
    homes = [(r, DeclarationKind.ENUM if _has_one(text, r) else kind) for r, kind in homes]
    return any(
        _concerns(text.code[number - 1], {kind for lines, kind in homes if number in lines})
        for start, count in ranges
        for number in range(start, start + count)
    )


def _concerns(line: str, homes: set[DeclarationKind]) -> bool:
    """Whether a line may be part of an enumeration, of a macro, or a directive.

    :param homes: the kinds of the declarations that it lies in, ENUM where one has an enumeration.
    """
    if not line:
        return False
    if not homes or homes & _SUSPECT or _DIRECTS.search(line):
        return True
    return DeclarationKind.FUNCTION not in homes and _INVOKES.search(line) is not None


def _has_one(text: SourceText, lines: range) -> bool:
    return _HEAD.search("\n".join(text.code[lines.start - 1 : lines.stop - 1])) is not None


@dataclass(frozen=True)
class Value:
    """A number, ``step`` more than ``base``: an expression, or '' for zero; ``group`` is the number
    of the enumeration."""

    base: str
    step: int
    group: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Enumerator:
    """``top`` if none of its enumeration is greater, ``below`` if one is, by one; ``twins`` have
    its value. Neither is said where the enumeration has a value that is no plain number."""

    value: int | Value
    top: bool
    below: bool
    twins: tuple[str, ...]


def enumeration(pairs: Iterable[tuple[str, int | Value]], whole: bool) -> dict[str, Enumerator]:
    """The enumerators of one enumeration; ``whole`` if these are all."""
    pairs = tuple(pairs)
    numbers = [value for _, value in pairs if isinstance(value, int)]
    top = max(numbers, default=0)
    known = whole and len(numbers) == len(pairs)
    return {
        name: Enumerator(
            value,
            known and value == top,
            known and value == top - 1,
            tuple(n for n, v in pairs if v == value and n != name),
        )
        for name, value in pairs
    }


def changes(name: str, old: Mapping[str, Enumerator], new: Mapping[str, Enumerator]) -> bool:
    """Whether an enumerator of both has another value that is no count of the others."""
    before, after = old[name], new[name]
    # What counts the others is the size of something, and that is compared itself.
    if before.value == after.value or (before.top and after.top and counts(name)):
        return False
    stay = any(other in new and new[other].value == before.value for other in before.twins)
    return not (before.below and after.below and stay)


def values(bodies: Iterable[tuple[str, ...]]) -> dict[str, Value]:
    """The values of all enumerators.

    :param bodies: the tokens between the braces of each enumeration; a directive is one.
    """
    found: dict[str, Value] = {}
    for group, body in enumerate(bodies):
        value = Value("", -1)
        for part in _split(body):
            words = tuple(word for word in part if not word.startswith("#"))
            leading = next((n for n, w in enumerate(part) if not w.startswith("#")), len(part))
            value = _behind(value, part[:leading])
            if len(words) > 1 and words[1] == "=":
                value = _evaluated(words[2:], found)
            elif words:
                value = Value(value.base, value.step + 1)
            if words:
                found[words[0]] = Value(value.base, value.step, group)
            value = _behind(value, part[leading:])
    return found


def _behind(value: Value, words: tuple[str, ...]) -> Value:
    """What depends on a value depends on the directives passed since, too."""
    passed = (word for word in words if word.startswith("#"))
    return Value("".join((value.base, *passed)), value.step)


def _split(body: tuple[str, ...]) -> list[tuple[str, ...]]:
    parts: list[list[str]] = [[]]
    depth = 0
    for word in body:
        depth += {"(": 1, ")": -1}.get(word, 0)
        if word == "," and not depth:
            parts.append([])
        else:
            parts[-1].append(word)
    return [tuple(part) for part in parts if part]


def _evaluated(words: tuple[str, ...], known: Mapping[str, Value]) -> Value:
    if len(words) == 1 and _NUMBER.fullmatch(words[0]):
        return Value("", _integer(words[0]))
    if len(words) == 2 and words[0] == "-" and _NUMBER.fullmatch(words[1]):
        return Value("", -_integer(words[1]))
    if len(words) == 1 and words[0] in known:
        return known[words[0]]
    if len(words) == 3 and words[0] in known and words[1] in "+-" and words[2].isdigit():
        one = known[words[0]]
        return Value(one.base, one.step + int(f"{words[1]}{words[2]}"))
    return Value(" ".join(words), 0)


def _integer(word: str) -> int:
    digits = word.rstrip("uUlL")
    octal = len(digits) > 1 and digits.isdigit() and digits.startswith("0")
    return int(digits, 8 if octal else 0)
