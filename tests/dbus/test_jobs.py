# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of a job."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from kspliced.client import ROOT
from kspliced.errors import Code, KsplicedError
from tests.dbus.harness import JOB, MANAGER, Caller, Machine, eventually


def run(machine: Machine, method: str = "Apply") -> dict[str, Any]:
    """Start a job and return its properties at its end."""

    async def work(caller: Caller) -> dict[str, Any]:
        return await caller.end_of(await caller.manager(method))

    return machine.ask(work)


def test_a_job_tells_all_of_its_life(machine: Machine) -> None:
    machine.script(
        "apply",
        ["progress", "compile", 0.25, "fs/ext4/mballoc.o"],
        ["until", "half"],
        ["progress", "match", 0.75, "ext4"],
        ["until", "go"],
    )
    machine.start()

    async def work(caller: Caller) -> None:
        await caller.listen()
        job = await caller.manager("Apply")
        (added,) = await caller.heard("InterfacesAdded", ROOT)
        assert added[0] == job and added[1][JOB]["Verb"].value == "apply"
        assert added[1][JOB]["State"].value == "running"
        changed = await caller.heard("PropertiesChanged", ROOT)
        assert changed[0][1]["CurrentJob"].value == job
        assert changed[0][1]["State"].value == "busy"
        first = (await caller.heard("PropertiesChanged", job))[0]
        assert {n: v.value for n, v in first[1].items()} == {
            "Phase": "compile",
            "Fraction": 0.25,
            "Message": "fs/ext4/mballoc.o",
        }
        machine.touch("half")
        second = (await caller.heard("PropertiesChanged", job, 2))[1]
        assert (second[0], second[1]["Fraction"].value) == (JOB, 0.75)
        machine.touch("go")
        assert await caller.heard("Finished", job) == [[True, ""]]
        last = (await caller.heard("PropertiesChanged", job))[-1]
        assert last[1]["State"].value == "done"
        assert json.loads(last[1]["Result"].value)["message"] == "apply is done"
        idle = (await caller.heard("PropertiesChanged", ROOT))[-1]
        assert idle[1]["CurrentJob"].value == "/"
        members = [s.member for s in caller.signals if s.path == job]
        assert members[-1] == "Finished"

    machine.ask(work)


def test_methods_run_the_worker_of_their_name(machine: Machine) -> None:
    machine.start()
    verbs = {"Apply": "apply", "Undo": "undo", "Build": "build", "Plan": "plan"}
    for method, verb in verbs.items():
        assert run(machine, method)["Verb"] == verb
    assert machine.calls() == [[verb] for verb in verbs.values()]


def test_a_failure_is_told_with_remedy_and_evidence(machine: Machine) -> None:
    details = ["1234 dd: ext4_mb_load_buddy_gfp+0x40"]
    machine.script("apply", ["fail", "code_busy", "the code is in use", "try again", details])
    machine.start()

    async def work(caller: Caller) -> dict[str, Any]:
        await caller.listen()
        job = await caller.manager("Apply")
        assert await caller.heard("Finished", job) == [[False, "code_busy"]]
        return await caller.get_all(job, JOB)

    values = machine.ask(work)
    assert values["State"] == "failed"
    assert (values["ErrorCode"], values["ErrorMessage"]) == ("code_busy", "the code is in use")
    assert (values["ErrorRemedy"], values["ErrorDetails"]) == ("try again", details)


