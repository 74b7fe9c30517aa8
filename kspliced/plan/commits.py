# SPDX-License-Identifier: GPL-2.0-or-later
"""Changelog entries by the commits of a series, and by words where these do not tell.

An entry whose subject is that of commits is these; their hunks are known, and so are its files. A
commit that the changelog does not list is an entry of its own. What remains, entries without a
commit and hunks that no commit made, is told by words (attribution.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from kspliced.model import ChangelogEntry
from kspliced.plan.attribution import Attribution, Claim, attribute
from kspliced.plan.edits import Spot
from kspliced.plan.passages import ChangedFile
from kspliced.plan.subject import read_subject
from kspliced.series.commit import TELLING, Commit
from kspliced.series.trace import Traced

# The least share of an entry whose commit may have made a hunk that is not known exactly, and of
# one whose commit made a part of it.
_MAY, _PART = 0.05, 0.5
_GONE = "what its commit does is in the old source, or another commit takes it back"
_NOT_CHANGED = "its commit changes no file that differs"


@dataclass(frozen=True)
class Share:
    """How far commits tell a difference: how many ``commits`` there are, how many ``hunks``, how
    many of these are known ``exactly``; ``others`` are those that are not."""

    commits: int
    hunks: int
    exactly: int
    others: tuple[Spot, ...]


@dataclass(frozen=True)
class Told:
    """All entries with what is known of each, in order."""

    entries: tuple[ChangelogEntry, ...]
    attributions: tuple[Attribution, ...]
    share: Share


def attribute_commits(
    entries: tuple[ChangelogEntry, ...],
    files: tuple[ChangedFile, ...],
    commits: tuple[Commit, ...],
    traced: Traced,
    version: str,
) -> Told:
    """Tell the entries of an upgrade, and the commits that are none of them.

    :param version: of the new source, that of entries for commits.
    """
    return _Told(entries, files, commits, traced, version).all()


def _key(subject: str) -> str:
    """What a subject is compared by: without what a changelog adds, and how it is spelt."""
    read = read_subject(subject)
    words = " ".join(read.body.lower().rstrip(".").split())
    return f"revert {words}" if read.reverts else words


def _menders(commits: tuple[Commit, ...]) -> dict[int, set[int]]:
    """The commits that mend another one of the series, by that one's number."""
    by_digits: dict[str, set[int]] = defaultdict(set)
    for number, commit in enumerate(commits):
        for own in commit.ids:
            by_digits[own[:TELLING]].add(number)
    found: dict[int, set[int]] = defaultdict(set)
    for number, commit in enumerate(commits):
        for fixed in commit.fixes:
            for other in by_digits.get(fixed[:TELLING], ()):
                if commits[other].called(fixed):
                    found[other].add(number)
    return found


