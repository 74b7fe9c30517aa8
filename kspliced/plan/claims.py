# SPDX-License-Identifier: GPL-2.0-or-later
"""Entries and hunks told from one another, together.

An entry's *homes* are the files that its words fit, a hunk's *claims* the entries that may have
made it, each a share of 1 with what is in no file, or no entry's. A home all of whose hunks others
claim with good reason is a worse one. A hunk that shares rare identifiers with hunks of an entry
is more likely to be that entry's too.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass

from kspliced.plan.bound import groups
from kspliced.plan.evidence import Evidence, Fit
from kspliced.plan.subject import WORD, Subject

_ROUNDS = 3
# In nats: what fits an entry that is in no changed file, and a hunk that is no entry's.
_NOWHERE, _NOBODY = 4.0, -0.5
# In nats: a place that a subject fits; less is what all of a subsystem have in common.
PLACED = 1.5
# What remains of a home that others claim.
_CLAIMED = 0.2
# In nats: reason good enough to keep others away, and by how much it must be the better one.
_GOOD, _BETTER = 5.0, 3.0
# In nats: a hunk where an identifier of the subject stands, in a file that is no home of the entry;
# one where other words of it do, which have to be worth something; and one that no word tells.
_BY_NAME, _ELSEWHERE, _WORDS, _UNLIKELY = -2.0, -3.5, 4.0, -9.2
# In nats: below this a file is no home, and what a hunk loses if the entry names other ones.
_NO_HOME, _NOT_NAMED = -4.0, 4.0
# Files beyond which an identifier links nothing, its cost, and the most that links are worth.
_WIDE, _LINK_COST, _LINK = 40, 1.0, 7.0
# What remains of a link to a passage if the entry names other ones.
_NAMED_LINK = 0.5
# Shares that are left out, that link nothing, and that make a home worth defending.
_SMALL, _WEAK, _AT_HOME = 1e-4, 0.03, 0.05
# In nats: what a hunk that uses a new name loses for entries that gave none.
_LATER = 4.0
_LINKING = re.compile(r"[A-Za-z]\w*_\w+")


@dataclass(frozen=True)
class Member:
    """An entry that may be in a file: how likely in nats, and whether its place is there."""

    entry: int
    share: float
    placed: bool


class Claims:
    """``first`` are the homes by words alone, ``homes`` what remains of them: shares by file, one
    for each entry; ``claims`` shares by entry, one for each passage."""

    def __init__(self, evidence: Evidence, subjects: list[Subject], fits: list[Fit]) -> None:
        self._evidence, self.fits = evidence, fits
        self.mentions = Counter(n for file in evidence.files for n in file.old | file.new)
        self._linking = self._links()
        self._named = self._passages_named(subjects)
        self._sources = self._givers()
        self._bound = self._of_one_commit()
        self.claims: list[dict[int, float]] = [{} for _ in evidence.passages]
        self.first = self.homes = [_shares(fit.files, _NOWHERE) for fit in fits]
        for _ in range(_ROUNDS):
            self._claim(self._linked())
            self.homes = [self._discounted(entry) for entry in range(len(fits))]

    def of_files(self) -> list[dict[int, float]]:
        """The best claim that each entry has on a hunk of each file."""
        found: list[dict[int, float]] = [{} for _ in self.fits]
        for passage, claims in enumerate(self.claims):
            file = self._evidence.home[passage]
            for entry, share in claims.items():
                found[entry][file] = max(share, found[entry].get(file, 0.0))
        return found

    def none_of_files(self) -> list[dict[int, float]]:
        """How likely it is that each entry made no hunk of each file where it claims any."""
        found: list[dict[int, float]] = [{} for _ in self.fits]
        for passage, claims in enumerate(self.claims):
            file = self._evidence.home[passage]
            for entry, share in claims.items():
                found[entry][file] = found[entry].get(file, 1.0) * (1 - share)
        return found

    def _links(self) -> dict[str, list[int]]:
        """The passages that each rare identifier is in."""
        found: dict[str, list[int]] = defaultdict(list)
        for number, passage in enumerate(self._evidence.passages):
            for name in passage.code | passage.owners:
                if _LINKING.fullmatch(name) and self.mentions[name] <= _WIDE:
                    found[name].append(number)
        return found

    def _givers(self) -> list[frozenset[int]]:
        """For each passage, those that give it names which are new to all files: it is of one of
        their commits, or of a later one."""
        old = frozenset().union(*(file.old for file in self._evidence.files))
        given: dict[str, set[int]] = defaultdict(set)
        for number, passage in enumerate(self._evidence.passages):
            for name in (passage.owners | passage.given) - old:
                if _LINKING.fullmatch(name):
                    given[name].add(number)
        found = []
        for number, passage in enumerate(self._evidence.passages):
            names = (name for name in passage.touched & passage.code if name in given)
            found.append(frozenset().union(*(given[name] for name in names)) - {number})
        return found

    def _of_one_commit(self) -> list[tuple[int, ...]]:
        """Groups of passages that one commit must have made."""
        evidence = self._evidence
        every = zip(evidence.home, range(len(evidence.passages)), evidence.passages, strict=True)
        found = list(groups((file, number, one.recalled) for file, number, one in every))
        for file, passages in zip(evidence.files, evidence.of_file, strict=True):
            found += [(passages[one], passages[other]) for one, other in file.moved]
        return found

    def _passages_named(self, subjects: list[Subject]) -> list[dict[int, set[int]]]:
        """For each entry and file, the passages in declarations that the subject names."""
        owned: dict[str, list[int]] = defaultdict(list)
        for number, passage in enumerate(self._evidence.passages):
            for name in passage.owners:
                owned[name].append(number)
        found: list[dict[int, set[int]]] = []
        for subject in subjects:
            mine: dict[int, set[int]] = defaultdict(set)
            for word in WORD.findall(subject.body):
                for number in owned.get(word, ()) if subject.names(word) else ():
                    mine[self._evidence.home[number]].add(number)
            found.append(mine)
        return found

    def _linked(self) -> list[dict[int, float]]:
        """What links are worth, by entry, for each passage."""
        strongest: list[dict[str, float]] = [{} for _ in self.fits]
        for number, claims in enumerate(self.claims):
            passage = self._evidence.passages[number]
            names = [name for name in passage.code | passage.owners if name in self._linking]
            for entry, share in claims.items():
                if share > _WEAK:
                    for name in names:
                        strongest[entry][name] = max(share, strongest[entry].get(name, 0.0))
        found: list[dict[int, float]] = [{} for _ in self.claims]
        for entry, names_of in enumerate(strongest):
            worth: dict[int, float] = defaultdict(float)
            for name, share in sorted(names_of.items()):
                rare = self._evidence.rarity(self.mentions[name])
                for number in self._linking[name]:
                    worth[number] += math.exp(min(rare, _LINK) - _LINK_COST) * share
            for number, sum_of in worth.items():
                found[number][entry] = min(math.log1p(sum_of), _LINK)
        return found

    def _members(self) -> list[list[Member]]:
        """The entries that may be in each file."""
        found: list[list[Member]] = [[] for _ in self._evidence.files]
        for entry, fit in enumerate(self.fits):
            placed = {file for file, worth in fit.place.items() if worth > PLACED}
            for file in sorted(placed | fit.files.keys()):
                share = self.homes[entry].get(file, 0.0)
                share = math.log(share) if share > _SMALL else _UNLIKELY
                found[file].append(Member(entry, share, file in placed))
        return found

    def _claim(self, linked: list[dict[int, float]]) -> None:
        members = self._members()
        at_home: list[set[int]] = [set() for _ in members]
        for entry, homes in enumerate(self.homes):
            for file, share in homes.items():
                if share > _AT_HOME:
                    at_home[file].add(entry)
        self._reasons = [
            self._reason(number, at_home[self._evidence.home[number]], links)
            for number, links in enumerate(linked)
        ]
        makers = [{e for e, share in some.items() if share > _WEAK} for some in self.claims]
        every: list[dict[int, float]] = []
        for number, links in enumerate(linked):
            worth: dict[int, float] = {}
            first = set().union(*(makers[giver] for giver in self._sources[number]))
            for member in members[self._evidence.home[number]]:
                claim = self._worth(number, member)
                if claim is not None:
                    worth[member.entry] = claim
            for entry, link in links.items():
                text = self.fits[entry].text.get(number, 0.0)
                if self._names_others(entry, number):
                    link *= _NAMED_LINK
                worth[entry] = max(worth.get(entry, -math.inf), _ELSEWHERE + text) + link
            if first & worth.keys():
                worth = {e: nats - _LATER * (e not in first) for e, nats in worth.items()}
            every.append(worth)
        for group in self._bound:
            together = _joint([every[number] for number in group])
            for number in group:
                every[number] = together
        self.claims = [_shares(worth, _NOBODY) for worth in every]

    def _names_others(self, entry: int, number: int) -> bool:
        """Whether a subject names declarations, and a passage is in none of these."""
        mine = self._named[entry]
        return bool(mine) and number not in mine.get(self._evidence.home[number], ())

    def _worth(self, number: int, member: Member) -> float | None:
        fit, file = self.fits[member.entry], self._evidence.home[number]
        named = number in fit.named
        if not member.placed and not named and member.share < _NO_HOME:
            return None
        share, text = member.share, fit.text.get(number, 0.0)
        mine = self._named[member.entry].get(file)
        if mine is not None and number not in mine:
            share -= _NOT_NAMED
        if named:
            share = max(share, _BY_NAME if member.placed else _ELSEWHERE)
        elif member.placed and text >= _WORDS:
            share = max(share, _ELSEWHERE)
        return share + text

    def _reason(
        self, number: int, at_home: set[int], links: dict[int, float]
    ) -> list[tuple[float, int]]:
        """The two best reasons, words and links, to claim a passage, with their entries."""
        found = [
            (self.fits[entry].text.get(number, 0.0) + links.get(entry, 0.0), entry)
            for entry in at_home | links.keys()
        ]
        return sorted(found, reverse=True)[:2]

    def _discounted(self, entry: int) -> dict[int, float]:
        fit = self.fits[entry]
        worth = {}
        for file, nats in fit.files.items():
            free = self._free(entry, file)
            worth[file] = nats + math.log(_CLAIMED + (1 - _CLAIMED) * free)
        return _shares(worth, _NOWHERE)

    def _free(self, entry: int, file: int) -> float:
        """1 unless others claim all hunks with good reason; then the entry's best claim."""
        for number in self._evidence.of_file[file]:
            others = [reason for reason, other in self._reasons[number] if other != entry]
            best = max(others, default=0.0)
            if best < _GOOD or best < self.fits[entry].text.get(number, 0.0) + _BETTER:
                return 1.0
        return max(self.claims[n].get(entry, 0.0) for n in self._evidence.of_file[file])


def _joint(some: list[dict[int, float]]) -> dict[int, float]:
    """What passages of one commit say together: of each entry, half what the passage says that
    fits it best, and half what all do, which is not as much as if they did not have the same words
    (their sum by the root of their number). Where one says nothing the entry is unlikely."""
    found = {}
    for entry in sorted({entry for one in some for entry in one}):
        nats = [one.get(entry, _UNLIKELY) for one in some]
        found[entry] = (max(nats) + sum(nats) / math.sqrt(len(nats))) / 2
    return found


def _shares(worth: dict[int, float], none: float) -> dict[int, float]:
    """Shares that nats amount to beside those of ``none``; small ones are left out."""
    if not worth:
        return {}
    most = max(none, *worth.values())
    weights = {key: math.exp(nats - most) for key, nats in worth.items()}
    total = sum(weights.values()) + math.exp(none - most)
    return {key: weight / total for key, weight in weights.items() if weight > _SMALL * total}
