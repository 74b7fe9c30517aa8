# SPDX-License-Identifier: GPL-2.0-or-later
"""An update with code for modules that are not loaded: what goes live when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kspliced.engine import transactions
from kspliced.engine.edges import Built
from kspliced.engine.journal import Event
from kspliced.engine.replay import healthy, replay
from kspliced.engine.state import Stage, UpdateRecord, load_state
from kspliced.engine.status import StatusState, Verdict, awaited_modules, current_status
from kspliced.errors import Code, KsplicedError
from kspliced.model import ChangeKind, FunctionChange, Group, Hold, Manifest
from tests.unit.engine.fakes import RUNNING, UPDATE, Machine, manifest, pack_content

PART = f"{UPDATE}_0001"
CORE = Group("part/vmlinux", ("vmlinux",), ("fs/a.o",), (), (), (), (), False)
MODULE = Group("part/nf", ("nf_tables",), ("net/n.o",), (), (), (), (), False)
BOTH = Group(
    "part/nf+vmlinux", ("nf_tables", "vmlinux"), ("fs/b.o", "net/n.o"), (), (), (), (), False
)


def of(*groups: Group) -> Manifest:
    targets = {"fs/a.o": "vmlinux", "fs/b.o": "vmlinux", "net/n.o": "nf_tables"}
    units = [unit for group in groups for unit in group.units]
    functions = tuple(
        FunctionChange(targets[u], u, u[:-2], ChangeKind.CHANGED, "own source") for u in units
    )
    return replace(manifest(), functions=functions, groups=groups)


def offer(machine: Machine, *groups: Group) -> None:
    made = of(*groups)
    machine.builder.result = Built(pack_content(made), made.functions, ())


def newest(machine: Machine) -> UpdateRecord:
    return load_state(machine.paths).history[-1]


def test_what_is_loaded_goes_live_and_the_rest_when_it_is(machine: Machine) -> None:
    offer(machine, CORE, MODULE)
    assert transactions.upgrade(machine.context).action == "live"
    assert machine.kernel.applied == {PART}
    assert (newest(machine).waiting, newest(machine).held) == (("nf_tables",), ("net/n.o",))
    status = current_status(machine.paths)
    # Nothing of the module runs, so nothing that runs is old.
    assert status.state is StatusState.LIVE and status.effective == "6.1.192-2"
    assert (status.changes.live, status.changes.total, status.changes.waiting) == (1, 2, 1)
    assert awaited_modules(load_state(machine.paths), RUNNING) == {"nf_tables"}
    assert transactions.widen(machine.context).action == "nothing"

    machine.modprobe("nf_tables")
    status = current_status(machine.paths)
    assert status.state is StatusState.PARTLY and status.effective == RUNNING.version
    assert status.reboot_required.verdict is Verdict.PENDING
    assert transactions.widen(machine.context).action == "widened"
    assert machine.kernel.applied == {UPDATE}
    assert (newest(machine).waiting, newest(machine).held) == ((), ())
    assert newest(machine).stage is Stage.LIVE
    assert machine.journal.events()[-1] is Event.WIDENED
    status = current_status(machine.paths)
    assert status.state is StatusState.LIVE and status.changes.live == 2
    assert transactions.undo(machine.context).action == "undone"
    assert machine.kernel.applied == set()


def test_the_core_is_told_whom_to_hold(machine: Machine) -> None:
    late = replace(BOTH, units=("net/n.o",), required=("nf_tables",))
    offer(machine, CORE, late)
    assert transactions.upgrade(machine.context).action == "live"
    assert Hold("nf_tables", True) in machine.kernel.holds[PART]
    # What runs is new, and the module will be: nothing asks for a reboot.
    status = current_status(machine.paths)
    assert status.state is StatusState.LIVE
    assert (status.changes.live, status.changes.total, status.changes.waiting) == (1, 2, 1)


def test_a_part_whose_module_went_comes_again(machine: Machine) -> None:
    machine.modprobe("nf_tables")
    offer(machine, CORE, MODULE)
    transactions.upgrade(machine.context)
    assert transactions.widen(machine.context).action == "nothing"
    # Its init failed, and it is loaded once more.
    machine.kernel.lost.add(UPDATE)
    assert transactions.widen(machine.context).action == "widened"
    assert machine.kernel.applied == {f"{UPDATE}_aaaa"}


def test_half_of_a_change_waits_for_the_other(machine: Machine) -> None:
    offer(machine, CORE, BOTH)
    transactions.upgrade(machine.context)
    assert newest(machine).held == ("fs/b.o", "net/n.o")
    status = current_status(machine.paths)
    assert status.state is StatusState.PARTLY and status.effective == RUNNING.version
    assert "nf_tables" in status.reboot_required.reasons[0].reason


def test_an_update_of_absent_modules_waits_as_a_whole(machine: Machine) -> None:
    offer(machine, MODULE)
    assert transactions.upgrade(machine.context).action == "waiting"
    assert machine.kernel.loaded == {} and newest(machine).stage is Stage.BUILT
    assert machine.journal.events()[-1] is Event.WAITING
    machine.boot(RUNNING)
    assert replay(machine.context).action == "waiting"
    machine.modprobe("nf_tables")
    assert transactions.widen(machine.context).action == "live"
    assert machine.kernel.applied == {UPDATE}
    healthy(machine.context)
    machine.boot(RUNNING)
    assert replay(machine.context).action == "waiting"


def test_replay_early_in_the_boot(machine: Machine) -> None:
    machine.modprobe("nf_tables")
    offer(machine, CORE, MODULE)
    transactions.upgrade(machine.context)
    assert machine.kernel.applied == {UPDATE}
    machine.boot(RUNNING)
    assert replay(machine.context).action == "replayed"
    assert machine.kernel.applied == {PART}
    machine.modprobe("nf_tables")
    assert transactions.widen(machine.context).action == "widened"
    assert machine.kernel.applied == {UPDATE}


def test_what_is_busy_stays_as_it_was(machine: Machine) -> None:
    offer(machine, CORE, MODULE)
    transactions.upgrade(machine.context)
    machine.modprobe("nf_tables")
    machine.kernel.busy = 1000
    with pytest.raises(KsplicedError) as caught:
        transactions.widen(machine.context)
    assert caught.value.code is Code.CODE_BUSY
    assert machine.kernel.applied == {PART}
    record = newest(machine)
    assert record.stage is Stage.LIVE and record.waiting == ("nf_tables",)
    assert record.problem is not None and record.problem.code is Code.CODE_BUSY
    machine.kernel.busy = 0
    transactions.widen(machine.context)
    assert newest(machine).problem is None and newest(machine).waiting == ()


def test_what_was_undone_waits_for_nothing(machine: Machine) -> None:
    offer(machine, CORE, MODULE)
    transactions.upgrade(machine.context)
    transactions.undo(machine.context)
    machine.modprobe("nf_tables")
    assert awaited_modules(load_state(machine.paths), RUNNING) == frozenset()
    assert transactions.widen(machine.context).action == "nothing"
    assert machine.kernel.applied == set()


def test_a_lost_state_does_not_hide_what_waits(machine: Machine) -> None:
    offer(machine, CORE, MODULE)
    transactions.upgrade(machine.context)
    machine.paths.state.unlink()
    with pytest.raises(KsplicedError) as caught:
        transactions.apply(machine.context, None)
    assert caught.value.code in (Code.NOTHING_TO_DO, Code.NO_UPDATE)
    record = newest(machine)
    if record.stage is Stage.LIVE:
        assert record.waiting == ("nf_tables",)