class _Told:
    def __init__(
        self,
        entries: tuple[ChangelogEntry, ...],
        files: tuple[ChangedFile, ...],
        commits: tuple[Commit, ...],
        traced: Traced,
        version: str,
    ) -> None:
        self._files, self._commits, self._traced = files, commits, traced
        self._exact = {Spot(m.path, m.hunk): m.commits for m in traced.hunks if m.exact}
        self._part = {Spot(m.path, m.hunk): m.commits for m in traced.hunks if not m.exact}
        self._unknown = {f.path for f in files if any(p.hunk is None for p in f.passages)}
        by_key: dict[str, list[int]] = defaultdict(list)
        for number, commit in enumerate(commits):
            by_key[_key(commit.subject)].append(number)
        self._mended_by = _menders(commits)
        self._of = [by_key.get(_key(entry.subject), []) for entry in entries]
        listed = {number for some in self._of for number in some}
        # Those that did something of what differs.
        doing = frozenset().union(*self._exact.values(), *self._part.values())
        doing |= {n for t in traced.files if t.path in self._unknown for n in t.commits}
        self._unlisted = sorted(doing - listed)
        own = (ChangelogEntry(version, commits[n].subject, (), ()) for n in self._unlisted)
        self._of += [[n] for n in self._unlisted]
        self._entries = [
            replace(entry, cves=tuple(dict.fromkeys((*entry.cves, *self._cves(some)))))
            for entry, some in zip((*entries, *own), self._of, strict=True)
        ]

    def _cves(self, commits: Iterable[int]) -> Iterator[str]:
        for number in commits:
            yield from self._commits[number].cves

    def all(self) -> Told:
        loose = self._loose()
        waiting = [e for e, some in enumerate(self._of) if not some or loose[e]]
        by_words = attribute((self._entries[e] for e in waiting), self._remaining())
        words = dict(zip(waiting, by_words, strict=True))
        found = [
            self._known(e, loose[e], words.get(e, Attribution())) if some else words[e]
            for e, some in enumerate(self._of)
        ]
        others = tuple(sorted(self._part))
        hunks = len(self._exact) + len(others)
        share = Share(len(self._commits), hunks, len(self._exact), others)
        return Told(tuple(self._entries), tuple(found), share)

    def _remaining(self) -> tuple[ChangedFile, ...]:
        """The files with the passages that are of no commit, or of one that no entry is."""
        unlisted = set(self._unlisted)
        found = []
        for file in self._files:
            kept = [
                number
                for number, passage in enumerate(file.passages)
                if passage.hunk is None
                or (by := self._exact.get(Spot(file.path, passage.hunk))) is None
                or by & unlisted
            ]
            if kept:
                place = {number: at for at, number in enumerate(kept)}
                moved = tuple(
                    (place[one], place[other])
                    for one, other in file.moved
                    if one in place and other in place
                )
                passages = tuple(file.passages[number] for number in kept)
                found.append(replace(file, passages=passages, moved=moved))
        return tuple(found)

    def _loose(self) -> list[set[str]]:
        """By entry the files in which its commits may have made a hunk that is not known: they
        change it, and what the commits make of it is not what it is."""
        open_files = {spot.path for spot in self._part}
        by_commit: dict[int, set[str]] = defaultdict(set)
        for touched in self._traced.files:
            if touched.path in open_files and not touched.settled:
                for number in touched.commits:
                    by_commit[number].add(touched.path)
        return [set().union(*(by_commit[n] for n in some)) for some in self._of]

    def _known(self, entry: int, loose: set[str], words: Attribution) -> Attribution:
        """An entry that is commits: the files are all that these change."""
        mine = frozenset(self._of[entry])
        claims = [Claim(s, 1.0, exact=True) for s, by in self._exact.items() if by & mine]
        shares = {claim.spot: claim.share for claim in words.claims}
        for spot, by in self._part.items():
            if spot.path in loose:
                least = _PART if by & mine else _MAY
                claims.append(Claim(spot, max(least, shares.get(spot, 0.0))))
        files = {claim.spot.path for claim in claims}
        touched = {t.path for t in self._traced.files if t.commits & mine}
        files |= touched & self._unknown
        reason = "" if files else _GONE if touched else _NOT_CHANGED
        return Attribution(
            files=tuple(sorted(files)),
            confidence=1.0,
            together=self._together(mine),
            reason=reason,
            claims=tuple(sorted(claims, key=lambda claim: claim.spot)),
        )

    def _together(self, mine: frozenset[int]) -> tuple[tuple[Spot, ...], ...]:
        """The hunks of sources that commits made, and those that mend them: with the first alone a
        bug would come that the upgrade does not have."""
        wanted = set(mine)
        waiting = list(mine)
        while waiting:
            more = self._mended_by[waiting.pop()] - wanted
            wanted |= more
            waiting += more
        group = (s for s, by in self._exact.items() if by & wanted and s.path.endswith(".c"))
        spots = tuple(sorted(group))
        return (spots,) if len({spot.path for spot in spots}) > 1 else ()
