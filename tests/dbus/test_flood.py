# SPDX-License-Identifier: GPL-2.0-or-later
"""Whoever sends as much as he can holds up neither a module's load nor anybody else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kspliced.client import ROOT
from kspliced.engine.state import State, save_state
from kspliced.model import Refusal
from kspliced.service.holds import Holds
from tests.dbus.harness import MANAGER, NOBODY, REPOSITORY, Caller, Machine, eventually
from tests.dbus.test_holds import core, hold, released
from tests.dbus.test_reading import record

__all__ = ["core"]
_UID = NOBODY if os.geteuid() == 0 else os.geteuid()
_MAX_RESIDENT_KB = 96 << 10


def much(machine: Machine) -> None:
    """A history as of a machine that was upgraded ten times, a hundred kilobytes each."""
    refused = tuple(
        Refusal("layout", f"net/core/unit{n}.o", f"function_{n}", "a type has another layout " * 4)
        for n in range(500)
    )
    first = record(refused=refused)
    history = [replace(first, update=f"ks_{n:012x}") for n in range(10)]
    save_state(machine.paths, State(history=tuple(history)))


@contextmanager
def flood(machine: Machine) -> Iterator[subprocess.Popen[str]]:
    """A hostile user at work; at least a thousand messages have been sent when it begins."""
    command = [sys.executable, "-m", "tests.dbus.flood", machine.address, str(_UID)]
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=machine.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            assert process.stdout.readline() == "1000\n"
            yield process
            assert process.poll() is None
        finally:
            process.stdin.close()


def test_a_hold_is_served_and_others_are_answered(machine: Machine, core: int) -> None:
    much(machine)
    machine.start()

    async def read(caller: Caller) -> str:
        return str((await caller.get_all(ROOT, MANAGER))["Running"])

    with flood(machine):
        for name in ("sctp", "dccp", "rds"):
            hold(machine, core, name, "required")
            assert eventually(partial(released, core), f"the answer for {name}") == name
            assert machine.ask(read, _UID) == "6.1.192-1"
    assert machine.calls() == [["widen"]] * 3
    assert machine.daemon is not None and machine.daemon.poll() is None
    status = Path(f"/proc/{machine.daemon.pid}/status").read_text("ascii")
    (peak,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    assert int(peak) < _MAX_RESIDENT_KB


def test_a_loop_that_does_nothing_more_leaves_no_load_waiting(machine: Machine, core: int) -> None:
    """What may run its old code goes on without the loop; what must not waits for its job."""
    answers: list[str] = []

    class NoJobs:
        current = None

    def work() -> None:
        hold(machine, core, "dccp", "required")
        hold(machine, core, "sctp", "optional")
        answers.append(eventually(lambda: released(core), "the answer"))
        time.sleep(0.3)
        answers.append(released(core))

    async def blocked() -> None:
        jobs: Any = NoJobs()
        holds = Holds(machine.paths, jobs, lambda work: work.close(), patience=0.2)
        holds.look()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()  # and so the loop stands still
        await asyncio.sleep(0)
        holds.close()

    asyncio.run(blocked())
    assert answers == ["sctp", ""]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")
def test_a_sender_has_only_so_many_calls_under_way(machine: Machine) -> None:
    machine.start_polkit("silence")
    machine.start()

    async def many(caller: Caller) -> list[str]:
        calls = [asyncio.ensure_future(caller.manager("Undo")) for _ in range(200)]
        while sum(call.done() for call in calls) < 196:
            await asyncio.sleep(0.02)
        errors = [call.exception() for call in calls if call.done()]
        for call in calls:
            call.cancel()
        return [str(error) for error in errors]

    # Polkit has four questions of this user; the others were told at once.
    errors = machine.ask(many, NOBODY)
    assert len(errors) == 196
    assert any("your calls" in error for error in errors)
