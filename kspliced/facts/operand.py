# SPDX-License-Identifier: GPL-2.0-or-later
"""Operands of GIMPLE statements as GCC prints them (gcc/tree-pretty-print.cc, dump_generic_node).

An operand is a tree of :class:`Expression`; what is not understood of it is :class:`Opaque`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# A place before a part of an operand, which strings may hold as text too.
_PLACED = re.compile(
    r'("(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\')|\[[^\[\]\s]*:\d+(?::\d+)?(?: discrim \d+)?\] '
)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'')
_SSA = re.compile(
    r"(?P<base>[A-Za-z_$][\w$.]*?|)_(?P<version>[0-9]{1,9})(?P<default>\(D\))?(?:\(ab\))?(?![\w$.])"
)
# As GCC names what has no name in the source, too: D.1234, iftmp.5, CSWTCH.6.
_NAME = re.compile(r"(?:D\.\d+|<retval>|[A-Za-z_$][\w$]*(?:\.\d+)*)")
_FIELD = re.compile(r"(?:\.|->)(D\.\d+|<[^<>]*>|[A-Za-z_$][\w$]*)")
_NUMBER = re.compile(r"-?(?:0x[0-9a-f]+|\d+(?:\.\d*)?(?:e[+-]?\d+)?)B?(?![\w.])")
_WIDTH = re.compile(r"[0-9]{1,9}")
_SIZED = re.compile(r"\{lb: [^{}]*\}")
_MARK = re.compile(rf'{_QUOTED.pattern}|->|[()\[\]{{}}<>,"\']')
_OPEN, _CLOSE = "([{<", ")]}>"
_WRAPPERS = ("REALPART_EXPR <", "IMAGPART_EXPR <")
_DEEPEST = 40


@dataclass(frozen=True)
class Ssa:
    """A value: ``base`` is the variable's name, empty for a temporary; ``default``: the one that a
    variable has when the function begins."""

    base: str
    version: int
    default: bool


@dataclass(frozen=True)
class Name:
    """A variable, function or label."""

    name: str


@dataclass(frozen=True)
class Constant:
    """A number, string or constructed value."""

    text: str


@dataclass(frozen=True)
class Dereference:
    """What ``pointer`` points to, as an object of ``type``; empty for the pointer's own.
    ``offset``: bytes from there, if there are any."""

    pointer: Expression
    type: str
    offset: str = ""


@dataclass(frozen=True)
class Field:
    """A member; without a name it is empty."""

    of: Expression
    name: str


@dataclass(frozen=True)
class Element:
    """An element of an array."""

    of: Expression
    index: Expression


@dataclass(frozen=True)
class Part:
    """``width`` bits of something from bit ``first``."""

    of: Expression
    width: int
    first: int


@dataclass(frozen=True)
class Whole:
    """The same memory or value, read as another type, or one half of a complex number."""

    of: Expression


@dataclass(frozen=True)
class Address:
    """The address of something in memory."""

    of: Expression


@dataclass(frozen=True)
class Opaque:
    """Text that was not understood."""

    text: str


Expression = Ssa | Name | Constant | Dereference | Field | Element | Part | Whole | Address | Opaque


class _NotRead(Exception):
    """The text has a form that is not known."""


def without_places(text: str) -> str:
    """An operand's text without the places in it."""
    return _PLACED.sub(lambda match: match[1] or "", text) if "[" in text else text


def _marks(text: str, at: int) -> Iterator[tuple[int, str]]:
    """Brackets and commas from ``at`` on, with their places; those in strings are none, nor is
    that of an arrow. A quote is among them where no string begins with it."""
    for match in _MARK.finditer(text, at):
        if len(match[0]) == 1:
            yield match.start(), match[0]


def split_operands(text: str) -> list[str] | None:
    """The operands between commas; None if brackets do not match."""
    if not text.strip():
        return []
    if not any(c in text for c in "([{<\"'"):
        return [part.strip() for part in text.split(",")]
    parts, depth, start = [], [], 0
    for at, mark in _marks(text, 0):
        if mark in _OPEN:
            depth.append(_CLOSE[_OPEN.index(mark)])
        elif mark == ",":
            if not depth:
                parts.append(text[start:at].strip())
                start = at + 1
        elif not depth or depth.pop() != mark:
            return None
    return None if depth else [*parts, text[start:].strip()]


def closing(text: str, at: int) -> int:
    """Where the bracket that opens at ``at`` is closed; -1 if it is not."""
    depth = []
    for place, mark in _marks(text, at):
        if mark in _OPEN:
            depth.append(_CLOSE[_OPEN.index(mark)])
        elif mark != ",":
            if not depth or depth.pop() != mark:
                return -1
            if not depth:
                return place
    return -1


def read_operand(text: str) -> Expression:
    """The operand; :class:`Opaque` if any of it is not understood."""
    try:
        expression, rest = _operand(without_places(text).strip(), 0)
    except _NotRead:
        return Opaque(text.strip())
    return expression if not rest.strip() else Opaque(text.strip())


