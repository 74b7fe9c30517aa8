# SPDX-License-Identifier: GPL-2.0-or-later
"""Which changed files each changelog entry may be in.

The commits are not in a source package, only what they did together: every entry is somewhere in
the difference, and most hunks are some entry's (claims.py tells which). What cannot be told apart
stays in an entry's set, and so does what its hunks were made for, or made for them.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from kspliced.model import ChangelogEntry
from kspliced.plan.claims import PLACED, Claims
from kspliced.plan.edits import Spot
from kspliced.plan.evidence import Evidence, Fit
from kspliced.plan.passages import ChangedFile, Passage
from kspliced.plan.subject import WORD, Subject, read_subject

# Shares that make a file a candidate: as a home, by words alone, by a claim on one of its hunks,
# among the best for one that nobody claims, and on a hunk that something holds others to.
_HOME, _BY_WORDS, _CLAIM, _ORPHAN, _ANCHOR = 0.05, 0.06, 0.2, 0.3, 0.3
# An entry without any good home has so many of them.
_VAGUE = 8
# Files that a name may be in to hold hunks together, if it is new or gone, and if not.
_COHORT_NEW, _COHORT = 60, 5
# A name without an underscore that is long enough to be no usual word.
_LONG = 8
# Files that hunks with a name in common are in, for the share of the entry that claims one.
_ALIKE, _ALIKE_CLAIM = 4, 0.5
_NO_NAME = re.compile(r"EXPORT_SYMBOL|MODULE_|DEFINE_|\w+_initcall$")
# What remains of the confidence in an entry that claims no hunk.
_WITHOUT = 0.6
# Confidence from which an entry's files are taken to be all of them.
CERTAIN = 0.8
# A claim that cannot be ruled out.
_MAYBE = 0.02
# A claim that is beyond doubt; files that may mention what two hunks share; files of a group.
_SURE, _RARE, _GROUP = 0.9, 20, 12
# The claim that makes a file an entry's own; in nats, how much worse the place of one is that is
# none of its own; the share of the others in each hunk of that; and what remains of the confidence
# for each that is left out (none of 31 that the labels know was the entry's).
_OWN, _FAR, _BEYOND_DOUBT, _OTHERS = 0.8, 3.0, 0.97, 0.97
_SHARED = "include"
_BESIDE = ("tools/", "samples/", "Documentation/")
_EVENT = re.compile(r"\btracepoints?\b|\btrace events?\b", re.IGNORECASE)
_EVENTS = re.compile(r"include/trace/events/(\w+)\.h")
_CANCELLED = "the same upgrade takes it back"
_NOTHING = "its words name no changed file"


@dataclass(frozen=True)
class Claim:
    """``share`` 0..1 of the likelihood that the entry made this hunk; ``exact`` if its commit
    did."""

    spot: Spot
    share: float
    exact: bool = False


@dataclass(frozen=True)
class Attribution:
    """``files`` the entry may be in; ``confidence`` 0..1 that it is in no other; ``claims`` on
    their hunks; ``together`` are hunks of several source files that its commit changed as one;
    ``reason`` why there are no files."""

    files: tuple[str, ...] = ()
    confidence: float = 0.0
    together: tuple[tuple[Spot, ...], ...] = ()
    reason: str = ""
    claims: tuple[Claim, ...] = ()


def attribute(
    entries: Iterable[ChangelogEntry], files: tuple[ChangedFile, ...]
) -> tuple[Attribution, ...]:
    """Tell the entries of an upgrade's changelog by what its ``files`` say, in order."""
    subjects = [read_subject(entry.subject) for entry in entries]
    return tuple(_Sets(subjects, files).attributions())