def test_no_address_of_the_kernel_is_published(machine: Machine) -> None:
    """Whatever a worker, or the state, says."""
    secret = "it is at 0xffffffff9a0012c0, 48 8b 05 11 22 33 44 55 66"
    told = {"code": "no_match", "message": secret, "remedy": secret, "details": [secret]}
    step = {"progress": {"phase": "apply", "fraction": 0.5, "message": secret}}
    lines = f"{json.dumps(step)}\n{json.dumps({'error': told})}\n"
    machine.script("apply", ["write", lines], ["die", int(signal.SIGKILL)])
    machine.paths.lib.mkdir(parents=True, exist_ok=True)
    problem = {**told, "time": 1}
    state = {"schema": 2, "history": [], "problem": problem, "guard": None, "installed": ""}
    machine.paths.state.write_text(json.dumps(state), "utf-8")
    machine.paths.state.chmod(0o644)
    machine.start()

    async def work(caller: Caller) -> str:
        await caller.listen()
        job = await caller.manager("Apply")
        await caller.heard("Finished", job)
        values = await caller.get_all(job, JOB)
        assert values["State"] == "failed"
        manager = await caller.get_all(ROOT, MANAGER)
        managed = await caller.standard(ROOT, "ObjectManager", "GetManagedObjects")
        return repr((values, manager, managed, [s.body for s in caller.signals]))

    seen = machine.ask(work)
    assert "it is at [address withheld]" in seen and "no_match" in seen
    assert "ffff9a" not in seen and "48 8b" not in seen
    # What an older version left for all to read is not so any more.
    assert machine.paths.state.stat().st_mode & 0o777 == 0o600


_WRONG: tuple[list[Any], ...] = (
    ["write", "Segmentation fault\n"],
    ["write", '{"result": 1, "error": 2}\n'],
    ["write", '{"progress": {"phase": 7}}\n'],
    ["write", "\x00\x1b[31m\n"],
    ["write", "[" * 100_000 + "\n"],
    ["die", int(signal.SIGKILL)],
)


def test_a_worker_that_goes_wrong_is_a_failed_job(machine: Machine) -> None:
    machine.start()
    for step in _WRONG:
        machine.script("apply", step)
        values = run(machine)
        assert (values["State"], values["ErrorCode"]) == ("failed", "failed"), step
        assert values["ErrorMessage"]
    machine.script("apply")
    assert run(machine)["State"] == "done"


def test_a_job_is_cancelled(machine: Machine) -> None:
    machine.script("apply", ["progress", "compile", 0.5, ""], ["until", "never"])
    machine.start()

    async def work(caller: Caller) -> tuple[str, dict[str, Any]]:
        await caller.listen()
        job = await caller.manager("Apply")
        await caller.heard("PropertiesChanged", job)
        await caller.cancel(job)
        assert await caller.heard("Finished", job) == [[False, "cancelled"]]
        values = await caller.get_all(job, JOB)
        await caller.cancel(job)
        return job, values

    _, values = machine.ask(work)
    assert (values["State"], values["ErrorCode"]) == ("cancelled", "cancelled")


def test_a_job_cancelled_at_once(machine: Machine) -> None:
    machine.script("apply", ["until", "never"])
    machine.start()

    async def work(caller: Caller) -> str:
        job = await caller.manager("Apply")
        await caller.cancel(job)
        return str((await caller.end_of(job))["State"])

    assert machine.ask(work) == "cancelled"


def test_one_job_at_a_time(machine: Machine) -> None:
    machine.script("apply", ["until", "go"])
    machine.start()

    async def work(caller: Caller) -> KsplicedError:
        job = await caller.manager("Apply")
        with pytest.raises(KsplicedError) as raised:
            await caller.manager("Undo")
        machine.touch("go")
        await caller.end_of(job)
        await caller.manager("Undo")
        return raised.value

    error = machine.ask(work)
    assert error.code is Code.BUSY and "apply" in error.message and error.remedy


def test_a_pack_comes_as_a_descriptor(machine: Machine, tmp_path: Path) -> None:
    machine.start()
    pack = tmp_path / "some.kspack"
    pack.write_text("the pack", "utf-8")

    async def work(caller: Caller) -> dict[str, Any]:
        with pack.open("rb") as file:
            # The daemon reads it from its beginning, wherever the caller's offset is.
            file.seek(3)
            job = await caller.manager("ApplyPack", "h", 0, fds=(file.fileno(),))
        pack.write_text("another", "utf-8")
        return await caller.end_of(job)

    assert machine.ask(work)["State"] == "done"
    assert machine.calls() == [["apply", "the pack"]]
    eventually(lambda: not list(machine.paths.run.glob("*.kspack")), "the copy is removed")


