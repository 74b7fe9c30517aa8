# SPDX-License-Identifier: GPL-2.0-or-later
"""Unified differences as git, diff(1) and quilt(1) write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from kspliced.errors import SourceError
from kspliced.series.commit import FilePatch, PatchHunk, unreadable

_HUNK = re.compile(rb"^@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_GIT = b"diff --git "
_NO_NEWLINE = b"\\"
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"t": b"\t", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"r": b"\r"}
_EXTENDED = (
    *(b"old mode ", b"new mode ", b"deleted file mode ", b"new file mode ", b"copy from "),
    *(b"copy to ", b"rename from ", b"rename to ", b"similarity index ", b"index "),
    b"dissimilarity index ",
)
_AGAIN = "write it again with `git format-patch` or quilt"


@dataclass(frozen=True)
class _Head:
    """What stands before the hunks of a file: its names, as they are written."""

    old: bytes = b""
    new: bytes = b""
    copies: bool = False


def parse_diff(lines: list[bytes], name: str, strip: int = 1) -> tuple[FilePatch, ...]:
    """The files that a patch changes; what is between them is text and does not count.

    :param lines: with their newlines.
    :param name: what errors call the patch.
    :param strip: how many components its paths begin with that are not of the tree.
    :raises SourceError: SERIES_UNREADABLE for a hunk that is cut, or a path that leaves the tree.
    """
    return tuple(_Parser(lines, name, strip).files())


class _Parser:
    def __init__(self, lines: list[bytes], name: str, strip: int) -> None:
        self._lines, self._name, self._strip = lines, name, strip
        self._at = 0

    def files(self) -> Iterator[FilePatch]:
        while self._at < len(self._lines):
            if self._line().startswith(_GIT):
                head = self._git_head()
            elif self._begins():
                head = _Head()
            else:
                self._at += 1
                continue
            yield from self._file(head)

    def _file(self, head: _Head) -> Iterator[FilePatch]:
        """A file of which git's lines, if any, are read; it may have no hunks."""
        paths = self._path(head.old), self._path(head.new)
        hunks: tuple[PatchHunk, ...] = ()
        if self._begins():
            names = tuple(self._path(_word(self._line(n)[4:])) for n in (0, 1))
            # After a file without hunks one may follow that git does not announce.
            if not any(paths) or {*names} <= {*paths, ""}:
                paths = paths if any(paths) else (names[0], names[1])
                self._at += 2
                hunks = tuple(self._hunks())
        if any(paths):
            yield FilePatch(*paths, hunks, head.copies)

    def _line(self, ahead: int = 0) -> bytes:
        at = self._at + ahead
        return self._lines[at] if at < len(self._lines) else b""

    def _begins(self) -> bool:
        """Whether the names of a file with hunks stand here."""
        names = self._line().startswith(b"--- ") and self._line(1).startswith(b"+++ ")
        return names and _HUNK.match(self._line(2)) is not None

    def _git_head(self) -> _Head:
        head = _both(self._line()[len(_GIT) :])
        self._at += 1
        prefix = b"x/" * self._strip
        while self._line().startswith(_EXTENDED):
            word, _, rest = self._line().rstrip(b"\r\n").partition(b" ")
            if word == b"new" and rest.startswith(b"file"):
                head = replace(head, old=b"/dev/null")
            elif word == b"deleted":
                head = replace(head, new=b"/dev/null")
            elif word in (b"rename", b"copy"):
                side, _, path = rest.partition(b" ")
                path = prefix + _word(path)
                head = replace(head, copies=word == b"copy")
                head = replace(head, old=path) if side == b"from" else replace(head, new=path)
            self._at += 1
        return head

    def _hunks(self) -> Iterator[PatchHunk]:
        while found := _HUNK.match(self._line()):
            first = self._at + 1
            self._at += 1
            left = [1 if n is None else int(n) for n in found.group(2, 4)]
            lines: list[bytes] = []
            while left[0] > 0 or left[1] > 0:
                line = self._line()
                # Mail programs cut the blank that an empty line begins with.
                line = b" " + line if line in (b"\n", b"\r\n") else line
                kind = line[:1]
                if kind == _NO_NEWLINE and lines:
                    lines[-1] = lines[-1].removesuffix(b"\n")
                elif kind in (b" ", b"-", b"+"):
                    left[0] -= kind != b"+"
                    left[1] -= kind != b"-"
                    lines.append(line)
                else:
                    raise self._damaged(first)
                self._at += 1
            if left != [0, 0]:
                raise self._damaged(first)
            if self._line().startswith(_NO_NEWLINE) and lines:
                lines[-1] = lines[-1].removesuffix(b"\n")
                self._at += 1
            yield PatchHunk(int(found.group(1)), tuple(lines))

    def _damaged(self, line: int) -> SourceError:
        return unreadable(f"{self._name} is damaged: its hunk at line {line} is cut", _AGAIN)

    def _path(self, written: bytes) -> str:
        """A path in the tree, '' for one that is not there."""
        if not written or written == b"/dev/null":
            return ""
        path = written.decode("utf-8", "replace")
        parts = path.split("/")
        inside = [part for part in parts[self._strip :] if part not in ("", ".")]
        if ".." in parts or path.startswith("/") or not inside or "\0" in path:
            text = f"{self._name} changes {path:.200}, which is no path inside of a source"
            raise unreadable(text, "leave it out: no commit of the kernel does that")
        return "/".join(inside)


def _word(text: bytes) -> bytes:
    """A file name as it is written: quoted, or up to a tab."""
    text = text.rstrip(b"\r\n")
    if text.startswith(b'"'):
        return _ESCAPE.sub(_escaped, text[1 : text.rfind(b'"')])
    return text.partition(b"\t")[0].rstrip(b" ")


def _escaped(found: re.Match[bytes]) -> bytes:
    word = found.group(1)
    return bytes([int(word, 8) & 0xFF]) if len(word) == 3 else _ESCAPED.get(word, word)


def _both(text: bytes) -> _Head:
    """The names in git's first line, where they are one but for the prefix."""
    text = text.rstrip(b"\r\n")
    if text.startswith(b'"'):
        old, _, new = text[1:].partition(b'" "')
        return _Head(_word(b'"' + old + b'"'), _word(b'"' + new))
    half = len(text) // 2
    old, new = text[:half], text[half + 1 :]
    same = old.partition(b"/")[2] == new.partition(b"/")[2]
    return _Head(old, new) if same else _Head()
