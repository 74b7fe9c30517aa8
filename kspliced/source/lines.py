# SPDX-License-Identifier: GPL-2.0-or-later
"""Line numbers that stay: a changed file whose unchanged lines keep their old __LINE__.

An insertion shifts every line below it, and with it WARN_ON()'s and ext4_error()'s idea of where
they are, so that functions nobody touched would differ. A #line directive behind each hunk that
changes the number of lines undoes the shift (as klp-build does).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kspliced.errors import Code, SourceError
from kspliced.lines import split_lines

_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", re.MULTILINE)

_RETURN = re.compile(rb"\r(?!\n)")


@dataclass(frozen=True, order=True)
class Hunk:
    """Lines ``old_start`` .. + ``old_count`` became ``new_start`` .. + ``new_count`` (from 1).

    Where a count is 0, the start is the line *behind* which there is nothing, as diff -U0 has it.
    """

    old_start: int
    old_count: int
    new_start: int
    new_count: int


def hunks(old: Path, new: Path) -> tuple[Hunk, ...]:
    """The difference of two files, from diff(1) -U0; one that is missing counts as empty.

    :raises SourceError: TOOL_MISSING, SOURCE_UNREADABLE.
    """
    command = ["diff", "--text", "--new-file", "-U0", str(old), str(new)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise SourceError(
            Code.TOOL_MISSING, "diff is not installed", "install diffutils"
        ) from error
    if done.returncode > 1:
        why = done.stderr.decode("utf-8", "replace").strip()
        raise SourceError(Code.SOURCE_UNREADABLE, f"cannot compare {old}: {why}")
    text = done.stdout.decode("utf-8", "replace")
    return tuple(_parse(match) for match in _HUNK.finditer(text))


def _parse(match: re.Match[str]) -> Hunk:
    numbers = [1 if group is None else int(group) for group in match.groups()]
    return Hunk(numbers[0], numbers[1], numbers[2], numbers[3])


def keep_line_numbers(old: Path, new: Path) -> bytes:
    """The content of ``new`` with #line directives that give unchanged lines their old numbers.

    A directive goes before the first line behind a hunk that starts a declaration or statement
    outside any comment, string, parenthesis or continued line, where C allows one.
    """
    lines = split_lines(new.read_bytes(), keepends=True)
    safe = _safe_lines(lines)
    directives: dict[int, int] = {}
    for hunk in hunks(old, new):
        if hunk.old_count == hunk.new_count:
            continue
        # First unchanged line behind the hunk, counted from 0 in each file.
        new_next = hunk.new_start - 1 + hunk.new_count + (hunk.new_count == 0)
        old_next = hunk.old_start - 1 + hunk.old_count + (hunk.old_count == 0)
        place = next((n for n in range(new_next, len(lines)) if safe[n]), None)
        if place is not None:
            line = old_next + place - new_next
            # The compiler also counts carriage returns, which diff(1) does not.
            before = b"".join(split_lines(old.read_bytes(), keepends=True)[:line])
            directives[place] = line + 1 + len(_RETURN.findall(before))
    return b"".join(_with_directives(lines, directives))


def _with_directives(lines: list[bytes], directives: dict[int, int]) -> Iterator[bytes]:
    for number, line in enumerate(lines):
        if number in directives:
            yield b"#line %d\n" % directives[number]
        yield line


class _Scanner:
    """Just enough C lexing to know where a directive may stand."""

    def __init__(self) -> None:
        self.comment = False
        self.depth = 0
        self.continued = False

    @property
    def safe(self) -> bool:
        return not self.comment and not self.continued and self.depth == 0

    def feed(self, line: bytes) -> None:
        directive = not self.continued and line.lstrip().startswith(b"#")
        text = line.rstrip(b"\r\n")
        self._scan(text, count=not directive and not self.continued)
        self.continued = text.endswith(b"\\")

    def _scan(self, text: bytes, count: bool) -> None:
        position = 0
        while position < len(text):
            if self.comment:
                end = text.find(b"*/", position)
                if end < 0:
                    return
                self.comment, position = False, end + 2
                continue
            token = text[position : position + 2]
            if token == b"//":
                return
            if token == b"/*":
                self.comment, position = True, position + 2
                continue
            character = text[position : position + 1]
            if character in b"\"'":
                position = _literal_end(text, position)
                continue
            if count and character in b"()":
                self.depth = max(0, self.depth + (1 if character == b"(" else -1))
            position += 1


def _literal_end(text: bytes, start: int) -> int:
    quote = text[start : start + 1]
    position = start + 1
    while position < len(text):
        if text[position : position + 1] == b"\\":
            position += 2
            continue
        if text[position : position + 1] == quote:
            return position + 1
        position += 1
    return len(text)


def _safe_lines(lines: list[bytes]) -> list[bool]:
    scanner = _Scanner()
    safe = []
    for line in lines:
        safe.append(scanner.safe)
        scanner.feed(line)
    return safe
