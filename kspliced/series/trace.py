# SPDX-License-Identifier: GPL-2.0-or-later
"""Which commits made each hunk of the difference of two trees.

The commits are made again on the old tree (replay.py). A line that the difference and the commits
both leave alone parts what is before it from what is behind it; between two such lines the hunks
are of the commits that changed something there, if what these made is what the new tree has.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kspliced.lines import split_lines
from kspliced.series.commit import Commit
from kspliced.series.replay import Makers, Replay, Text
from kspliced.source.lines import Hunk, hunks


@dataclass(frozen=True)
class MadeHunk:
    """A hunk of ``path`` and the numbers of the commits that made it: all of them if ``exact``."""

    path: str
    hunk: Hunk
    commits: Makers
    exact: bool


@dataclass(frozen=True)
class Touched:
    """A file that ``commits`` say they change; ``settled`` if what they make of the old one is the
    new one."""

    path: str
    commits: Makers
    settled: bool


@dataclass(frozen=True)
class Traced:
    """Every hunk of a difference, and every file of it that some commit says it changes."""

    hunks: tuple[MadeHunk, ...]
    files: tuple[Touched, ...]


def trace(
    commits: tuple[Commit, ...],
    old_top: Path,
    new_top: Path,
    changed: Mapping[str, tuple[Hunk, ...]],
) -> Traced:
    """Tell the commits of every hunk.

    :param changed: by path the hunks of every file that differs; none where it is not known.
    :raises SourceError: TOOL_MISSING, SOURCE_UNREADABLE.
    """

    def old(path: str) -> list[bytes]:
        return _lines(old_top / path)

    replay = Replay(commits, (path for path, some in changed.items() if some), old)
    made: list[MadeHunk] = []
    settled: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="kspliced.") as scratch:
        for path, some in sorted(changed.items()):
            if some and path in replay.texts:
                file = _File(path, replay.texts[path], some, new_top / path, Path(scratch))
                made += file.told()
                settled |= {path} if file.settled else set()
            else:
                made += (MadeHunk(path, hunk, frozenset(), False) for hunk in some)
    files = (
        Touched(path, frozenset(numbers), path in settled)
        for path, numbers in sorted(replay.touched.items())
        if path in changed
    )
    return Traced(tuple(made), tuple(files))


def _lines(file: Path) -> list[bytes]:
    return split_lines(file.read_bytes(), keepends=True) if file.is_file() else []


class _Between:
    """Says which line of one text is which of another, by the hunks between them; from 0."""

    def __init__(self, some: Iterable[Hunk]) -> None:
        self._hunks = tuple(some)
        # First lines of the second text behind each hunk.
        self._starts = [_after(h.new_start, h.new_count) for h in self._hunks]

    def first_of(self, line: int) -> int | None:
        """The line of the first text that is ``line`` of the second; None where a hunk made it."""
        number = bisect_right(self._starts, line)
        if number < len(self._hunks):
            hunk = self._hunks[number]
            if hunk.new_count and hunk.new_start - 1 <= line:
                return None
        if not number:
            return line
        hunk = self._hunks[number - 1]
        return line - self._starts[number - 1] + _after(hunk.old_start, hunk.old_count)


def _after(start: int, count: int) -> int:
    """The first line, from 0, behind ``count`` lines from ``start``, from 1, as diff -U0 has it."""
    return start - 1 + count if count else start


class _File:
    """One changed file: the old text, what the commits made of it, and the new text."""

    def __init__(
        self, path: str, text: Text, some: tuple[Hunk, ...], new: Path, scratch: Path
    ) -> None:
        self._path, self._text, self._hunks = path, text, some
        lines = _lines(new)
        self._length = len(lines)
        found: tuple[Hunk, ...] = ()
        self.settled = lines == text.lines
        if not self.settled:
            made = scratch / "made"
            made.write_bytes(b"".join(text.lines))
            found = hunks(made, new)
        self._residue = _Between(found)

    def told(self) -> Iterator[MadeHunk]:
        """Its hunks, told region by region."""
        first = 0
        while first < len(self._hunks):
            last, end = self._end(first)
            start = self._start(first)
            commits, whole = self._between(start, end)
            for hunk in self._hunks[first : last + 1]:
                yield MadeHunk(self._path, hunk, commits, whole and bool(commits))
            first = last + 1

    def _anchor(self, old: int, new: int) -> bool:
        """Whether the commits, too, leave line ``old``, which is ``new``, as it is: where they took
        it out and put it back that is so."""
        made = self._residue.first_of(new)
        if made is None or made >= len(self._text.origins):
            return False
        origin = self._text.origins[made]
        return origin == old or (not isinstance(origin, int) and old in self._text.removed)

    def _start(self, number: int) -> tuple[int, int]:
        """The last line before a hunk, old and new, that nobody changed; -1 before all."""
        hunk = self._hunks[number]
        old = hunk.old_start - 1 if hunk.old_count else hunk.old_start
        new = hunk.new_start - 1 if hunk.new_count else hunk.new_start
        while old and new:
            old, new = old - 1, new - 1
            if self._anchor(old, new):
                return old, new
        return -1, -1

    def _end(self, first: int) -> tuple[int, tuple[int, int]]:
        """The last hunk of the region that begins with one, and the first line behind it that
        nobody changed."""
        for number in range(first, len(self._hunks)):
            hunk = self._hunks[number]
            old = _after(hunk.old_start, hunk.old_count)
            new = _after(hunk.new_start, hunk.new_count)
            following = self._hunks[number + 1] if number + 1 < len(self._hunks) else None
            limit = self._length
            if following is not None:
                limit = following.new_start - (following.new_count > 0)
            while new < limit:
                if self._anchor(old, new):
                    return number, (old, new)
                old, new = old + 1, new + 1
        return len(self._hunks) - 1, (-1, self._length)

    def _between(self, start: tuple[int, int], end: tuple[int, int]) -> tuple[Makers, bool]:
        """Who changed something between two lines that nobody did, and whether that made all."""
        text, residue = self._text, self._residue
        first = residue.first_of(start[1]) if start[1] >= 0 else -1
        # Behind the last line.
        last = residue.first_of(end[1]) if end[0] >= 0 else len(text.lines)
        assert first is not None and last is not None
        whole = last - first == end[1] - start[1] and all(
            residue.first_of(new) == first + new - start[1] for new in range(start[1] + 1, end[1])
        )
        found = [o for o in text.origins[first + 1 : last] if not isinstance(o, int)]
        found += text.behind[first + 1 : last + 1]
        old_end = end[0] if end[0] >= 0 else max(text.removed, default=-1) + 1
        found += (m for n in range(start[0] + 1, old_end) if (m := text.removed.get(n)))
        return frozenset().union(*found), whole
