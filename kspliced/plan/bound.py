# SPDX-License-Identifier: GPL-2.0-or-later
"""Hunks that one commit must have made, whatever it was.

Where a function takes more or fewer arguments, its calls change with it, or they do not compile. A
line that is taken out in one place of a file and comes in another, and stands nowhere else, moved.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kspliced.plan.declarations import TYPES, Declaration, DeclarationKind
from kspliced.plan.edits import SourceText
from kspliced.plan.text import identifiers
from kspliced.plan.touched import CALLABLE
from kspliced.source.lines import Hunk

# Lines that a call may have before and behind those that change.
_REACH = 6
# A call, a declaration, or, with an asterisk, a member that points to a function.
_CALL = re.compile(r"(\*\s*)?\b([A-Za-z_]\w*)\s*\)?\s*\(")
# Of a line that is unlikely to be there twice by chance.
_LONG = 24
_SAYS = re.compile(r"\w+\s*\(")


@dataclass(frozen=True)
class Recalled:
    """A ``name`` that takes ``now`` arguments on the new side of a hunk, and took ``before``;
    ``declared`` if the hunk says so itself, ``local`` if that is for its file only, ``member`` if
    it is one of a type."""

    name: str
    before: int
    now: int
    declared: bool
    local: bool = False
    member: bool = False


@dataclass(frozen=True)
class _Call:
    arguments: int
    pointer: bool


def recalled(hunk: Hunk, old: SourceText, new: SourceText) -> tuple[Recalled, ...]:
    """What takes another number of arguments after a hunk, or is used there for that."""
    if not hunk.new_count:
        return ()
    return (*_called_otherwise(hunk, old, new), *_with_new_parameters(hunk, old, new))


def _called_otherwise(hunk: Hunk, old: SourceText, new: SourceText) -> Iterator[Recalled]:
    if not hunk.old_count:
        return
    before = _calls(old.code, hunk.old_start, hunk.old_count)
    after = _calls(new.code, hunk.new_start, hunk.new_count)
    owners = new.owners(hunk.new_start, hunk.new_count) if before and after else ()
    for name in sorted(before.keys() & after.keys()):
        first, then = ({call.arguments for call in side[name]} for side in (before, after))
        if len(first) == len(then) == 1 and first != then:
            mine = [d for d in owners if d.name == name and d.kind in CALLABLE]
            member = any(d.kind in TYPES for d in owners) and any(c.pointer for c in after[name])
            local = bool(mine) and all(d.local for d in mine)
            declared = bool(mine) or member
            yield Recalled(name, first.pop(), then.pop(), declared, local, member)


def _with_new_parameters(hunk: Hunk, old: SourceText, new: SourceText) -> Iterator[Recalled]:
    """Functions of which the hunk uses parameters that they did not have."""
    owners = new.owners(hunk.new_start, hunk.new_count)
    functions = {d.name: d for d in owners if d.kind is DeclarationKind.FUNCTION}
    known = {
        d.name: d
        for d in old.declarations
        if d.name in functions and d.kind is DeclarationKind.FUNCTION
    }
    used = identifiers(new.lines(hunk.new_start, hunk.new_count)) if known else frozenset()
    for name, function in known.items():
        before, after = _parameters(function, old), _parameters(functions[name], new)
        if before and after and used & (after.names - before.names):
            yield Recalled(name, before.number, after.number, False)


@dataclass(frozen=True)
class _Parameters:
    names: frozenset[str]
    number: int


def _parameters(function: Declaration, text: SourceText) -> _Parameters | None:
    head = "\n".join(text.code[function.start - 1 : function.start + _REACH])
    opening = re.search(rf"\b{function.name}\s*\(", head)
    if opening is None:
        return None
    end, number = _arguments(head, opening.end())
    names = frozenset(identifiers([head[opening.end() : end]]))
    return None if number is None else _Parameters(names, number)


def _calls(code: list[str], start: int, count: int) -> dict[str, list[_Call]]:
    """The calls of which some line is among ``count`` from ``start``, from 1."""
    first = max(0, start - 1 - _REACH)
    text = "\n".join(code[first : start - 1 + count + _REACH])
    found: dict[str, list[_Call]] = defaultdict(list)
    for call in _CALL.finditer(text):
        end, arguments = _arguments(text, call.end())
        begins, ends = (first + 1 + text.count("\n", 0, at) for at in (call.start(2), end))
        if arguments is not None and begins <= start + count - 1 and start <= ends:
            found[call.group(2)].append(_Call(arguments, bool(call.group(1))))
    return found


def _arguments(text: str, start: int) -> tuple[int, int | None]:
    """Where the parenthesis that opens before ``start`` closes, and how many arguments are in it;
    None where that is beyond the text."""
    depth, commas = 1, 0
    for place in range(start, len(text)):
        letter = text[place]
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
            if not depth:
                inside = text[start:place].strip()
                return place, commas + 1 if inside not in ("", "void") else 0
        elif letter == "," and depth == 1:
            commas += 1
        elif letter == ";" and depth == 1:
            break
    return start, None


def moved(parts: Iterable[Hunk], old: SourceText, new: SourceText) -> tuple[tuple[int, int], ...]:
    """Pairs of hunks, by their number, of which one takes out a line that the other brings."""
    sides = [
        (old.lines(h.old_start, h.old_count), new.lines(h.new_start, h.new_count)) for h in parts
    ]
    return tuple(dict.fromkeys(_moved(sides)))


def _moved(sides: list[tuple[list[str], list[str]]]) -> Iterator[tuple[int, int]]:
    taken = [(line, n) for n, (before, _) in enumerate(sides) for line in before]
    brought = [(line, n) for n, (_, after) in enumerate(sides) for line in after]
    once = [Counter(line for line, _ in some) for some in (taken, brought)]
    place = dict(brought)
    for line, number in taken:
        other = place.get(line, number)
        told = len(line) >= _LONG and _SAYS.search(line)
        if told and other != number and once[0][line] == once[1][line] == 1:
            yield (number, other)


def _with_providers(
    by: dict[tuple[str, int, int], list[tuple[int, int, Recalled]]],
) -> Iterator[list[tuple[int, int, Recalled]]]:
    """What is called by each name; who provides a member is called like it and changes with it."""
    members = {key for key, some in by.items() if any(one.member for _, _, one in some)}
    for key, some in sorted(by.items()):
        name, *counts = key
        if key in members:
            others = (k for k in by if k[0].endswith(f"_{name}") and [*k[1:]] == counts)
            yield [*some, *(one for other in sorted(others) for one in by[other])]
        elif not any(name.endswith(f"_{m[0]}") and [*m[1:]] == counts for m in members):
            yield some


def groups(found: Iterable[tuple[int, int, tuple[Recalled, ...]]]) -> tuple[tuple[int, ...], ...]:
    """The passages that change how one name is called.

    :param found: file and number of each passage, with what is called otherwise after it.
    """
    by: dict[tuple[str, int, int], list[tuple[int, int, Recalled]]] = defaultdict(list)
    for file, number, some in found:
        for one in some:
            by[one.name, one.before, one.now].append((file, number, one))
    result = []
    for members in _with_providers(by):
        if any(one.declared and not one.local for _, _, one in members):
            result.append(tuple(dict.fromkeys(number for _, number, _ in members)))
            continue
        for home in sorted({file for file, _, one in members if one.declared}):
            mine = (number for file, number, _ in members if file == home)
            result.append(tuple(dict.fromkeys(mine)))
    return tuple(group for group in result if len(group) > 1)
