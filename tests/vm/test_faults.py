# SPDX-License-Identifier: GPL-2.0-or-later
"""Every way in which the core can run out of something, on a kernel that watches what it does.

Each allocation of each operation fails once. After every failure all is as before; afterwards the
kernel has no complaint, nothing is leaked and the operation works.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.vm import debug_kernel, guest_tools, kmod_build, kmod_lab
from tests.vm.faults import COMPLAINT, LOADER, Faults
from tests.vm.kmod_lab import CONSTANTS, REPLACED, Lab, leave

pytestmark = [pytest.mark.vm, pytest.mark.full]

CORE = "/sys/kernel/kspliced"
NOT_STOPPED = f"the machine could not be stopped (error -{errno.ENOENT})"
# What many failures may lead to, besides ENOMEM: one step follows on another that did not succeed.
POSSIBLE = (
    *(errno.ENOMEM, errno.EALREADY, errno.EEXIST, errno.ENOENT, errno.EWOULDBLOCK),
    *(errno.EILSEQ, errno.ESRCH),
)


@dataclass(frozen=True)
class Switch:
    """A word to an update; ``back`` is what update_a is told before it, and to have it again."""

    name: str
    update: str
    word: str
    back: str


SWITCHES = (
    Switch("apply", "update_a", "apply", "reverse"),
    Switch("reverse", "update_a", "reverse", "apply"),
    Switch("replace", "update_b", "apply", "apply"),
)


@pytest.fixture(scope="module")
def booted() -> Iterator[Faults]:
    modules = kmod_build.build(debug_kernel.tree())
    files = guest_tools.compiled(guest_tools.FAULTY)
    with kmod_lab.booted("faults", modules, files, CONSTANTS) as lab:
        yield Faults(lab)


@pytest.fixture
def faults(booted: Faults) -> Iterator[Faults]:
    """The lab with nothing loaded but the core, as it must be again; and no complaint."""
    lab = booted.lab
    console = lab.machine.console_path
    before = len(console.read_text(errors="replace"))
    yield booted
    lab.wake()
    leave(lab)
    assert lab.values() == (1000, "")
    said = console.read_text(errors="replace")[before:]
    complaints = [line for line in said.splitlines() if COMPLAINT.search(line)]
    assert [line for line in complaints if not LOADER.search(line)] == []
    assert lab.locks_watched()


def insmod(lab: Lab, update: str) -> str:
    """The words of faulty that load an update, which changes constants as well."""
    _, file, parameters = lab.insmod_with_data(update).split(" ", 2)
    return f"insmod {file} '{parameters}'"


def control(lab: Lab, update: str, word: str) -> str:
    """The words of faulty that write to ``control``."""
    return f"write {lab.at(update)}/control {word}"


def writing(lab: Lab, update: str, *words: str) -> str:
    """Commands that write to ``control``, without a fault."""
    return "\n".join(f"echo {word} > {lab.at(update)}/control" for word in words)


def load(lab: Lab, *updates: str) -> None:
    """Load updates, and switch each to and fro, so that its stage is "reversed"."""
    for update in updates:
        lab.load_with_data(update)
    for update in updates:
        lab.machine.check(writing(lab, update, "apply", "reverse"))


def start(lab: Lab, switch: Switch) -> None:
    """Load both updates, and make that update_a is applied where the switch wants it to be."""
    load(lab, "update_a", "update_b")
    if switch.back == "apply":
        assert lab.write("update_a", "apply") == 0


def refused(lab: Lab, update: str, word: str) -> tuple[int, str, list[str]]:
    """Error number, abort cause and what the core says, but for the name, to a word that fails."""
    lab.machine.check("dmesg -c > /dev/null")
    error = lab.write(update, word)
    said = lab.machine.check("dmesg -c").splitlines()
    lines = [
        line.split(f"kspliced: update {lab.name(update)}: ")[1]
        for line in said
        if "kspliced:" in line
    ]
    return error, lab.state(update)[1], lines


def test_loading_the_core(faults: Faults) -> None:
    machine = faults.lab.machine
    machine.check("rmmod kspliced")
    assert faults.sweep("insmod /kspliced.ko ''", "rmmod kspliced").failed
    machine.check("insmod /kspliced.ko")
    assert not faults.sweep("rmmod kspliced 0", "insmod /kspliced.ko").failed


def test_loading_an_update(faults: Faults) -> None:
    lab = faults.lab
    assert faults.sweep(insmod(lab, "update_a"), f"rmmod {lab.name('update_a')}").failed


def test_unloading_an_update(faults: Faults) -> None:
    """One that was never applied; others stay."""
    lab = faults.lab
    again = lab.insmod_with_data("update_a")
    lab.machine.check(again)
    assert not faults.sweep(f"rmmod {lab.name('update_a')} 0", again).failed


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.name)
def test_switching(faults: Faults, switch: Switch) -> None:
    start(faults.lab, switch)
    sweep = faults.sweep(
        control(faults.lab, switch.update, switch.word),
        writing(faults.lab, "update_a", switch.back),
    )
    assert sweep.told > 3


def test_reading(faults: Faults) -> None:
    """Each file, with something in it wherever that can be."""
    lab = faults.lab
    lab.load_with_data("update_a")
    lab.load_with_data("update_b", wrong="data_byte")
    assert lab.write("update_b", "apply") == errno.EILSEQ
    lab.sleep_in("sleep", r"vic tim\0")
    assert lab.write("update_a", "apply") == errno.EBUSY
    files = lab.machine.check(
        f"find {CORE} -type f ! -path '*/updates/*'; "
        f"find {lab.at('update_a')} {lab.at('update_b')} -type f ! -name control"
    )
    for path in files.split():
        assert faults.sweep(f"read {path}", text=lab.machine.check(f"cat {path}")).failed
    lab.wake()
    assert lab.write("update_a", "apply") == 0
    path = f"{lab.at('update_a')}/original"
    assert faults.sweep(f"read {path}", text=lab.read("update_a", "original")).failed
    assert lab.write("update_a", "reverse") == 0


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.name)
@pytest.mark.parametrize(
    ("function", "value", "answer"),
    [
        ("stop_and_switch", -errno.ENOENT, (errno.EIO, "unexpected", [NOT_STOPPED])),
        ("kspliced_attempt_new", 0, (errno.ENOMEM, "out_of_memory", [])),
    ],
)
def test_a_step_that_fails(
    faults: Faults,
    switch: Switch,
    function: str,
    value: int,
    answer: tuple[int, str, list[str]],
) -> None:
    start(faults.lab, switch)
    before = faults.snapshot()
    with faults.refusing(function, value):
        assert refused(faults.lab, switch.update, switch.word) == answer
    assert faults.snapshot() == before
    assert faults.lab.write(switch.update, switch.word) == 0


@pytest.mark.parametrize("after", range(len(REPLACED) + len(CONSTANTS)))
def test_a_target_that_cannot_be_pinned(faults: Faults, after: int) -> None:
    """The first one, or another one when some are pinned already."""
    lab = faults.lab
    load(lab, "update_a")
    before = faults.snapshot()
    with faults.refusing("pin_target", 0, after):
        assert refused(lab, "update_a", "apply") == (errno.ENODEV, "target_gone", [])
    assert faults.snapshot() == before
    lab.machine.check(writing(lab, "update_a", "apply", "reverse"))


def test_many_failures_at_once(faults: Faults) -> None:
    """One allocation in ten fails, in what is done after a failure too."""
    lab = faults.lab
    load(lab, "update_a", "update_b")
    words = [
        words
        for update in ("update_a", "update_b")
        for words in (
            f"read {lab.at(update)}/original",
            *(control(lab, update, word) for word in ("apply", "apply", "reverse", "nudge")),
        )
    ]
    chance = random.Random(2009)
    met: Counter[int] = Counter()
    with faults.failing(10):
        values = {(): 1000, (lab.name("update_a"),): 2000, (lab.name("update_b"),): 3000}
        for _ in range(300):
            met[faults.attempt(chance.choice(words))] += 1
            value = values[lab.applied()]
            assert lab.values()[0] == value
    print({errno.errorcode.get(error, "ok"): times for error, times in met.items()})
    assert set(met) <= {0, *POSSIBLE} and met[0] > 50 and met[errno.ENOMEM] > 20


def test_unloading_by_force(faults: Faults) -> None:
    """While it is applied: that takes a switch, which takes memory."""
    load(faults.lab, "update_a")
    assert faults.lab.write("update_a", "apply") == 0
    update = faults.lab.name("update_a")
    again = f"{faults.lab.insmod_with_data('update_a')}\n{writing(faults.lab, 'update_a', 'apply')}"
    assert not faults.sweep(f"rmmod {update} {os.O_TRUNC}", again).failed
    assert faults.lab.write("update_a", "reverse") == 0


def test_nothing_has_leaked(faults: Faults) -> None:
    """Not in all of the above."""
    assert faults.leaks() == ""
