# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of an upgrade, as the JSON of `kspliced plan` has it.

Every changed file belongs to one component or is irrelevant; every changelog entry gets the worst
fate of the files it may be in. Nothing is rounded up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from itertools import zip_longest

from kspliced.build.fates import LATER, Decision, Fate, each
from kspliced.build.request import BuildResult
from kspliced.model import ChangelogEntry, FunctionChange, Refusal
from kspliced.plan.attribution import CERTAIN, Attribution
from kspliced.plan.commits import Share
from kspliced.plan.edits import Edit, Spot
from kspliced.plan.makers import Makers
from kspliced.plan.parts import first_uses


class EntryStatus(str, Enum):
    """What becomes of a changelog entry. ABSENT: it is in code that this kernel does not have."""

    LIVE = "live"
    REBOOT = "reboot"
    ASK = "ask"
    LATER = "later"
    ABSENT = "absent"
    UNKNOWN = "unknown"


# Of the files an entry may be in, the first of these that one has is the entry's.
_RANKS = (Decision.REBOOT, Decision.ASK, Decision.LATER, Decision.LIVE, Decision.IRRELEVANT)
_UNSURE = "it may be in other files than those that it names"
_NOTHING = "nothing that changes is code of this kernel"
_SAME = "its code is the same"
_HELD = "the module is not loaded; it is updated when it loads"
_LEFT_OUT = "what it changes is not compiled for this kernel"
_STATUS = {
    Decision.REBOOT: EntryStatus.REBOOT,
    Decision.ASK: EntryStatus.ASK,
    Decision.LATER: EntryStatus.LATER,
    Decision.LIVE: EntryStatus.LIVE,
    Decision.IRRELEVANT: EntryStatus.ABSENT,
}


@dataclass(frozen=True)
class Reason:
    """Why a component has its decision; ``code`` as in docs/refusals.md, or ``irrelevant``."""

    code: str
    reason: str
    evidence: str


@dataclass(frozen=True)
class Lines:
    """Lines ``start`` to ``end``, from 1, of the old version of a file, or what was put between."""

    file: str
    start: int
    end: int


@dataclass(frozen=True)
class Component:
    """Changes that go together. ``files`` are source files, ``functions`` symbols; ``lines`` what
    it changes of those files that other components change too."""

    id: str
    decision: Decision
    targets: tuple[str, ...]
    files: tuple[str, ...]
    functions: tuple[str, ...]
    reasons: tuple[Reason, ...]
    lines: tuple[Lines, ...] = ()


@dataclass(frozen=True)
class PlannedEntry:
    """A changelog entry with its fate. ``components`` may carry it, ``confidence`` 0..1 that no
    others do; ``reason`` why it is not live, or ''."""

    subject: str
    cves: tuple[str, ...]
    status: EntryStatus
    confidence: float
    components: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True)
class Totals:
    """Numbers of components by decision, of entries by status, and of the CVEs among them."""

    live: int
    reboot: int
    ask: int
    later: int
    irrelevant: int
    entries: int
    entries_live: int
    cves: int
    cves_live: int
    cves_reboot: int
    cves_ask: int
    cves_later: int
    cves_absent: int
    cves_unknown: int


@dataclass(frozen=True)
class Commits:
    """How far commits tell the upgrade: how many were given, how many ``hunks`` differ, and how
    many of these are known ``exactly``; of ``others`` the changelog's words say whose they are."""

    given: int
    hunks: int
    exactly: int
    others: tuple[Lines, ...]


@dataclass(frozen=True)
class Plan:
    """The whole plan; :func:`kspliced.record.encode` gives its JSON. ``changelog`` says why there
    are no entries, or ''; ``commits`` is None where none were given."""

    components: tuple[Component, ...]
    entries: tuple[PlannedEntry, ...]
    totals: Totals
    changelog: str = ""
    commits: Commits | None = None


def plan_of(result: BuildResult) -> Plan:
    """The plan that a build amounts to."""
    components = (
        *(_component(fate, result.functions) for fate in result.fates),
        *_refused(result),
        *_irrelevant(result),
    )
    entries = _entries(result, components, _Parts(result))
    totals = _totals(components, entries)
    commits = None if result.share is None else _commits(result.share)
    return Plan(components, entries, totals, result.changelog, commits)


def _commits(share: Share) -> Commits:
    others = tuple(_lines_of(spot) for spot in share.others)
    return Commits(share.commits, share.hunks, share.exactly, others)


