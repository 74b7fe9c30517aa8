# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules whose loads the core holds; a terminal stands for its device, which tests/vm has."""

from __future__ import annotations

import os
import pty
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dbus.harness import Caller, Machine, eventually
from tests.dbus.test_arrivals import waits_for

UPDATE = "ks_0123456789abcdef"


@pytest.fixture
def core(machine: Machine) -> Iterator[int]:
    """The core's end of its device, with an update applied."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    os.set_blocking(ours, False)
    machine.paths.listener.parent.mkdir(parents=True, exist_ok=True)
    machine.paths.listener.symlink_to(os.ttyname(theirs))
    apply(machine, "applied")
    yield ours
    os.close(ours)
    os.close(theirs)


def apply(machine: Machine, stage: str) -> None:
    update = machine.paths.core / "updates" / UPDATE
    update.mkdir(parents=True, exist_ok=True)
    (update / "stage").write_text(f"{stage}\n")


def hold(machine: Machine, core: int, name: str, kind: str) -> None:
    with (machine.paths.core / "held").open("a") as file:
        file.write(f"{name}\t{kind}\t0x0\t0\t0x0\t0\n")
    os.write(core, f"{name}\n".encode())


def released(core: int) -> str:
    try:
        return os.read(core, 4096).decode()
    except BlockingIOError:
        return ""


def test_a_job_and_then_it_goes_on(machine: Machine, core: int) -> None:
    machine.script("widen", ["until", "go"])
    machine.start()
    hold(machine, core, "sctp", "required")
    eventually(lambda: machine.calls("widen"), "a job")
    time.sleep(0.3)
    assert released(core) == ""
    # One that comes meanwhile gets a job of its own.
    hold(machine, core, "dccp", "required")
    machine.touch("go")
    eventually(lambda: released(core) == "sctp", "the answer")
    eventually(lambda: released(core) == "dccp", "the answer to the second")
    assert machine.calls() == [["widen"], ["widen"]]


def test_a_job_that_fails_is_an_answer(machine: Machine, core: int) -> None:
    machine.script("widen", ["fail", "no_match", "other code", "", []])
    machine.start()
    hold(machine, core, "sctp", "required")
    eventually(lambda: released(core) == "sctp", "the answer")


def test_behind_another_job_only_who_must_waits(machine: Machine, core: int) -> None:
    machine.script("apply", ["until", "go"])
    machine.start()

    async def work(caller: Caller) -> None:
        job = await caller.manager("Apply")
        hold(machine, core, "sctp", "optional")
        eventually(lambda: released(core) == "sctp", "the answer")
        hold(machine, core, "dccp", "required")
        time.sleep(0.3)
        assert released(core) == "" and machine.calls("widen") == []
        machine.touch("go")
        await caller.end_of(job)

    machine.ask(work)
    eventually(lambda: released(core) == "dccp", "the answer after it")
    assert machine.calls("widen") == [["widen"]]


def test_the_device_is_open_while_an_update_is_applied(machine: Machine, core: int) -> None:
    waits_for(machine)
    machine.start()
    assert machine.daemon is not None
    open_files = Path(f"/proc/{machine.daemon.pid}/fd")

    def listens() -> bool:
        device = machine.paths.listener.resolve()
        return device in [file.resolve() for file in open_files.iterdir()]

    eventually(listens, "it to listen")
    apply(machine, "reversed")
    machine.request("any")
    eventually(lambda: not listens(), "it to stop")
