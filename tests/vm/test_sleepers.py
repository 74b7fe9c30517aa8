# SPDX-License-Identifier: GPL-2.0-or-later
"""Real threads that sleep in functions that are to be replaced, and what the engine does about it.

A Debian guest runs the daemon; the updates are of the kernel's own pipe_read, futex_wait and so on.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kspliced.engine.journal import Event
from kspliced.errors import ExitCode
from kspliced.pack import read_pack
from tests.vm import counting, image, product
from tests.vm.guest import Guest, Result
from tests.vm.kmod_lab import UPDATES

pytestmark = pytest.mark.vm

HERE = Path(__file__).parent
SLEEPER = "/usr/local/bin/sleeper.py"
WATCHED = {
    "fs/pipe.c": ("pipe_read",),
    "fs/select.c": ("do_poll",),
    "fs/eventpoll.c": ("ep_poll",),
    "kernel/futex/waitwake.c": ("futex_wait", "futex_wait_queue"),
}
# What each sleeper sleeps in: the innermost of the functions that would change.
ASLEEP = {
    "read": "pipe_read",
    "poll": "do_sys_poll",
    "epoll": "do_epoll_wait",
    "futex": "futex_wait_queue",
    "spaced": "pipe_read",
}
ENGINE = {"kernel/fork.c": ("kernel_clone",)}
PACKS = ("first", "second")
NUDGES = 30


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    with Guest("sleepers", image.base()) as machine:
        product.place(machine)
        product.start_daemon(machine)
        machine.put(HERE / "sleeper.py", SLEEPER)
        for name, file in zip(PACKS, counting.packs(PACKS, ENGINE), strict=True):
            machine.put(file, f"/root/{name}.kspack")
        yield machine
        assert not machine.faults()


def sleep_in(guest: Guest, kind: str, name: str, function: str, prefix: str = "") -> int:
    """Start a sleeper; returns the id of its thread in the initial namespace once it sleeps."""
    guest.background(name, f"exec {prefix} python3 {SLEEPER} {kind} {name}")
    script = f"""
        for task in /proc/[0-9]*/task/[0-9]*; do
            if [ "$(cat $task/comm)" = {name} ] && grep -q ' {function}+' $task/stack; then
                echo ${{task##*/}}
            fi
        done 2> /dev/null"""
    found = guest.wait_for(lambda: guest.run(script).stdout.split(), 60, f"{name} to sleep")
    assert len(found) == 1
    return int(found[0])


def result_of(guest: Guest, name: str) -> tuple[int, int]:
    """What a sleeper's system call gave, and the error number, once it is awake."""
    script = f"cat /run/{name}.result"
    guest.wait_for(lambda: guest.run(script, check=False).ok, 60, f"{name} to wake up")
    given, error = guest.run(script).stdout.split()
    return int(given), int(error)


# -- what the core says of them ---------------------------------------------------------------


@pytest.fixture(scope="module")
def watched(guest: Guest) -> str:
    """The name of a loaded update of everything that is slept in."""
    (file,) = counting.packs(("watched",), WATCHED)
    guest.put(file, "/root/watched.kspack")
    guest.put(HERE / "soak_inside.py", "/root/soak_inside.py")
    link = "python3 /root/soak_inside.py link /root/watched.kspack /root/watched.ko"
    guest.run(f"{link} && insmod /root/watched.ko", timeout=300)
    return read_pack(file).manifest.update


@pytest.fixture(scope="module")
def sleepers(guest: Guest) -> dict[str, int]:
    """A thread for each kind; "spaced" is in another PID namespace, where its id is 2 at most."""
    found = {
        kind: sleep_in(guest, kind, f"in-{kind}", function)
        for kind, function in ASLEEP.items()
        if kind != "spaced"
    }
    space = "unshare --pid --fork --mount-proc"
    found["spaced"] = sleep_in(guest, "read", "in-spaced", ASLEEP["spaced"], space)
    return found


def attempt(guest: Guest, update: str, word: str = "apply") -> str:
    """Write to ``control``; what the shell says where that fails."""
    return guest.run(f"echo {word} 2>&1 > {UPDATES}/{update}/control", check=False).stdout


@pytest.mark.parametrize("kind", ASLEEP)
def test_a_sleeper_is_named_with_its_stack(
    guest: Guest, watched: str, sleepers: dict[str, int], kind: str
) -> None:
    assert "busy" in attempt(guest, watched)
    who = f"{sleepers[kind]} in-{kind}"
    text = guest.run(f"cat {UPDATES}/{watched}/conflicts").stdout
    conflicts = dict(line.split("\t", 1) for line in text.splitlines())
    assert re.fullmatch(rf"{ASLEEP[kind]}\+0x[0-9a-f]+\treliable", conflicts[who])
    text = guest.run(f"cat {UPDATES}/{watched}/stacks").stdout
    stacks = dict(line.split("\t") for line in text.splitlines())
    frames = [frame.partition("+")[0] for frame in stacks[who].split()]
    assert frames.index("schedule") < frames.index(ASLEEP[kind]) < frames.index("do_syscall_64")
    if kind == "spaced":
        inside = guest.run(f"grep NSpid /proc/{sleepers[kind]}/status").stdout.split()
        assert inside[1] == str(sleepers[kind]) and int(inside[2]) <= 2


def test_nudges_are_not_noticed(guest: Guest, watched: str, sleepers: dict[str, int]) -> None:
    """Nobody's system call fails, but for those that never go on after a signal (signal(7))."""
    script = f"""
        cd {UPDATES}/{watched}
        for i in $(seq {NUDGES}); do
            (echo apply > control) 2> /dev/null && exit 1
            [ $(cat abort_cause) = code_busy ] || exit 2
            echo nudge > control || exit 3
            sleep 0.02
        done"""
    guest.run(script, timeout=300)
    assert result_of(guest, "in-epoll") == (-1, errno.EINTR)
    for kind, given in (("read", 5), ("poll", 1), ("futex", 0), ("spaced", 5)):
        asleep = guest.run(f"cat /proc/{sleepers[kind]}/stack", check=False).stdout
        assert ASLEEP[kind] in asleep, f"{kind} sleeps again"
        guest.run(f"python3 {SLEEPER} wake in-{kind}")
        assert result_of(guest, f"in-{kind}") == (given, 0)
    assert guest.run("systemctl is-system-running", check=False).stdout.strip() == "running"
    guest.run(f"rmmod {watched}")


# -- what the engine does ---------------------------------------------------------------------


@pytest.fixture
def vforker(guest: Guest) -> Iterator[int]:
    """A process that nothing gets out of kernel_clone() but the end of its child."""
    pid = sleep_in(guest, "vfork", "vforker", "kernel_clone")
    yield pid
    let_go(guest)


def let_go(guest: Guest) -> None:
    guest.run("pkill -x vforker-child", check=False)
    gone = "! pgrep -x vforker"
    guest.wait_for(lambda: guest.run(gone, check=False).ok, 30, "the process to go on")


@pytest.fixture(autouse=True)
def nothing_live(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    machine: Guest = request.getfixturevalue("guest")
    if shown(machine) in PACKS:
        machine.run("kspliced undo", timeout=300)


def shown(guest: Guest) -> str:
    """The pack that is live, as its new code shows, or Linux."""
    return guest.run("cut -d ' ' -f 1 /proc/version").stdout.strip()


def status(guest: Guest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(guest.run("kspliced status --json", timeout=90).stdout)
    return found


def journal(guest: Guest, event: Event) -> list[str]:
    """The messages of one kind in the journal."""
    script = f"journalctl -q -o json MESSAGE_ID={event.value.id}"
    lines = guest.run(script).stdout.splitlines()
    return [json.loads(line)["MESSAGE"] for line in lines]


def apply(guest: Guest, name: str) -> Result:
    return guest.run(f"kspliced apply /root/{name}.kspack 2>&1", timeout=300, check=False)


def loaded(guest: Guest) -> set[str]:
    return set(guest.run(f"ls {UPDATES}").stdout.split())


def applied(guest: Guest) -> list[str]:
    """What the core has applied; what it had applied before stays loaded."""
    found = guest.run(f"grep -lx applied {UPDATES}/*/stage || true").stdout.split()
    return [path.split("/")[-2] for path in found]


def update_of(name: str) -> str:
    (file,) = (f for n, f in zip(PACKS, counting.packs(PACKS, ENGINE), strict=True) if n == name)
    return read_pack(file).manifest.update


def test_an_update_replaces_another(guest: Guest) -> None:
    for name in (*PACKS, PACKS[0]):
        result = apply(guest, name)
        assert result.ok, result.stdout
        assert shown(guest) == name
        assert applied(guest) == [update_of(name)]
        update = status(guest)["update"]
        assert update["update"] == update_of(name) and update["live"]
        stages = guest.run("cat /var/lib/kspliced/state.json").stdout
        assert stages.count('"stage":"live"') == 1
    assert guest.run("kspliced undo", timeout=300).ok
    assert shown(guest) == "Linux" and applied(guest) == []
    assert loaded(guest) == {update_of(name) for name in PACKS}


def test_busy_code_is_tried_again_until_it_is_free(guest: Guest, vforker: int) -> None:
    guest.background("applying", "kspliced apply /root/first.kspack > /root/applying 2>&1")
    waiting = re.compile(rf"attempt \d+ of at most \d+.*: vforker\[{vforker}\] in kernel_clone\+")

    def waits() -> bool:
        job = status(guest)["job"]
        return job is not None and waiting.match(job["message"]) is not None

    guest.wait_for(waits, 120, "the job to say who is in the way")
    assert shown(guest) == "Linux"
    let_go(guest)
    ended = "systemctl is-active applying"
    guest.wait_for(lambda: not guest.run(ended, check=False).ok, 90, "the job to end")
    assert shown(guest) == "first", guest.run("cat /root/applying").stdout


def test_who_stays_for_ever_is_told(guest: Guest, vforker: int) -> None:
    """An undo: polite, then nudges, then a failure that names the thread; and it stays live."""
    let_go(guest)
    assert apply(guest, "first").ok
    vforker = sleep_in(guest, "vfork", "vforker", "kernel_clone")
    result = guest.run("kspliced undo 2>&1", timeout=300, check=False)
    assert result.status == ExitCode.BUSY, result.stdout
    assert re.search(r"\(\d+ attempts, asked to leave \d+ times\)", result.stdout)
    where = rf"vforker\[{vforker}\] in kernel_clone\+0x[0-9a-f]+"
    assert re.search(where, result.stdout), result.stdout
    (nudged,) = journal(guest, Event.NUDGED)[-1:]
    (busy,) = journal(guest, Event.BUSY)[-1:]
    assert all(re.search(where, text) for text in (nudged, busy))
    # Its stack is for root only.
    assert not any("stack:" in text for text in (result.stdout, nudged, busy))
    (kept,) = re.findall(r"for root: (/\S+)", result.stdout)
    assert guest.run(f"stat -c '%a %u' {kept}").stdout.split() == ["600", "0"]
    assert re.search(where + r"\n +stack: .* < kernel_clone\+", guest.run(f"cat {kept}").stdout)
    found = status(guest)
    assert found["update"]["live"] and found["update"]["problem"]["code"] == "code_busy"
    assert f"vforker[{vforker}]" in guest.run("kspliced status").stdout
    assert shown(guest) == "first"
    let_go(guest)
    assert guest.run("kspliced undo", timeout=300).ok
    assert shown(guest) == "Linux"
