# SPDX-License-Identifier: GPL-2.0-or-later
"""``kspliced plan``: what an upgrade would do, decided by building it and writing nothing.

The builder takes an upgrade as a whole or not at all, so one answer holds for all its changelog
entries.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from kspliced.build.pipeline import BuildResult, build
from kspliced.cli import output
from kspliced.cli.build import request_of, stop_on_sigterm
from kspliced.cli.status import entry_text
from kspliced.errors import ExitCode
from kspliced.model import ChangelogEntry, FunctionChange, Refusal
from kspliced.record import encode

_LISTED = 20


class Decision(str, Enum):
    """What becomes of a changed file."""

    LIVE = "live"
    REBOOT = "reboot"
    IRRELEVANT = "irrelevant"


class EntryStatus(str, Enum):
    """What becomes of a changelog entry; absent: it is not about this kernel's code."""

    LIVE = "live"
    REBOOT = "reboot"
    ABSENT = "absent"


@dataclass(frozen=True)
class Reason:
    """Why; ``code`` is a refusal's word."""

    code: str
    reason: str
    evidence: str


@dataclass(frozen=True)
class Component:
    """A changed file, or a unit made of it."""

    id: str
    decision: Decision
    targets: tuple[str, ...]
    files: tuple[str, ...]
    functions: tuple[str, ...]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class PlannedEntry:
    """A changelog entry. ``confidence`` is "upgrade": the answer is that of the whole upgrade."""

    subject: str
    cves: tuple[str, ...]
    bugs: tuple[str, ...]
    status: EntryStatus
    confidence: str
    components: tuple[str, ...]


@dataclass(frozen=True)
class Totals:
    """How many components there are of each decision, and entries."""

    live: int
    reboot: int
    irrelevant: int
    entries: int


@dataclass(frozen=True)
class Plan:
    """The JSON of `kspliced plan`."""

    components: tuple[Component, ...]
    entries: tuple[PlannedEntry, ...]
    totals: Totals


def run(arguments: Namespace) -> ExitCode:
    """Print a plan.

    :raises KsplicedError: what the builder raises.
    """
    stop_on_sigterm()
    shown = not arguments.json and sys.stderr.isatty()
    with output.progress(shown) as sink:
        result = build(request_of(arguments), sink)
    plan = plan_of(result)
    if arguments.json:
        output.print_json(encode(plan))
    else:
        _show(plan, result.entries)
    if plan.totals.reboot:
        return ExitCode.REFUSED
    return ExitCode.DONE if plan.totals.live else ExitCode.NOTHING_TO_DO


def plan_of(result: BuildResult) -> Plan:
    """The plan that a build amounts to."""
    live = [_live(unit, result.functions) for unit in _once(f.unit for f in result.functions)]
    refused = [_refused(unit, result.refused) for unit in _once(r.unit for r in result.refused)]
    left = [
        Component(
            i.path, Decision.IRRELEVANT, (), (i.path,), (), (Reason("irrelevant", i.reason, ""),)
        )
        for i in result.irrelevant
    ]
    if refused:
        status, concerned = EntryStatus.REBOOT, refused
    else:
        status, concerned = (EntryStatus.LIVE if live else EntryStatus.ABSENT), live
    ids = tuple(component.id for component in concerned)
    entries = tuple(
        PlannedEntry(e.subject, e.cves, e.bugs, status, "upgrade", ids) for e in result.entries
    )
    components = (*live, *refused, *left)
    counts = Counter(component.decision for component in components)
    totals = Totals(
        counts[Decision.LIVE], counts[Decision.REBOOT], counts[Decision.IRRELEVANT], len(entries)
    )
    return Plan(components, entries, totals)


def _live(unit: str, functions: tuple[FunctionChange, ...]) -> Component:
    own = [f for f in functions if f.unit == unit]
    names = tuple(f.name for f in own)
    files = (unit.removesuffix(".o") + ".c",)
    return Component(unit, Decision.LIVE, _once(f.target for f in own), files, names, ())


def _refused(unit: str, refused: tuple[Refusal, ...]) -> Component:
    own = [r for r in refused if r.unit == unit]
    reasons = tuple(Reason(r.code, r.reason, r.evidence) for r in own)
    names = _once(r.symbol for r in own if r.symbol)
    file = unit.removesuffix(".o") + ".c" if unit.endswith(".o") else unit
    return Component(unit, Decision.REBOOT, (), (file,), names, reasons)


def _show(plan: Plan, entries: tuple[ChangelogEntry, ...]) -> None:
    totals = plan.totals
    if totals.reboot:
        output.field("plan", "a reboot is needed: an update is all or nothing", "red")
    elif totals.live:
        output.field("plan", "all of it can go live", "green")
    else:
        output.field("plan", "nothing that changes is code of this kernel", "green")
    for decision in (Decision.LIVE, Decision.REBOOT, Decision.IRRELEVANT):
        chosen = [c for c in plan.components if c.decision is decision]
        if not chosen:
            continue
        output.field(decision.value, output.plural(len(chosen), "component"))
        limit = _LISTED if decision is Decision.IRRELEVANT else None
        rows = [(c.id, ", ".join(c.functions), _reasons(c)) for c in chosen[:limit]]
        output.table(("component", "functions", "reasons"), rows)
    if entries:
        output.field("changelog", f"{len(entries)} entries")
        for entry in entries[:_LISTED]:
            output.field("", entry_text(entry))


def _reasons(component: Component) -> str:
    return "; ".join(f"{r.code}: {r.reason}" for r in component.reasons)


def _once(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