class _Sets:
    def __init__(self, subjects: list[Subject], files: tuple[ChangedFile, ...]) -> None:
        self._subjects = subjects
        cancelled = _cancelled(subjects)
        self._cancelled = cancelled
        self._evidence = evidence = Evidence(files, subjects)
        nothing = Fit({}, 0.0, {}, frozenset(), {})
        self._fits = [
            nothing if number in cancelled else evidence.fit(subject)
            for number, subject in enumerate(subjects)
        ]
        self._told = Claims(evidence, subjects, self._fits)
        self._claims = self._told.of_files()
        self._none_of = self._told.none_of_files()
        self._sure: list[list[int]] = [[] for _ in subjects]
        for number, claims in enumerate(self._told.claims):
            for entry, share in claims.items():
                if share >= _SURE:
                    self._sure[entry].append(number)

    def attributions(self) -> Iterator[Attribution]:
        orphans, cohorts, likes = self._orphans(), self._cohorts(), self._likes()
        for entry in range(len(self._fits)):
            led_to = orphans[entry] | cohorts[entry] | likes[entry]
            found = self._homes(entry) | self._files_of(led_to)
            found |= {f for f, share in self._claims[entry].items() if share >= _CLAIM}
            others, fit = self._of_others(entry, found), self._only_words(entry, found, led_to)
            confidence = self._confidence(entry, found - others | fit)
            found -= others | fit
            confidence = round(confidence * _OTHERS ** len(others | fit), 3)
            together = self._together(entry) if confidence >= CERTAIN else ()
            reason = "" if found else _CANCELLED if entry in self._cancelled else _NOTHING
            claims = self._spots(entry, found, led_to)
            yield Attribution(self._paths(found), confidence, together, reason, claims)

    def _paths(self, files: Iterable[int]) -> tuple[str, ...]:
        return tuple(sorted(self._evidence.files[file].path for file in files))

    def _homes(self, entry: int) -> set[int]:
        homes, first = self._told.homes[entry], self._told.first[entry]
        found = {file for file, share in first.items() if share >= _BY_WORDS}
        half, so_far = sum(homes.values()) / 2, 0.0
        best = sorted(homes.items(), key=lambda home: (-home[1], home[0]))
        for place, (file, share) in enumerate(best):
            if share >= _HOME or (so_far < half and place < _VAGUE):
                found.add(file)
            so_far += share
        return found

    def _of_others(self, entry: int, found: set[int]) -> set[int]:
        """Files of which the entry claims no hunk, others beyond doubt all of them, and which its
        subject's place hardly fits, and far worse than a file of its own; no hunk has an identifier
        of the subject. A header that all include may be of any entry."""
        claims, place = self._claims[entry], self._fits[entry].place
        named = self._files_of(self._fits[entry].named)
        own = [place.get(file, 0.0) for file, share in claims.items() if share >= _OWN]
        return {
            file
            for file in found
            if own
            and file not in named
            and place.get(file, 0.0) < min(PLACED, max(own) - _FAR)
            and self._subsystem(file) != _SHARED
            and self._taken(entry, file)
        }

    def _only_words(self, entry: int, found: set[int], led_to: set[int]) -> set[int]:
        """Files that only the words of a subject fit, which has made a hunk where it says, while
        others beyond doubt made all of theirs."""
        if not self._at_home(entry):
            return set()
        named = self._files_of(led_to | self._fits[entry].named)
        return {file for file in found - named if self._taken(entry, file)}

    def _taken(self, entry: int, file: int) -> bool:
        """Whether others beyond doubt made all that a file has."""
        return self._claims[entry].get(file, 0.0) < _MAYBE and all(
            self._surely_of_others(number, entry) for number in self._evidence.of_file[file]
        )

    def _at_home(self, entry: int) -> bool:
        """Whether an entry has beyond doubt made a hunk in a file that its subject fits."""
        place = self._fits[entry].place
        claims = self._claims[entry].items()
        return any(share >= _SURE and place.get(file, 0.0) > PLACED for file, share in claims)

    def _surely_of_others(self, number: int, entry: int) -> bool:
        claims = self._told.claims[number].items()
        return sum(share for other, share in claims if other != entry) >= _BEYOND_DOUBT

    def _subsystem(self, file: int) -> str:
        """Two folders deep; what all share is one."""
        path = self._evidence.files[file].path
        return _SHARED if path.startswith(f"{_SHARED}/") else "/".join(path.split("/")[:2])

    def _confidence(self, entry: int, found: set[int]) -> float:
        """The share of its homes that are among ``found``, less what it may claim elsewhere, and
        less if it may be that no hunk of a file is its own: every entry made one, so it may have
        made another. Of 12 that the labels know to have made one where they say, and of whose words
        alone nothing is certain, each has made all of what was found."""
        homes = (self._told.homes[entry], self._told.first[entry])
        if self._at_home(entry):
            # It is there: that its words may fit nothing, or what others made, is no matter.
            inside = 1 - max(
                sum(s for f, s in some.items() if f not in found and not self._taken(entry, f))
                for some in homes
            )
        else:
            inside = min(sum(s for f, s in some.items() if f in found) for some in homes)
        outside = sum(s for file, s in self._claims[entry].items() if file not in found)
        # The test that came with a change does not say where that is.
        code = {f for f in found if not self._evidence.files[f].path.startswith(_BESIDE)} or found
        own = max((1 - self._none_of[entry].get(file, 1.0) for file in code), default=0.0)
        return round(inside * math.exp(-outside) * (_WITHOUT + (1 - _WITHOUT) * own), 3)

    def _together(self, entry: int) -> tuple[tuple[Spot, ...], ...]:
        """Groups of its source files: hunks that are its own beyond doubt share a rare name."""
        place = self._fits[entry].place
        shared: dict[str, set[int]] = defaultdict(set)
        for number in self._sure[entry]:
            file = self._evidence.home[number]
            if place.get(file, 0.0) > 0 and self._evidence.files[file].path.endswith(".c"):
                for name in self._evidence.passages[number].code:
                    if "_" in name and self._told.mentions[name] <= _RARE:
                        shared[name].add(file)
        groups: list[set[int]] = []
        for files in shared.values():
            apart = [group for group in groups if not group & files]
            groups = [*apart, files.union(*(group for group in groups if group & files))]
        wanted = [group for group in groups if 1 < len(group) <= _GROUP]
        return tuple(sorted(self._sure_spots(entry, group) for group in wanted))

    def _sure_spots(self, entry: int, files: set[int]) -> tuple[Spot, ...]:
        numbers = [n for n in self._sure[entry] if self._evidence.home[n] in files]
        return tuple(sorted(spot for n in numbers if (spot := self._evidence.spot(n)) is not None))

    def _spots(self, entry: int, files: set[int], led_to: set[int]) -> tuple[Claim, ...]:
        """What the entry claims of the hunks of ``files``, and those that names have ``led_to``."""
        found = []
        for file in sorted(files):
            for number in self._evidence.of_file[file]:
                share = self._told.claims[number].get(entry, 0.0)
                spot = self._evidence.spot(number)
                if (share >= _MAYBE or number in led_to) and spot is not None:
                    found.append(Claim(spot, round(share, 3)))
        return tuple(found)

    def _orphans(self) -> list[set[int]]:
        """The hunks that nobody claims, for the entries whose place is there."""
        found: list[set[int]] = [set() for _ in self._fits]
        placed: list[dict[int, float]] = [{} for _ in self._evidence.files]
        for entry, fit in enumerate(self._fits):
            for file, nats in fit.place.items():
                if nats > PLACED:
                    placed[file][entry] = nats
        for passage, claims in enumerate(self._told.claims):
            file = self._evidence.home[passage]
            if max(claims.values(), default=0.0) > 0.5 or sum(claims.values()) > 0.7:
                continue
            worth = {
                entry: nats + self._fits[entry].text.get(passage, 0.0)
                for entry, nats in placed[file].items()
            }
            for entry, share in _relative(worth).items():
                if share >= _ORPHAN:
                    found[entry].add(passage)
        return found

    def _cohorts(self) -> list[set[int]]:
        """The hunks that names hold together which the upgrade brings, drops or changes, for the
        entries that claim one of the hunks with that name."""
        passages = self._evidence.passages
        names = self._cohort_names()
        where: dict[str, list[int]] = defaultdict(list)
        for number, passage in enumerate(passages):
            for name in (passage.touched | passage.owners | passage.code) & names:
                where[name].append(number)
        found: list[set[int]] = [set() for _ in self._fits]
        for name, numbers in where.items():
            for number in numbers:
                near = self._within_reach(name, number, numbers)
                if not 1 < len(self._files_of(near)) <= _COHORT_NEW:
                    continue
                for entry, share in self._told.claims[number].items():
                    if share >= _ANCHOR:
                        found[entry] |= near
        return found

    def _within_reach(self, name: str, number: int, others: list[int]) -> set[int]:
        """The passages with a name that one of them may have it from: a usual word means something
        else in each subsystem."""
        if "_" in name:
            return set(others)
        home = self._evidence.home
        near = {self._subsystem(home[number]), _SHARED}
        return {other for other in others if self._subsystem(home[other]) in near}

    def _likes(self) -> list[set[int]]:
        """The hunks that do what an entry names, or what its own hunks do, and are where its
        subject is: a commit often does the same to several drivers or protocols, and each of them
        may have an entry of its own that its words fit better. With a new source goes the Makefile
        that builds it."""
        home, touched = self._evidence.home, self._passages_with(lambda passage: passage.touched)
        found: list[set[int]] = []
        for subject, fit in zip(self._subjects, self._fits, strict=True):
            words = {word for word in WORD.findall(subject.text) if subject.names(word)}
            named = {n for n in touched if any(f"_{word}_" in f"_{n}_" for word in words)}
            like = set().union(*(touched[name] for name in named))
            like = {one for one in like if fit.place.get(home[one], 0.0) > PLACED}
            found.append(like.union(*(self._evidence.of_file[f] for f in self._events(subject))))
        few = {n for n, some in touched.items() if "_" in n and self._alike(some)}
        for number, passage in enumerate(self._evidence.passages):
            like = set().union(*(touched[name] for name in passage.touched & few))
            for makefile in self._makefiles.get(home[number], ()):
                like |= set(self._evidence.of_file[makefile])
            for entry, share in self._told.claims[number].items():
                if share >= _ALIKE_CLAIM:
                    place = self._fits[entry].place
                    found[entry] |= {one for one in like if place.get(home[one], 0.0) > PLACED}
        return found

    def _events(self, subject: Subject) -> Iterator[int]:
        """The headers that declare the tracepoints which a subject is about."""
        words = WORD.findall(subject.text.lower()) if _EVENT.search(subject.text) else []
        for file, path in enumerate(f.path for f in self._evidence.files if words):
            stem = _EVENTS.fullmatch(path)
            if stem and any(f"{word}_".startswith(f"{stem.group(1)}_") for word in words):
                yield file

    def _files_of(self, passages: Iterable[int]) -> set[int]:
        """The files that passages are in."""
        return {self._evidence.home[number] for number in passages}

    def _alike(self, passages: set[int]) -> bool:
        """Whether passages are in several files, and in few."""
        return 1 < len(self._files_of(passages)) <= _ALIKE

    def _passages_with(self, words: Callable[[Passage], frozenset[str]]) -> dict[str, set[int]]:
        """The passages that have each word."""
        found: dict[str, set[int]] = defaultdict(set)
        for number, passage in enumerate(self._evidence.passages):
            for name in words(passage):
                found[name].add(number)
        return found

    @cached_property
    def _makefiles(self) -> dict[int, set[int]]:
        """The changed Makefiles that build each new source."""
        files = self._evidence.files
        makefiles = [n for n, f in enumerate(files) if f.path.endswith(("/Makefile", "/Kbuild"))]
        found: dict[int, set[int]] = defaultdict(set)
        for number, file in enumerate(files):
            folder, _, name = file.path.rpartition("/")
            if name.endswith(".c") and not file.old:
                words = set(re.split(r"[_-]", name.removesuffix(".c").lower()))
                found[number] |= {
                    m
                    for m in makefiles
                    if folder.startswith(files[m].path.rpartition("/")[0])
                    and words <= files[m].labels
                }
        return found

    def _cohort_names(self) -> set[str]:
        files, mentions = self._evidence.files, self._told.mentions
        coded = self._passages_with(lambda passage: passage.code)
        old = frozenset().union(*(file.old for file in files))
        new = frozenset().union(*(file.new for file in files))
        one_sided = old ^ new
        owners = Counter(
            name
            for file in files
            for name in frozenset().union(*(passage.owners for passage in file.passages))
        )
        found: set[str] = set()
        for number, passage in enumerate(self._evidence.passages):
            header = files[self._evidence.home[number]].path.endswith(".h")
            moved = (passage.touched & passage.code if header else passage.owners) & one_sided
            found |= {name for name in moved if mentions[name] <= _COHORT_NEW}
            given = {name for name in passage.owners if owners[name] <= _COHORT + 1}
            given = {name for name in given if not _NO_NAME.match(name)} | passage.given
            given = {name for name in given if "_" in name or len(name) >= _LONG}
            found |= {name for name in given if mentions[name] <= _COHORT}
            found |= {
                name for name in passage.given & given if len(self._files_of(coded[name])) <= _ALIKE
            }
        return {name for name in found if "_" in name or len(name) >= 6}


def _cancelled(subjects: list[Subject]) -> set[int]:
    """The entries that another one of the same upgrade takes back, and these."""
    waiting: dict[str, list[int]] = defaultdict(list)
    for number, subject in enumerate(subjects):
        if not subject.reverts:
            waiting[subject.body].append(number)
    found: set[int] = set()
    for number, subject in enumerate(subjects):
        if subject.reverts and waiting[subject.body]:
            found |= {number, waiting[subject.body].pop()}
    return found


def _relative(worth: dict[int, float]) -> dict[int, float]:
    most = max(worth.values(), default=0.0)
    weights = {key: math.exp(nats - most) for key, nats in worth.items()}
    total = sum(weights.values())
    return {key: weight / total for key, weight in weights.items()}
