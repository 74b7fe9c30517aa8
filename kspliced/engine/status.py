# SPDX-License-Identifier: GPL-2.0-or-later
"""What is live now, asked of the kernel and not only of the record. Cheap to import: the daemon's.

status_json() is the JSON of `kspliced status --json`.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from kspliced.engine.adopt import adopted, applied_modules, pack_problem
from kspliced.engine.budget import MORE, unlisted
from kspliced.engine.kernels import (
    installed_kernels,
    running_kernel,
    switched_off,
)
from kspliced.engine.paths import Paths
from kspliced.engine.preconditions import evaluate, first_failed
from kspliced.engine.resident import Resident, read_limit, read_resident
from kspliced.engine.state import (
    Problem,
    Stage,
    State,
    UpdateRecord,
    load_state,
    problem_of,
    update_of,
)
from kspliced.engine.versions import compare_versions
from kspliced.engine.view import Precondition, View
from kspliced.errors import Code, KsplicedError
from kspliced.lines import split_lines
from kspliced.model import Hold, KernelId, Progress, Refusal
from kspliced.record import encode

_VMLINUX = "vmlinux"


class StatusState(str, Enum):
    """One word for all of it.

    IDLE: nothing to do. BUSY: a job runs. PENDING: a newer kernel is installed and was not
    looked at yet. LIVE: all of the newest kernel's changes run. PARTLY: some do. The others: none
    does, and why.
    """

    IDLE = "idle"
    BUSY = "busy"
    PENDING = "pending"
    LIVE = "live"
    PARTLY = "partly"
    REFUSED = "refused"
    FAILED = "failed"
    UNDONE = "undone"
    RETIRED = "retired"
    SWITCHED_OFF = "switched_off"


class Verdict(str, Enum):
    """Whether the machine must be rebooted to have the newest installed kernel's changes."""

    NO = "no"
    YES = "yes"
    PENDING = "pending"


@dataclass(frozen=True)
class Reason:
    """Why a reboot is needed: ``code`` is a refusal's or an error's word."""

    code: str
    reason: str


@dataclass(frozen=True)
class RebootRequired:
    """The verdict and, unless it is NO, its reasons."""

    verdict: Verdict
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Counts:
    """Changed units: those whose every change is live, all that the upgrade changes here, and those
    of modules that are not loaded: their code goes live when they are."""

    live: int
    total: int
    waiting: int


@dataclass(frozen=True)
class JobStatus:
    """A job under way, as the daemon knows it."""

    verb: str
    progress: Progress


@dataclass(frozen=True)
class Status:
    """The whole answer. Versions are source package versions; ``effective`` is the version whose
    changes all run; ``live`` tells whether the core has ``update`` applied; ``ignored`` are newer
    images that are not the distribution's."""

    running: KernelId
    effective: str
    installed: str
    state: StatusState
    live: bool
    update: UpdateRecord | None
    changes: Counts
    job: JobStatus | None
    reboot_required: RebootRequired
    problem: Problem | None
    resident: Resident
    ignored: tuple[str, ...] = ()
    preconditions: tuple[Precondition, ...] = ()


def core_applied(paths: Paths) -> frozenset[str]:
    """Names of the updates that the core has applied; none when it is not loaded."""
    return frozenset(update_of(module) for module in applied_modules(paths))


def known_state(paths: Paths, running: KernelId) -> State:
    """The durable state, and as live what the core has applied, whatever the state says of it.

    :raises StateError: IO. A malformed state is a fresh one, whose problem that is.
    """
    try:
        state = load_state(paths)
    except KsplicedError as error:
        if error.code is not Code.STATE_MALFORMED:
            raise
        state = State(problem=problem_of(error, 0))
    return adopted(paths, state, running, time.time())


def core_resident(paths: Paths) -> Resident:
    """What updates keep in memory until the reboot, and what they may."""
    return read_resident(paths, read_limit(os.environ))


@dataclass(frozen=True)
class Redirection:
    """A function of an applied update that something else redirects, so that it does not run."""

    update: str
    target: str
    function: str


def core_redirected(paths: Paths) -> frozenset[Redirection]:
    """What a live patch, or the like, keeps from running at this moment."""
    found = set()
    for file in (paths.core / "updates").glob("*/redirected"):
        try:
            lines = split_lines(file.read_text("utf-8", "replace"))
        except OSError:
            # The update went while we looked.
            continue
        for line in lines:
            target, _, function = line.partition("\t")
            found.add(Redirection(update_of(file.parent.name), target, function))
    return frozenset(found)


def _without(update: UpdateRecord, redirected: frozenset[Redirection]) -> UpdateRecord:
    """The record with what does not run among what was refused."""
    units = {(change.target, change.name): change.unit for change in update.functions}
    refused = tuple(
        Refusal(
            "redirected",
            units.get((one.target, one.function), ""),
            one.function,
            "a live patch redirects it; it runs when that is disabled",
        )
        for one in sorted(redirected, key=lambda one: (one.target, one.function))
        if one.update == update.update
    )
    return replace(update, refused=(*update.refused, *refused))


