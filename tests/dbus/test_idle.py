# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon costs when there is nothing to do, and how it begins and ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from kspliced.client import ROOT
from tests.dbus.harness import MANAGER, REPOSITORY, Caller, Machine

_MAX_RESIDENT_KB = 45 << 10


def test_idle_it_is_small_and_sleeps(machine: Machine) -> None:
    machine.start()
    assert machine.daemon is not None

    async def work(caller: Caller) -> None:
        await caller.end_of(await caller.manager("Apply"))
        await caller.get_all(ROOT, MANAGER)

    machine.ask(work)
    process = Path(f"/proc/{machine.daemon.pid}")
    time.sleep(0.5)
    before = _switches(process)
    time.sleep(3)
    assert _switches(process) == before, "it woke up"
    assert _field(process / "status", "VmRSS") < _MAX_RESIDENT_KB


def _switches(process: Path) -> dict[str, int]:
    return {
        thread.name: _field(thread / "status", "voluntary_ctxt_switches")
        for thread in (process / "task").iterdir()
    }


def _field(status: Path, name: str) -> int:
    for line in status.read_text("ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise AssertionError(f"{status} has no {name}")


def test_it_ends_on_sigterm(machine: Machine) -> None:
    machine.start()
    assert machine.stop() == 0


def test_a_second_daemon_is_refused(machine: Machine) -> None:
    machine.start()
    command = [sys.executable, "-m", "tests.dbus.daemon", str(machine.root), "1", "/bin/false"]
    second = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=machine.environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert second.returncode == 1
    assert second.stderr == "kspliced: org.kspliced1 is taken; the daemon runs already\n"


def test_without_a_bus_it_says_so() -> None:
    environment = {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent/bus"}
    second = subprocess.run(
        [sys.executable, "-m", "kspliced.service"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert second.returncode == 5
    assert second.stderr.startswith("kspliced: cannot connect to the system bus")
    assert len(second.stderr.splitlines()) == 1


def test_it_ends_when_the_bus_goes(machine: Machine) -> None:
    machine.start()
    assert machine.daemon is not None
    subprocess.run(["kill", str(_bus_of(machine))], check=True)
    assert machine.daemon.wait(20) != 0


def _bus_of(machine: Machine) -> int:
    async def process(caller: Caller) -> int:
        body = await caller.bus_call("GetConnectionUnixProcessID", "s", "org.freedesktop.DBus")
        return int(body[0])

    return machine.ask(process)
