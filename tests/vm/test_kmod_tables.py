# SPDX-License-Identifier: GPL-2.0-or-later
"""What the core asks the kernel's own tables, and what it must not stand in the way of."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.vm import kmod_build, kmod_lab
from tests.vm.kmod_build import Modules, Tree
from tests.vm.kmod_lab import CONSTANTS, Lab, Place, find, sizes_in, unharmed
from tests.vm.kmod_trees import TREES

pytestmark = pytest.mark.vm

# The kernel keeps kprobes off it; its neighbours are constants that start-up writes.
NO_PROBE = "bsearch"
AFTER_INIT = "__start_ro_after_init"
FENTRY_SIZE = 5
TAINT_LIVEPATCH = 1 << 15


@pytest.fixture(scope="module", params=TREES)
def booted(request: pytest.FixtureRequest) -> Iterator[Lab]:
    make: Callable[[], Tree] = request.param
    modules: Modules = kmod_build.build(make())
    further = (NO_PROBE, AFTER_INIT, *CONSTANTS)
    with kmod_lab.booted(f"tables-{modules.tree.release}", modules, {}, further) as lab:
        lab.machine.check("insmod /labelled.ko")
        yield lab
        lab.machine.check("rmmod labelled")


@pytest.fixture
def lab(booted: Lab) -> Iterator[Lab]:
    with unharmed(booted):
        yield booted


def refusals(lab: Lab, place: Place, target: str) -> str:
    """What the core says of updates whose jump is at each place of a function."""
    return lab.machine.check(f"""dmesg -c > /dev/null
        for head in $(seq {FENTRY_SIZE} $(({place.size} - 5))); do
            insmod /update_c.ko addr={place.addr} size={place.size} head=$head target={target} \\
                2> /dev/null && rmmod update_c
        done; dmesg""")


def test_no_jump_over_a_jump_label(lab: Lab) -> None:
    modules = sizes_in(lab.modules.files["labelled.ko"])
    place = find(lab.machine, ("labelled",), modules)["labelled"]
    assert "the jump overlaps a jump label" in refusals(lab, place, "labelled")


def test_no_jump_where_no_breakpoint_may_be(lab: Lab) -> None:
    said = refusals(lab, replace(lab.places[NO_PROBE], size=2 * FENTRY_SIZE), "vmlinux")
    assert "the jump is where the kernel allows no breakpoint" in said


def test_what_start_up_wrote_is_no_constant(lab: Lab) -> None:
    places = f"{lab.places[CONSTANTS[0]].addr},{lab.places[AFTER_INIT].addr}"
    lab.machine.check("dmesg -c > /dev/null")
    assert "invalid" in lab.load("update_a", data=places).lower()
    assert "does not lie in the kernel's read-only data" in lab.machine.check("dmesg")


def test_jumps_that_overlap_unequally(lab: Lab) -> None:
    """The bytes that the one puts back would be the middle of the other."""
    assert lab.load("update_a") == "" and lab.load("update_b", later=1) == ""
    assert lab.write("update_a", "apply") == 0
    assert lab.write("update_b", "apply") == errno.EIO
    assert lab.state("update_a") == ("applied", "ok")
    assert lab.state("update_b") == ("preparing", "unexpected")
    assert lab.values() == (2000, "2000")
    assert "its jump in victim_value overlaps that of" in lab.machine.check("dmesg")


def test_a_kernel_that_was_changed_is_marked(lab: Lab) -> None:
    lab.load("update_a")
    assert lab.write("update_a", "apply") == 0
    assert int(lab.machine.check("cat /proc/sys/kernel/tainted")) & TAINT_LIVEPATCH


def test_the_machine_can_be_suspended_while_a_load_is_held(lab: Lab) -> None:
    """The kernel's own test of it: all threads are frozen, and thawed after five seconds."""
    if lab.machine.run("[ -e /sys/power/pm_test ]").status:
        pytest.skip("this kernel is built without CONFIG_PM_DEBUG")
    lab.load("update_a")
    assert lab.write("update_a", '"hold comer required 120"') == 0
    assert lab.write("update_a", "apply") == 0
    lab.machine.check("""(insmod /comer.ko & wait $!; echo > /tmp/ended) > /dev/null 2>&1 &
        until grep -q ^comer /sys/kernel/kspliced/held; do sleep 0.1; done""")
    lab.machine.check("echo freezer > /sys/power/pm_test; echo freeze > /sys/power/state", 120)
    assert lab.machine.run("[ -e /tmp/ended ]").status != 0
    # busybox's insmod tries the older system call after the newer one failed.
    lab.machine.check("""until [ -e /tmp/ended ]; do
            (echo comer > /dev/kspliced) 2> /dev/null; sleep 0.1
        done; rm /tmp/ended""")
    assert lab.write("update_a", "reverse") == 0
