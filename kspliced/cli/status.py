# SPDX-License-Identifier: GPL-2.0-or-later
"""``kspliced status``: all that is known, from the daemon only."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace

from kspliced.cli import output
from kspliced.cli.follow import follow
from kspliced.client import (
    Client,
    ResidentReport,
    StatusReport,
    UpdateReport,
    connected,
    parse_status,
)
from kspliced.errors import ExitCode, KsplicedError
from kspliced.model import ChangeKind, ChangelogEntry

_STYLES = {
    "live": "green",
    "idle": "green",
    "partly": "yellow",
    "pending": "yellow",
    "busy": "cyan",
    "undone": "yellow",
    "refused": "red",
    "failed": "red",
}
_SHORT = 20
# After an upgrade the daemon needs a moment to begin.
_PENDING_SECONDS = 10.0


def run(arguments: Namespace) -> ExitCode:
    """Print the status.

    :raises KsplicedError: NO_DAEMON; what the daemon reports.
    """
    text = asyncio.run(_fetch(arguments.wait, arguments.json))
    if arguments.json:
        output.print_json(json.loads(text))
    else:
        show(parse_status(text), arguments.verbose)
    return ExitCode.DONE


async def _fetch(wait: bool, quiet: bool) -> str:
    async with connected() as client:
        if wait:
            await _wait(client, quiet)
        return await client.status_json()


async def _wait(client: Client, quiet: bool) -> None:
    """Follow the job under way; give one that is about to begin the time to do so."""
    await client.listen()
    job = await client.current_job()
    if job is None and (await client.status()).state == "pending":
        try:
            async with asyncio.timeout(_PENDING_SECONDS):
                while job is None:
                    await client.news_of_manager()
                    job = await client.current_job()
        except TimeoutError:
            return
    if job is not None:
        try:
            await follow(client, job, quiet, own=False)
        except KsplicedError as error:
            # The status tells it, with what it means.
            if not quiet:
                output.print_error(error)


def show(status: StatusReport, verbose: bool) -> None:
    """Print a status for people."""
    output.field("running", f"{status.running} ({status.release})")
    output.field("effective", status.effective)
    output.field("installed", status.installed)
    for package in status.ignored:
        output.field("ignored", f"{package} is not the distribution's kernel")
    output.field("state", status.state.replace("_", " "), _STYLES.get(status.state, ""))
    job = status.job
    if job is not None:
        text = f"{job.verb}: {job.phase} {job.fraction:.0%} {job.message}".rstrip()
        output.field("job", text, "cyan")
    if status.update is not None:
        _show_update(status.update, verbose)
    _show_resident(status.resident)
    _show_reboot(status, verbose)
    blocked = [p for p in status.preconditions if p.state == "failed"]
    for one in blocked:
        output.field("blocked", f"{one.words}; {one.remedy} [{one.code.value}]", "red")
    problem = (status.update.problem if status.update else None) or status.problem
    if (
        problem is not None
        and status.state != "idle"
        and problem.code not in {one.code for one in blocked}
    ):
        remedy = f"; {problem.remedy}" if problem.remedy else ""
        output.field("problem", f"{problem.message}{remedy} [{problem.code.value}]", "red")
        for line in problem.details[: None if verbose else _SHORT]:
            output.field("", line)


def _show_update(update: UpdateReport, verbose: bool) -> None:
    replaced = [f for f in update.functions if f.kind is ChangeKind.CHANGED]
    added = [f for f in update.functions if f.kind is ChangeKind.NEW]
    name = update.update or "no pack"
    output.field(
        "update",
        f"{name}: {update.kernel.version} to {update.to_version or 'an unknown version'}, "
        f"{update.stage}",
    )
    counts = [update.summary, f"{output.plural(len(replaced), 'function')} replaced"]
    if added:
        counts.append(f"{len(added)} added")
    output.field("changes", ", ".join(counts))
    if update.waiting:
        output.field("waiting", f"for {', '.join(update.waiting)} to be loaded")
    if update.applied_at:
        output.field("pause", f"{update.pause_us} microseconds")
    limit = None if verbose else _SHORT
    if update.functions:
        rows = [(f.target, f.unit, f.name, f.kind.value, f.why) for f in update.functions]
        output.table(("target", "unit", "function", "kind", "why"), rows[:limit])
        _more(len(rows), limit)
    if update.entries:
        output.field("changelog", "")
        for entry in update.entries[:limit]:
            output.field("", entry_text(entry))
        _more(len(update.entries), limit)
    if update.refused:
        output.field("refused", output.plural(len(update.refused), "change"), "yellow")
        refusals = [(r.code, r.unit, r.symbol, r.reason) for r in update.refused]
        output.table(("code", "unit", "symbol", "reason"), refusals[:limit])
        _more(len(refusals), limit)


def _show_resident(resident: ResidentReport | None) -> None:
    """What updates keep in memory, if anything."""
    if resident is not None and resident.bytes:
        kept, limit = (f"{n / (1 << 20):.1f} MiB" for n in (resident.bytes, resident.limit_bytes))
        modules = output.plural(len(resident.updates), "update module")
        output.field("resident", f"{kept} of {limit}: {modules}, until the reboot")


def entry_text(entry: ChangelogEntry) -> str:
    """A changelog entry with its bug numbers and CVEs, for people."""
    notes = [f"#{bug}" for bug in entry.bugs if f"#{bug}" not in entry.subject]
    notes += [cve for cve in entry.cves if cve not in entry.subject]
    return f"* {entry.subject}" + (f" ({', '.join(notes)})" if notes else "")


def _show_reboot(status: StatusReport, verbose: bool) -> None:
    verdict, reasons = status.reboot_required.verdict, status.reboot_required.reasons
    if verdict == "no":
        upgrade = status.installed != status.running
        text = "no reboot needed" + (" for this upgrade" if upgrade else "")
        output.field("reboot", text, "green")
        return
    head = "required" if verdict == "yes" else "not known yet"
    output.field("reboot", f"{head}: {reasons[0].reason}" if reasons else head, "yellow")
    limit = None if verbose else _SHORT
    for reason in reasons[1:limit]:
        output.field("", reason.reason)
    _more(len(reasons), limit)


def _more(count: int, limit: int | None) -> None:
    if limit is not None and count > limit:
        output.field("", f"... and {count - limit} more: kspliced status --verbose")