def _component(fate: Fate, functions: tuple[FunctionChange, ...]) -> Component:
    mine = [f for f in functions if _has(fate, f)] if fate.decision is Decision.LIVE else []
    return Component(
        id=fate.component.id,
        decision=fate.decision,
        targets=_unique((*fate.targets, *(function.target for function in mine))),
        files=fate.component.files,
        functions=tuple(function.name for function in mine),
        reasons=tuple(_reason(refusal) for refusal in fate.reasons),
        lines=tuple(_lines(fate)),
    )


def _lines(fate: Fate) -> Iterator[Lines]:
    for path in fate.component.divided:
        for spot in sorted(spot for edit in fate.component.edits(path) for spot in edit.spots):
            yield _lines_of(spot)


def _lines_of(spot: Spot) -> Lines:
    start = spot.hunk.old_start
    return Lines(spot.path, start, start + max(spot.hunk.old_count, 1) - 1)


def _has(fate: Fate, function: FunctionChange) -> bool:
    """Whether a function is of a component: of a file of which it has a part, what lies there."""
    path = next((p for p in fate.component.files if _object(p) == function.unit), None)
    if path is None or path not in fate.component.divided:
        return path is not None
    name = function.name.partition(".")[0]
    return any(name in edit.names for edit in fate.component.edits(path))


class _Parts:
    """Which components an entry may be in, of those that have a file or a part of it."""

    def __init__(self, result: BuildResult) -> None:
        self._makers = Makers(result.attributions)
        self._having: dict[str, dict[str, tuple[Edit, ...]]] = {}
        self._ties: dict[str, dict[Spot, Spot]] = {}
        for fate in result.fates:
            for path in fate.component.files:
                edits = fate.component.edits(path)
                if path in fate.component.divided or edits:
                    self._having.setdefault(path, {})[fate.component.id] = edits
        for path, having in self._having.items():
            edits = tuple(edit for some in having.values() for edit in some)
            known = {one.name for edit in edits for one in edit.removed}
            self._ties[path] = dict(first_uses(edits, known))
            for user, maker in self._ties[path].items():
                self._makers.tie(user, maker)

    def of(self, path: str, told: Attribution) -> frozenset[str] | None:
        """Ids of components, none where its hunks are not compiled; None where it may be in all
        that have some of the file."""
        having = self._having.get(path)
        if not having:
            return None
        mine = {claim.spot: claim.share for claim in told.claims if claim.spot.path == path}
        for user, maker in self._ties[path].items():
            mine.pop(user, None)
            if maker in mine:
                mine[user] = mine[maker]
        certain = max(mine.values(), default=0.0) >= CERTAIN
        others = self._makers.known if certain else self._makers.sure
        found = frozenset(
            name
            for name, edits in having.items()
            if any(spot in mine or not others(spot) for edit in edits for spot in edit.spots)
        )
        return found | _led_to(having, found) if mine else None


def _led_to(having: Mapping[str, tuple[Edit, ...]], found: frozenset[str]) -> frozenset[str]:
    """The other components that mention what one of ``found`` changes: the file was cut by the
    words of the changelog, and who changed a function may have changed its calls."""
    names = frozenset().union(*(edit.names for name in found for edit in having[name]))
    others = having.keys() - found
    return frozenset(o for o in others if any(edit.identifiers & names for edit in having[o]))


def _refused(result: BuildResult) -> Iterable[Component]:
    """Files that were refused by themselves: assembly, Kbuild files."""
    known = {path for fate in result.fates for path in fate.component.files}
    by_file: dict[str, list[Refusal]] = {}
    for refusal in result.refused:
        if refusal.unit not in known and not refusal.unit.endswith(".o"):
            by_file.setdefault(refusal.unit, []).append(refusal)
    for path, refusals in sorted(by_file.items()):
        reasons = tuple(_reason(refusal) for refusal in refusals)
        yield Component(path, Decision.REBOOT, (), (path,), (), reasons)


def _irrelevant(result: BuildResult) -> Iterable[Component]:
    by_reason: dict[str, list[str]] = {}
    for item in result.irrelevant:
        by_reason.setdefault(item.reason, []).append(item.path)
    for reason, paths in sorted(by_reason.items()):
        reasons = (Reason("irrelevant", reason, ""),)
        yield Component(reason, Decision.IRRELEVANT, (), tuple(paths), (), reasons)


