# SPDX-License-Identifier: GPL-2.0-or-later
"""The jobs: upgrade, build, apply, undo, fetch, match. One at a time, under the lock.

Each returns an Outcome or raises a KsplicedError; either way what happened is durable first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from kspliced import __version__, limits
from kspliced.engine import queue
from kspliced.engine.edges import Context
from kspliced.engine.files import read_regular
from kspliced.engine.journal import Event, Facts
from kspliced.engine.kernels import (
    installed_kernels,
    running_kernel,
    switched_off,
)
from kspliced.engine.left_out import without
from kspliced.engine.policy import APPLY_ANYWAY, Action, Decision, blamed_units, decide
from kspliced.engine.preconditions import BUILDING, SWITCHING, WRITING, container, require
from kspliced.engine.resident import require_room
from kspliced.engine.state import Stage, UpdateRecord, blank_record
from kspliced.engine.store import Store, check_kernel, opened, record_of
from kspliced.engine.switch import (
    Outcome,
    adopt,
    applied_names,
    outcome_of,
    recover,
    retire_others,
    switch,
    switch_back,
)
from kspliced.engine.switch import widen as widen_live
from kspliced.engine.versions import compare_versions
from kspliced.errors import Code, KsplicedError, PackError, StateError
from kspliced.model import KernelId
from kspliced.oserror import translate, translated
from kspliced.pack import Pack, pack_bytes, read_pack

FETCH = "fetch"
# Nothing is wrong: there is no kernel here that we are to look after.
_NOT_OURS = (Code.FOREIGN_KERNEL, Code.CONTAINER)


def upgrade(context: Context) -> Outcome:
    """Make the newest installed kernel's changes live, for all queued requests at once.

    :raises KsplicedError: NOTHING_TO_DO; REFUSED when no change can go live; any other failure.
    """
    requests = queue.Queue((), ())
    with translated():
        try:
            with transaction(context, "upgrade") as store:
                requests = _take_requests(context)
                outcome = _upgrade(context, store, insisting=False)
        except KsplicedError as error:
            # The result is durable by now; only then may its requests go.
            if error.transient:
                queue.defer(context.paths, requests)
            else:
                queue.discard(context.paths, requests)
            raise
        queue.discard(context.paths, requests)
    return outcome


def build(context: Context) -> Outcome:
    """Build and keep the pack for the newest installed kernel without applying it.

    :raises KsplicedError: as upgrade().
    """
    with transaction(context, "build") as store:
        running, newest = _survey(context, store)
        if compare_versions(newest.version, running.version, running) <= 0:
            raise _nothing(f"the newest installed kernel, {running.version}, runs")
        record, _ = _build(context, store, running, newest)
        return outcome_of("built", f"built the update to {record.to_version}", record)


def plan(context: Context) -> Outcome:
    """What :func:`apply` would do, tried up to the switch: build, match and link, but load nothing.

    The pack is kept, so that what was planned is what is applied.

    :raises KsplicedError: as upgrade().
    """
    with transaction(context, "plan") as store:
        running, newest = _survey(context, store)
        applied = applied_names(context)
        decision = decide(store.state, running, newest, applied, __version__, insist=True)
        if decision.action is Action.NOTHING:
            raise _nothing(decision.reason)
        require(context.paths, SWITCHING)
        pack, record = _pack_of(context, store, decision, running, newest)
        context.job.at("match", 0.8, "comparing with the running kernel")
        context.kernel.link(pack, context.job.part(0.8, 1.0))
        message = f"{len(record.functions)} functions can go live to bring {record.to_version}"
        return outcome_of("planned", message, record)


def apply(context: Context, file: Path | None) -> Outcome:
    """Make a pack live: ``file``, or else what is newest, undone or blocked before included.

    :raises KsplicedError: NO_UPDATE, NOTHING_TO_DO, PACK_OTHER_KERNEL, any failure of upgrade().
    """
    with transaction(context, "apply") as store:
        _refuse_switched_off(context)
        if file is not None:
            running = running_kernel(context.paths)
            pack = store.take_pack(read_regular(file, limits.PACK_BYTES), str(file), running)
            _clear_guard(store)
            return _apply_pack(context, store, record_of(pack), pack)
        _clear_guard(store)
        running, newest = _survey(context, store)
        if compare_versions(newest.version, running.version, running) > 0:
            return _upgrade(context, store, insisting=True)
        record = store.state.newest(lambda r: r.kernel == running and store.has_pack(r))
        if record is None:
            raise StateError(
                Code.NO_UPDATE,
                f"there is no update for the running kernel {running.version}",
                "install a newer kernel package, or name a pack",
            )
        return _apply_pack(context, store, record, _reread(store, record, running))


def undo(context: Context) -> Outcome:
    """Restore the running kernel's own code; the update is not applied again unasked.

    :raises KsplicedError: NO_UPDATE when nothing is live; CODE_BUSY; NO_MATCH.
    """
    with transaction(context, "undo") as store:
        context.job.at("undo", 0.1, "restoring the kernel's own code")
        applied = applied_names(context)
        record = store.state.newest(lambda r: r.update in applied)
        if record is None:
            raise StateError(Code.NO_UPDATE, "no update is live")
        require(context.paths, WRITING)
        undone = switch_back(context, store, record)
        context.journal.send(
            Event.UNDONE,
            f"the update to {undone.to_version or 'an unknown version'} was undone",
            Facts(update=undone.update, from_=undone.kernel.version, to=undone.to_version),
        )
        return outcome_of("undone", f"the kernel is {undone.kernel.version} again", undone)


def fetch(context: Context) -> Outcome:
    """Fetch ahead what a later build will need, and drop what none will. Deferred requests of
    hooks are put back into the queue, so that the daemon tries them again.

    :raises KsplicedError: SOURCE_UNAVAILABLE, NO_SPACE, HEADERS_MISSING.
    """
    with transaction(context, FETCH) as store:
        queue.resume(context.paths)
        running, newest = _survey(context, store)
        names = context.fetcher.ahead(running, newest, context.job)
        context.journal.send(
            Event.FETCHED, f"kept: {', '.join(names)}", Facts(from_=running.version)
        )
        return Outcome("fetched", f"{len(names)} packages are kept")


def match(context: Context, file: Path) -> Outcome:
    """Match a pack against the running kernel and link it; nothing is loaded or recorded.

    :raises KsplicedError: PACK_OTHER_KERNEL, NO_MATCH, AMBIGUOUS, UNRESOLVED, ...
    """
    with translated():
        pack = read_pack(file)
        check_kernel(pack, running_kernel(context.paths))
        context.job.at("match", 0.1, "comparing with the running kernel")
        context.kernel.link(pack, context.job.part(0.1, 1.0))
        record = record_of(pack)
        return outcome_of("matched", "the running kernel is what the pack was built for", record)


@contextmanager
def transaction(context: Context, job: str, wait: float = 0.0) -> Iterator[Store]:
    """The lock, the recovery of what was interrupted, and the memory of a failure.

    :raises KsplicedError: what the block raises, OSError translated.
    """
    now = context.clock.now()
    with translated(), opened(context.paths, context.journal, now, wait) as store:
        try:
            with translated():
                recover(context, store)
                yield store
        except KsplicedError as error:
            _remember(context, store, job, error)
            raise


def _remember(context: Context, store: Store, job: str, error: KsplicedError) -> None:
    if error.code in _NOT_OURS:
        context.journal.send(Event.NOTHING, f"{job}: {error.message}", Facts(job=job))
        return
    if error.code in (Code.NOTHING_TO_DO, Code.CANCELLED):
        context.journal.send(Event.NOTHING, f"{job}: {error.message}", Facts(job=job))
        if error.code is Code.NOTHING_TO_DO:
            store.save(replace(store.state, problem=None))
        return
    events = {
        Code.CODE_BUSY: Event.BUSY,
        Code.NO_MATCH: Event.NO_MATCH,
        Code.BOOT_LOOP: Event.BOOT_LOOP,
        Code.SWITCHED_OFF: Event.SWITCHED_OFF,
    }
    problem = store.problem(error, job, context.clock.now())
    text = "\n".join((f"{job}: {error}", *error.details))
    facts = _facts(job, error)
    context.journal.send(events.get(error.code, Event.FAILED), text, facts)
    if job == FETCH:
        return  # a build that needs it will say so; until then nothing is wrong
    try:
        store.save(replace(store.state, problem=problem))
    except OSError as failed:
        # The full disk is perhaps the very failure to remember; it was in the journal first.
        context.journal.send(Event.FAILED, f"{job}: {translate(failed)}", facts)


def _facts(job: str, error: KsplicedError) -> Facts:
    code = error.code.value
    facts = Facts(job=job, code=code, remedy=error.remedy)
    if error.code in (Code.CODE_BUSY, Code.PROBED, Code.REDIRECTED):
        return replace(facts, abort_cause=code)
    if error.code is Code.NO_MATCH:
        # Whoever raised it has paid for this import.
        from kspliced.match.report import NoMatchError

        if isinstance(error, NoMatchError) and error.mismatches:
            first = error.mismatches[0]
            facts = replace(facts, unit=first.unit, symbol=first.function)
        return replace(facts, abort_cause=code)
    return facts


def _upgrade(context: Context, store: Store, insisting: bool) -> Outcome:
    _refuse_switched_off(context)
    context.job.at("prepare", 0.0, "looking at the installed kernels")
    running, newest = _survey(context, store)
    decision = decide(store.state, running, newest, applied_names(context), __version__, insisting)
    if decision.action is Action.NOTHING:
        raise _nothing(decision.reason)
    require(context.paths, SWITCHING)
    pack, record = _pack_of(context, store, decision, running, newest)
    if not (record.wanted or insisting):
        raise _nothing(f"the update to {record.to_version} was undone; {APPLY_ANYWAY}")
    while True:
        try:
            return _apply_pack(context, store, record, pack)
        except KsplicedError as error:
            record, pack = _leave_out(context, store, pack, error)


def _leave_out(
    context: Context, store: Store, pack: Pack, error: KsplicedError
) -> tuple[UpdateRecord, Pack]:
    """The update without all units that ``error`` is about, and what cannot go live without them.
    What is left is linked anew; nothing is fetched or compiled.

    :raises KsplicedError: ``error``, where it is not about some units, or nothing would be left.
    """
    blamed = blamed_units(pack.manifest, error)
    if not blamed:
        raise error
    try:
        manifest, blobs = without(pack, blamed, error.message)
    except ValueError:
        raise error from None
    content, _ = pack_bytes(manifest, blobs)
    left = store.take_pack(content, "the pack that is left", pack.manifest.kernel)
    record = record_of(left)
    store.save(replace(store.state.put(record), problem=None))
    units = ", ".join(sorted(blamed))
    text = f"going on without {units}: {error.message}"
    context.journal.send(Event.LEFT_OUT, text, _facts("upgrade", error))
    return record, left


def _pack_of(
    context: Context, store: Store, decision: Decision, running: KernelId, newest: KernelId
) -> tuple[Pack, UpdateRecord]:
    """The pack to apply: kept, or built now where what is built could be loaded, too.

    :raises KsplicedError: RESIDENT_LIMIT; as _build().
    """
    record = decision.record
    if record is not None and store.has_pack(record):
        try:
            return _reread(store, record, running), record
        except PackError as error:
            context.journal.send(Event.BAD_FILE, str(error), Facts(file=record.digest))
    require_room(context.paths, context.resident_limit, 0)
    built, pack = _build(context, store, running, newest)
    return pack, built


def _reread(store: Store, record: UpdateRecord, running: KernelId) -> Pack:
    pack = store.load_pack(record.digest)
    check_kernel(pack, running)
    return pack


def _apply_pack(context: Context, store: Store, record: UpdateRecord, pack: Pack) -> Outcome:
    if record.update in applied_names(context):
        adopt(context, store, record, pack)
        raise _nothing(f"the update to {record.to_version} is live already")
    require(context.paths, SWITCHING)
    live = switch(context, store, record, pack)
    if live.stage is not Stage.LIVE:
        return waits(context, live)
    context.journal.send(
        Event.LIVE,
        f"{len(live.functions)} functions of {live.kernel.version} now have the code of "
        f"{live.to_version}; the CPUs were held for {live.pause_us} µs",
        Facts(
            update=live.update,
            from_=live.kernel.version,
            to=live.to_version,
            pause_us=str(live.pause_us),
        ),
    )
    return outcome_of("live", f"the changes up to {live.to_version} are live", live)


def waits(context: Context, record: UpdateRecord) -> Outcome:
    """The outcome of a switch that has to wait for modules."""
    text = f"the update waits for {', '.join(record.waiting)}, and goes live when it is loaded"
    context.journal.send(Event.WAITING, text, Facts(update=record.update))
    return outcome_of("waiting", text, record)


def widen(context: Context) -> Outcome:
    """Make live what waited for modules that are loaded by now.

    :raises KsplicedError: any failure of a switch; what was live stays so.
    """
    with transaction(context, "widen") as store:
        _refuse_switched_off(context)
        running = running_kernel(context.paths)
        applied = applied_names(context)
        lost = frozenset(u.name for u in context.kernel.updates() if u.lost)

        def waiting(record: UpdateRecord) -> bool:
            wanted = record.kernel == running and record.wanted and bool(record.digest)
            wanted = wanted and (bool(record.waiting) or record.update in lost)
            return wanted and (record.update in applied or record.stage is Stage.BUILT)

        record = store.state.newest(waiting)
        if record is None or applied - {record.update}:
            return Outcome("nothing", "no update waits for a module")
        pack = _reread(store, record, running)
        if record.update not in applied:
            return _apply_pack(context, store, record, pack)
        require(context.paths, SWITCHING)
        wider = widen_live(context, store, record, pack)
        if wider.held == record.held and record.update not in lost:
            return outcome_of("nothing", "nothing of the update can go live yet", wider)
        names = sorted(set(record.waiting) - set(wider.waiting)) or ["modules that came again"]
        text = f"the code for {', '.join(names)} is live, too"
        facts = Facts(update=wider.update, from_=running.version, to=wider.to_version)
        context.journal.send(Event.WIDENED, text, facts)
        store.save(replace(store.state, problem=None))
        return outcome_of("widened", text, wider)


def _build(
    context: Context,
    store: Store,
    running: KernelId,
    newest: KernelId,
) -> tuple[UpdateRecord, Pack]:
    """Fetch, build, verify and keep the pack.

    :raises KsplicedError: REFUSED and NOTHING_TO_DO are recorded as results, all else as failures.
    """
    require(context.paths, BUILDING)
    blank = blank_record(running, newest.version)
    try:
        order = context.fetcher.order(running, newest, context.job)
        context.job.at("build", 0.2, f"building {running.version} to {newest.version}")
        built = context.builder.build(order, context.job)
        context.job.at("verify", 0.84, "verifying the pack")
        for refusal in built.refused:
            _journal_refusal(context, running, newest, refusal.code, refusal.unit, refusal.symbol)
        if built.content is None and not built.refused:
            raise _nothing(f"{newest.version} changes nothing that runs on this machine")
        if built.content is None:
            refused = replace(blank, refused=built.refused, entries=built.entries)
            store.put(replace(refused, stage=Stage.REFUSED))
            raise KsplicedError(
                Code.REFUSED,
                f"none of the changes in {newest.version} can go live",
                f"reboot into {newest.release}",
                tuple(f"{r.unit} {r.symbol}: {r.reason}" for r in built.refused),
            )
        pack = store.take_pack(built.content, "the builder's pack", running)
        if pack.manifest.to_version != newest.version:
            raise PackError(
                Code.PACK_MALFORMED,
                f"the builder made a pack to {pack.manifest.to_version}, not {newest.version}",
            )
    except KsplicedError as error:
        if error.code is Code.NOTHING_TO_DO:
            store.put(replace(blank, stage=Stage.EMPTY))
        elif error.code not in (Code.REFUSED, Code.CANCELLED):
            problem = store.problem(error, "build", context.clock.now())
            store.put(replace(blank, problem=problem))
        raise
    record = record_of(pack)
    if store.state.newest(lambda r: r.update == record.update and not (r.digest or r.wanted)):
        # It was live, and undone, while its pack was missing.
        record = replace(record, stage=Stage.UNDONE, wanted=False)
    store.save(replace(store.state.put(record), problem=None))
    context.journal.send(
        Event.BUILT,
        f"built {record.update} with {len(record.functions)} functions",
        Facts(update=record.update, from_=running.version, to=newest.version),
    )
    return record, pack


def _journal_refusal(
    context: Context, running: KernelId, newest: KernelId, code: str, unit: str, symbol: str
) -> None:
    context.journal.send(
        Event.CHANGE_REFUSED,
        f"{unit} {symbol} cannot go live: {code}",
        Facts(unit=unit, symbol=symbol, code=code, from_=running.version, to=newest.version),
    )


def _survey(context: Context, store: Store) -> tuple[KernelId, KernelId]:
    """The running and the newest installed kernel; the latter is remembered for the status.

    :raises KsplicedError: FOREIGN_KERNEL, CONTAINER: nothing here is to be upgraded.
    """
    require(context.paths, (container,))
    running = running_kernel(context.paths)
    retire_others(context, store, running)
    newest = installed_kernels(context.paths, running).newest
    store.save(replace(store.state, installed=newest.version))
    return running, newest


def _take_requests(context: Context) -> queue.Queue:
    """All requests, deferred ones too; files that are none are put aside and reported."""
    queue.resume(context.paths)
    found = queue.read_queue(context.paths)
    for bad in found.bad:
        kept = queue.put_aside(context.paths, bad)
        if kept is not None:
            text = f"{bad.file.name} in the queue is no request: {bad.reason}; kept as {kept}"
            context.journal.send(Event.BAD_FILE, text, Facts(file=str(kept)))
    return found


def _clear_guard(store: Store) -> None:
    """An administrator's apply is the word that the cause of a boot loop lay elsewhere."""
    store.save(replace(store.state, guard=None))


def _refuse_switched_off(context: Context) -> None:
    if switched_off(context.paths):
        raise StateError(
            Code.SWITCHED_OFF,
            "kspliced=off is on the kernel command line",
            "boot without it to apply updates",
        )


def _nothing(reason: str) -> KsplicedError:
    return KsplicedError(Code.NOTHING_TO_DO, reason)