def current_status(
    paths: Paths,
    job: JobStatus | None = None,
    preconditions: tuple[Precondition, ...] | None = None,
) -> Status:
    """The status at this moment; ``preconditions`` are looked at where they are not given.

    :raises KsplicedError: FOREIGN_KERNEL, KERNEL_UNREADABLE, IO. A malformed state is part of the
        answer.
    """
    if preconditions is None:
        preconditions = evaluate(View(paths))
    running = running_kernel(paths)
    state = known_state(paths, running)
    return build_status(paths, running, state, core_applied(paths), job, preconditions)


def build_status(
    paths: Paths,
    running: KernelId,
    state: State,
    applied: frozenset[str],
    job: JobStatus | None,
    preconditions: tuple[Precondition, ...] = (),
) -> Status:
    """The status that ``state`` and the core's word ``applied`` amount to."""
    installed = installed_kernels(paths, running)
    newest = installed.newest.version
    here = [record for record in state.history if record.kernel == running]
    found = _live_update(paths, here, applied)
    live = found is not None
    update = found or next(reversed(here or state.history), None)
    wanted = next((r for r in reversed(here) if _is_wanted(r, newest)), None)
    loaded = loaded_modules(paths)
    held = update is not None and runs_held(update, loaded)
    effective = running.version
    if found is not None and not found.refused and not held:
        effective = found.to_version or running.version
    if wanted is not None and wanted.stage is Stage.EMPTY:
        effective = wanted.to_version
    view = _View(
        problem=state.problem,
        update=update,
        wanted=wanted,
        live=live,
        off=switched_off(paths),
        busy=job is not None,
        held=held,
        kernel=running,
        effective=effective,
        newest=newest,
        blocked=first_failed(preconditions),
    )
    reboot = _reboot(view)
    if installed.other_series is not None:
        text = f"{installed.other_series.release} is of another kernel series"
        reasons = (*reboot.reasons, Reason("other_series", text))
        reboot = RebootRequired(Verdict.YES, reasons)
    return Status(
        running=running,
        effective=effective,
        installed=newest,
        state=_word(view),
        live=live,
        update=update,
        changes=count_changes(update, live, loaded),
        job=job,
        reboot_required=reboot,
        problem=state.problem,
        ignored=installed.ignored,
        preconditions=preconditions,
        resident=core_resident(paths),
    )


def _live_update(
    paths: Paths, here: list[UpdateRecord], applied: frozenset[str]
) -> UpdateRecord | None:
    """The newest of the running kernel's updates that the core has ``applied``, as it runs."""
    update = next((record for record in reversed(here) if record.update in applied), None)
    if update is None:
        return None
    update = _without(update, core_redirected(paths))
    return replace(update, problem=update.problem or pack_problem(paths, update))


def _is_wanted(record: UpdateRecord, newest: str) -> bool:
    """Whether a record is of what should be live: the newest kernel's, or a pack of ours."""
    if record.to_version == newest:
        return True
    return record.wanted and record.stage in (Stage.LIVE, Stage.FAILED, Stage.APPLYING)


@dataclass(frozen=True)
class _View:
    """What the words of the status follow from."""

    problem: Problem | None
    update: UpdateRecord | None
    wanted: UpdateRecord | None
    live: bool
    off: bool
    busy: bool
    held: bool
    kernel: KernelId
    effective: str
    newest: str
    blocked: Precondition | None

    @property
    def behind(self) -> bool:
        """Whether the newest installed kernel has changes that do not run."""
        return compare_versions(self.effective, self.newest, self.kernel) < 0


def loaded_modules(paths: Paths) -> frozenset[str]:
    """The names of /proc/modules; none where it cannot be read."""
    try:
        lines = split_lines((paths.proc / "modules").read_text("utf-8", "replace"))
    except OSError:
        return frozenset()
    return frozenset(line.split()[0] for line in lines if line.split())


def held_modules(paths: Paths) -> frozenset[Hold]:
    """The modules whose loads the core holds now; none where it is not loaded."""
    try:
        lines = split_lines((paths.core / "held").read_text("utf-8", "replace"))
    except OSError:
        return frozenset()
    fields = (line.split("\t") for line in lines)
    return frozenset(Hold(words[0], words[1] == "required") for words in fields if words[1:])


def awaited_modules(state: State, running: KernelId) -> frozenset[str]:
    """The modules that updates of the running kernel wait for."""
    return frozenset(
        name
        for record in state.history
        if record.kernel == running and record.wanted
        if record.stage in (Stage.LIVE, Stage.BUILT)
        for name in record.waiting
    )


def runs_held(update: UpdateRecord, loaded: frozenset[str]) -> bool:
    """Whether old code runs that the update has new code for: it waits for a module, and another
    part of it is of what runs, or the module came just now."""
    return any(
        change.unit in update.held and (change.target == _VMLINUX or change.target in loaded)
        for change in update.functions
    )


