# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel core and threads that have left the list of threads, and go on in do_exit().

``named``: whether the kernel has lists of these (from 6.9 on), or a number only.
"""

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

UNKNOWN = "0 exiting\tdo_exit+0x0\treliable\n"
PREEMPTION = "/sys/kernel/debug/sched/preempt"


@pytest.fixture(scope="module", params=TREES)
def booted(request: pytest.FixtureRequest) -> Iterator[Lab]:
    make: Callable[[], Tree] = request.param
    modules: Modules = kmod_build.build(make())
    name = f"unlisted-{modules.tree.release}"
    with kmod_lab.booted(name, modules, {}, (), TURNS) as lab:
        yield lab


@pytest.fixture
def lab(booted: Lab) -> Iterator[Lab]:
    with unharmed(booted):
        yield booted


@pytest.fixture
def named(lab: Lab) -> bool:
    return lab.machine.run("grep -q ' tasks_rcu_exit_srcu$' /proc/kallsyms").status != 0


def end_in(lab: Lab, word: str) -> int:
    """Have a thread end, and sleep when it is on no list any more; its id."""
    lab.machine.check(f"echo {word} > /proc/victim")
    pid = int(
        lab.machine.check("""
            for i in $(seq 100); do
                read pid < /sys/module/victim/parameters/unlisted
                [ $pid != 0 ] && echo $pid && exit 0
                sleep 0.1
            done
            exit 1""")
    )
    assert lab.machine.run(f"ls /proc/{pid}").status
    return pid


def seen(lab: Lab, update: str, pid: int, function: str, named: bool) -> None:
    """The last attempt met the thread in the function, or somebody where nobody has a name."""
    found = lab.read(update, "conflicts")
    if not named:
        assert found == UNKNOWN
        assert lab.read(update, "stacks") == "0 exiting\t\n"
        return
    who, where, how = found.rstrip("\n").split("\t")
    assert re.fullmatch(rf"{pid} vic\\x20tim\\x5c\d", who)
    assert re.fullmatch(rf"{function}\+0x[0-9a-f]+", where)
    assert how == "reliable"
    frames = re.findall(r"(\w+)\+", lab.read(update, "stacks").split("\t")[1])
    assert frames.index(function) < frames.index("free_pipe_info") < frames.index("do_exit")


def test_a_thread_that_has_ended_in_old_code(lab: Lab, named: bool) -> None:
    lab.load("update_a")
    pid = end_in(lab, "last")
    assert lab.write("update_a", "apply") == errno.EBUSY
    assert lab.state("update_a") == ("preparing", "code_busy")
    assert lab.values() == (1000, "")
    seen(lab, "update_a", pid, "victim_sleeper", named)
    # It has no signals any more.
    assert lab.write("update_a", "nudge") == errno.ESRCH
    lab.wake()
    assert lab.write("update_a", "apply") == 0
    assert lab.values() == (2000, "2000")


def test_a_thread_that_has_ended_in_new_code(lab: Lab, named: bool) -> None:
    lab.load("update_a")
    lab.load("update_b")
    assert lab.write("update_a", "apply") == 0
    pid = end_in(lab, "last")
    for update, word in (("update_a", "reverse"), ("update_b", "apply")):
        assert lab.write(update, word) == errno.EBUSY
        seen(lab, update, pid, "new_sleeper", named)
    assert lab.values() == (2000, "2000")
    lab.wake()
    assert lab.write("update_b", "apply") == 0
    assert lab.write("update_b", "reverse") == 0


def test_a_thread_that_has_ended_elsewhere(lab: Lab, named: bool) -> None:
    """Where the kernel tells who it is, it is in nobody's way."""
    lab.load("update_a")
    pid = end_in(lab, "last elsewhere")
    assert lab.write("update_a", "apply") == (0 if named else errno.EBUSY)
    if not named:
        seen(lab, "update_a", pid, "", named)
    lab.wake()


def test_threads_end_all_the_time(lab: Lab) -> None:
    """At any place, as a stock kernel is preempted. Some are in the way, but not for long."""
    lab.load("update_a")
    script = f"""
        mount -t debugfs none /sys/kernel/debug 2> /dev/null
        if [ -e {PREEMPTION} ]; then
            before=$(sed 's/.*(\\(.*\\)).*/\\1/' {PREEMPTION})
            echo full > {PREEMPTION} || exit 1
        fi
        touch /tmp/go
        ender() {{ while [ -e /tmp/go ]; do (:) & (:) & wait; done; }}
        ender & ender & ender &
        done=0; tries=0
        while [ $done -lt 60 ] && [ $tries -lt 2000 ]; do
            word=apply; [ $((done % 2)) = 1 ] && word=reverse
            tries=$((tries + 1))
            if (echo $word > {lab.at("update_a")}/control) 2> /dev/null; then
                done=$((done + 1))
            elif [ $(cat {lab.at("update_a")}/abort_cause) != code_busy ]; then
                break
            fi
        done
        rm /tmp/go; wait; [ -z "$before" ] || echo $before > {PREEMPTION}
        echo $done $tries
    """
    done, tries = map(int, lab.machine.check(script, 600).split())
    assert done == 60
    print(f"{done} switches in {tries} tries")
