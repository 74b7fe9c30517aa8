# SPDX-License-Identifier: GPL-2.0-or-later
"""Boot replay and its guard, over reboots and power cuts."""

from __future__ import annotations

import fcntl
from dataclasses import replace

import pytest

from kspliced.engine import transactions
from kspliced.engine.edges import CoreStage
from kspliced.engine.journal import Event
from kspliced.engine.replay import healthy, replay, stopped
from kspliced.engine.state import Guard, Stage, State, load_state, save_state
from kspliced.engine.status import StatusState, Verdict, current_status
from kspliced.errors import Code, KernelError, KsplicedError
from tests.unit.engine.fakes import NEWER, RUNNING, UPDATE, Machine

LIVE = {UPDATE: CoreStage.APPLIED}


@pytest.fixture
def live(machine: Machine) -> Machine:
    """A machine with a live update."""
    transactions.upgrade(machine.context)
    return machine


def set_stage(machine: Machine, stage: Stage) -> None:
    """What a power cut leaves when it comes in the middle of a switch."""
    state = load_state(machine.paths)
    history = (*state.history[:-1], replace(state.history[-1], stage=stage))
    save_state(machine.paths, replace(state, history=history))


def trips(machine: Machine) -> KsplicedError:
    with pytest.raises(KsplicedError) as caught:
        replay(machine.context)
    assert caught.value.code is Code.BOOT_LOOP
    assert machine.kernel.loaded == {}
    return caught.value


def test_the_same_kernel_again(live: Machine) -> None:
    live.boot(RUNNING)
    assert current_status(live.paths).state is StatusState.FAILED
    assert replay(live.context).action == "replayed"
    assert live.kernel.loaded == LIVE
    assert live.journal.events()[-1] is Event.REPLAYED
    assert current_status(live.paths).state is StatusState.LIVE
    assert len(live.builder.orders) == 1


def test_nothing_to_replay(machine: Machine) -> None:
    assert replay(machine.context).action == "nothing"
    assert load_state(machine.paths) == State()


def test_many_healthy_boots(live: Machine) -> None:
    for _ in range(3):
        live.boot(RUNNING)
        replay(live.context)
        assert healthy(live.context).action == "healthy"
        assert live.kernel.loaded == LIVE


def test_an_early_shutdown_in_order_is_no_crash(live: Machine) -> None:
    for _ in range(3):
        live.boot(RUNNING)
        assert replay(live.context).action == "replayed"
        assert stopped(live.context).action == "stopped"
    # But not for ever: the update may be what makes something reboot the machine.
    live.boot(RUNNING)
    replay(live.context)
    stopped(live.context)
    live.boot(RUNNING)
    trips(live)
    # A tripped guard stays so.
    assert stopped(live.context).action == "nothing"
    live.boot(RUNNING)
    trips(live)


def test_early_shutdowns_count_only_in_a_row(live: Machine) -> None:
    for _ in range(3):
        for early in (True, True, False):
            live.boot(RUNNING)
            assert replay(live.context).action == "replayed"
            (stopped if early else healthy)(live.context)


def test_a_shutdown_of_another_boot_says_nothing(live: Machine) -> None:
    live.boot(RUNNING)
    replay(live.context)
    stopped(live.context)
    live.boot(RUNNING)
    replay(live.context)
    live.boot(RUNNING)
    trips(live)


def test_a_boot_that_never_became_healthy(live: Machine) -> None:
    live.boot(RUNNING)
    replay(live.context)
    live.boot(RUNNING)
    assert "kspliced apply" in trips(live).remedy
    assert live.journal.events()[-1] is Event.BOOT_LOOP
    status = current_status(live.paths)
    assert status.state is StatusState.FAILED and not status.live
    assert status.reboot_required.reasons[0].code == "boot_loop"
    # It stays so, even if this boot is marked healthy, until an administrator says otherwise.
    healthy(live.context)
    live.boot(RUNNING)
    trips(live)
    with pytest.raises(KsplicedError) as caught:
        transactions.upgrade(live.context)
    assert caught.value.code is Code.BOOT_LOOP
    transactions.apply(live.context, None)
    assert live.kernel.loaded == LIVE
    live.boot(RUNNING)
    assert replay(live.context).action == "replayed"


def test_a_long_job_does_not_keep_a_boot_from_becoming_healthy(live: Machine) -> None:
    live.boot(RUNNING)
    replay(live.context)
    with live.paths.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert healthy(live.context).action == "healthy"
    live.boot(RUNNING)
    assert replay(live.context).action == "replayed"


def test_the_mark_of_another_boot_does_not_count(live: Machine) -> None:
    live.boot(RUNNING)
    replay(live.context)
    healthy(live.context)
    live.boot(RUNNING)
    replay(live.context)
    live.boot(RUNNING)
    trips(live)


def test_the_guard_is_durable_before_the_switch(live: Machine) -> None:
    live.boot(RUNNING)
    seen = []

    def apply(name: str) -> int:
        state = load_state(live.paths)
        assert state.guard is not None
        seen.append((state.guard.guard, state.guard.boot_id, state.history[-1].stage))
        return 1

    live.kernel.apply = apply  # type: ignore[method-assign]
    replay(live.context)
    assert seen == [(Guard.REPLAYING, "boot-2", Stage.APPLYING)]


def test_a_second_replay_in_one_boot_is_no_loop(live: Machine) -> None:
    live.boot(RUNNING)
    replay(live.context)
    live.kernel.reverse(UPDATE)
    assert replay(live.context).action == "replayed"
    assert replay(live.context).action == "nothing"


