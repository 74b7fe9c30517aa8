# SPDX-License-Identifier: GPL-2.0-or-later
"""The transactions, on a machine whose edges are fakes."""

from __future__ import annotations

import fcntl
import json
from dataclasses import replace
from pathlib import Path

import pytest

from kspliced.engine import transactions
from kspliced.engine.edges import CoreStage
from kspliced.engine.journal import Event
from kspliced.engine.queue import pending
from kspliced.engine.state import Stage, load_state
from kspliced.engine.status import StatusState, Verdict, current_status, status_json
from kspliced.errors import Code, ExitCode, KernelError, KsplicedError, MatchError
from kspliced.model import KernelId
from tests.unit.engine.fakes import (
    NEWER,
    NEWEST,
    RUNNING,
    UPDATE,
    Machine,
    fails,
    leave_request,
    manifest,
    pack_content,
)


def test_an_upgrade_goes_live(machine: Machine) -> None:
    leave_request(machine)
    outcome = transactions.upgrade(machine.context)
    assert (outcome.action, outcome.functions, outcome.pause_us) == ("live", 2, 1180)
    assert machine.kernel.loaded == {UPDATE: CoreStage.APPLIED}
    assert not pending(machine.paths)
    (record,) = load_state(machine.paths).history
    assert record.stage is Stage.LIVE and record.wanted and record.problem is None
    assert machine.paths.pack(record.digest).exists()
    assert machine.journal.events() == [Event.BUILT, Event.LIVE]
    fractions = [step.fraction for step in machine.steps]
    assert fractions == sorted(fractions)


def test_status_of_a_live_upgrade(machine: Machine) -> None:
    transactions.upgrade(machine.context)
    value = status_json(current_status(machine.paths))
    assert value["running"] == "6.1.192-1" and value["effective"] == "6.1.192-2"
    assert value["installed"] == "6.1.192-2" and value["state"] == "live"
    assert value["update"]["summary"] == "1 of 1 change live"
    assert value["update"]["pause_us"] == 1180
    assert value["update"]["entries"][0]["bugs"] == ["1140001"]
    assert value["reboot_required"] == {"verdict": "no", "reasons": []}
    json.dumps(value)


def test_nothing_to_do_twice(machine: Machine) -> None:
    transactions.upgrade(machine.context)
    assert "live already" in fails(machine, Code.NOTHING_TO_DO).message
    assert len(machine.builder.orders) == 1


