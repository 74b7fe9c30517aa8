# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of an upgrade, as the JSON of `kspliced plan` has it.

Every changed file belongs to one component or is irrelevant; every changelog entry gets the worst
fate of the files it may be in. Nothing is rounded up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest

from kspliced.build.pipeline import BuildResult
from kspliced.build.search import Decision, Fate
from kspliced.model import ChangelogEntry, FunctionChange, Refusal
from kspliced.plan.attribution import CERTAIN, Attribution


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
class Component:
    """Changes that go together. ``files`` are source files, ``functions`` symbols."""

    id: str
    decision: Decision
    targets: tuple[str, ...]
    files: tuple[str, ...]
    functions: tuple[str, ...]
    reasons: tuple[Reason, ...]


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
class Plan:
    """The whole plan; :func:`kspliced.record.encode` gives its JSON. ``changelog`` says why there
    are no entries, or ''."""

    components: tuple[Component, ...]
    entries: tuple[PlannedEntry, ...]
    totals: Totals
    changelog: str = ""


def plan_of(result: BuildResult) -> Plan:
    """The plan that a build amounts to."""
    components = (
        *(_component(fate, result.functions) for fate in result.fates),
        *_refused(result),
        *_irrelevant(result),
    )
    entries = _entries(result, components)
    return Plan(components, entries, _totals(components, entries), result.changelog)


def _component(fate: Fate, functions: tuple[FunctionChange, ...]) -> Component:
    names = {_object(path) for path in fate.component.files}
    mine = [f for f in functions if f.unit in names] if fate.decision is Decision.LIVE else []
    return Component(
        id=fate.component.id,
        decision=fate.decision,
        targets=_unique((*fate.targets, *(function.target for function in mine))),
        files=fate.component.files,
        functions=tuple(function.name for function in mine),
        reasons=tuple(_reason(refusal) for refusal in fate.reasons),
    )


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


def _entries(result: BuildResult, components: tuple[Component, ...]) -> tuple[PlannedEntry, ...]:
    # Should a file be in several, it has the worst.
    best_first = sorted(components, key=lambda component: -_RANKS.index(component.decision))
    homes = {path: component for component in best_first for path in component.files}
    nothing = all(component.decision is Decision.IRRELEVANT for component in components)
    planned = []
    for entry, told in zip_longest(result.entries, result.attributions, fillvalue=Attribution()):
        assert isinstance(entry, ChangelogEntry) and isinstance(told, Attribution)
        # Wherever it is, it is not in this kernel.
        status, reason = (EntryStatus.ABSENT, _NOTHING) if nothing else _status(told, homes)
        carriers = _unique(homes[path].id for path in told.files if path in homes)
        planned.append(
            PlannedEntry(entry.subject, entry.cves, status, told.confidence, carriers, reason)
        )
    return tuple(planned)


def _status(told: Attribution, homes: Mapping[str, Component]) -> tuple[EntryStatus, str]:
    """The worst fate of its files, and why; only the reboot is said of an entry that may be
    elsewhere."""
    found = [homes[path] for path in told.files if path in homes]
    lost = [path for path in told.files if path not in homes]
    worst = min(found, key=lambda component: _RANKS.index(component.decision), default=None)
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
