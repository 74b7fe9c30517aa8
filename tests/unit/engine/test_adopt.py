# SPDX-License-Identifier: GPL-2.0-or-later
"""A state that does not tell what is live: lost, garbled, or older than what runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from kspliced.engine import transactions
from kspliced.engine.edges import Built
from kspliced.engine.journal import Event
from kspliced.engine.replay import replay
from kspliced.engine.state import Stage, State, UpdateRecord, load_state, save_state
from kspliced.engine.status import StatusState, Verdict, current_status, known_state, status_json
from kspliced.errors import Code, KsplicedError
from kspliced.model import ChangeKind, FunctionChange, Group, Span
from kspliced.pack import read_pack
from tests.unit.engine.fakes import (
    MALLOC,
    NEWER,
    NEWEST,
    RUNNING,
    UPDATE,
    Machine,
    manifest,
    pack_content,
)

SECOND = f"{UPDATE[:-1]}0"


def group(target: str, unit: str, *functions: str) -> Group:
    spans = tuple(Span(target, unit, name, 0, 9, 4, "", 0) for name in functions)
    return Group(f"part/{unit}", (target,), (unit,), (), spans, (), (), False)


EXT4 = group("ext4", "fs/ext4/mballoc.o", "ext4_mb_init_group", MALLOC)
LATE = group("nf_tables", "net/n.o", "nft_late")


def offer(machine: Machine, *groups: Group) -> None:
    functions = tuple(
        FunctionChange(s.target, s.unit, s.symbol, ChangeKind.CHANGED, "own source")
        for g in groups
        for s in g.spans
    )
    made = replace(manifest(), functions=functions, groups=groups)
    machine.builder.result = Built(pack_content(made), functions, ())


def live(machine: Machine) -> UpdateRecord:
    """Have an update live, and its record."""
    offer(machine, EXT4)
    transactions.upgrade(machine.context)
    return load_state(machine.paths).history[-1]


def gone(machine: Machine) -> None:
    machine.paths.state.unlink()


def garbled(machine: Machine) -> None:
    machine.paths.state.write_bytes(machine.paths.state.read_bytes()[:-9] + b"\0" * 9)


def of_a_later_version(machine: Machine) -> None:
    machine.paths.state.write_text('{"schema":99}')


def old(stage: Stage, wanted: bool = True) -> Callable[[Machine], None]:
    """The state says that this update never came so far."""

    def roll_back(machine: Machine) -> None:
        state = load_state(machine.paths)
        (record,) = state.history
        before = replace(record, stage=stage, wanted=wanted, pause_us=0, applied_at=0, boot_id="")
        save_state(machine.paths, replace(state, history=(before,)))

    return roll_back


def of_another_update(machine: Machine) -> None:
    """The state is of the time when an earlier update was live."""
    state = load_state(machine.paths)
    (record,) = state.history
    other = replace(record, update=SECOND, digest="cd" * 32, to_version="6.1.192-1+deb12u1")
    save_state(machine.paths, replace(state, history=(other,)))


ROLLED_BACK = {
    "gone": gone,
    "garbled": garbled,
    "later": of_a_later_version,
    "built": old(Stage.BUILT),
    "undone": old(Stage.UNDONE, wanted=False),
    "failed": old(Stage.FAILED),
    "replaced": old(Stage.REPLACED),
    "retired": old(Stage.RETIRED),
    "another": of_another_update,
}


@pytest.fixture(params=ROLLED_BACK)
def rolled_back(machine: Machine, request: pytest.FixtureRequest) -> UpdateRecord:
    """The record that was lost of what is live."""
    record = live(machine)
    ROLLED_BACK[request.param](machine)
    return record


def told(machine: Machine) -> dict[str, object]:
    value = status_json(current_status(machine.paths))
    return {name: value[name] for name in ("state", "effective", "update")}


def test_the_status_is_true_at_once(machine: Machine, rolled_back: UpdateRecord) -> None:
    before = machine.paths.state.read_bytes() if machine.paths.state.exists() else b""
    value = status_json(current_status(machine.paths))
    assert (value["state"], value["effective"]) == ("live", NEWER.version)
    update = value["update"]
    assert update["live"] and update["stage"] == "live" and update["wanted"]
    assert (update["update"], update["digest"]) == (UPDATE, rolled_back.digest)
    assert update["summary"] == "1 of 1 change live" and update["problem"] is None
    assert update["pause_us"] == 1180
    # Who reads does not write.
    after = machine.paths.state.read_bytes() if machine.paths.state.exists() else b""
    assert after == before


def test_undo_works(machine: Machine, rolled_back: UpdateRecord) -> None:
    outcome = transactions.undo(machine.context)
    assert (outcome.action, outcome.update) == ("undone", UPDATE)
    assert machine.kernel.applied == set()
    record = load_state(machine.paths).history[-1]
    assert record.stage is Stage.UNDONE and record.digest == rolled_back.digest
    assert current_status(machine.paths).state is StatusState.UNDONE
    # Not applied again unasked, but by `apply`, from the pack and the module that are there.
    with pytest.raises(KsplicedError) as caught:
        transactions.upgrade(machine.context)
    assert caught.value.code is Code.NOTHING_TO_DO
    assert transactions.apply(machine.context, None).action == "live"
    assert len(machine.builder.orders) == 1
    assert machine.kernel.applied == {UPDATE}


@pytest.mark.parametrize("verb", ["upgrade", "build", "plan", "fetch", "widen"])
def test_any_job_records_it(machine: Machine, rolled_back: UpdateRecord, verb: str) -> None:
    try:
        getattr(transactions, verb)(machine.context)
    except KsplicedError as error:
        assert error.code is Code.NOTHING_TO_DO
    live = [r for r in load_state(machine.paths).history if r.stage is Stage.LIVE]
    if verb == "build":
        assert transactions.widen(machine.context).action == "nothing"
        live = [r for r in load_state(machine.paths).history if r.stage is Stage.LIVE]
    assert [(r.update, r.digest) for r in live] == [(UPDATE, rolled_back.digest)]
    assert Event.ADOPTED in machine.journal.events()
    assert machine.kernel.calls.count(f"apply {UPDATE}") == 1
    events = len(machine.journal.entries)
    transactions.fetch(machine.context)
    assert Event.ADOPTED not in [event for event, _, _ in machine.journal.entries[events:]]


def test_the_next_boot_replays_it(machine: Machine, rolled_back: UpdateRecord) -> None:
    transactions.fetch(machine.context)
    machine.boot(RUNNING)
    assert replay(machine.context).digest == rolled_back.digest
    assert machine.kernel.applied == {UPDATE}


def test_without_its_pack_the_version_is_unknown(machine: Machine) -> None:
    record = live(machine)
    gone(machine)
    machine.paths.pack(record.digest).unlink()
    for _ in range(2):  # before a job has recorded it, and after
        status = current_status(machine.paths)
        assert status.live and status.state is StatusState.PARTLY
        assert status.effective == RUNNING.version
        assert status.reboot_required.verdict is Verdict.YES
        assert [r.code for r in status.reboot_required.reasons] == ["pack_missing"]
        value = status_json(status)["update"]
        assert (value["update"], value["to_version"], value["digest"]) == (UPDATE, "", "")
        assert value["summary"] == "which changes these are is unknown"
        assert {f["name"] for f in value["functions"]} == {"ext4_mb_init_group", MALLOC}
        assert value["problem"]["code"] == "pack_missing"
        assert "unknown" in value["problem"]["message"]
        assert transactions.widen(machine.context).action == "nothing"
    outcome = transactions.undo(machine.context)
    assert (outcome.action, outcome.update, outcome.to_version) == ("undone", UPDATE, "")
    assert machine.kernel.applied == set()
    status = current_status(machine.paths)
    assert not status.live and status.state is StatusState.UNDONE
    assert status.effective == RUNNING.version


def test_what_was_undone_without_its_pack_is_not_applied_unasked(machine: Machine) -> None:
    record = live(machine)
    gone(machine)
    machine.paths.pack(record.digest).unlink()
    transactions.undo(machine.context)
    for _ in range(2):
        with pytest.raises(KsplicedError) as caught:
            transactions.upgrade(machine.context)
        assert caught.value.code is Code.NOTHING_TO_DO and "undone" in caught.value.message
        assert current_status(machine.paths).state is StatusState.UNDONE
    assert machine.kernel.applied == set()
    assert transactions.apply(machine.context, None).action == "live"
    assert [r.digest for r in load_state(machine.paths).history] == [record.digest]


def test_a_pack_that_is_built_again_tells_what_it_is(machine: Machine) -> None:
    record = live(machine)
    gone(machine)
    machine.paths.pack(record.digest).unlink()
    transactions.fetch(machine.context)
    with pytest.raises(KsplicedError) as caught:
        transactions.apply(machine.context, None)
    assert "live already" in caught.value.message
    assert told(machine)["effective"] == NEWER.version
    (found,) = load_state(machine.paths).history
    assert (found.digest, found.stage) == (record.digest, Stage.LIVE)
    assert machine.kernel.calls.count(f"apply {UPDATE}") == 1


def test_a_pack_that_comes_back_tells_what_it_is(machine: Machine) -> None:
    record = live(machine)
    file = machine.paths.pack(record.digest)
    content = file.read_bytes()
    gone(machine)
    file.unlink()
    transactions.fetch(machine.context)
    file.write_bytes(content)
    assert told(machine)["effective"] == NEWER.version
    transactions.fetch(machine.context)
    assert [r.digest for r in load_state(machine.paths).history] == [record.digest]


def test_a_pack_without_its_file_is_told_though_the_record_is_there(machine: Machine) -> None:
    record = live(machine)
    machine.paths.pack(record.digest).unlink()
    status = current_status(machine.paths)
    assert status.state is StatusState.LIVE and status.effective == NEWER.version
    assert status.update is not None and status.update.problem is not None
    assert status.update.problem.code is Code.PACK_MISSING
    assert transactions.undo(machine.context).action == "undone"
    assert transactions.apply(machine.context, None).action == "live"
    assert len(machine.builder.orders) == 2


@pytest.mark.parametrize("damage", [b"", b"KSPACK", b"\0" * 4096])
def test_a_damaged_pack_is_a_missing_one(machine: Machine, damage: bytes) -> None:
    record = live(machine)
    gone(machine)
    machine.paths.pack(record.digest).write_bytes(damage)
    status = current_status(machine.paths)
    assert status.live and status.effective == RUNNING.version
    assert transactions.undo(machine.context).action == "undone"


def test_a_pack_of_another_kernel_says_nothing(machine: Machine) -> None:
    record = live(machine)
    gone(machine)
    machine.paths.pack(record.digest).unlink()
    content = pack_content(replace(manifest(), kernel=NEWEST))
    file = machine.paths.root / "other"
    file.write_bytes(content)
    machine.paths.pack(read_pack(file).digest).write_bytes(content)
    assert current_status(machine.paths).effective == RUNNING.version


def test_a_part_that_waits_is_not_called_live(machine: Machine) -> None:
    offer(machine, EXT4, LATE)
    transactions.upgrade(machine.context)
    before = load_state(machine.paths).history
    gone(machine)
    assert known_state(machine.paths, RUNNING).history[0].waiting == ("nf_tables",)
    # It comes while nothing knows of it: its old code runs.
    machine.modprobe("nf_tables")
    status = current_status(machine.paths)
    assert status.state is StatusState.PARTLY and status.effective == RUNNING.version
    assert transactions.widen(machine.context).action == "widened"
    assert current_status(machine.paths).effective == NEWER.version
    assert load_state(machine.paths).history[0].digest == before[0].digest


def test_one_that_took_anothers_place(machine: Machine) -> None:
    """All of /var is of the time before: another update is recorded, and its pack is there."""
    transactions.upgrade(machine.context)
    first = load_state(machine.paths)
    pack = machine.paths.pack(first.history[0].digest)
    content = pack.read_bytes()
    machine.install(RUNNING, NEWER, NEWEST)
    transactions.upgrade(machine.context)
    second = load_state(machine.paths).history[-1]
    machine.paths.pack(second.digest).unlink()
    pack.write_bytes(content)
    save_state(machine.paths, first)
    status = current_status(machine.paths)
    assert status.live and status.update is not None
    assert (status.update.update, status.update.to_version) == (second.update, "")
    assert status.effective == RUNNING.version
    assert transactions.undo(machine.context).update == second.update
    stages = {r.update: r.stage for r in load_state(machine.paths).history}
    assert stages == {UPDATE: Stage.REPLACED, second.update: Stage.UNDONE}


def test_nothing_is_adopted_where_nothing_is_applied(machine: Machine) -> None:
    live(machine)
    transactions.undo(machine.context)
    gone(machine)
    assert known_state(machine.paths, RUNNING) == State()
    assert current_status(machine.paths).update is None
    with pytest.raises(KsplicedError) as caught:
        transactions.undo(machine.context)
    assert caught.value.code is Code.NO_UPDATE
    assert Event.ADOPTED not in machine.journal.events()
