# SPDX-License-Identifier: GPL-2.0-or-later
"""The queue of the package manager's hooks, and the sources ahead."""

from __future__ import annotations

import time

from kspliced.client import ROOT
from tests.dbus.harness import MANAGER, Caller, Machine, eventually


def test_requests_from_before_the_start_are_one_upgrade(machine: Machine) -> None:
    machine.script("upgrade", ["take_queue"])
    machine.request("apt-1")
    machine.request("apt-2")
    machine.start()
    eventually(lambda: machine.calls("upgrade"), "an upgrade")
    assert _settled(machine) == [["upgrade"]]
    assert not list(machine.paths.queue.glob("*.json"))


def test_a_request_that_appears_is_noticed(machine: Machine) -> None:
    machine.script("upgrade", ["take_queue"])
    machine.start()
    machine.request("apt-1")
    eventually(lambda: len(machine.calls("upgrade")) == 1, "the first upgrade")
    # What comes before the first has taken the queue goes with it.
    eventually(lambda: not list(machine.paths.queue.glob("*.json")), "an empty queue")
    machine.request("apt-2")
    eventually(lambda: len(machine.calls("upgrade")) == 2, "the second upgrade")


def test_a_file_that_is_not_whole_yet_is_left_alone(machine: Machine) -> None:
    machine.paths.queue.mkdir(parents=True)
    machine.start()
    (machine.paths.queue / ".apt-1").write_text("{", "utf-8")
    assert _settled(machine) == []


def test_a_request_during_a_job_is_dealt_with_after_it(machine: Machine) -> None:
    machine.script("upgrade", ["take_queue"])
    machine.script("apply", ["until", "go"])
    machine.start()

    async def work(caller: Caller) -> None:
        job = await caller.manager("Apply")
        machine.request("apt-1")
        assert machine.calls("upgrade") == []
        machine.touch("go")
        await caller.end_of(job)

    machine.ask(work)
    eventually(lambda: machine.calls("upgrade"), "the upgrade")


def test_an_upgrade_that_leaves_the_queue_is_not_repeated_in_a_loop(machine: Machine) -> None:
    machine.script("upgrade", ["fail", "busy", "the lock is held", "", []])
    machine.request("apt-1")
    machine.start()
    eventually(lambda: machine.calls(), "the first upgrade")
    time.sleep(0.5)
    assert machine.calls() == [["upgrade"]]

    async def poke(caller: Caller) -> None:
        for _ in range(5):
            await caller.manager("Refresh")

    machine.ask(poke)
    eventually(lambda: len(machine.calls()) == 2, "a poke tries again")
    machine.request("apt-2")
    eventually(lambda: len(machine.calls()) == 3, "a new request tries again")


def test_what_may_succeed_later_is_retried(machine: Machine) -> None:
    machine.script("upgrade", ["defer"], ["fail", "code_busy", "in use", "", []])
    machine.script("fetch", ["resume"])
    machine.request("apt-1")
    machine.start(retry=1.0)
    eventually(lambda: machine.calls("upgrade"), "the first upgrade")
    machine.script("upgrade", ["take_queue"])
    eventually(lambda: len(machine.calls("upgrade")) == 2, "the retry")
    assert machine.calls() == [["upgrade"], ["fetch"], ["upgrade"]]
    eventually(lambda: not list(machine.paths.queue.rglob("*.json")), "nothing is left")


def test_a_crash_leaves_the_queue_for_the_next_daemon(machine: Machine) -> None:
    machine.script("upgrade", ["until", "never"])
    machine.request("apt-1")
    machine.start()
    eventually(lambda: machine.calls("upgrade"), "the first upgrade")
    assert machine.daemon is not None
    machine.daemon.kill()
    machine.daemon.wait()
    machine.script("upgrade", ["take_queue"])
    machine.start()
    eventually(lambda: not list(machine.paths.queue.glob("*.json")), "the queue is empty")


def test_a_file_that_lies_is_put_aside_by_the_real_worker(machine: Machine) -> None:
    machine.request("lie", '{"schema": 1, "source": "apt", "packages": "all", "time": null}')
    machine.request("bomb", "[" * 100_000)
    (machine.paths.lib / "sources").rename(machine.paths.lib / "sources.off")
    (machine.paths.lib / "sources/source-6.1.192-1").mkdir(parents=True)
    status = machine.paths.dpkg / "status"
    status.write_text(status.read_text("utf-8").split("\n\n", 1)[0] + "\n", "utf-8")
    machine.start(real_worker=True)
    eventually(lambda: len(list(machine.paths.aside.glob("*.json"))) == 2, "both are aside")
    assert not list(machine.paths.queue.glob("*.json"))

    async def read(caller: Caller) -> str:
        return str((await caller.get_all(ROOT, MANAGER))["State"])

    eventually(lambda: machine.ask(read) == "idle", "nothing came of it")


def test_missing_sources_are_fetched_once(machine: Machine) -> None:
    (machine.paths.sources / "source-6.1.192-1").rename(machine.paths.sources / "source-5.10-1")
    machine.script("fetch", ["fail", "source_unavailable", "no network", "", []])
    machine.start(retry=0.1)
    eventually(lambda: machine.calls("fetch"), "a fetch")
    assert _settled(machine) == [["fetch"]]


def test_sources_that_are_there_are_not_fetched(machine: Machine) -> None:
    machine.start()
    assert _settled(machine) == []


def test_deferred_requests_are_tried_at_the_start(machine: Machine) -> None:
    later = machine.paths.queue / "later"
    later.mkdir(parents=True)
    machine.request("apt-1")
    (machine.paths.queue / "apt-1.json").rename(later / "apt-1.json")
    machine.script("fetch", ["resume"])
    machine.script("upgrade", ["take_queue"])
    machine.start()
    eventually(lambda: machine.calls() == [["fetch"], ["upgrade"]], "a fetch, then an upgrade")


def test_a_fetch_gives_way(machine: Machine) -> None:
    (machine.paths.sources / "source-6.1.192-1").rename(machine.paths.sources / "source-5.10-1")
    machine.script("fetch", ["until", "never"])
    machine.start()
    eventually(lambda: machine.calls("fetch"), "a fetch")

    async def work(caller: Caller) -> tuple[str, str, str]:
        state = (await caller.get_all(ROOT, MANAGER))["State"]
        job = await caller.manager("Apply")
        end = await caller.end_of(job)
        first = await caller.get_all(f"{ROOT}/job/1", "org.kspliced1.Job")
        return str(state), str(end["State"]), f"{first['Verb']} {first['State']}"

    assert machine.ask(work) == ("pending", "done", "fetch cancelled")


def _settled(machine: Machine) -> list[list[str]]:
    """The worker's calls once the daemon is quiet."""

    async def idle(caller: Caller) -> bool:
        return bool((await caller.get_all(ROOT, MANAGER))["CurrentJob"] == "/")

    seen = machine.calls()
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < 0.7:
        time.sleep(0.05)
        if machine.calls() != seen or not machine.ask(idle):
            seen, quiet_since = machine.calls(), time.monotonic()
    return seen