def _entries(
    result: BuildResult, components: tuple[Component, ...], parts: _Parts
) -> tuple[PlannedEntry, ...]:
    late = {fate.component.id: fate.later for fate in result.fates}
    everywhere: dict[str, list[Component]] = {}
    for component in components:
        for path in component.files:
            there = _late(component, path) if path in late.get(component.id, ()) else component
            everywhere.setdefault(path, []).append(there)
    nothing = all(component.decision is Decision.IRRELEVANT for component in components)
    planned = []
    for entry, told in zip_longest(result.entries, result.attributions, fillvalue=Attribution()):
        assert isinstance(entry, ChangelogEntry) and isinstance(told, Attribution)
        found = {
            path: _homes(everywhere[path], parts.of(path, told))
            for path in told.files
            if path in everywhere
        }
        # Wherever it is, it is not in this kernel.
        status, reason = (EntryStatus.ABSENT, _NOTHING) if nothing else _status(told, found)
        if status is EntryStatus.LIVE and _only_late(found, late):
            status, reason = EntryStatus.LATER, _HELD
        carriers = _unique(component.id for some in found.values() for component in some)
        planned.append(
            PlannedEntry(entry.subject, entry.cves, status, told.confidence, carriers, reason)
        )
    return tuple(planned)


def _only_late(homes: Mapping[str, list[Component]], late: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether all sources that an entry may be in are of modules that are not loaded."""
    sources = {path: some[0] for path, some in homes.items() if path.endswith(".c") and some}
    return bool(sources) and all(path in late.get(c.id, ()) for path, c in sources.items())


def _late(component: Component, path: str) -> Component:
    """A component, for what it changes in a file of a module that is not loaded."""
    if component.decision not in (Decision.REBOOT, Decision.ASK):
        return component
    reasons = (_reason(refusal) for refusal in each("module_not_loaded", (path,), LATER))
    return replace(component, decision=Decision.LATER, reasons=tuple(reasons))


def _homes(components: list[Component], ids: frozenset[str] | None) -> list[Component]:
    """The components that an entry in this file may be in, the one with the worst fate first."""
    some = [c for c in components if ids is None or c.id in ids]
    return sorted(some, key=lambda component: _RANKS.index(component.decision))


def _status(told: Attribution, homes: Mapping[str, list[Component]]) -> tuple[EntryStatus, str]:
    """The worst fate of its files, and why; only the reboot is said of an entry that may be
    elsewhere.

    :param homes: by file the components it may be in, the one with the worst fate first; none
        where what it changes there is not compiled."""
    found = [homes[path][0] for path in told.files if homes.get(path)]
    lost = [path for path in told.files if path not in homes]
    worst = min(found, key=lambda component: _RANKS.index(component.decision), default=None)
    if worst is None and homes and not lost and told.confidence >= CERTAIN:
        return EntryStatus.ABSENT, _LEFT_OUT
    if worst is None or (told.confidence < CERTAIN and worst.decision is not Decision.REBOOT):
        return EntryStatus.UNKNOWN, told.reason or _UNSURE
    if lost and worst.decision is not Decision.REBOOT:
        return EntryStatus.UNKNOWN, f"what becomes of {lost[0]} is not known"
    return _STATUS[worst.decision], _why(worst)


def _why(component: Component) -> str:
    """Why an entry of this component is not live, or ''."""
    if component.decision is Decision.LIVE:
        return ""
    reason = component.reasons[0].reason if component.reasons else _SAME
    return reason if reason == component.id else f"{component.id}: {reason}"


def _totals(components: tuple[Component, ...], entries: tuple[PlannedEntry, ...]) -> Totals:
    decisions = [component.decision for component in components]
    cves: dict[str, EntryStatus] = {}
    order = (
        EntryStatus.REBOOT,
        EntryStatus.UNKNOWN,
        EntryStatus.ASK,
        EntryStatus.LATER,
        EntryStatus.LIVE,
        EntryStatus.ABSENT,
    )
    for entry in entries:
        for cve in entry.cves:
            known = cves.get(cve, EntryStatus.ABSENT)
            cves[cve] = min(known, entry.status, key=order.index)
    fates = list(cves.values())
    return Totals(
        live=decisions.count(Decision.LIVE),
        reboot=decisions.count(Decision.REBOOT),
        ask=decisions.count(Decision.ASK),
        later=decisions.count(Decision.LATER),
        irrelevant=decisions.count(Decision.IRRELEVANT),
        entries=len(entries),
        entries_live=sum(entry.status is EntryStatus.LIVE for entry in entries),
        cves=len(fates),
        cves_live=fates.count(EntryStatus.LIVE),
        cves_reboot=fates.count(EntryStatus.REBOOT),
        cves_ask=fates.count(EntryStatus.ASK),
        cves_later=fates.count(EntryStatus.LATER),
        cves_absent=fates.count(EntryStatus.ABSENT),
        cves_unknown=fates.count(EntryStatus.UNKNOWN),
    )


def _reason(refusal: Refusal) -> Reason:
    where = refusal.evidence or f"{refusal.unit} {refusal.symbol}".strip()
    return Reason(refusal.code, refusal.reason, where)


def _object(path: str) -> str:
    return f"{path.rpartition('.')[0]}.o"


def _unique(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))
