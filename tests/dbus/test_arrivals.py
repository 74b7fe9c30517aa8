# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules that an update waits for; tests/vm/story.py has the kernel's own word of them."""

from __future__ import annotations

import time

from kspliced.engine.state import Stage, State, save_state
from tests.dbus.harness import Caller, Machine, eventually
from tests.dbus.test_reading import record


def waits_for(
    machine: Machine, *names: str, stage: Stage = Stage.LIVE, wanted: bool = True
) -> None:
    update = record(waiting=names, held=("fs/ext4/mballoc.o",), stage=stage, wanted=wanted)
    save_state(machine.paths, State(history=(update,)))


def load(machine: Machine, name: str) -> None:
    with (machine.paths.proc / "modules").open("a") as file:
        file.write(f"{name} 4096 0 - Live 0x0\n")


def test_what_came_before_the_daemon_is_seen(machine: Machine) -> None:
    waits_for(machine, "nf_tables", "sctp")
    load(machine, "nf_tables")
    machine.start()
    eventually(lambda: machine.calls("widen"), "a job")
    time.sleep(0.3)
    assert machine.calls() == [["widen"]], "the job changed nothing, and is not repeated at once"


def test_nothing_came(machine: Machine) -> None:
    waits_for(machine, "nf_tables")
    load(machine, "another")
    machine.start()
    time.sleep(0.5)
    assert machine.calls() == []


def test_what_was_undone_is_left_alone(machine: Machine) -> None:
    waits_for(machine, "nf_tables", stage=Stage.UNDONE, wanted=False)
    load(machine, "nf_tables")
    machine.start()
    time.sleep(0.5)
    assert machine.calls() == []


def test_it_is_tried_again_later(machine: Machine) -> None:
    machine.script("widen", ["fail", "code_busy", "in use", "", []])
    waits_for(machine, "nf_tables")
    load(machine, "nf_tables")
    machine.start(retry=0.5)
    eventually(lambda: len(machine.calls("widen")) > 1, "a second try")


def test_another_job_is_not_disturbed(machine: Machine) -> None:
    waits_for(machine, "nf_tables")
    machine.script("apply", ["until", "go"])
    machine.start()

    async def work(caller: Caller) -> None:
        job = await caller.manager("Apply")
        load(machine, "nf_tables")
        assert machine.calls("widen") == []
        machine.touch("go")
        await caller.end_of(job)

    machine.ask(work)
    eventually(lambda: machine.calls("widen"), "the job after it")
