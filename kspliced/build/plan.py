# SPDX-License-Identifier: GPL-2.0-or-later
"""What would become of an upgrade, as the JSON of `kspliced plan` has it.

The builder works all or nothing, so every component has the same fate: live together, or waiting
for the reboot together with the reasons. Irrelevant files are a component of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from kspliced.build.pipeline import BuildResult
from kspliced.model import ChangelogEntry, FunctionChange, Refusal


class Decision(str, Enum):
    """What becomes of a component."""

    LIVE = "live"
    REBOOT = "reboot"
    IRRELEVANT = "irrelevant"


class EntryStatus(str, Enum):
    """What becomes of a changelog entry."""

    LIVE = "live"
    REBOOT = "reboot"
    ABSENT = "absent"


@dataclass(frozen=True)
class Reason:
    """Why a component has its decision; ``code`` as in docs/refusals.md, or ``irrelevant``."""

    code: str
    reason: str
    evidence: str


@dataclass(frozen=True)
class Component:
    """Changes that go together. ``files`` are units or source files, ``functions`` symbols."""

    id: str
    decision: Decision
    targets: tuple[str, ...]
    files: tuple[str, ...]
    functions: tuple[str, ...]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class PlannedEntry:
    """A changelog entry with its fate. ``confidence`` 0..1 that ``components`` carry it."""

    subject: str
    cves: tuple[str, ...]
    status: EntryStatus
    confidence: float
    components: tuple[str, ...]


@dataclass(frozen=True)
class Totals:
    """Numbers of components by decision, and of entries that are live."""

    live: int
    reboot: int
    irrelevant: int
    entries: int
    entries_live: int


@dataclass(frozen=True)
class Plan:
    """The whole plan; :func:`kspliced.record.encode` gives its JSON."""

    components: tuple[Component, ...]
    entries: tuple[PlannedEntry, ...]
    totals: Totals


def plan_of(result: BuildResult) -> Plan:
    """The plan that a build amounts to."""
    components = (*_live(result.functions), *_refused(result.refused), *_irrelevant(result))
    entries = tuple(_entry(entry, result, components) for entry in result.entries)
    decisions = [component.decision for component in components]
    totals = Totals(
        live=decisions.count(Decision.LIVE),
        reboot=decisions.count(Decision.REBOOT),
        irrelevant=decisions.count(Decision.IRRELEVANT),
        entries=len(entries),
        entries_live=sum(entry.status is EntryStatus.LIVE for entry in entries),
    )
    return Plan(components, entries, totals)


def _live(functions: tuple[FunctionChange, ...]) -> tuple[Component, ...]:
    if not functions:
        return ()
    return (
        Component(
            id="update",
            decision=Decision.LIVE,
            targets=_unique(function.target for function in functions),
            files=_unique(function.unit for function in functions),
            functions=tuple(function.name for function in functions),
            reasons=(),
        ),
    )


def _refused(refused: tuple[Refusal, ...]) -> tuple[Component, ...]:
    if not refused:
        return ()
    return (
        Component(
            id="update",
            decision=Decision.REBOOT,
            targets=(),
            files=_unique(refusal.unit for refusal in refused),
            functions=_unique(refusal.symbol for refusal in refused if refusal.symbol),
            reasons=tuple(Reason(r.code, r.reason, r.evidence or r.unit) for r in refused),
        ),
    )


def _irrelevant(result: BuildResult) -> tuple[Component, ...]:
    if not result.irrelevant:
        return ()
    counts = _unique(item.reason for item in result.irrelevant)
    return (
        Component(
            id="irrelevant",
            decision=Decision.IRRELEVANT,
            targets=(),
            files=tuple(item.path for item in result.irrelevant),
            functions=(),
            reasons=tuple(Reason("irrelevant", reason, "") for reason in counts),
        ),
    )


def _entry(
    entry: ChangelogEntry, result: BuildResult, components: tuple[Component, ...]
) -> PlannedEntry:
    """Nothing tells yet which component carries an entry, so all that matter count: certain."""
    carriers = tuple(c.id for c in components if c.decision is not Decision.IRRELEVANT)
    status = EntryStatus.ABSENT
    if result.refused:
        status = EntryStatus.REBOOT
    elif result.functions:
        status = EntryStatus.LIVE
    return PlannedEntry(entry.subject, entry.cves, status, 1.0, carriers)


def _unique(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))
