# SPDX-License-Identifier: GPL-2.0-or-later
"""Non-maskable interrupts while the core switches: they come although the machine is stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.vm import kmod_build, kmod_lab
from tests.vm.kmod_build import Modules, Tree
from tests.vm.kmod_lab import Lab, unharmed
from tests.vm.kmod_trees import TREES

pytestmark = pytest.mark.vm

SWITCHES = 100
STORM = "/sys/module/nmi_storm/parameters"


@dataclass(frozen=True)
class Counts:
    """Interrupts that called the victim; those that came while the core held the CPUs; and how
    often the original code answered, replaced code, and neither."""

    calls: int
    during: int
    original: int
    replaced: int
    wrong: int


@pytest.fixture(scope="module", params=TREES)
def booted(request: pytest.FixtureRequest) -> Iterator[Lab]:
    make: Callable[[], Tree] = request.param
    modules: Modules = kmod_build.build(make())
    name = f"nmi-{modules.tree.release}"
    with kmod_lab.booted(name, modules, {}, ()) as lab:
        yield lab


@pytest.fixture
def storm(booted: Lab) -> Iterator[Lab]:
    """Interrupts that call victim_value() on all CPUs, whenever one has ended."""
    machine = booted.machine
    with unharmed(booted):
        core = machine.check("grep '^kspliced ' /proc/modules").split()
        victim = booted.places["victim_value"].addr
        machine.check(f"insmod /nmi_storm.ko victim={victim} core={int(core[5], 16)},{core[1]}")
        machine.check(f"echo 1 > {STORM}/storm")
        yield booted
        machine.check(f"echo 0 > {STORM}/storm; sleep 1; rmmod nmi_storm")


def counts(lab: Lab) -> Counts:
    return Counts(*map(int, lab.machine.check(f"cat {STORM}/counts").split()))


def test_no_interrupt_sees_half_a_jump(storm: Lab) -> None:
    """Applied, replaced, reversed: each call gives what one of the versions gives."""
    storm.load("update_a")
    storm.load("update_b")
    storm.machine.check(
        f"""update_a() {{ echo $1 > {storm.at("update_a")}/control; }}
        update_b() {{ echo $1 > {storm.at("update_b")}/control; }}
        for i in $(seq {SWITCHES}); do
            for step in "update_a apply" "update_b apply" "update_b reverse"; do
                until $step; do sleep 0.1; done
            done
        done""",
        600,
    )
    found = counts(storm)
    assert found.wrong == 0, found
    assert found.original > 0 and found.replaced > 0, found
    assert found.during > SWITCHES, found