def test_the_newest_kernel_runs(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    leave_request(machine)
    error = fails(machine, Code.NOTHING_TO_DO)
    assert error.exit_code is ExitCode.NOTHING_TO_DO
    assert not pending(machine.paths)
    assert current_status(machine.paths).state is StatusState.IDLE


@pytest.mark.parametrize("release", ["6.1.0-56-cloud-amd64", "6.1.0-56-rt-amd64"])
def test_another_flavour_is_no_upgrade(tmp_path: Path, release: str) -> None:
    machine = Machine(tmp_path, replace(NEWER, release=release))
    fails(machine, Code.NOTHING_TO_DO)


def test_another_series_needs_a_reboot(tmp_path: Path) -> None:
    machine = Machine(tmp_path, KernelId("6.12.94+deb13-amd64", "6.12.94-1", "x86_64"))
    fails(machine, Code.NOTHING_TO_DO)
    verdict = current_status(machine.paths).reboot_required
    assert verdict.verdict is Verdict.YES and verdict.reasons[0].code == "other_series"


def test_a_later_kernel_replaces_the_update(machine: Machine) -> None:
    transactions.upgrade(machine.context)
    first = load_state(machine.paths).history[0]
    machine.install(RUNNING, NEWER, NEWEST)
    transactions.upgrade(machine.context)
    old, new = load_state(machine.paths).history
    assert (old.stage, new.stage) == (Stage.REPLACED, Stage.LIVE)
    assert machine.kernel.applied == {new.update}
    assert not machine.paths.pack(first.digest).exists()
    assert current_status(machine.paths).effective == NEWEST.version


def test_undo_and_apply(machine: Machine) -> None:
    transactions.upgrade(machine.context)
    assert transactions.undo(machine.context).action == "undone"
    assert machine.kernel.applied == set()
    status = current_status(machine.paths)
    assert status.state is StatusState.UNDONE and status.effective == RUNNING.version
    assert status.reboot_required.verdict is Verdict.YES
    leave_request(machine)
    assert "undone" in fails(machine, Code.NOTHING_TO_DO).message
    transactions.apply(machine.context, None)
    assert current_status(machine.paths).state is StatusState.LIVE
    assert len(machine.builder.orders) == 1


def test_a_plan_applies_nothing_and_its_pack_is_the_one_applied(machine: Machine) -> None:
    planned = transactions.plan(machine.context)
    assert planned.action == "planned"
    assert machine.kernel.loaded == {}
    assert current_status(machine.paths).effective == RUNNING.version
    assert transactions.upgrade(machine.context).digest == planned.digest
    assert len(machine.builder.orders) == 1
    with pytest.raises(KsplicedError) as caught:
        transactions.plan(machine.context)
    assert caught.value.code is Code.NOTHING_TO_DO


def test_undo_without_an_update(machine: Machine) -> None:
    with pytest.raises(KsplicedError) as caught:
        transactions.undo(machine.context)
    assert caught.value.code is Code.NO_UPDATE


def test_an_undo_that_stays_busy_leaves_it_live(machine: Machine) -> None:
    transactions.upgrade(machine.context)
    machine.kernel.busy = 10_000
    with pytest.raises(KsplicedError) as caught:
        transactions.undo(machine.context)
    assert caught.value.code is Code.CODE_BUSY
    (record,) = load_state(machine.paths).history
    assert record.stage is Stage.LIVE and record.wanted
    status = current_status(machine.paths)
    assert status.state is StatusState.LIVE
    assert status.update is not None and status.update.problem is not None
    assert "pid 4711" in status.update.problem.details[0]


def test_busy_code_is_retried(machine: Machine) -> None:
    machine.kernel.busy = 5
    transactions.upgrade(machine.context)
    assert machine.kernel.calls.count(f"apply {UPDATE}") == 6
    assert any("dd (pid 4711)" in step.message for step in machine.steps)


def test_who_stays_is_asked_to_leave(machine: Machine) -> None:
    """Politeness first, then nudges; the journal says who was asked, once."""
    machine.kernel.busy, machine.kernel.stubborn = 10_000, 5
    transactions.upgrade(machine.context)
    calls = [call for call in machine.kernel.calls if call.split()[0] in ("apply", "nudge")]
    first = calls.index(f"nudge {UPDATE}")
    assert first >= 5, "attempts that leave the threads alone"
    assert calls.count(f"nudge {UPDATE}") == 5
    # A nudge is of use for what was in the way just now, and an attempt has to follow at once.
    for before, nudge, after in zip(calls, calls[1:], calls[2:], strict=False):
        if nudge == f"nudge {UPDATE}":
            assert before == after == f"apply {UPDATE}"
    (told,) = [entry for entry in machine.journal.entries if entry[0] is Event.NUDGED]
    assert "pid 4711" in told[1] and told[2].update == UPDATE


def test_no_undo_nudges_before_it_was_polite(machine: Machine) -> None:
    transactions.upgrade(machine.context)
    machine.kernel.busy = 3
    transactions.undo(machine.context)
    assert f"nudge {UPDATE}" not in machine.kernel.calls
    assert Event.NUDGED not in machine.journal.events()


def test_busy_code_ends_after_a_minute_and_the_request_waits(machine: Machine) -> None:
    leave_request(machine)
    machine.kernel.busy = 10_000
    start = machine.clock.time
    error = fails(machine, Code.CODE_BUSY)
    assert error.exit_code is ExitCode.BUSY and "pid 4711" in error.details[0]
    assert 30 < machine.clock.time - start <= 61
    attempts = machine.kernel.calls.count(f"apply {UPDATE}")
    nudges = machine.kernel.calls.count(f"nudge {UPDATE}")
    assert attempts == len(list(machine.context.backoff.tries())) + 1 and nudges > 10
    assert f"({attempts} attempts, asked to leave {nudges} times)" in error.message
    assert f"attempt {attempts - 1} of at most {attempts}, " in machine.steps[-1].message
    assert "pid 4711" in machine.journal.entries[-1][1]
    problem = current_status(machine.paths).update.problem  # type: ignore[union-attr]
    assert problem is not None and problem.details == error.details
    assert machine.kernel.loaded == {}
    assert not pending(machine.paths)
    transactions.fetch(machine.context)
    assert pending(machine.paths)
    machine.kernel.busy = 0
    transactions.upgrade(machine.context)
    assert len(machine.builder.orders) == 1 and not pending(machine.paths)


def test_an_upgrade_answers_deferred_requests_too(machine: Machine) -> None:
    leave_request(machine)
    machine.kernel.busy = 10_000
    fails(machine, Code.CODE_BUSY)
    machine.kernel.busy = 0
    transactions.upgrade(machine.context)
    transactions.fetch(machine.context)
    assert not pending(machine.paths)


def test_cancel_while_waiting_changes_nothing(machine: Machine) -> None:
    leave_request(machine)
    machine.kernel.busy = 10_000

    def sleep(seconds: float) -> None:
        machine.cancel.wanted = True

    machine.clock.sleep = sleep  # type: ignore[method-assign]
    fails(machine, Code.CANCELLED)
    (record,) = load_state(machine.paths).history
    assert record.stage is Stage.BUILT and machine.kernel.loaded == {}


@pytest.mark.parametrize(
    "error",
    [
        KernelError(Code.CORE_NOT_LOADED, "the core is not loaded", "install kspliced-dkms"),
        KernelError(Code.CORE_ABI, "the core has ABI 2", "reboot"),
    ],
)
def test_no_core(machine: Machine, error: KsplicedError) -> None:
    machine.kernel.core_error = error
    fails(machine, error.code)
    (record,) = load_state(machine.paths).history
    assert record.stage is Stage.FAILED and record.problem is not None
    assert record.problem.remedy == error.remedy
    reasons = current_status(machine.paths).reboot_required.reasons
    assert [reason.code for reason in reasons] == [error.code.value]
    machine.kernel.core_error = None
    transactions.upgrade(machine.context)
    assert len(machine.builder.orders) == 1


def test_no_match_is_reported_and_nothing_is_loaded(machine: Machine) -> None:
    machine.kernel.link_error = MatchError(Code.NO_MATCH, "byte 5 differs", "", ("evidence",))
    error = fails(machine, Code.NO_MATCH)
    assert error.exit_code is ExitCode.REFUSED and error.details == ("evidence",)
    assert not any(call.startswith("load") for call in machine.kernel.calls)
    assert machine.journal.events()[-1] is Event.NO_MATCH
    assert current_status(machine.paths).state is StatusState.FAILED


def test_a_pack_of_another_kernel(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "other.kspack"
    file.write_bytes(pack_content(replace(manifest(), kernel=NEWER)))
    with pytest.raises(KsplicedError) as caught:
        transactions.apply(machine.context, file)
    assert caught.value.code is Code.PACK_OTHER_KERNEL
    assert caught.value.exit_code is ExitCode.REFUSED
    assert not machine.paths.packs.exists()


def test_apply_a_pack_from_a_file(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "update.kspack"
    file.write_bytes(pack_content(manifest()))
    assert transactions.apply(machine.context, file).action == "live"
    with pytest.raises(KsplicedError) as caught:
        transactions.apply(machine.context, file)
    assert caught.value.code is Code.NOTHING_TO_DO
    assert machine.builder.orders == []


def test_a_kept_pack_that_was_damaged_is_built_again(machine: Machine) -> None:
    transactions.upgrade(machine.context)
    transactions.undo(machine.context)
    (record,) = load_state(machine.paths).history
    pack = machine.paths.pack(record.digest)
    pack.write_bytes(pack.read_bytes()[:-1])
    transactions.apply(machine.context, None)
    assert len(machine.builder.orders) == 2
    assert machine.kernel.loaded == {UPDATE: CoreStage.APPLIED}
    assert Event.BAD_FILE in machine.journal.events()


def test_requests_coalesce_and_bad_ones_are_kept_aside(machine: Machine) -> None:
    leave_request(machine, "a")
    leave_request(machine, "b")
    bad = leave_request(machine, "c", '{"schema":1,"source"')
    transactions.upgrade(machine.context)
    assert len(machine.builder.orders) == 1
    assert not bad.exists() and (machine.paths.aside / "c.json").exists()
    assert Event.BAD_FILE in machine.journal.events()


def test_a_source_that_is_not_there_is_tried_again_later(machine: Machine) -> None:
    leave_request(machine)
    machine.fetcher.error = KsplicedError(Code.SOURCE_UNAVAILABLE, "no", "run `apt update`")
    fails(machine, Code.SOURCE_UNAVAILABLE)
    assert not pending(machine.paths)
    with pytest.raises(KsplicedError):
        transactions.fetch(machine.context)
    assert pending(machine.paths)


def test_only_one_worker(machine: Machine) -> None:
    machine.paths.run.mkdir(parents=True)
    with machine.paths.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        error = fails(machine, Code.BUSY)
    assert error.exit_code is ExitCode.BUSY
    assert not machine.paths.state.exists()


def test_switched_off(machine: Machine) -> None:
    machine.boot(RUNNING, "quiet kspliced=off")
    leave_request(machine)
    fails(machine, Code.SWITCHED_OFF)
    assert current_status(machine.paths).state is StatusState.SWITCHED_OFF
    assert machine.builder.orders == []


def test_status_asks_the_core(machine: Machine) -> None:
    transactions.upgrade(machine.context)
    machine.kernel.reverse(UPDATE)
    status = current_status(machine.paths)
    assert not status.live and status.effective == RUNNING.version
    assert status.state is StatusState.FAILED
    assert status.reboot_required.verdict is Verdict.YES
    transactions.upgrade(machine.context)
    assert current_status(machine.paths).state is StatusState.LIVE


def test_a_malformed_state_is_kept_aside_and_shown(machine: Machine) -> None:
    machine.paths.lib.mkdir(parents=True)
    machine.paths.state.write_text("{}")
    status = current_status(machine.paths)
    assert status.problem is not None and status.problem.code is Code.STATE_MALFORMED
    transactions.upgrade(machine.context)
    assert (machine.paths.aside / "state.json").read_text() == "{}"
    assert current_status(machine.paths).state is StatusState.LIVE


def test_build_only(machine: Machine) -> None:
    assert transactions.build(machine.context).action == "built"
    assert machine.kernel.calls == []
    assert current_status(machine.paths).state is StatusState.PENDING
    transactions.upgrade(machine.context)
    assert len(machine.builder.orders) == 1


def test_a_live_update_whose_record_was_lost(machine: Machine) -> None:
    transactions.upgrade(machine.context)
    before = load_state(machine.paths)
    machine.paths.state.unlink()
    assert "live already" in fails(machine, Code.NOTHING_TO_DO).message
    assert load_state(machine.paths).history == before.history
    assert machine.kernel.calls.count(f"apply {UPDATE}") == 1
