# SPDX-License-Identifier: GPL-2.0-or-later
"""The switch of an update, and the way back: recorded before it is tried, and after.

Whatever happens in between, the core knows what is live; recover() brings the record in line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kspliced.engine import evidence
from kspliced.engine.adopt import adopted, applied_modules
from kspliced.engine.edges import Context, CoreStage
from kspliced.engine.journal import Event, Facts
from kspliced.engine.kernels import boot_id, running_kernel
from kspliced.engine.policy import APPLY_ANYWAY
from kspliced.engine.resident import require_room
from kspliced.engine.state import Problem, Stage, State, UpdateRecord, update_of
from kspliced.engine.store import Store
from kspliced.errors import Code, KernelError, KsplicedError
from kspliced.model import VMLINUX, KernelId, Linked
from kspliced.pack import Pack

_STEP_SECONDS = 0.25


@dataclass(frozen=True)
class Outcome:
    """The result of a worker. ``action`` is a stable word: live, waiting, widened, built, undone,
    replayed, retired, nothing, healthy, stopped, fetched, planned, matched."""

    action: str
    message: str
    update: str = ""
    digest: str = ""
    to_version: str = ""
    functions: int = 0
    refused: int = 0
    pause_us: int = 0


def outcome_of(action: str, message: str, record: UpdateRecord) -> Outcome:
    """The result that a record is the evidence of."""
    return Outcome(
        action,
        message,
        record.update,
        record.digest,
        record.to_version,
        len(record.functions),
        len(record.refused),
        record.pause_us,
    )


def applied_names(context: Context) -> frozenset[str]:
    """What the core has applied: the truth about what is live."""
    return frozenset(u.name for u in context.kernel.updates() if u.stage is CoreStage.APPLIED)


def switch(context: Context, store: Store, record: UpdateRecord, pack: Pack) -> UpdateRecord:
    """Make the update live: match, link, load, apply. Returns its record, in stage LIVE, or BUILT
    where none of its targets is loaded: it then waits for them.

    :raises KsplicedError: then the running kernel is as it was, and the record says FAILED (or
        BUILT when cancelled).
    """
    try:
        return _switch(context, store, record, pack)
    except KsplicedError as error:
        if error.code is Code.TARGET_NOT_LOADED:
            return _waiting(store, record, pack)
        cancelled = error.code is Code.CANCELLED
        store.put(
            replace(
                record,
                stage=Stage.BUILT if cancelled else Stage.FAILED,
                problem=None
                if cancelled
                else store.problem(error, record.update, context.clock.now()),
            )
        )
        raise


def _switch(context: Context, store: Store, record: UpdateRecord, pack: Pack) -> UpdateRecord:
    context.job.at("core", 0.86, "loading the kernel core")
    context.kernel.ready()
    unload_leftovers(context)  # a target may have moved since they were linked
    context.job.at("match", 0.88, "comparing with the running kernel")
    linked = context.kernel.link(pack, context.job.part(0.88, 0.94))
    context.job.cancel.check()
    applying = replace(
        record,
        stage=Stage.APPLYING,
        wanted=True,
        boot_id=boot_id(context.paths),
        waiting=linked.waiting,
        held=linked.held,
        problem=None,
    )
    store.put(applying)
    live = _live(context, applying, _load_and_apply(context, linked))
    _replace_others(store, live)
    unload_leftovers(context)
    return live


def _waiting(store: Store, record: UpdateRecord, pack: Pack) -> UpdateRecord:
    """Record that all of an update waits for modules."""
    groups = pack.manifest.groups
    waiting = replace(
        record,
        stage=Stage.BUILT,
        wanted=True,
        waiting=tuple(sorted({t for group in groups for t in group.targets} - {VMLINUX})),
        held=tuple(unit for group in groups for unit in group.units),
        problem=None,
    )
    store.put(waiting)
    return waiting


def _load_and_apply(context: Context, linked: Linked) -> int:
    """Load the module, unless it stayed loaded, and switch to it; returns the pause in µs.

    :raises KsplicedError: RESIDENT_LIMIT, before anything is loaded; what the switch raises.
    """
    context.job.at("apply", 0.95, "switching")
    there = any(update.module == linked.name for update in context.kernel.updates())
    if not there:
        require_room(context.paths, context.resident_limit, linked.size)
        context.kernel.load(linked.name, linked.content)
    try:
        for hold in linked.holds:
            context.kernel.hold(linked.name, hold)
        return insist(context, linked.name, "apply")
    except KsplicedError:
        if not there:
            _unload_quietly(context, linked.name)
        raise


def _live(context: Context, record: UpdateRecord, pause: int) -> UpdateRecord:
    return replace(
        record,
        stage=Stage.LIVE,
        wanted=True,
        pause_us=pause,
        applied_at=int(context.clock.now()),
        boot_id=boot_id(context.paths),
        problem=None,
    )


def widen(context: Context, store: Store, record: UpdateRecord, pack: Pack) -> UpdateRecord:
    """Bring in what of a live update waited for modules that are loaded by now.

    :raises KsplicedError: then the update is live as it was, and the record says what failed.
    """
    try:
        linked = context.kernel.link(pack, context.job.part(0.1, 0.9))
        parts = replace(record, waiting=linked.waiting, held=linked.held)
        if linked.name != _applied_module(context, record):
            parts = _live(context, parts, _load_and_apply(context, linked))
    except KsplicedError as error:
        if error.code is not Code.CANCELLED:
            problem = store.problem(error, record.update, context.clock.now())
            store.put(replace(record, problem=problem))
        raise
    store.put(replace(parts, problem=None))
    unload_leftovers(context)
    return parts


def _applied_module(context: Context, record: UpdateRecord) -> str:
    """The module of an update that is applied."""
    applied = (u for u in context.kernel.updates() if u.stage is CoreStage.APPLIED)
    return next((u.module for u in applied if u.name == record.update), record.update)


def switch_back(context: Context, store: Store, record: UpdateRecord) -> UpdateRecord:
    """Restore the running kernel's own code. Returns the record, in stage UNDONE.

    :raises KsplicedError: then the update is still live, and the record says so.
    """
    undoing = replace(record, stage=Stage.UNDOING, wanted=False)
    store.put(undoing)
    try:
        insist(context, _applied_module(context, record), "undo")
    except KsplicedError as error:
        problem = store.problem(error, record.update, context.clock.now())
        store.put(replace(record, problem=problem))
        raise
    undone = replace(undoing, stage=Stage.UNDONE, problem=None)
    store.save(replace(store.state.put(undone), problem=None))
    unload_leftovers(context)
    return undone


def insist(context: Context, module: str, phase: str) -> int:
    """Switch to an update's module (phase "apply") or back from it ("undo"): attempts while code is
    busy, as the back-off says. Returns the pause in µs.

    :raises KsplicedError: what an attempt raises, CODE_BUSY when the time is over, CANCELLED.
    """
    attempt = context.kernel.apply if phase == "apply" else context.kernel.reverse
    tries = tuple(context.backoff.tries())
    nudged = 0
    for number, following in enumerate((*tries, None), start=1):
        try:
            return attempt(module)
        except KernelError as error:
            if error.code is not Code.CODE_BUSY:
                raise
            if following is None:
                raise _given_up(error, number, nudged) from error
            busy = error
        asked = f", threads asked to leave {nudged} times" if nudged else ""
        who = busy.details[0] if busy.details else busy.message
        text = f"attempt {number} of at most {len(tries) + 1}{asked}: {who}"
        context.job.at(phase, 0.96, text)
        if following.nudge:
            if not nudged:
                _tell_nudge(context, module, busy)
            nudged += context.kernel.nudge(module)
        _wait(context, following.delay)
    raise AssertionError("the last attempt returns or raises")


def _tell_nudge(context: Context, module: str, error: KernelError) -> None:
    evidence.keep(context.paths, error, update_of(module))
    text = "\n".join((f"{error.message}; they are asked to leave", *error.details))
    context.journal.send(Event.NUDGED, text, Facts(update=module))


def _given_up(error: KernelError, attempts: int, nudged: int) -> KernelError:
    """The error of the last attempt, with what was tried."""
    asked = f", asked to leave {nudged} times" if nudged else ""
    text = f"{error.message} ({attempts} attempts{asked})"
    last = KernelError(Code.CODE_BUSY, text, error.remedy, error.details, error.evidence)
    last.blamed = error.blamed
    return last


def _wait(context: Context, seconds: float) -> None:
    """Sleep in short steps, each of them a safe point.

    :raises KsplicedError: CANCELLED.
    """
    while seconds > 0:
        context.clock.sleep(min(seconds, _STEP_SECONDS))
        context.job.cancel.check()
        seconds -= _STEP_SECONDS


def recover(context: Context, store: Store) -> None:
    """Bring records of switches that a worker did not finish in line with the core."""
    boot = boot_id(context.paths)
    live = {u.name: u for u in context.kernel.updates() if u.stage is CoreStage.APPLIED}
    state = store.state
    for record in state.history:
        if record.stage not in (Stage.APPLYING, Stage.UNDOING):
            continue
        if record.update in live:
            pause = live[record.update].pause_us
            changed = replace(record, stage=Stage.LIVE, pause_us=pause)
        elif record.stage is Stage.UNDOING:
            changed = replace(record, stage=Stage.UNDONE)
        else:
            problem = _interrupted(record, boot, int(context.clock.now()))
            changed = replace(record, stage=Stage.FAILED, problem=problem)
        state = state.change(record, changed)
    if applied_modules(context.paths):
        state = _adopted(context, state)
    store.save(state)


def _adopted(context: Context, state: State) -> State:
    """The state with what is live without a record of it, and a word of that."""
    running = running_kernel(context.paths)
    found = adopted(context.paths, state, running, context.clock.now())
    if found is not state:
        record = found.history[-1]
        version = record.to_version or "a version that is unknown, as its pack is missing"
        text = f"{record.update} is live, but its record was lost: it brings {version}"
        facts = Facts(update=record.update, from_=running.version, to=record.to_version)
        context.journal.send(Event.ADOPTED, text, facts)
    return found


def _interrupted(record: UpdateRecord, boot: str, now: int) -> Problem:
    if record.boot_id == boot:
        text = "the job that applied it was killed before the switch"
        return Problem(Code.FAILED, text, "run `kspliced apply`", (), now)
    text = f"the machine went down while the update to {record.to_version} was switched in"
    return Problem(Code.BOOT_LOOP, text, APPLY_ANYWAY, (), now)


def adopt(context: Context, store: Store, record: UpdateRecord, pack: Pack) -> None:
    """Record as live what the core has applied though no record says so (a state was lost).

    :raises KsplicedError: what of it is live cannot be told.
    """
    known = store.state.newest(lambda r: r.digest == record.digest and r.stage is Stage.LIVE)
    if known is None:
        pauses = (u.pause_us for u in context.kernel.updates() if u.name == record.update)
        adopted = _live(context, record, next(pauses, 0))
        _replace_others(store, adopted)
        widen(context, store, adopted, pack)


def retire_others(context: Context, store: Store, running: KernelId) -> tuple[UpdateRecord, ...]:
    """Retire the updates of kernels that do not run, and remove their packs; returns them."""
    state = store.state
    retired = []
    for record in state.history:
        if record.kernel != running and record.stage is not Stage.RETIRED:
            changed = replace(record, stage=Stage.RETIRED)
            state = state.change(record, changed)
            retired.append(changed)
    store.save(state)
    if retired:
        store.prune()
    for record in retired:
        context.journal.send(
            Event.RETIRED,
            f"{running.release} runs: the update of {record.kernel.release} is retired",
            Facts(update=record.update, from_=record.kernel.version, to=record.to_version),
        )
    return tuple(retired)


def _replace_others(store: Store, live: UpdateRecord) -> None:
    """Record ``live``, and in the same write that it took the place of what was live before."""
    state = store.state
    for record in state.history:
        if record.stage in (Stage.LIVE, Stage.UNDOING) and record.digest != live.digest:
            state = state.change(record, replace(record, stage=Stage.REPLACED))
    store.save(replace(state.put(live), problem=None))
    store.prune()


def unload_leftovers(context: Context) -> None:
    """Remove update modules that were never applied. All others stay until the reboot, as the
    kernel may have kept an address inside them (docs/engine.md, "Memory that stays")."""
    for update in context.kernel.updates():
        if update.stage is CoreStage.PREPARING:
            _unload_quietly(context, update.module)


def _unload_quietly(context: Context, name: str) -> None:
    """Unload a module; one that the kernel still holds stays, harmless, until the reboot."""
    try:
        context.kernel.unload(name)
    except KsplicedError as error:
        context.journal.send(
            Event.LEFT_LOADED, f"{name} stays loaded: {error.message}", Facts(update=name)
        )
