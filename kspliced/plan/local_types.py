# SPDX-License-Identifier: GPL-2.0-or-later
"""Types that are declared inside functions: compilers keep them out of BTF, so they are read.

What is local to a function mostly lives on its stack, but may be allocated or static, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kspliced.model import Refusal
from kspliced.plan.declarations import DeclarationKind
from kspliced.plan.edits import Edit, SourceText

_HEAD = re.compile(r"\b(struct|union|enum)\s*(\w*)\s*(?:__\w+(?:\([^()]*\))?\s*)?\{")
_LITERAL = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""")
_DECLARED = re.compile(r"[^;,=\[]*")


def changed_local_types(edit: Edit, old: SourceText, new: SourceText) -> tuple[Refusal, ...]:
    """A refusal for each type in a function that the edit concerns which both sides have, and not
    alike."""
    after = {d.name: d for d in edit.added if d.kind is DeclarationKind.FUNCTION}
    found = []
    for before in edit.removed:
        if before.kind is not DeclarationKind.FUNCTION or before.name not in after:
            continue
        same = after[before.name]
        olds = dict(_types(old.lines(before.start, before.end - before.start + 1)))
        news = dict(_types(new.lines(same.start, same.end - same.start + 1)))
        found += [
            Refusal(
                "layout_changed",
                edit.path,
                before.name,
                "a type that is declared inside the function changes",
                f"{name} was {{{olds[name]}}}, is {{{news[name]}}}",
            )
            for name in olds
            if name in news and olds[name] != news[name]
        ]
    return tuple(found)


def _types(lines: list[str]) -> Iterator[tuple[str, str]]:
    """The types that a function's lines declare: by tag, or by what is of the type; the body."""
    text = _LITERAL.sub('""', " ".join(lines))
    for head in _HEAD.finditer(text):
        end = _closing(text, head.end())
        declared = _DECLARED.match(text, end + 1)
        tag = head.group(2) or (declared.group().strip() if declared else "")
        yield f"{head.group(1)} {tag}", " ".join(text[head.end() : end].split())


def _closing(text: str, start: int) -> int:
    """Where the block that begins before ``start`` ends."""
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return place
    return len(text)
