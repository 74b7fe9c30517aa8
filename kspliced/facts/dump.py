# SPDX-License-Identifier: GPL-2.0-or-later
"""The functions and statements of GCC's dump of GIMPLE in SSA form, as text.

The dump is that of ``-fdump-tree-ssa-raw-lineno=FILE`` (gcc/tree-cfg.cc, dump_function_to_file;
gcc/gimple-pretty-print.cc): before anything is inlined, every temporary with its type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from kspliced.facts.model import Place
from kspliced.facts.operand import closing, split_operands
from kspliced.lines import split_lines

OPTION = "-fdump-tree-ssa-raw-lineno="

_FUNCTION = re.compile(r"^;; Function (?P<name>\S+) \((?P<symbol>[^,]*), funcdef_no=", re.MULTILINE)
_PLACE = re.compile(r"\[(?P<file>[^\[\]]*?):(?P<line>[0-9]{1,9})(?::\d+)?(?: discrim \d+)?\] ")
_BLOCK = re.compile(r"^ *<bb \d+>.*:$")
_EDGE = re.compile(r"^ *(?:goto <bb \d+>;.*|else)$")
_STATEMENT = re.compile(r"(?:# )?gimple_(?P<kind>[a-z_]+) ?(?=<)")
# The compiler's own notes: predictions, debugging, the state of registers.
_NOTE = re.compile(r"//|GIMPLE_NOP$|gimple_(?:debug|predict|nop)\b|# DEBUG|goto <bb |$")
# What the pass says before the function's own text.
_BEHIND = re.compile(r"(?: ?\[[^\[\]]*\])*$")
_LABEL = re.compile(r"<L\d+>|<D\.\d+>|[A-Za-z_$][\w$.]*")
# A statement is on more than one line only for a type that has no name.
_LONGEST = 60
# A function whose statements are without end is no function of a kernel.
_CLIP = 200


class Shape(Enum):
    """What a statement is made of."""

    OPERANDS = "operands"
    ASSEMBLY = "assembly"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Statement:
    """A statement: ``kind`` as GIMPLE calls it (``assign``, ``call``, ``phi``)."""

    shape: Shape
    kind: str
    operands: tuple[str, ...]
    place: Place
    text: str


@dataclass(frozen=True)
class Declaration:
    """A parameter or a variable or temporary of a function."""

    name: str
    type: str
    static: bool


@dataclass(frozen=True)
class Body:
    """A function as it is in the dump; ``header`` is its first line where that was not read."""

    name: str
    result: str
    parameters: tuple[Declaration, ...]
    variables: tuple[Declaration, ...]
    statements: tuple[Statement, ...]
    header: str = ""


def bodies(text: str, top: str = "") -> Iterator[Body]:
    """The functions of a dump.

    :param top: the source tree, which paths in it are told without.
    """
    prefix = f"{top}/" if top else ""
    found = list(_FUNCTION.finditer(text))
    ends = [*(match.start() for match in found[1:]), len(text)]
    for match, end in zip(found, ends, strict=False):
        yield _body(match["name"], text[match.end() : end], prefix)


def outside(text: str) -> str:
    """What is before the first function, which should be nothing."""
    first = _FUNCTION.search(text)
    return text[: first.start() if first else len(text)].strip()


def clipped(text: str) -> str:
    """The text on one line, and not too long."""
    line = " ".join(text.split())
    return line if len(line) <= _CLIP else f"{line[: _CLIP - 1]}…"


def _body(name: str, text: str, prefix: str) -> Body:
    lines = split_lines(text)[1:]
    first = next((at for at, line in enumerate(lines) if _BLOCK.match(line)), None)
    # The type of a parameter may have braces of its own: the last one before the block counts.
    opened = [at for at, line in enumerate(lines[:first]) if line == "{"]
    if first is None or not opened:
        return Body(name, "", (), (), tuple(_statements(lines, prefix)), clipped(text) or name)
    start = opened[-1]
    header = " ".join(line.strip() for line in lines[:start])
    result, parameters = _header(name, header)
    variables = tuple(_declarations(lines[start + 1 : first]))
    statements = tuple(_statements(lines[first:], prefix))
    if "}" not in lines[first:]:
        cut = "the dump ends inside of the function"
        statements += (Statement(Shape.UNKNOWN, "", (), Place("", 0), cut),)
    said = clipped(header) or name
    if parameters is None:
        return Body(name, result, (), variables, statements, said)
    return Body(name, result, parameters, variables, statements)


def _header(name: str, header: str) -> tuple[str, tuple[Declaration, ...] | None]:
    """The type of the result, and the parameters; None if they could not be read."""
    places = [match.start() for match in re.finditer(rf"(?<![\w$]){re.escape(name)} \(", header)]
    for place in reversed(places):
        opened = place + len(name) + 1
        end = closing(header, opened)
        if end < 0:
            continue
        parts = split_operands(header[opened + 1 : end])
        if parts is None:
            continue
        read = [declaration(part) for part in parts if part not in ("void", "...")]
        return header[:place].strip(), tuple(d for d in read if d is not None)
    return "", None


def _declarations(lines: list[str]) -> Iterator[Declaration]:
    held = ""
    for line in lines:
        held = f"{held} {line.strip()}" if held else line.strip()
        if line.endswith(";") and held.count("{") <= held.count("}"):
            read = declaration(held[:-1])
            if read is not None:
                yield read
            held = ""


def declaration(text: str) -> Declaration | None:
    """``struct foo * f``, ``void (*<T1>) (int) f``, ``static const char names[2] = {…}``."""
    text = text.strip()
    static = text.startswith("static ")
    bare = re.sub(r" \[value-expr:.*$| = .*$", "", text.removeprefix("static "), flags=re.DOTALL)
    match = re.fullmatch(
        r"(.*?[\s*)}>])([A-Za-z_$][\w$.]*|_\d+)((?:\[[^\[\]]*\])*)", bare, re.DOTALL
    )
    if match is None:
        return None
    type_ = " ".join(match[1].split())
    return Declaration(match[2], f"{type_}{match[3]}", static)


def _statements(lines: list[str], prefix: str) -> Iterator[Statement]:
    rest = iter(lines)
    for line in rest:
        if not line.strip() or line in ("}", "{") or _BLOCK.match(line) or _EDGE.match(line):
            continue
        place, text = _place(line.strip(), prefix)
        if _NOTE.match(text):
            continue
        if text.startswith("gimple_asm <"):
            yield _assembly(text, rest, place)
            continue
        match = _STATEMENT.match(text)
        if match is None:
            yield Statement(Shape.UNKNOWN, "", (), place, clipped(text))
            continue
        yield _with_operands(match["kind"], text, match.end(), rest, place)


def _place(text: str, prefix: str) -> tuple[Place, str]:
    match = _PLACE.match(text)
    if match is None:
        return Place("", 0), text
    return Place(match["file"].removeprefix(prefix), int(match["line"])), text[match.end() :]


def _with_operands(kind: str, text: str, at: int, rest: Iterator[str], place: Place) -> Statement:
    end = closing(text, at) if kind != "label" else len(text) - 1
    for _ in range(_LONGEST):
        if end >= 0:
            break
        line = next(rest, None)
        if line is None:
            break
        text = f"{text} {line.strip()}"
        end = closing(text, at)
    if kind == "switch" and end >= 0:
        # Its labels have the probability of the branch behind them.
        return _switch(text, at, end, place)
    operands = _labels(text) if kind == "label" else split_operands(text[at + 1 : end])
    if end < 0 or operands is None or not _BEHIND.fullmatch(text, end + 1):
        return Statement(Shape.UNKNOWN, kind, (), place, clipped(text))
    return Statement(Shape.OPERANDS, kind, tuple(operands), place, clipped(text))


def _labels(text: str) -> list[str]:
    match = _LABEL.search(text, text.index("<") + 1)
    return [match[0]] if match else []


def _switch(text: str, at: int, end: int, place: Place) -> Statement:
    operands = split_operands(text[at + 1 : end])
    if operands is None:
        return Statement(Shape.UNKNOWN, "switch", (), place, clipped(text))
    cases = [re.search(r"(?:^|\] )(case [^:]+|default): ", part) for part in operands[1:]]
    if not all(cases):
        return Statement(Shape.UNKNOWN, "switch", (), place, clipped(text))
    words = [case[1] for case in cases if case is not None]
    return Statement(Shape.OPERANDS, "switch", (operands[0], *words), place, clipped(text))


def _assembly(text: str, rest: Iterator[str], place: Place) -> Statement:
    """``OUTPUT: "name" "=r" x_1``, ``INPUT: "m" y`` and so on, behind the text in ``STRING <``."""
    template: list[str] = []
    operands: list[str] = []
    inside = False
    for line in rest:
        if line.strip() == "STRING <" and not template and not inside:
            inside = True
        elif inside and line == "    >":
            inside = False
        elif inside:
            template.append(line.strip())
        elif line.strip() == ">":
            break
        else:
            operands.append(line.strip())
    return Statement(Shape.ASSEMBLY, "asm", tuple(operands), place, clipped(" ".join(template)))
