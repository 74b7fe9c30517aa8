# SPDX-License-Identifier: GPL-2.0-or-later
"""C source as text: what of it is code, and which identifiers it uses."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LEXEME = re.compile(
    r"""/\*.*?\*/ | //[^\n]* | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'""", re.DOTALL | re.VERBOSE
)
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_LITERAL = re.compile(r""""(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""")
# C11 6.4.1, and what the kernel's own types and qualifiers are called.
_WORDS = """
    auto break case char const continue default do double else enum extern float for goto if inline
    int long register restrict return short signed sizeof static struct switch typedef union
    unsigned void volatile while bool true false NULL u8 u16 u32 u64 s8 s16 s32 s64 size_t ssize_t
    define undef include ifdef ifndef endif elif defined pragma error
"""
KEYWORDS = frozenset(_WORDS.split())


def code_lines(text: str) -> list[str]:
    """The lines of ``text``, comments blanked, white space at both ends removed."""
    return [line.strip() for line in _LEXEME.sub(_blank, text).split("\n")]


def _blank(match: re.Match[str]) -> str:
    lexeme = match.group()
    return lexeme if lexeme[0] in "\"'" else "\n" * lexeme.count("\n") or " "


def identifiers(lines: Iterable[str]) -> frozenset[str]:
    """The identifiers that lines of code use, keywords and what stands in literals left out."""
    found: set[str] = set()
    for line in lines:
        found.update(_IDENTIFIER.findall(_LITERAL.sub('""', line)))
    return frozenset(found - KEYWORDS)
