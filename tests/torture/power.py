# SPDX-License-Identifier: GPL-2.0-or-later
"""A power cut before each durable step of an upgrade: fsync, rename, unlink, in their order.

A guest that apt has brought the new kernel, with the request of apt's hook in the queue and the
update built, is booted again and again from the same disk. The worker is stopped before its step
number N, the power is cut, and the same kernel boots. Then the machine must say what is so, be
mended or able to be, and have lost nothing; also after one boot more.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vm import cache, repo
from tests.vm.guest import Guest
from tests.vm.image import Image
from tests.vm.world import DEBIAN, World

PYTHON = "/usr/lib/python3/dist-packages"
UNITS = "kspliced.service kspliced-queue.path"
APPLIED = "cat /sys/kernel/kspliced/updates/*/stage 2>/dev/null | grep -cx applied"
SETTLE = 900.0


@dataclass(frozen=True)
class Cut:
    """What came of a cut before one step; ``wrong`` says what should not be, or is empty."""

    number: int
    step: str
    found: str
    wrong: str


def _status(guest: Guest) -> dict[str, Any]:
    return dict(json.loads(guest.run("kspliced status --json", timeout=120).stdout))


def _idle(guest: Guest) -> dict[str, Any] | None:
    status = _status(guest)
    waiting = status["job"] is not None or status["state"] in ("pending", "busy")
    return None if waiting else status


def _settled(guest: Guest) -> dict[str, Any]:
    return guest.wait_for(lambda: _idle(guest), SETTLE, "the daemon to be done", poll=2.0)


@contextmanager
def prepared(world: World = DEBIAN) -> Iterator[Image]:
    """A disk with kspliced, the new kernel, a request in the queue and the update built; nothing
    of kspliced starts by itself."""
    with (
        tempfile.TemporaryDirectory(prefix="ks-power-", dir=cache.root()) as folder,
        world.repository() as repository,
    ):
        disk = Path(folder) / "prepared.raw"
        with Guest("power-prepare", world.image(), (repository.disk,)) as guest:
            repository.attach(guest)
            guest.run(world.refresh, timeout=180)
            guest.run(world.install, timeout=1500)
            _settled(guest)
            guest.run(f"systemctl mask --now {UNITS}", timeout=120)
            repo.offer(guest, "after")
            guest.run(world.refresh, timeout=180)
            guest.run(world.upgrade, timeout=1500)
            guest.run("ls /var/lib/kspliced/queue/*.json")
            guest.run("cd / && python3 -m kspliced.engine build", timeout=1800)
            source = Path(__file__).with_name("guest_cut.py").read_bytes()
            guest.put(source, f"{PYTHON}/kspliced_cut.py")
            guest.put(b"import kspliced_cut\n", f"{PYTHON}/kspliced_cut.pth")
            guest.stop()
            guest.save_disk(disk)
        yield Image(disk, world.image().boot)


@contextmanager
def _upgrading(image: Image, number: int) -> Iterator[tuple[Guest, str]]:
    """A guest that makes the upgrade and is stopped before step ``number``; the step, or "done"
    where there is none."""
    with Guest(f"power-{number}", image) as guest:
        guest.run(f"echo {number} > /run/torture-cut; systemctl unmask {UNITS}")
        guest.run("systemctl daemon-reload; systemctl start kspliced-queue.path", timeout=120)

        def stopped_or_live() -> str | None:
            reached = guest.run("cat /run/torture-reached", check=False).stdout.strip()
            if reached:
                return reached
            done = int(guest.run(APPLIED, check=False).stdout or 0)
            queued = guest.run("ls /var/lib/kspliced/queue/*.json", check=False).ok
            return "done" if done and not queued and _idle(guest) else None

        yield guest, guest.wait_for(stopped_or_live, SETTLE, "the step, or the end", poll=1.0)


def steps(image: Image) -> tuple[str, ...]:
    """The durable steps of the upgrade, in their order."""
    with _upgrading(image, 0) as (guest, _):
        return tuple(guest.run("cat /run/torture-steps").stdout.splitlines())


def cut_before(image: Image, number: int, world: World = DEBIAN) -> Cut | None:
    """Cut the power before step ``number``; None where the upgrade is done before it."""
    with _upgrading(image, number) as (guest, step):
        if step == "done":
            return None
        guest.reset()
        found = _verdict(guest)
        wrong = _wrong(guest, world)
        return Cut(number, step, found, wrong)


def _verdict(guest: Guest) -> str:
    """What the machine made of it by itself; a boot that went down over the switch is not mended
    without being asked."""
    status = _settled(guest)
    problem = status.get("problem") or {}
    if status["state"] == "live":
        return "live by itself"
    return f"{status['state']}: {problem.get('code', '')}"


def _wrong(guest: Guest, world: World) -> str:
    """What should not be, after the power came back; tries to mend what is not mended."""
    status = _status(guest)
    live, applied = status["state"] == "live", int(guest.run(APPLIED, check=False).stdout)
    if live != (applied == 1):
        return f"status says {status['state']}, but {applied} updates are applied"
    if not live:
        said = guest.run("kspliced apply", timeout=900, check=False)
        if not said.ok:
            return f"kspliced apply: {said.stdout} {said.stderr}"
    status = _settled(guest)
    if status["effective"] != world.new.version or status["state"] != "live":
        return f"not mended: {status['state']}, {status['effective']}"
    guest.reset()
    status = _settled(guest)
    if status["state"] != "live":
        return f"not live after a boot more: {status['state']}"
    traces = guest.run("journalctl -q --no-pager | grep -c Traceback", check=False).stdout.strip()
    if traces != "0":
        return "a traceback in the journal"
    left = guest.run("ls /var/lib/kspliced/queue", check=False).stdout.strip()
    return f"left in the queue: {left}" if ".json" in left else ""


def campaign(say: Callable[[str], None], first: int = 1, last: int = 0) -> tuple[Cut, ...]:
    """Cut before each step of the upgrade from ``first`` on, to ``last`` if that is not 0."""
    cuts: list[Cut] = []
    with prepared() as image:
        known = steps(image)
        numbers = range(first, min(last or len(known), len(known)) + 1)
        say(f"{len(known)} steps, {len(numbers)} cuts")
        begin = time.monotonic()
        for done, number in enumerate(numbers, start=1):
            cut = cut_before(image, number)
            if cut is None:
                break
            cuts.append(cut)
            wrong = f"; WRONG: {cut.wrong}" if cut.wrong else ""
            left = (time.monotonic() - begin) / done * (len(numbers) - done)
            say(f"{number:3} before {cut.step}: {cut.found}{wrong}; {left / 60:.0f} min left")
    return tuple(cuts)
