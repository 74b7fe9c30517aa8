# SPDX-License-Identifier: GPL-2.0-or-later
"""The top-level declarations of C files, as Universal Ctags parses them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from kspliced.errors import Code, SourceError
from kspliced.lines import split_lines
from kspliced.plan.text import code_lines
from kspliced.source.functions import function_lines


class DeclarationKind(str, Enum):
    """What is declared; the values are ctags' own words."""

    FUNCTION = "function"
    PROTOTYPE = "prototype"
    MACRO = "macro"
    STRUCT = "struct"
    UNION = "union"
    ENUM = "enum"
    TYPEDEF = "typedef"
    VARIABLE = "variable"
    EXTERN = "externvar"
    ENUMERATOR = "enumerator"


TYPES = frozenset(
    {DeclarationKind.STRUCT, DeclarationKind.UNION, DeclarationKind.ENUM, DeclarationKind.TYPEDEF}
)


_STATIC = re.compile(r"\bstatic\b")
# include/linux/syscalls.h, compat.h, filter.h: macros that define a function, with its name.
_DEFINES = re.compile(
    r"/\^(?:(COMPAT_SYSCALL_DEFINE\d)|(SYSCALL_DEFINE\d)|BPF_CALL_\d)\s*\(\s*(\w+)"
)


@dataclass(frozen=True)
class Declaration:
    """Lines ``start`` to ``end`` of a file, from 1; ``local`` if it is static to its file."""

    path: str
    name: str
    kind: DeclarationKind
    start: int
    end: int
    local: bool


def declarations(top: Path, paths: Iterable[str]) -> tuple[Declaration, ...]:
    """The top-level declarations, and enumerators, of the files ``paths`` below ``top``.

    :raises SourceError: TOOL_MISSING; SOURCE_UNREADABLE when ctags fails.
    """
    command = [
        "ctags",
        "--options=NONE",
        "--output-format=json",
        "--languages=C",
        "--langmap=C:.c.h",
        "--kinds-C=dfgpstuvxe",
        "--fields=+nefsKZ",
        "-f",
        "-",
        "-L",
        "-",
    ]
    names = "".join(f"{path}\n" for path in paths if (top / path).is_file())
    if not names:
        return ()
    try:
        done = subprocess.run(
            command, cwd=top, input=names.encode(), capture_output=True, check=False
        )
    except FileNotFoundError as error:
        raise SourceError(
            Code.TOOL_MISSING, "ctags is not installed", "install universal-ctags"
        ) from error
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise SourceError(Code.SOURCE_UNREADABLE, f"ctags failed: {words:.200}")
    rows = (_parse(line) for line in split_lines(done.stdout.decode("utf-8", "replace")))
    return tuple(_own_names(top, [row for row in rows if row is not None]))


def _own_names(top: Path, found: Iterable[Declaration]) -> Iterator[Declaration]:
    """Functions that ctags takes for what a macro without a semicolon before them declares, as
    what they are: such a function begins further down, and ends at the same line."""
    spans: dict[str, dict[int, tuple[str, int]]] = {}
    code: dict[str, list[str]] = {}
    for one in found:
        if one.kind is DeclarationKind.FUNCTION:
            if one.path not in spans:
                text = (top / one.path).read_bytes().decode("utf-8", "replace")
                code[one.path] = code_lines(text)
                spans[one.path] = {end: (name, start) for name, start, end in function_lines(text)}
            name, start = spans[one.path].get(one.end, (one.name, one.start))
            if name != one.name and one.start < start:
                head = "\n".join(code[one.path][start - 1 : one.end]).partition("{")[0]
                local = _STATIC.search(head) is not None
                yield replace(one, name=name, start=start, local=local)
                continue
        yield one


def _parse(line: str) -> Declaration | None:
    tag = json.loads(line)
    try:
        kind = DeclarationKind(tag["kind"])
    except ValueError:
        return None
    # Members of a function or type are part of it, but an enumerator is a name for everybody.
    if "scope" in tag and kind is not DeclarationKind.ENUMERATOR:
        return None
    start = int(tag["line"])
    return Declaration(
        path=tag["path"],
        name=_defined(tag.get("pattern", "")) or tag["name"],
        kind=kind,
        start=start,
        end=int(tag.get("end", start)),
        local=bool(tag.get("file", False)),
    )


def _defined(line: str) -> str:
    """The function that holds the body which follows a macro; '' if the line is none."""
    found = _DEFINES.match(line)
    if found is None:
        return ""
    compat, call, name = found.groups()
    return f"__do_{'compat_' if compat else ''}sys_{name}" if compat or call else str(name)
