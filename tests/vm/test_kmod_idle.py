# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel core and the idle tasks, which have no process id of their own."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator

import pytest

from tests.vm import kmod_build, kmod_lab
from tests.vm.kmod_build import Modules, Tree
from tests.vm.kmod_lab import Lab, unharmed
from tests.vm.kmod_trees import TREES

pytestmark = pytest.mark.vm

WATCHABLE = ("do_idle",)


@pytest.fixture(scope="module", params=TREES)
def booted(request: pytest.FixtureRequest) -> Iterator[Lab]:
    make: Callable[[], Tree] = request.param
    modules: Modules = kmod_build.build(make())
    name = f"idle-{modules.tree.release}"
    with kmod_lab.booted(name, modules, {}, WATCHABLE) as lab:
        yield lab


@pytest.fixture
def lab(booted: Lab) -> Iterator[Lab]:
    with unharmed(booted):
        yield booted


def test_idle_tasks_are_named(lab: Lab) -> None:
    """They share the id 0, and nothing can be asked of them."""
    lab.load("update_a", watched="do_idle")
    for _ in range(2):
        assert lab.write("update_a", "apply") == errno.EBUSY
        lines = lab.read("update_a", "conflicts").splitlines()
        places = dict(line.split("\t", 1) for line in lines)
        assert set(places) == {"0 swapper/0", "0 swapper/1"}
        stacks = dict(line.split("\t") for line in lab.read("update_a", "stacks").splitlines())
        for who, where in places.items():
            assert re.fullmatch(r"watched\+0x[0-9a-f]+\treliable", where)
            assert re.search(r"schedule_idle\+\S+ do_idle\+\S+ cpu_startup_entry\+", stacks[who])
        assert lab.write("update_a", "nudge") in (0, errno.ESRCH)


def test_idle_tasks_of_processors_that_are_offline(lab: Lab) -> None:
    """Their stacks have what they were in when they went, for the undo as well."""
    lab.load("update_a", watched="do_idle")
    lab.load("update_b")
    cpu = "/sys/devices/system/cpu/cpu1/online"
    lab.machine.check(f"echo 0 > {cpu}")
    assert lab.write("update_a", "apply") == errno.EBUSY
    lines = lab.read("update_a", "conflicts").splitlines()
    places = dict(line.split("\t", 1) for line in lines)
    assert set(places) == {"0 swapper/0", "0 swapper/1"}
    assert re.fullmatch(r"watched\+0x[0-9a-f]+\tscan", places["0 swapper/1"])
    # What no idle task is in changes all the same.
    assert lab.write("update_b", "apply") == 0
    lab.machine.check(f"echo 1 > {cpu}")
    assert lab.machine.check("taskset 2 cat /proc/victim") == "3000\n"
    lab.machine.check(f"echo 0 > {cpu}")
    assert lab.write("update_b", "reverse") == 0
    lab.machine.check(f"echo 1 > {cpu}")
