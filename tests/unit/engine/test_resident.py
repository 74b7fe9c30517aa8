# SPDX-License-Identifier: GPL-2.0-or-later
"""What was once applied stays in memory until the boot: how much, how much may, what comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kspliced.engine import transactions
from kspliced.engine.edges import CoreStage
from kspliced.engine.journal import Event
from kspliced.engine.policy import RESIDENT_LIMIT
from kspliced.engine.replay import healthy, replay
from kspliced.engine.resident import Limit, read_limit
from kspliced.engine.state import Stage, load_state
from kspliced.engine.status import StatusState, Verdict, current_status, status_json
from kspliced.errors import Code, ExitCode, KsplicedError
from tests.unit.engine.fakes import NEWER, NEWEST, RUNNING, UPDATE, Machine, pack_content
from tests.unit.engine.test_widen import CORE, MODULE, PART, of, offer

SECOND = f"{UPDATE[:-1]}0"
SIZE = 65536


def loads(machine: Machine) -> list[str]:
    return [call for call in machine.kernel.calls if call.startswith("load ")]


def refused(machine: Machine, verb: str = "upgrade") -> KsplicedError:
    with pytest.raises(KsplicedError) as caught:
        getattr(transactions, verb)(machine.context)
    assert caught.value.code is Code.RESIDENT_LIMIT
    return caught.value


def test_what_was_applied_is_never_unloaded(machine: Machine) -> None:
    transactions.upgrade(machine.context)
    transactions.undo(machine.context)
    transactions.apply(machine.context, None)
    machine.install(RUNNING, NEWER, NEWEST)
    transactions.upgrade(machine.context)
    assert machine.kernel.loaded == {UPDATE: CoreStage.REVERSED, SECOND: CoreStage.APPLIED}
    assert not any(call.startswith("unload") for call in machine.kernel.calls)
    assert Event.LEFT_LOADED not in machine.journal.events()


def test_cycles_of_one_update_load_it_once(machine: Machine) -> None:
    transactions.upgrade(machine.context)
    for _ in range(3):
        transactions.undo(machine.context)
        transactions.apply(machine.context, None)
    assert loads(machine) == [f"load {UPDATE}"]
    resident = current_status(machine.paths).resident
    assert (resident.bytes, len(resident.updates)) == (SIZE, 1)


def test_what_was_never_applied_goes(machine: Machine) -> None:
    machine.kernel.busy = 10_000
    with pytest.raises(KsplicedError):
        transactions.upgrade(machine.context)
    assert machine.kernel.loaded == {}
    # A worker that was killed between the load and the switch leaves its module.
    machine.kernel.load(UPDATE, b"?")
    machine.kernel.busy = 0
    transactions.upgrade(machine.context)
    assert machine.kernel.loaded == {UPDATE: CoreStage.APPLIED}
    assert f"unload {UPDATE}" in machine.kernel.calls
    assert machine.kernel.calls.count(f"load {UPDATE}") == 3


def test_a_target_that_moved_since_is_linked_anew(machine: Machine) -> None:
    transactions.upgrade(machine.context)
    transactions.undo(machine.context)
    machine.modprobe("ext4", 0xC0DE)
    transactions.apply(machine.context, None)
    (applied,) = machine.kernel.applied
    assert applied != UPDATE and applied.startswith(f"{UPDATE}_")
    assert machine.kernel.loaded[UPDATE] is CoreStage.REVERSED
    assert current_status(machine.paths).state is StatusState.LIVE
    transactions.undo(machine.context)
    transactions.apply(machine.context, None)
    assert machine.kernel.applied == {applied} and len(loads(machine)) == 2
    # Back where it was: the first is right again.
    transactions.undo(machine.context)
    machine.modprobe("ext4", 0)
    line = "ext4 1056768 1 - Live 0x0"
    modules = machine.paths.proc / "modules"
    modules.write_text(modules.read_text().replace("ext4 4096 0 - Live 0x0", line))
    transactions.apply(machine.context, None)
    assert machine.kernel.applied == {UPDATE} and len(loads(machine)) == 2


def test_a_module_that_nobody_remembers_is_not_applied_again(machine: Machine) -> None:
    transactions.upgrade(machine.context)
    transactions.undo(machine.context)
    (machine.paths.loaded / UPDATE).unlink()
    transactions.apply(machine.context, None)
    assert machine.kernel.loaded[UPDATE] is CoreStage.REVERSED
    assert len(machine.kernel.applied) == 1 and len(loads(machine)) == 2


def test_the_status_says_how_much(machine: Machine) -> None:
    value = status_json(current_status(machine.paths))["resident"]
    assert value == {"bytes": 0, "limit_bytes": RESIDENT_LIMIT, "updates": []}
    transactions.upgrade(machine.context)
    machine.install(RUNNING, NEWER, NEWEST)
    transactions.upgrade(machine.context)
    value = status_json(current_status(machine.paths))["resident"]
    assert value["bytes"] == 2 * SIZE and value["limit_bytes"] == RESIDENT_LIMIT
    assert value["updates"] == [
        {"module": SECOND, "bytes": SIZE, "stage": "applied"},
        {"module": UPDATE, "bytes": SIZE, "stage": "reversed"},
    ]


def test_an_upgrade_beyond_the_limit_is_refused_and_what_is_live_stays(machine: Machine) -> None:
    machine.limit = Limit(2 * SIZE - 1)
    transactions.upgrade(machine.context)
    machine.install(RUNNING, NEWER, NEWEST)
    error = refused(machine)
    assert error.exit_code is ExitCode.REFUSED and "reboot" in error.remedy
    assert "0.1 MiB" in error.message
    assert loads(machine) == [f"load {UPDATE}"]
    old, new = load_state(machine.paths).history
    assert (old.stage, new.stage) == (Stage.LIVE, Stage.FAILED)
    status = current_status(machine.paths)
    assert status.live and status.update is not None and status.update.update == UPDATE
    assert status.effective == NEWER.version
    assert status.reboot_required.verdict is Verdict.YES
    assert [r.code for r in status.reboot_required.reasons] == ["resident_limit"]
    machine.limit = Limit(2 * SIZE)
    transactions.upgrade(machine.context)
    assert current_status(machine.paths).effective == NEWEST.version


def test_where_nothing_fits_nothing_is_built(machine: Machine) -> None:
    transactions.upgrade(machine.context)
    machine.limit = Limit(SIZE)
    machine.install(RUNNING, NEWER, NEWEST)
    refused(machine)
    assert len(machine.builder.orders) == 1
    assert current_status(machine.paths).reboot_required.reasons[0].code == "resident_limit"


def test_what_is_in_memory_may_be_applied_again(machine: Machine) -> None:
    transactions.upgrade(machine.context)
    transactions.undo(machine.context)
    machine.limit = Limit(1)
    assert transactions.apply(machine.context, None).action == "live"


def test_widening_counts(machine: Machine) -> None:
    machine.limit = Limit(2 * SIZE - 1)
    offer(machine, CORE, MODULE)
    transactions.upgrade(machine.context)
    machine.modprobe("nf_tables")
    refused(machine, "widen")
    assert machine.kernel.loaded == {PART: CoreStage.APPLIED}
    record = load_state(machine.paths).history[-1]
    assert record.stage is Stage.LIVE and record.waiting == ("nf_tables",)
    assert current_status(machine.paths).state is StatusState.PARTLY


def test_a_boot_gives_it_back_and_replays(machine: Machine) -> None:
    machine.limit = Limit(SIZE)
    transactions.upgrade(machine.context)
    machine.boot(RUNNING)
    assert current_status(machine.paths).resident.bytes == 0
    assert replay(machine.context).action == "replayed"
    healthy(machine.context)
    machine.boot(RUNNING)
    machine.limit = Limit(SIZE - 1)
    with pytest.raises(KsplicedError) as caught:
        replay(machine.context)
    assert caught.value.code is Code.RESIDENT_LIMIT and machine.kernel.loaded == {}


def test_a_pack_of_an_administrator_counts(machine: Machine) -> None:
    transactions.upgrade(machine.context)
    machine.limit = Limit(SIZE)
    made = replace(of(CORE), update=SECOND)
    file = machine.paths.root / "p.kspack"
    file.write_bytes(pack_content(made))
    with pytest.raises(KsplicedError) as caught:
        transactions.apply(machine.context, file)
    assert caught.value.code is Code.RESIDENT_LIMIT
    assert machine.kernel.applied == {UPDATE}


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("", RESIDENT_LIMIT),
        ("4096", 4096),
        ("16k", 16 << 10),
        ("512M", 512 << 20),
        (" 2G ", 2 << 30),
    ],
)
def test_the_limit_is_set_by_the_environment(text: str, limit: int) -> None:
    assert read_limit({"KSPLICED_RESIDENT_LIMIT": text}) == Limit(limit)


@pytest.mark.parametrize(
    "text", ["0", "-1", "1T", "lots", "1.5G", "0x10", "M", "9" * 40, "\x1b[2J"]
)
def test_a_bad_limit_is_told_and_the_default_holds(text: str) -> None:
    limit = read_limit({"KSPLICED_RESIDENT_LIMIT": text})
    assert limit.bytes == RESIDENT_LIMIT
    assert "KSPLICED_RESIDENT_LIMIT" in limit.complaint and "256.0 MiB" in limit.complaint
    assert limit.complaint.isprintable()


def test_a_core_that_says_nothing_of_it(machine: Machine) -> None:
    transactions.upgrade(machine.context)
    (machine.paths.core / "resident").unlink()
    (machine.paths.core / "updates" / UPDATE / "resident").unlink()
    assert current_status(machine.paths).resident.bytes == 0
