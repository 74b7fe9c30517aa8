# SPDX-License-Identifier: GPL-2.0-or-later
"""Tracing and probes on functions that the core has replaced (docs/kernel-core.md)."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator

import pytest

from tests.vm import kmod_build, kmod_lab
from tests.vm.initramfs import TURNS
from tests.vm.kmod_build import Modules, Tree
from tests.vm.kmod_lab import Lab, unharmed
from tests.vm.kmod_trees import TREES

pytestmark = pytest.mark.vm

TRACING = "/sys/kernel/tracing"

# The lock of kprobes, and the tracer's way back.
WATCHED = ("kprobe_mutex", "return_to_handler", "ftrace_return_to_handler")
ROUNDS = 60


@pytest.fixture(scope="module", params=TREES)
def booted(request: pytest.FixtureRequest) -> Iterator[Lab]:
    make: Callable[[], Tree] = request.param
    modules: Modules = kmod_build.build(make())
    name = f"probes-{modules.tree.release}"
    with kmod_lab.booted(name, modules, {}, WATCHED, TURNS) as lab:
        yield lab


@pytest.fixture
def lab(booted: Lab) -> Iterator[Lab]:
    with unharmed(booted):
        yield booted


def test_tracing_keeps_working(lab: Lab) -> None:
    lab.load("update_a")
    lab.machine.check(f"""cd {TRACING}
        echo victim_value > set_ftrace_filter; echo function > current_tracer
        echo 'p:entry victim_value' > kprobe_events; echo 1 > events/kprobes/entry/enable""")
    for word, value in (("apply", 2000), ("reverse", 1000)):
        lab.machine.check(f"echo > {TRACING}/trace")
        assert lab.write("update_a", word) == 0
        assert lab.values()[0] == value
        trace = lab.machine.check(f"cat {TRACING}/trace")
        assert re.search(r": victim_value <-show", trace)
        assert re.search(r": entry: \(victim_value", trace)
    lab.machine.check(f"""cd {TRACING}
        echo 0 > events/kprobes/entry/enable; echo > kprobe_events
        echo nop > current_tracer; echo > set_ftrace_filter""")


def test_kprobes_in_the_way_are_respected(lab: Lab) -> None:
    lab.load("update_a")
    head = lab.head("update_a", "victim_value")
    probe = f"victim_value+{head}"
    lab.machine.check(f"cd {TRACING}; echo 'p:inside {probe}' > kprobe_events")
    # Not armed, it leaves no trace in the text, but would break the jump later.
    for armed in (0, 1):
        lab.machine.check(f"echo {armed} > {TRACING}/events/kprobes/inside/enable")
        assert lab.write("update_a", "apply") == errno.ETXTBSY
        assert lab.state("update_a") == ("preparing", "probed")
        assert set(lab.read("update_a", "probes").splitlines()) == {f"victim\tvictim_value\t{head}"}
        assert lab.read("update_a", "mismatch") == ""
    lab.machine.check(f"cd {TRACING}; echo 0 > events/kprobes/inside/enable; echo > kprobe_events")
    assert lab.write("update_a", "apply") == 0

    # And over our jump: it is not ours any more, so it is not ours to take away.
    lab.machine.check(f"""cd {TRACING}; echo 'p:inside {probe}' > kprobe_events
        echo 1 > events/kprobes/inside/enable""")
    assert lab.write("update_a", "reverse") == errno.ETXTBSY
    assert lab.state("update_a") == ("applied", "probed")
    assert lab.values()[0] == 2000
    lab.machine.check(f"cd {TRACING}; echo 0 > events/kprobes/inside/enable; echo > kprobe_events")
    assert lab.write("update_a", "reverse") == 0


@pytest.mark.parametrize("probe_first", [True, False], ids=["probe first", "update first"])
def test_return_probes_keep_working(lab: Lab, probe_first: bool) -> None:
    lab.load("update_a")
    arm = f"""cd {TRACING}; echo 'r:back victim_value $retval' > kprobe_events
        echo 1 > events/kprobes/back/enable"""
    if probe_first:
        lab.machine.check(arm)
    assert lab.write("update_a", "apply") == 0
    if not probe_first:
        lab.machine.check(arm)
    for value in (2000, 1000):
        lab.machine.check(f"echo > {TRACING}/trace")
        assert lab.values()[0] == value
        trace = lab.machine.check(f"cat {TRACING}/trace")
        assert re.search(rf": back: .*<- victim_value\) arg1={value:#x}", trace)
        if value == 2000:
            assert lab.write("update_a", "reverse") == 0
    lab.machine.check(f"cd {TRACING}; echo 0 > events/kprobes/back/enable; echo > kprobe_events")


def test_a_probe_behind_the_jump_holds_the_undo(lab: Lab) -> None:
    """Set while the jump stands, it may lie in the middle of an instruction of the original."""
    lab.load("update_a")
    behind = lab.head("update_a", "victim_value") + 5
    assert lab.write("update_a", "apply") == 0
    lab.machine.check(f"""cd {TRACING}; echo 'p:behind victim_value+{behind}' > kprobe_events
        echo 1 > events/kprobes/behind/enable""")
    assert lab.values()[0] == 2000
    assert lab.write("update_a", "reverse") == errno.ETXTBSY
    assert lab.state("update_a") == ("applied", "probed")
    assert lab.read("update_a", "probes") == f"victim\tvictim_value\t{behind}\n"
    lab.machine.check(f"cd {TRACING}; echo 0 > events/kprobes/behind/enable; echo > kprobe_events")
    assert lab.write("update_a", "reverse") == 0
    assert lab.values()[0] == 1000


def test_no_switch_while_a_probe_is_being_set(lab: Lab) -> None:
    """Between copying the instruction and arming the probe, which kprobe_mutex covers only."""
    lab.load("update_a")
    lab.machine.check(f"""insmod /locker.ko lock={lab.places["kprobe_mutex"].addr}
        echo 1 > /sys/module/locker/parameters/go
        until grep -qs park_wait /proc/[0-9]*/stack; do sleep 0.1; done
        (echo apply > {lab.at("update_a")}/control; echo $? > /tmp/applied) > /dev/null 2>&1 &""")
    lab.machine.check("""
        until grep -qs stop_and_switch /proc/[0-9]*/stack; do
            [ -e /tmp/applied ] && exit 1; sleep 0.1
        done
        sleep 1; [ ! -e /tmp/applied ] && [ $(cat /proc/victim) = 1000 ]""")
    lab.machine.check("""rmmod locker
        for i in $(seq 100); do [ -s /tmp/applied ] && break; sleep 0.1; done
        [ $(cat /tmp/applied) = 0 ]; rm /tmp/applied""")
    assert lab.values() == (2000, "2000")


def test_probes_come_and_go_while_the_switch_runs(lab: Lab) -> None:
    """Each switch goes through or finds a probe; what is called is one of the versions."""
    lab.load("update_a")
    head = lab.head("update_a", "victim_value")
    control, cause = (f"{lab.at('update_a')}/{name}" for name in ("control", "abort_cause"))
    script = f"""
        touch /tmp/go
        while [ -e /tmp/go ]; do
            echo 'p:inside victim_value+{head}' > {TRACING}/kprobe_events
            echo 1 > {TRACING}/events/kprobes/inside/enable
            echo 0 > {TRACING}/events/kprobes/inside/enable
            echo > {TRACING}/kprobe_events
        done 2> /dev/null & prober=$!
        value=1000 done=0 probed=0 status=0
        while [ $done -lt {ROUNDS} ] || [ $probed = 0 ]; do
            word=apply; [ $value = 2000 ] && word=reverse
            if (echo $word > {control}) 2> /dev/null; then
                done=$((done + 1)); value=$((3000 - value))
            elif [ $(cat {cause}) = probed ]; then
                probed=$((probed + 1))
            else
                [ $(cat {cause}) = code_busy ] || {{ cat {cause}; status=1; break; }}
            fi
            [ $(cat /proc/victim) = $value ] || {{ echo not $value; status=1; break; }}
        done
        rm /tmp/go; wait $prober
        echo > {TRACING}/kprobe_events
        echo $done $probed; exit $status"""
    output = lab.machine.run(script, 600)
    assert output.status == 0, output.text
    print("switches, and attempts that met a probe:", output.text)


def test_a_thread_under_the_graph_tracer_is_a_conflict(lab: Lab) -> None:
    """The tracer puts its own return address in the place of the real one."""
    lab.load("update_a")
    lab.machine.check(f"""cd {TRACING}
        echo 'victim_sleeper park_wait' > set_ftrace_filter
        echo function_graph > current_tracer""")
    for word, comm in (("sleep", r"vic tim\0"), ("deep", r"vic tim\1")):
        pid = lab.sleep_in(word, comm)
        assert lab.write("update_a", "apply") == errno.EBUSY
        (line,) = lab.read("update_a", "conflicts").splitlines()
        assert line.startswith(f"{pid} ")
        lab.wake()
    assert lab.write("update_a", "apply") == 0
    assert lab.write("update_a", "reverse") == 0
    lab.machine.check(f"cd {TRACING}; echo nop > current_tracer; echo > set_ftrace_filter")


def test_a_thread_in_the_graph_tracers_way_back_is_a_conflict(lab: Lab) -> None:
    """It has asked where to return to, so nobody else knows; 6.1 vouches for what it sees."""
    lab.load("update_a")
    addresses = " ".join(str(lab.places[name].addr) for name in WATCHED[1:])
    pid = lab.sleep_in(f"hidden {addresses}", r"vic tim\3")
    assert lab.write("update_a", "apply") == errno.EBUSY
    (line,) = lab.read("update_a", "conflicts").splitlines()
    assert line.startswith(f"{pid} ") and "\treturn_to_handler+0x" in line
    lab.wake()
    assert lab.write("update_a", "apply") == 0
