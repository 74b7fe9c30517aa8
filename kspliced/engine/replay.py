# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot replay: apply again what was live, unless another kernel or the last boot says no.

What is about to be replayed is durable before it is tried. If the machine then dies before the
`healthy` mark, the next boot finds that and does not try again (the boot-loop guard), unless it
was shut down in order.
"""

from __future__ import annotations

from dataclasses import replace

from kspliced.engine.edges import Context
from kspliced.engine.files import read_regular, write_durably
from kspliced.engine.journal import Event, Facts
from kspliced.engine.kernels import boot_id, running_kernel, switched_off
from kspliced.engine.policy import refuse_danger, replayable
from kspliced.engine.preconditions import SWITCHING, require
from kspliced.engine.state import Guard, ReplayGuard, Stage, UpdateRecord, load_state
from kspliced.engine.store import Store, check_kernel
from kspliced.engine.switch import Outcome, applied_names, outcome_of, retire_others, switch
from kspliced.engine.transactions import transaction, waits
from kspliced.oserror import translated

_WAIT_SECONDS = 10.0
_MAX_BOOT_ID = 64
# Boots in a row that may be shut down before they are healthy.
_EARLY_STOPS = 3


def replay(context: Context) -> Outcome:
    """Apply the update of this kernel again, early in the boot.

    :raises KsplicedError: BOOT_LOOP; any failure of a switch: the machine then runs its own code.
    """
    if switched_off(context.paths):
        text = "kspliced=off is on the kernel command line: nothing is replayed"
        context.journal.send(Event.SWITCHED_OFF, text)
        return Outcome("nothing", text)
    with transaction(context, "replay", _WAIT_SECONDS) as store:
        running = running_kernel(context.paths)
        retired = retire_others(context, store, running)
        record = replayable(store.state, running)
        if record is None:
            if retired:
                return outcome_of("retired", f"{running.release} was booted", retired[-1])
            return Outcome("nothing", "no update of this kernel is to be replayed")
        if record.update in applied_names(context):
            return outcome_of("nothing", "the update is live already", record)
        require(context.paths, SWITCHING)
        _arm(context, store)
        pack = store.load_pack(record.digest)
        check_kernel(pack, running)
        live = switch(context, store, record, pack)
        if live.stage is not Stage.LIVE:
            return waits(context, live)
        _tell(context, live)
        return outcome_of("replayed", f"the changes up to {live.to_version} are live", live)


def healthy(context: Context) -> Outcome:
    """Mark this boot as healthy: what it replayed may be replayed again. Takes no lock.

    :raises KsplicedError: KERNEL_UNREADABLE, STATE_MALFORMED, IO, NO_SPACE.
    """
    guard = load_state(context.paths).guard
    boot = boot_id(context.paths)
    if guard is None or guard.boot_id != boot:
        return Outcome("nothing", "this boot replayed nothing")
    with translated():
        write_durably(context.paths.healthy, f"{boot}\n".encode("ascii"))
        context.paths.stopped.unlink(missing_ok=True)
    return Outcome("healthy", "this boot is healthy")


def stopped(context: Context) -> Outcome:
    """Mark that this boot ends in order before it could become healthy: that is no crash.

    But an update may break what reboots the machine when it fails, so only some boots in a row
    may end like that. Takes no lock.

    :raises KsplicedError: KERNEL_UNREADABLE, STATE_MALFORMED, IO, NO_SPACE.
    """
    guard = load_state(context.paths).guard
    boot = boot_id(context.paths)
    replaying = guard is not None and guard.guard is Guard.REPLAYING and guard.boot_id == boot
    if not replaying or _became_healthy(context, boot):
        return Outcome("nothing", "this boot replayed nothing that is in doubt")
    _, count = _last_stop(context)
    with translated():
        write_durably(context.paths.stopped, f"{boot} {count + 1}\n".encode("ascii"))
    return Outcome("stopped", f"{count + 1} boots in a row ended in order, but early")


def _last_stop(context: Context) -> tuple[str, int]:
    """The boot that ended in order but early last, and which in a row it was."""
    try:
        boot, count = read_regular(context.paths.stopped, _MAX_BOOT_ID + 8).decode().split()
        return boot, int(count)
    except (OSError, ValueError):
        return "", 0


def _stopped_in_order(context: Context, boot: str) -> bool:
    last, count = _last_stop(context)
    return last == boot and count <= _EARLY_STOPS


def _became_healthy(context: Context, boot: str) -> bool:
    try:
        return read_regular(context.paths.healthy, _MAX_BOOT_ID).strip() == boot.encode()
    except OSError:
        return False  # in doubt it did not


def _arm(context: Context, store: Store) -> None:
    """Record that this boot replays.

    :raises StateError: BOOT_LOOP when the boot that did so last never became healthy.
    """
    boot = boot_id(context.paths)
    guard = store.state.guard
    earlier = guard is not None and guard.guard is Guard.REPLAYING and guard.boot_id != boot
    if guard is not None and earlier:
        ended = guard.boot_id
        if not (_became_healthy(context, ended) or _stopped_in_order(context, ended)):
            store.save(replace(store.state, guard=ReplayGuard(ended, Guard.TRIPPED)))
    refuse_danger(store.state, None)
    store.save(replace(store.state, guard=ReplayGuard(boot, Guard.REPLAYING)))


def _tell(context: Context, live: UpdateRecord) -> None:
    context.journal.send(
        Event.REPLAYED,
        f"{len(live.functions)} functions of {live.kernel.version} have the code of "
        f"{live.to_version} again; the CPUs were held for {live.pause_us} µs",
        Facts(
            update=live.update,
            from_=live.kernel.version,
            to=live.to_version,
            pause_us=str(live.pause_us),
        ),
    )