def test_switched_off(live: Machine) -> None:
    live.boot(RUNNING, "ro kspliced=off quiet")
    assert replay(live.context).action == "nothing"
    assert live.kernel.loaded == {}
    status = current_status(live.paths)
    assert status.state is StatusState.SWITCHED_OFF
    assert status.reboot_required.verdict is Verdict.YES
    live.boot(RUNNING, "ro kspliced=offline")
    assert replay(live.context).action == "replayed"


def test_another_kernel_retires_the_packs(live: Machine) -> None:
    live.boot(NEWER)
    assert replay(live.context).action == "retired"
    assert list(live.paths.packs.iterdir()) == []
    assert live.journal.events()[-1] is Event.RETIRED
    status = current_status(live.paths)
    assert status.state is StatusState.RETIRED and status.effective == NEWER.version
    assert status.reboot_required.verdict is Verdict.NO
    assert live.kernel.loaded == {}
    # Back on the old kernel there is nothing to replay, but it can be built again.
    live.boot(RUNNING)
    assert replay(live.context).action == "nothing"
    transactions.upgrade(live.context)
    assert live.kernel.loaded == LIVE


def test_what_was_undone_is_not_replayed(live: Machine) -> None:
    transactions.undo(live.context)
    live.boot(RUNNING)
    assert replay(live.context).action == "nothing"
    assert current_status(live.paths).state is StatusState.UNDONE


def test_a_power_cut_during_undo_stays_undone(live: Machine) -> None:
    state = load_state(live.paths)
    undoing = replace(state.history[-1], stage=Stage.UNDOING, wanted=False)
    save_state(live.paths, replace(state, history=(undoing,)))
    live.boot(RUNNING)
    assert replay(live.context).action == "nothing"
    assert load_state(live.paths).history[-1].stage is Stage.UNDONE


def test_a_power_cut_during_the_switch_is_not_tried_again(live: Machine) -> None:
    set_stage(live, Stage.APPLYING)
    live.boot(RUNNING)
    assert replay(live.context).action == "nothing"
    assert live.kernel.loaded == {}
    with pytest.raises(KsplicedError) as caught:
        transactions.upgrade(live.context)
    assert caught.value.code is Code.BOOT_LOOP
    transactions.apply(live.context, None)
    assert live.kernel.loaded == LIVE


def test_a_worker_killed_after_the_switch(live: Machine) -> None:
    set_stage(live, Stage.APPLYING)
    with pytest.raises(KsplicedError) as caught:
        transactions.upgrade(live.context)
    assert caught.value.code is Code.NOTHING_TO_DO
    (record,) = load_state(live.paths).history
    assert record.stage is Stage.LIVE and record.pause_us == 1180


def test_a_worker_killed_before_the_switch(live: Machine) -> None:
    set_stage(live, Stage.APPLYING)
    live.kernel.reverse(UPDATE)
    transactions.upgrade(live.context)
    assert live.kernel.loaded == LIVE


def test_a_core_that_was_missing_at_one_boot(live: Machine) -> None:
    live.boot(RUNNING)
    live.kernel.core_error = KernelError(Code.CORE_NOT_LOADED, "no core", "install it")
    with pytest.raises(KsplicedError):
        replay(live.context)
    healthy(live.context)
    assert current_status(live.paths).state is StatusState.FAILED
    live.kernel.core_error = None
    live.boot(RUNNING)
    assert replay(live.context).action == "replayed"


def test_a_damaged_pack_is_not_applied(live: Machine) -> None:
    (record,) = load_state(live.paths).history
    live.paths.pack(record.digest).write_bytes(b"KSPLPACK")
    live.boot(RUNNING)
    with pytest.raises(KsplicedError) as caught:
        replay(live.context)
    assert caught.value.code is Code.PACK_MALFORMED
    assert live.kernel.loaded == {}


def test_the_pack_of_another_update_under_its_name(live: Machine) -> None:
    (record,) = load_state(live.paths).history
    live.builder.new = True
    other = live.builder.build(live.builder.orders[-1], live.context.job)
    assert other.content is not None
    live.paths.pack(record.digest).write_bytes(other.content)
    live.boot(RUNNING)
    with pytest.raises(KsplicedError) as caught:
        replay(live.context)
    assert caught.value.code is Code.PACK_MALFORMED


def test_a_pack_that_no_kernel_package_asked_for(live: Machine) -> None:
    """The newer kernel package is gone, or the pack came from elsewhere."""
    live.install(RUNNING)
    status = current_status(live.paths)
    assert status.state is StatusState.LIVE and status.effective == NEWER.version
    assert status.reboot_required.verdict is Verdict.NO
    live.boot(RUNNING)
    replay(live.context)
    live.boot(RUNNING)
    trips(live)
    status = current_status(live.paths)
    assert status.state is StatusState.FAILED and status.effective == RUNNING.version
    assert status.reboot_required.verdict is Verdict.NO
    assert status.problem is not None and status.problem.code is Code.BOOT_LOOP


def test_a_success_forgets_an_older_failure(live: Machine) -> None:
    live.fetcher.error = KsplicedError(Code.SOURCE_UNAVAILABLE, "no network")
    with pytest.raises(KsplicedError):
        transactions.fetch(live.context)
    assert current_status(live.paths).problem is None
    live.kernel.busy = 10_000
    with pytest.raises(KsplicedError):
        transactions.undo(live.context)
    assert current_status(live.paths).problem is not None
    live.kernel.busy = 0
    transactions.undo(live.context)
    assert current_status(live.paths).problem is None
