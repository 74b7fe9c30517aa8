# SPDX-License-Identifier: GPL-2.0-or-later
"""Commits made again on the old tree, with who made each line.

A hunk is put where its old lines stand, as patch(1) does: near where it says, and with less context
where that has changed. Where a hunk fits nowhere, what it changes is tried line group by line
group. A wrong place does no harm: what is made is compared with the new tree (trace.py), and only
where the two are equal does it count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from kspliced.series.commit import Commit, FilePatch, PatchHunk

# Lines of context at either end that may be left out, and those around a group that stays.
_FUZZ, _CONTEXT = 2, 3

Makers = frozenset[int]
_NOBODY: Makers = frozenset()


class Placed(Enum):
    """What became of a hunk. IN_PLACE: the old tree has it already."""

    APPLIED = "applied"
    IN_PLACE = "in place"
    NOWHERE = "nowhere"


@dataclass
class Text:
    """A file while commits are made on it.

    ``origins`` has for each line its place in the old file, from 0, or the commits that made it;
    ``removed`` the commits that took out each line of the old file; ``behind`` those that made
    something vanish between a line and the next, the first for what is before all lines."""

    lines: list[bytes]
    origins: list[int | Makers]
    behind: list[Makers]
    removed: dict[int, Makers] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: list[bytes]) -> Text:
        """An old file."""
        return cls(lines, list(range(len(lines))), [_NOBODY] * (len(lines) + 1))

    def apply(self, hunk: PatchHunk, commit: int, drift: int) -> tuple[Placed, int]:
        """Make a hunk.

        :param drift: how many lines what it changes has moved, as far as is known.
        :returns: what became of it, and the drift that it shows.
        """
        expected = hunk.start - 1 + drift
        before, after = hunk.before, hunk.after
        if not before:
            # Without old lines it names the line behind which the new ones come.
            place = max(0, min(expected + 1, len(self.lines)))
            if self._at(after, place):
                return Placed.IN_PLACE, drift
            self._replace(place, hunk.lines, commit)
            return Placed.APPLIED, drift
        found = self._find(before, expected)
        if found is None and after and self._find(after, expected) is not None:
            return Placed.IN_PLACE, drift
        lines = hunk.lines
        for fuzz in range(1, _FUZZ + 1) if found is None else ():
            head, lines = _less(hunk.lines, fuzz)
            some = [line[1:] for line in lines if line[:1] != b"+"]
            found = self._find(some, expected + head) if some else None
            if found is not None:
                expected += head
                break
        if found is None:
            return self._apply_groups(hunk, commit, drift)
        self._replace(found, lines, commit)
        return Placed.APPLIED, drift + found - expected

    def _apply_groups(self, hunk: PatchHunk, commit: int, drift: int) -> tuple[Placed, int]:
        """Each group of changed lines as a hunk of its own."""
        groups = _groups(hunk)
        if len(groups) < 2:
            return Placed.NOWHERE, drift
        places = []
        for group in groups:
            placed, drift = self.apply(group, commit, drift)
            places.append(placed)
        if Placed.NOWHERE in places:
            return Placed.NOWHERE, drift
        return (Placed.APPLIED if Placed.APPLIED in places else Placed.IN_PLACE), drift

    def _find(self, wanted: list[bytes], near: int) -> int | None:
        """The place next to ``near`` where some lines stand."""
        if self._at(wanted, near):
            return near
        # The longest line stands in the fewest places.
        key = max(range(len(wanted)), key=lambda n: len(wanted[n]))
        best: int | None = None
        place = -1
        while True:
            try:
                place = self.lines.index(wanted[key], place + 1)
            except ValueError:
                return best
            start = place - key
            nearer = best is None or abs(start - near) < abs(best - near)
            if nearer and self._at(wanted, start):
                best = start
            elif not nearer and start > near:
                return best

    def _at(self, wanted: list[bytes], start: int) -> bool:
        return start >= 0 and self.lines[start : start + len(wanted)] == wanted

    def _replace(self, place: int, hunk: tuple[bytes, ...], commit: int) -> None:
        """Make what a hunk of lines says, whose old ones stand from ``place``."""
        mine: Makers = frozenset({commit})
        lines: list[bytes] = []
        origins: list[int | Makers] = []
        # What vanished behind the line before, which the hunk does not touch.
        behind: list[Makers] = [self.behind[place]]
        gone: Makers = _NOBODY
        at = place
        for line in hunk:
            kind = line[:1]
            if kind == b"+":
                lines.append(line[1:])
                origins.append(mine | gone)
                behind.append(_NOBODY)
                continue
            origin = self.origins[at]
            if kind == b" ":
                gone = _NOBODY
                lines.append(self.lines[at])
                origins.append(origin)
                behind.append(self.behind[at + 1])
            else:
                if isinstance(origin, int):
                    self.removed[origin] = self.removed.get(origin, _NOBODY) | mine
                else:
                    gone |= origin
                    behind[-1] |= origin | mine
                behind[-1] |= self.behind[at + 1]
            at += 1
        self.lines[place:at] = lines
        self.origins[place:at] = origins
        self.behind[place : at + 1] = behind


def _less(lines: tuple[bytes, ...], fuzz: int) -> tuple[int, tuple[bytes, ...]]:
    """A hunk's lines with less context at either end, and how many are left out at the first."""
    head = tail = 0
    while head < min(fuzz, len(lines)) and lines[head][:1] == b" ":
        head += 1
    while tail < min(fuzz, len(lines) - head) and lines[-1 - tail][:1] == b" ":
        tail += 1
    return head, lines[head : len(lines) - tail]