def test_only_a_regular_file_is_a_pack(machine: Machine, tmp_path: Path) -> None:
    machine.start()
    writable = tmp_path / "w"

    async def refused(caller: Caller, descriptor: int) -> Code:
        with pytest.raises(KsplicedError) as raised:
            await caller.manager("ApplyPack", "h", 0, fds=(descriptor,))
        return raised.value.code

    async def work(caller: Caller) -> list[Code]:
        read_end, write_end = os.pipe()
        with writable.open("wb") as file:
            codes = [
                await refused(caller, read_end),
                await refused(caller, file.fileno()),
            ]
        os.close(read_end)
        os.close(write_end)
        with pytest.raises(KsplicedError) as raised:
            await caller.manager("ApplyPack", "h", 0)
        return [*codes, raised.value.code]

    assert machine.ask(work) == [Code.PACK_MALFORMED, Code.IO, Code.USAGE]
    assert machine.calls() == []


def test_no_descriptor_stays_open(machine: Machine, tmp_path: Path) -> None:
    machine.start()
    assert machine.daemon is not None
    descriptors = Path(f"/proc/{machine.daemon.pid}/fd")
    pack = tmp_path / "some.kspack"
    pack.write_bytes(b"x")
    run(machine)
    before = len(list(descriptors.iterdir()))

    async def work(caller: Caller) -> None:
        with pack.open("rb") as file:
            fds = (file.fileno(),) * 4
            for number in range(5):
                job = await caller.manager("ApplyPack", "h", number % 4, fds=fds)
                await caller.end_of(job)
                for method, signature in (("Apply", "h"), ("Nonsense", "h")):
                    with pytest.raises(KsplicedError):
                        await caller.manager(method, signature, 0, fds=fds)

    machine.ask(work)
    eventually(lambda: len(list(descriptors.iterdir())) <= before, "descriptors closed")


def test_old_jobs_leave_the_bus(machine: Machine) -> None:
    machine.start()

    async def work(caller: Caller) -> tuple[list[Any], list[str]]:
        await caller.listen()
        for _ in range(10):
            await caller.end_of(await caller.manager("Apply"))
        removed = await caller.heard("InterfacesRemoved", ROOT, 2)
        objects = await caller.standard(ROOT, "ObjectManager", "GetManagedObjects")
        return removed, sorted(objects)

    removed, left = machine.ask(work)
    assert removed == [[f"{ROOT}/job/1", [JOB]], [f"{ROOT}/job/2", [JOB]]]
    assert len(left) == 8


def test_a_fast_worker_does_not_flood_the_bus(machine: Machine) -> None:
    steps = [["progress", "compile", n / 2000, f"unit {n}"] for n in range(2000)]
    machine.script("apply", *steps)
    machine.start()

    async def work(caller: Caller) -> tuple[int, float]:
        await caller.listen()
        job = await caller.manager("Apply")
        await caller.heard("Finished", job)
        told = [s for s in caller.signals if s.path == job and s.member == "PropertiesChanged"]
        return len(told), (await caller.get_all(job, JOB))["Fraction"]

    count, fraction = machine.ask(work)
    assert count < 100
    assert fraction == 1.0


def test_the_daemon_ends_with_its_job(machine: Machine) -> None:
    machine.script("apply", ["progress", "compile", 0.5, ""], ["until", "never"])
    machine.start()

    async def work(caller: Caller) -> str:
        await caller.listen()
        job = await caller.manager("Apply")
        await caller.heard("PropertiesChanged", job)
        return str((await caller.get_all(ROOT, MANAGER))["CurrentJob"])

    assert machine.ask(work).endswith("/job/1")
    assert machine.stop() == 0