def _operand(text: str, depth: int) -> tuple[Expression, str]:
    if depth > _DEEPEST:
        raise _NotRead
    if text.startswith("&"):
        of, rest = _operand(text[1:], depth + 1)
        return Address(of), rest
    base, rest = _base(text, depth)
    return _suffixes(base, rest, depth)


def _base(text: str, depth: int) -> tuple[Expression, str]:
    if depth > _DEEPEST:
        raise _NotRead
    if text.startswith("*"):
        # No suffix binds closer: GCC writes p->x, and (*p)[1].
        pointer, rest = _base(text[1:], depth + 1)
        return Dereference(pointer, ""), rest
    for read in (_memory, _wrapped, _constant, _grouped):
        found = read(text, depth)
        if found is not None:
            return found
    if match := _SSA.match(text):
        base, version = match["base"], int(match["version"])
        return Ssa(base, version, bool(match["default"])), text[match.end() :]
    if match := _NAME.match(text):
        return Name(match[0]), text[match.end() :]
    raise _NotRead


def _memory(text: str, depth: int) -> tuple[Expression, str] | None:
    """``MEM[(struct foo *)p_1 + 8B]`` or ``MEM <char[4]> [(struct foo *)&x + 12B]``."""
    if not text.startswith(("MEM[", "MEM <")):
        return None
    at, type_ = 3, ""
    if text[at] == " ":
        end = closing(text, 4)
        if end < 0 or not text.startswith(" [", end + 1):
            raise _NotRead
        type_, at = text[5:end], end + 2
    end = closing(text, at)
    if end < 0:
        raise _NotRead
    inner = text[at + 1 : end]
    if inner.startswith("("):
        cast = closing(inner, 0)
        type_ = type_ or pointee(inner[1:cast])
        inner = inner[cast + 1 :]
    pointer, rest = _operand(inner, depth + 1)
    offset = rest.strip()
    if offset and re.fullmatch(r"\+ -?\d+B", offset) is None:
        raise _NotRead
    return Dereference(pointer, type_, offset.removeprefix("+ ")), text[end + 1 :]


def _wrapped(text: str, depth: int) -> tuple[Expression, str] | None:
    if text.startswith("VIEW_CONVERT_EXPR<"):
        at = closing(text, text.index("<")) + 1
        end = closing(text, at) if text[at : at + 1] == "(" else -1
        if end < 0:
            raise _NotRead
        return Whole(_inside(text[at + 1 : end], depth)), text[end + 1 :]
    if text.startswith("BIT_FIELD_REF <"):
        end = closing(text, text.index("<"))
        parts = split_operands(text[text.index("<") + 1 : end]) if end > 0 else None
        if parts is None or len(parts) != 3 or not all(map(_WIDTH.fullmatch, parts[1:])):
            raise _NotRead
        of = _inside(parts[0], depth)
        return Part(of, int(parts[1]), int(parts[2])), text[end + 1 :]
    if text.startswith(_WRAPPERS):
        end = closing(text, text.index("<"))
        if end < 0:
            raise _NotRead
        return Whole(_inside(text[text.index("<") + 1 : end], depth)), text[end + 1 :]
    return None


def _inside(text: str, depth: int) -> Expression:
    of, rest = _operand(text.strip(), depth + 1)
    if rest.strip():
        raise _NotRead
    return of


def _constant(text: str, depth: int) -> tuple[Expression, str] | None:
    if match := _NUMBER.match(text) or _QUOTED.match(text):
        return Constant(match[0]), text[match.end() :]
    if text.startswith(("{", "__complex__ (")):
        end = closing(text, text.index("{" if text[0] == "{" else "("))
        if end < 0:
            raise _NotRead
        return Constant(text[: end + 1]), text[end + 1 :]
    return None


def _grouped(text: str, depth: int) -> tuple[Expression, str] | None:
    """``(*p_1)``; a cast in front of an operand, ``(long int) &x``, is the operand."""
    if not text.startswith("("):
        return None
    end = closing(text, 0)
    if end < 0:
        raise _NotRead
    if text.startswith("(*"):
        return _inside(text[1:end], depth), text[end + 1 :]
    of, rest = _operand(text[end + 1 :].lstrip(), depth + 1)
    return Whole(of), rest


def _suffixes(base: Expression, text: str, depth: int) -> tuple[Expression, str]:
    for _ in range(_DEEPEST):
        if match := _FIELD.match(text):
            of = Dereference(base, "") if text.startswith("->") else base
            anonymous = match[1].startswith(("D.", "<"))
            base, text = Field(of, "" if anonymous else match[1]), text[match.end() :]
        elif text.startswith("["):
            end = closing(text, 0)
            if end < 0:
                raise _NotRead
            base, text = Element(base, _inside(text[1:end], depth)), text[end + 1 :]
        elif match := _SIZED.match(text):
            text = text[match.end() :]
        else:
            return base, text
    raise _NotRead


def pointee(type_: str) -> str:
    """What a pointer of ``type_`` points to, without qualifiers; empty if it is no pointer."""
    bare = re.sub(r"\b(?:const|volatile|restrict)\b|<address-space-\d+>", " ", type_)
    bare = " ".join(bare.split())
    return bare[:-1].strip() if bare.endswith("*") else ""
