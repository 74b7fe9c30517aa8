# SPDX-License-Identifier: GPL-2.0-or-later
"""Commits as values, and what their messages say of other commits."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from kspliced.errors import Code, SourceError

# What stable's maintainers, git cherry-pick -x and DEP-3 write of where a change comes from.
_UPSTREAM = re.compile(
    r"^\s*commit ([0-9a-f]{12,64}) upstream\.?\s*$"
    r"|^\s*\[ Upstream commit ([0-9a-f]{12,64}) \]"
    r"|^\s*\(cherry picked from commit ([0-9a-f]{12,64})"
    r"|^Origin:.*\b(?:linus/|commit/|c/|\?id=)([0-9a-f]{12,64})\b",
    re.MULTILINE,
)
_FIXES = re.compile(r"^Fixes:\s*([0-9a-f]{8,64})\b", re.MULTILINE)
# Digits of an abbreviated name that tell one commit of a kernel from all others.
TELLING = 12
FULL_NAME = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class PatchHunk:
    """``start`` is the first old line, from 1; each of ``lines`` begins with b' ', b'-' or b'+' and
    ends as in the file, at its end without a newline."""

    start: int
    lines: tuple[bytes, ...]

    @property
    def before(self) -> list[bytes]:
        """The old lines."""
        return [line[1:] for line in self.lines if line[:1] != b"+"]

    @property
    def after(self) -> list[bytes]:
        """The new lines."""
        return [line[1:] for line in self.lines if line[:1] != b"-"]


@dataclass(frozen=True)
class FilePatch:
    """What a commit does to one file: ``old`` is '' if it adds ``new``, which is '' if it removes
    it; ``copies`` if ``old`` stays beside it. There are no hunks of a binary file."""

    old: str
    new: str
    hunks: tuple[PatchHunk, ...]
    copies: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that it changes."""
        return tuple(dict.fromkeys(p for p in (self.new, "" if self.copies else self.old) if p))


@dataclass(frozen=True)
class Commit:
    """A commit. ``name`` is what errors call it: its digits, a patch's file name; ``ids`` its own
    digits and those of what it was picked from; ``fixes`` digits of what it mends."""

    name: str
    subject: str
    ids: tuple[str, ...]
    fixes: tuple[str, ...]
    files: tuple[FilePatch, ...]
    cves: tuple[str, ...] = ()

    def called(self, name: str) -> bool:
        """Whether ``name``, digits, are its own or those of what it was picked from."""
        return any(same_commit(name, own) for own in self.ids)


def same_commit(one: str, other: str) -> bool:
    """Whether digits, maybe cut, are those of one commit."""
    length = min(len(one), len(other))
    return length >= TELLING and one[:length] == other[:length]


def said_ids(message: str) -> tuple[str, ...]:
    """The commits that a message says it was picked from."""
    return tuple(dict.fromkeys(d for found in _UPSTREAM.findall(message) for d in found if d))


def said_fixes(message: str) -> tuple[str, ...]:
    """The commits of a message's ``Fixes:`` lines."""
    return tuple(dict.fromkeys(_FIXES.findall(message)))


def digest_of(commits: Iterable[Commit]) -> str:
    """Stands for just these commits in this order."""
    digest = hashlib.sha256()
    for commit in commits:
        head = (commit.subject, *commit.ids, *commit.fixes, *commit.cves)
        digest.update("\n".join(head).encode() + b"\0")
        for file in commit.files:
            digest.update(f"{file.old}\n{file.new}\n{file.copies}\n".encode())
            for hunk in file.hunks:
                digest.update(b"%d\n" % hunk.start + b"".join(hunk.lines) + b"\0")
    return digest.hexdigest()


def unreadable(what: str, remedy: str) -> SourceError:
    """The error of commits that cannot be used."""
    return SourceError(Code.SERIES_UNREADABLE, what, remedy)