def count_changes(
    update: UpdateRecord | None, live: bool, loaded: frozenset[str] = frozenset()
) -> Counts:
    """How many changed units there are, and how many of them are live as a whole."""
    if update is None or not update.to_version:
        return Counts(0, 0, 0)
    refused = {r.unit or r.symbol for r in update.refused if r.code != MORE}
    units = {change.unit for change in update.functions}
    held = units & set(update.held)
    running = {c.unit for c in update.functions if c.target == _VMLINUX or c.target in loaded}
    effective = len(units - refused - held) if live else 0
    total = len(units | refused) + unlisted(update.refused)
    return Counts(effective, total, len(held - running))


def _word(view: _View) -> StatusState:
    update, wanted = view.update, view.wanted
    if view.busy:
        return StatusState.BUSY
    if update is not None and view.live and not update.to_version:
        return StatusState.PARTLY  # something is live, and nothing tells what
    if (
        update is not None
        and view.live
        and compare_versions(update.to_version, view.newest, view.kernel) >= 0
    ):
        return StatusState.PARTLY if update.refused or view.held else StatusState.LIVE
    if view.off:
        return StatusState.SWITCHED_OFF
    if wanted is not None and compare_versions(view.effective, wanted.to_version, view.kernel) < 0:
        words = {
            Stage.REFUSED: StatusState.REFUSED,
            Stage.FAILED: StatusState.FAILED,
            Stage.UNDONE: StatusState.UNDONE,
            Stage.UNDOING: StatusState.UNDONE,
            # Recorded as live, but the core says no.
            Stage.LIVE: StatusState.FAILED,
            Stage.APPLYING: StatusState.FAILED,
        }
        return words.get(wanted.stage, StatusState.PENDING)
    if update is not None and update.stage is Stage.UNDONE and not update.to_version:
        return StatusState.UNDONE
    if view.behind:
        return StatusState.FAILED if view.problem is not None else StatusState.PENDING
    if update is not None:
        shown = {Stage.RETIRED: StatusState.RETIRED, Stage.UNDONE: StatusState.UNDONE}
        return shown.get(update.stage, StatusState.IDLE)
    return StatusState.IDLE


def _reboot(view: _View) -> RebootRequired:
    if not view.behind:
        return RebootRequired(Verdict.NO, ())
    word = _word(view)
    if word is StatusState.PENDING and view.blocked is not None:
        return RebootRequired(Verdict.YES, (Reason(view.blocked.code.value, view.blocked.words),))
    if word in (StatusState.BUSY, StatusState.PENDING):
        text = f"the update to {view.newest} is not there yet"
        return RebootRequired(Verdict.PENDING, (Reason("pending", text),))
    record = view.update if view.live else view.wanted
    if record is not None and record.refused:
        reasons = tuple(
            Reason(r.code, f"{r.unit} {r.symbol}: {r.reason}".strip(" :")) for r in record.refused
        )
        return RebootRequired(Verdict.YES, reasons)
    if view.live and view.held and record is not None:
        text = f"it waits for {', '.join(record.waiting)}"
        return RebootRequired(Verdict.PENDING, (Reason("waiting", text),))
    if word is StatusState.UNDONE:
        return RebootRequired(Verdict.YES, (Reason("undone", "the update was undone"),))
    if word is StatusState.SWITCHED_OFF:
        text = "kspliced=off is on the kernel command line"
        return RebootRequired(Verdict.YES, (Reason(Code.SWITCHED_OFF.value, text),))
    problem = (view.wanted.problem if view.wanted is not None else None) or view.problem
    if problem is None and view.live and view.update is not None:
        problem = view.update.problem
    if problem is not None:
        return RebootRequired(Verdict.YES, (Reason(problem.code.value, problem.message),))
    text = f"the core does not have the update to {view.newest} applied"
    return RebootRequired(Verdict.YES, (Reason(Code.NO_UPDATE.value, text),))


def status_json(status: Status) -> dict[str, Any]:
    """The object that `kspliced status --json` prints (ARCHITECTURE.md, DESIGN)."""
    return {
        "running": status.running.version,
        "release": status.running.release,
        "effective": status.effective,
        "installed": status.installed,
        "state": status.state.value,
        "update": _update_json(status) if status.update is not None else None,
        "job": _job_json(status.job) if status.job is not None else None,
        "reboot_required": encode(status.reboot_required),
        "problem": encode(status.problem),
        "ignored": list(status.ignored),
        "preconditions": encode(status.preconditions),
        "resident": encode(status.resident),
    }


def _update_json(status: Status) -> dict[str, Any]:
    record = status.update
    assert record is not None
    value: dict[str, Any] = encode(record)
    counts = status.changes
    noun = "change" if counts.total == 1 else "changes"
    value["live"] = status.live
    value["changes"] = encode(counts)
    later = f", {counts.waiting} when modules load" if counts.waiting else ""
    value["summary"] = f"{counts.live} of {counts.total} {noun} live{later}"
    if not record.to_version:
        value["summary"] = "which changes these are is unknown"
    return value


def _job_json(job: JobStatus) -> dict[str, Any]:
    progress = job.progress
    return {
        "verb": job.verb,
        "phase": progress.phase,
        "fraction": progress.fraction,
        "message": progress.message,
    }
