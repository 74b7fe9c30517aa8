# SPDX-License-Identifier: GPL-2.0-or-later
"""``kspliced plan``: what an upgrade would do, decided by building it and writing nothing."""

from __future__ import annotations

import sys
from argparse import Namespace

from kspliced.build.kbuild import open_headers
from kspliced.build.plan import Commits, Component, Plan, Totals
from kspliced.build.planned import planned
from kspliced.build.request import BuildRequest
from kspliced.cli import output
from kspliced.cli.build import request_of, stop_on_sigterm
from kspliced.cli.doctor import show as show_precondition
from kspliced.cli.status import entry_text
from kspliced.engine.paths import Paths
from kspliced.engine.preconditions import evaluate
from kspliced.engine.view import Finding, Precondition, system_view
from kspliced.errors import ExitCode
from kspliced.model import ChangelogEntry
from kspliced.record import encode

_LISTED = 20


def run(arguments: Namespace) -> ExitCode:
    """Print a plan.

    :raises KsplicedError: what the builder raises.
    """
    stop_on_sigterm()
    shown = not arguments.json and sys.stderr.isatty()
    request = request_of(arguments)
    with output.progress(shown) as sink:
        made = planned(request, sink)
    plan = made.plan
    blocked = _blocked(request)
    if arguments.json:
        shown_blocked = {} if blocked is None else {"preconditions": encode(blocked)}
        output.print_json({**encode(plan), **shown_blocked})
    else:
        text, style = _verdict(plan.totals)
        output.field("plan", text, style)
        for precondition in blocked or ():
            if precondition.state is Finding.FAILED:
                show_precondition(precondition)
        _show(plan, made.entries)
    return _code(plan.totals)


def _blocked(request: BuildRequest) -> tuple[Precondition, ...] | None:
    """The preconditions of this machine, where the plan is for its own kernel."""
    view = system_view(Paths())
    running = view.running()
    if running is None or open_headers(request.headers, request.config).kernel != running:
        return None
    return evaluate(view)


def _verdict(totals: Totals) -> tuple[str, str]:
    waiting = totals.reboot + totals.ask + totals.later
    if not totals.live:
        if waiting:
            return "nothing can go live", "red"
        return "nothing that changes is code of this kernel", "green"
    if not waiting:
        return "all of it can go live", "green"
    parts = [f"{output.plural(totals.live, 'component')} can go live"]
    parts += [f"{totals.reboot} need a reboot"] if totals.reboot else []
    parts += [f"{totals.ask} should be looked at first"] if totals.ask else []
    parts += [f"{totals.later} are in modules that are not loaded"] if totals.later else []
    return ", ".join(parts), "yellow"


def _code(totals: Totals) -> ExitCode:
    if totals.live:
        return ExitCode.DONE
    waiting = totals.reboot + totals.ask + totals.later
    return ExitCode.REFUSED if waiting else ExitCode.NOTHING_TO_DO


def _show(plan: Plan, entries: tuple[ChangelogEntry, ...]) -> None:
    for component in plan.components:
        _show_component(component)
    if entries:
        output.field("changelog", "")
        for entry in entries[:_LISTED]:
            output.field("", entry_text(entry))
        _more(len(entries))
    if plan.changelog:
        output.field("changelog", plan.changelog)
    if plan.commits is not None:
        _show_commits(plan.commits)


def _show_commits(commits: Commits) -> None:
    text = f"{commits.exactly} of {output.plural(commits.hunks, 'change')} are those of "
    output.field("commits", f"{text}{output.plural(commits.given, 'commit')}")
    for lines in commits.others[:_LISTED]:
        output.field("", f"told by words: {lines.file}:{lines.start}")
    _more(len(commits.others))


def _show_component(component: Component) -> None:
    output.field(component.decision.value, output.plural(len(component.files), "file"))
    for file in component.files[:_LISTED]:
        output.field("", file)
    _more(len(component.files))
    if component.functions:
        output.field("functions", ", ".join(component.functions))
    for reason in component.reasons[:_LISTED]:
        where = f" ({reason.evidence})" if reason.evidence else ""
        output.field("because", f"{reason.code}: {reason.reason}{where}")
    _more(len(component.reasons))


def _more(count: int) -> None:
    if count > _LISTED:
        output.field("", f"... and {count - _LISTED} more: --json has all")
