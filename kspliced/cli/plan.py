# SPDX-License-Identifier: GPL-2.0-or-later
"""``kspliced plan``: what an upgrade would do, decided by building it and writing nothing."""

from __future__ import annotations

import sys
from argparse import Namespace

from kspliced.build.pipeline import build
from kspliced.build.plan import Component, Decision, Plan, plan_of
from kspliced.cli import output
from kspliced.cli.build import request_of, stop_on_sigterm
from kspliced.cli.status import entry_text
from kspliced.errors import ExitCode
from kspliced.model import ChangelogEntry
from kspliced.record import encode

_LISTED = 20
_VERDICTS = {
    Decision.REBOOT: ("a reboot is needed: an update is all or nothing", "red"),
    Decision.LIVE: ("all of it can go live", "green"),
    Decision.IRRELEVANT: ("nothing that changes is code of this kernel", "green"),
}
_CODES = {
    Decision.REBOOT: ExitCode.REFUSED,
    Decision.LIVE: ExitCode.DONE,
    Decision.IRRELEVANT: ExitCode.NOTHING_TO_DO,
}


def run(arguments: Namespace) -> ExitCode:
    """Print a plan.

    :raises KsplicedError: what the builder raises.
    """
    stop_on_sigterm()
    shown = not arguments.json and sys.stderr.isatty()
    with output.progress(shown) as sink:
        result = build(request_of(arguments), sink)
    plan = plan_of(result)
    verdict = _verdict(plan)
    if arguments.json:
        output.print_json(encode(plan))
    else:
        text, style = _VERDICTS[verdict]
        output.field("plan", text, style)
        _show(plan, result.entries)
    return _CODES[verdict]


def _verdict(plan: Plan) -> Decision:
    if plan.totals.reboot:
        return Decision.REBOOT
    return Decision.LIVE if plan.totals.live else Decision.IRRELEVANT


def _show(plan: Plan, entries: tuple[ChangelogEntry, ...]) -> None:
    for component in plan.components:
        _show_component(component)
    if entries:
        output.field("changelog", "")
        for entry in entries[:_LISTED]:
            output.field("", entry_text(entry))
        _more(len(entries))


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
