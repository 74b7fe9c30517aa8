# SPDX-License-Identifier: GPL-2.0-or-later
"""How well each changelog entry fits each changed file and each hunk, in nats.

A word that few files have is worth log(files / those); less where it stands only around a hunk,
where only a part of an identifier is it, and in long hunks, which have every word by chance.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kspliced.plan.edits import Spot
from kspliced.plan.passages import ChangedFile, Passage
from kspliced.plan.places import Places
from kspliced.plan.subject import WORD, Subject, pairs, parts, says_something, stem

# What a word counts by where it stands, and if only a part of an identifier is it.
_OWNER, _TOUCHED, _KEPT, _AROUND, _DEFINED, _MENTIONED = 1.0, 0.9, 0.65, 0.35, 0.6, 0.5
_PART, _PART_AROUND = 0.75, 0.6
# A subject's identifier of which only parts are found, or pairs, and the most that they amount to.
_SOME, _PAIR, _MOST = 0.5, 0.6, 0.8
# In nats: the most that one word is worth, below what it says nothing, and all words of a hunk.
_CAP, _LEAST, _SLIGHT = 7.0, 0.7, 1.0
# In nats: more for a hunk in the function that the subject names.
_SAID = 8.0
# Words of a hunk of usual length.
_USUAL = 50
# In nats: files this much worse than an entry's best are not looked at.
_WINDOW = 12.0


@dataclass(frozen=True)
class Fit:
    """How an entry fits: ``place`` and ``loss`` as Place, net of the loss; ``text`` by passage;
    ``named`` are passages with an identifier of the subject; ``files`` all of it by file."""

    place: dict[int, float]
    loss: float
    text: dict[int, float]
    named: frozenset[int]
    files: dict[int, float]


class Evidence:
    """The passages of the changed files, by the words that some subject has."""

    def __init__(self, files: tuple[ChangedFile, ...], subjects: Iterable[Subject]) -> None:
        self.files = files
        self.passages: list[Passage] = []
        self.home: list[int] = []
        self.of_file: list[range] = []
        for number, file in enumerate(files):
            self.of_file.append(range(len(self.passages), len(self.passages) + len(file.passages)))
            self.passages += file.passages
            self.home += [number] * len(file.passages)
        self._places = Places(files)
        self._owned: dict[str, list[int]] = defaultdict(list)
        for number, passage in enumerate(self.passages):
            for name in passage.owners:
                self._owned[name].append(number)
        self._excess = [math.log(max(1.0, p.size / _USUAL)) for p in self.passages]
        self._index = self._indexed({form for subject in subjects for form in _forms(subject)})
        self._defined: dict[str, list[int]] = defaultdict(list)
        for number, file in enumerate(files):
            for name in file.defined:
                self._defined[name].append(number)

    def spot(self, number: int) -> Spot | None:
        """Where a passage is."""
        hunk = self.passages[number].hunk
        return None if hunk is None else Spot(self.files[self.home[number]].path, hunk)

    def rarity(self, count: int) -> float:
        """What a word that ``count`` files have is worth."""
        return math.log((len(self.files) + 1) / (count + 0.5))

    def fit(self, subject: Subject) -> Fit:
        """How well an entry fits everything."""
        place = self._places.place(subject)
        at = dict(place.gain)
        text: dict[int, float] = defaultdict(float)
        named: set[int] = set()
        for part in subject.prefix:
            for word in _words(part):
                self._prefix_word(subject, word, text, at)
        for word in _words(subject.text):
            self._word(subject, word, text, named)
            self._definition(subject, word, at)
        best = self._best(text)
        files = {n: at.get(n, 0.0) + best.get(n, 0.0) - place.loss for n in at.keys() | best}
        least = max(files.values(), default=0.0) - _WINDOW
        return Fit(
            place={n: worth - place.loss for n, worth in at.items()},
            loss=place.loss,
            text={number: worth for number, worth in text.items() if worth > _SLIGHT},
            named=frozenset(named),
            files={n: worth for n, worth in files.items() if worth > least},
        )

    def _best(self, text: dict[int, float]) -> dict[int, float]:
        best: dict[int, float] = {}
        for passage, worth in text.items():
            number = self.home[passage]
            best[number] = max(worth, best.get(number, 0.0))
        return best

    def _prefix_word(
        self, subject: Subject, word: str, text: dict[int, float], at: dict[int, float]
    ) -> None:
        """A word that names files says nothing more in these; one that names none is what a
        module calls itself, in all of its functions."""
        places = self._places.named(word)
        found: dict[int, float] = defaultdict(float)
        self._word(subject, word, found, set())
        if places:
            for passage, worth in found.items():
                if self.home[passage] not in places:
                    text[passage] += worth
        else:
            for number, worth in self._best(found).items():
                at[number] = at.get(number, 0.0) + worth

    def _word(self, subject: Subject, word: str, text: dict[int, float], named: set[int]) -> None:
        identifier = subject.names(word)
        found = dict(self._matches(word))
        if identifier:
            named.update(found)
            for passage in self._owned.get(word, ()):
                found[passage] = found.get(passage, 0.0) + _SAID
        if not identifier and word.islower():
            for passage, worth in self._matches(stem(word)):
                found[passage] = max(worth, found.get(passage, 0.0))
        else:
            some: dict[int, float] = defaultdict(float)
            for form in parts(word) | pairs(word):
                share = _PAIR if "_" in form else _SOME
                for passage, worth in self._matches(form):
                    some[passage] += worth * share
            most = min(self._worth(word), _CAP) * _MOST
            for passage, worth in some.items():
                found[passage] = max(min(worth, most), found.get(passage, 0.0))
        for passage, worth in found.items():
            text[passage] += worth

    def _definition(self, subject: Subject, word: str, at: dict[int, float]) -> None:
        """A file that defines, or mentions, what the subject names, changed or not."""
        if not subject.names(word):
            return
        worth: dict[int, float] = {}
        for share, files in ((_MENTIONED, self._mentioning(word)), (_DEFINED, self._defined[word])):
            worth.update((number, self.rarity(len(files)) * share) for number in files)
        for number, nats in worth.items():
            at[number] = at.get(number, 0.0) + nats

    def _mentioning(self, word: str) -> list[int]:
        return [n for n, file in enumerate(self.files) if word in file.old or word in file.new]

    def _worth(self, form: str) -> float:
        return self.rarity(len({self.home[passage] for passage in self._index.get(form, ())}))

    def _matches(self, form: str) -> Iterator[tuple[int, float]]:
        worth = min(self._worth(form), _CAP)
        if worth >= _LEAST:
            for passage, share in self._index.get(form, {}).items():
                yield passage, max(0.0, worth - self._excess[passage]) * share

    def _indexed(self, forms: set[str]) -> dict[str, dict[int, float]]:
        index: dict[str, dict[int, float]] = defaultdict(dict)
        for number, passage in enumerate(self.passages):
            for word, share in _shares(passage):
                for form in _at_once(word, share):
                    if form[0] in forms and form[1] > index[form[0]].get(number, 0.0):
                        index[form[0]][number] = form[1]
        return index


def _words(text: str) -> set[str]:
    return {word for word in WORD.findall(text) if says_something(word)}


def _forms(subject: Subject) -> Iterator[str]:
    for text in (*subject.prefix, subject.text):
        for word in _words(text):
            yield word
            yield stem(word)
            yield from parts(word)
            yield from pairs(word)


def _shares(passage: Passage) -> Iterator[tuple[str, float]]:
    yield from ((word, _OWNER) for word in passage.owners)
    yield from ((word, _TOUCHED) for word in passage.touched)
    yield from ((word, _KEPT) for word in passage.kept)
    yield from ((word, _AROUND) for word in passage.around)


def _at_once(word: str, share: float) -> Iterator[tuple[str, float]]:
    """A word of a passage and what it is made of, each with what it counts."""
    yield word, share
    part = share * (_PART if share > _AROUND else _PART_AROUND)
    for form in parts(word):
        yield form, part
    if share > _AROUND:
        for form in pairs(word):
            yield form, part
