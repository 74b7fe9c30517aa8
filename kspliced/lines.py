# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines as the kernel, the compiler and diff(1) count them: one ends at a newline and nowhere else.

str.splitlines() also ends one at a form feed, which sources hold, and at seven other characters;
bytes.splitlines() and files that are opened as text do so at a carriage return.
"""

from __future__ import annotations

from typing import AnyStr


def split_lines(text: AnyStr, keepends: bool = False) -> list[AnyStr]:
    """The lines of ``text``, what follows the last newline among them unless it is empty.

    :param keepends: whether each keeps its newline.
    """
    if isinstance(text, str):
        return _split(text, "\n", keepends)
    return _split(text, b"\n", keepends)


def _split(text: AnyStr, end: AnyStr, keepends: bool) -> list[AnyStr]:
    lines = text.split(end)
    rest = lines.pop()
    if keepends:
        lines = [line + end for line in lines]
    if rest:
        lines.append(rest)
    return lines