def _groups(hunk: PatchHunk) -> list[PatchHunk]:
    """The groups of changed lines of a hunk, each with the context that it has."""
    changed = [n for n, line in enumerate(hunk.lines) if line[:1] != b" "]
    groups: list[list[int]] = []
    for number in changed:
        if groups and number == groups[-1][-1] + 1:
            groups[-1].append(number)
        else:
            groups.append([number])
    found = []
    for group in groups:
        first, last = group[0], group[-1]
        while first > 0 and group[0] - first < _CONTEXT and hunk.lines[first - 1][:1] == b" ":
            first -= 1
        while (
            last + 1 < len(hunk.lines)
            and last - group[-1] < _CONTEXT
            and hunk.lines[last + 1][:1] == b" "
        ):
            last += 1
        # Counted as the groups before leave the file: they are made by then.
        start = hunk.start + sum(line[:1] != b"+" for line in hunk.lines[:first])
        found.append(PatchHunk(start, hunk.lines[first : last + 1]))
    return found


class OldLines(Protocol):
    """Gives the lines of an old file, with their newlines; none where there is no such file."""

    def __call__(self, path: str) -> list[bytes]: ...


def _with_sources(commits: tuple[Commit, ...], paths: Iterable[str]) -> frozenset[str]:
    """The paths, and what files there are moved from, which may be in neither tree."""
    found = set(paths)
    for commit in reversed(commits):
        found |= {file.old for file in commit.files if file.new in found and file.old}
    return frozenset(found)


class Replay:
    """The commits of a series made on the files of ``paths``, one after the other; ``touched`` are,
    by path, all that say that they change it."""

    def __init__(self, commits: Iterable[Commit], paths: Iterable[str], old: OldLines) -> None:
        every = tuple(commits)
        self._paths, self._old = _with_sources(every, paths), old
        self.texts: dict[str, Text] = {}
        self.touched: dict[str, set[int]] = {}
        for number, commit in enumerate(every):
            for file in commit.files:
                for path in file.paths:
                    self.touched.setdefault(path, set()).add(number)
                if self._paths.intersection(file.paths):
                    self._make(number, file)

    def text(self, path: str) -> Text:
        """A file as it is now."""
        if path not in self.texts:
            self.texts[path] = Text.of(self._old(path))
        return self.texts[path]

    def _make(self, commit: int, file: FilePatch) -> None:
        text = self.text(file.new or file.old)
        if not file.old and text.lines:
            # The old tree has the file, whatever it has in it.
            return
        if file.old and file.new and file.old != file.new:
            self._move(commit, file)
        drift = 0
        for hunk in file.hunks:
            _, drift = text.apply(hunk, commit, drift)

    def _move(self, commit: int, file: FilePatch) -> None:
        """Give a file what another one has, which then has nothing, unless it is copied."""
        source, target = self.text(file.old), self.text(file.new)
        if target.lines:
            # It was moved in the old tree.
            return
        mine: Makers = frozenset({commit})
        target.lines = list(source.lines)
        target.origins = [mine | (o if not isinstance(o, int) else _NOBODY) for o in source.origins]
        target.behind = [_NOBODY] * (len(target.lines) + 1)
        if not file.copies:
            source._replace(0, tuple(b"-" + line for line in source.lines), commit)
