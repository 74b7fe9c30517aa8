# SPDX-License-Identifier: GPL-2.0-or-later
"""Constants and pointers of the running kernel that an update changes in place."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import pytest

from tests.vm import kmod_build, kmod_lab
from tests.vm.kmod_build import Modules, Tree
from tests.vm.kmod_lab import CONSTANTS, HOOKS, Lab, unharmed
from tests.vm.kmod_trees import TREES

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module", params=TREES)
def booted(request: pytest.FixtureRequest) -> Iterator[Lab]:
    make: Callable[[], Tree] = request.param
    modules: Modules = kmod_build.build(make())
    name = f"data-{modules.tree.release}"
    with kmod_lab.booted(name, modules, {}, (*CONSTANTS, HOOKS)) as lab:
        yield lab


@pytest.fixture
def lab(booted: Lab) -> Iterator[Lab]:
    with unharmed(booted):
        yield booted


def test_constants_change_in_place(lab: Lab) -> None:
    before = lab.constants()
    assert before == ("10,11,12,13", "Linux version " + before[1][14:])
    lab.load_with_data("update_a")
    assert lab.constants() == before
    lines = [line.split("\t") for line in lab.read("update_a", "data").splitlines()]
    assert lines == [
        [f"{lab.places[name].addr:#x}", "16", target, name]
        for name, target in zip(CONSTANTS, ("victim", "vmlinux"), strict=True)
    ]
    assert lab.write("update_a", "apply") == 0
    upper = ("2000,2001,2002,2003", before[1].upper().replace("LINUX", "Linux"))
    assert lab.constants() == upper
    banner = dict(line.split("\t") for line in lab.read("update_a", "original").splitlines())
    assert bytes.fromhex(banner[lines[1][0]]).startswith(b"%s version ")

    # Another one takes the constants over, and leaves what it does not change.
    lab.load_with_data("update_b")
    assert lab.write("update_b", "apply") == errno.EILSEQ
    lab.machine.check(f"rmmod {lab.name('update_b')}")
    assert lab.write("update_a", "reverse") == 0
    assert lab.constants() == before
    lab.load_with_data("update_b")
    lab.renew("update_a")
    lab.load("update_a")
    assert lab.write("update_b", "apply") == 0
    assert lab.constants()[0] == "3000,3001,3002,3003"
    assert lab.write("update_a", "apply") == 0
    assert lab.constants() == before


def test_constants_pass_from_update_to_update(lab: Lab) -> None:
    lab.load_with_data("update_a")
    lab.load_with_data("update_b")
    before = lab.constants()
    for update, first in (("update_a", "2000"), ("update_b", "3000"), ("update_a", "2000")):
        assert lab.write(update, "apply") == 0
        assert lab.constants()[0].startswith(first)
    assert lab.write("update_a", "reverse") == 0
    assert lab.constants() == before


def test_other_constants_are_no_match(lab: Lab) -> None:
    before = lab.constants()
    lab.load_with_data("update_a", wrong="data_byte")
    assert lab.write("update_a", "apply") == errno.EILSEQ
    (line,) = lab.read("update_a", "mismatch").splitlines()
    target, name, offset, expected, found = line.split("\t")
    assert (target, name, offset) == ("vmlinux", "linux_proc_banner", "15")
    assert int(expected, 16) ^ int(found, 16) == 0x40
    assert lab.constants() == before and lab.values() == (1000, "")


def test_a_pointer_among_data_that_are_written(lab: Lab) -> None:
    """It is set, passes from update to update, and goes back to what it was."""
    lab.load_with_data("update_a", hook=True)
    lab.load_with_data("update_b", hook=True)
    assert lab.values() == (1000, "")
    for update, value in (("update_a", 2500), ("update_b", 3500), ("update_a", 2500)):
        assert lab.write(update, "apply") == 0
        assert lab.values()[0] == value
    assert lab.write("update_a", "reverse") == 0
    assert lab.values() == (1000, "")


def test_a_pointer_that_others_have_written_since(lab: Lab) -> None:
    """Nobody knows what it would go back to: nothing is undone until it is as it was left."""
    lab.load_with_data("update_a", hook=True)
    assert lab.write("update_a", "apply") == 0
    lab.machine.check("echo hook > /proc/victim")
    assert lab.values()[0] == 2000
    assert lab.write("update_a", "reverse") == errno.EILSEQ
    (line,) = lab.read("update_a", "mismatch").splitlines()
    assert line.split("\t")[:2] == ["victim", "victim_hooks"]
    assert (lab.state("update_a"), lab.values()[0]) == (("applied", "no_match"), 2000)
    lab.machine.check("echo hook > /proc/victim")
    assert lab.write("update_a", "reverse") == 0
    assert lab.values() == (1000, "")
