# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel core and modules that load while an update is applied (docs/kernel-core.md, "Holds").

``update_a`` is applied first; ``update_c`` has the part for the module ``comer``, whose
comer_value() gives 1000 in the original and 2000 in the update.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import pytest

from tests.vm import kmod_build, kmod_lab
from tests.vm.kmod_build import Modules, Tree
from tests.vm.kmod_lab import Lab, sizes_in, unharmed
from tests.vm.kmod_trees import TREES

pytestmark = pytest.mark.vm

CORE = "/sys/kernel/kspliced"
DEVICE = "/dev/kspliced"
LONG = 60


@pytest.fixture(scope="module", params=TREES)
def booted(request: pytest.FixtureRequest) -> Iterator[Lab]:
    make: Callable[[], Tree] = request.param
    modules: Modules = kmod_build.build(make())
    with kmod_lab.booted(f"hold-{modules.tree.release}", modules, {}, ()) as lab:
        yield lab


@pytest.fixture
def lab(booted: Lab) -> Iterator[Lab]:
    with unharmed(booted):
        assert booted.load("update_a") == ""
        yield booted
        booted.machine.run("kill $(cat /tmp/listener); rm -f /tmp/listener")
        kmod_lab.leave(booted)
        booted.machine.check("grep -q ^comer /proc/modules && rmmod comer; exit 0")


def listen(lab: Lab) -> None:
    """Have a listener, until the end of the test."""
    lab.machine.check(f"""
        test -e /tmp/listener && exit
        sleep 1000 < {DEVICE} > /dev/null 2>&1 &
        echo $! > /tmp/listener""")


def hold(lab: Lab, kind: str, seconds: int = LONG) -> None:
    """Have update_a hold the module, and be applied."""
    assert lab.write("update_a", f'"hold comer {kind} {seconds}"') == 0
    assert lab.read("update_a", "holds") == f"comer {kind} {seconds}\n"
    if lab.state("update_a")[0] != "applied":
        assert lab.write("update_a", "apply") == 0


def begin(lab: Lab, parameters: str = "") -> None:
    """Begin to load the module."""
    lab.machine.check(f"""
        rm -f /tmp/ended
        (insmod /comer.ko ask=1 {parameters} > /tmp/said 2>&1 & echo $! > /tmp/insmod
         wait $!; echo $? > /tmp/status; mv /tmp/status /tmp/ended) > /dev/null 2>&1 &""")


def held(lab: Lab) -> None:
    """Wait until the module is held."""
    until(lab, f"grep -q ^comer {CORE}/held")
    assert lab.machine.check("grep ^comer /proc/modules").split()[4] == "Loading"
    assert "\t[comer]" in lab.machine.check("grep comer_value /proc/kallsyms")


def until(lab: Lab, condition: str, seconds: int = 30) -> None:
    lab.machine.check(
        f"for i in $(seq {10 * seconds}); do {condition} && exit; sleep 0.1; done; exit 1",
        seconds * 10,
    )


def ended(lab: Lab) -> tuple[int, str]:
    """Wait until the load has ended: its status, and what it said."""
    until(lab, "test -e /tmp/ended")
    return int(lab.machine.check("cat /tmp/ended")), lab.machine.check("cat /tmp/said")


def values(lab: Lab) -> str:
    """What comer_value() gave when parameters were parsed, when init began, and gives now."""
    return lab.machine.check("cat /proc/comer").strip()


def insmod_part(lab: Lab) -> str:
    """The command that loads the part for the module, which is there or held."""
    addr = int(lab.machine.check("grep ' comer_value' /proc/kallsyms").split()[0], 16)
    size = sizes_in(lab.modules.files["comer.ko"])["comer_value"]
    head = lab.head("update_a", "victim_value")
    return f"insmod /{lab.name('update_c')}.ko addr={addr} size={size} head={head}"


def patch(lab: Lab) -> None:
    """Put the part for the module in."""
    lab.machine.check(insmod_part(lab))
    assert lab.write("update_c", "apply") == 0


@pytest.mark.parametrize("kind", ["optional", "required"])
def test_runs_new_code_from_the_first_instruction(lab: Lab, kind: str) -> None:
    listen(lab)
    hold(lab, kind)
    begin(lab)
    assert lab.machine.check(f"head -n 1 {DEVICE}") == "comer\n"
    held(lab)
    fields = lab.machine.check(f"cat {CORE}/held").split("\t")
    assert fields[:2] == ["comer", kind]
    patch(lab)
    assert ended(lab) == (0, "")
    assert values(lab) == "2000 2000 2000"
    assert lab.machine.check(f"cat {CORE}/held") == ""
    assert lab.machine.run("rmmod comer").status
    assert lab.write("update_c", "reverse") == 0
    assert values(lab) == "2000 2000 1000"


def test_where_nothing_holds_it_the_old_code_runs(lab: Lab) -> None:
    listen(lab)
    assert lab.write("update_a", '"hold other required 9"') == 0
    assert lab.write("update_a", "apply") == 0
    begin(lab)
    assert ended(lab) == (0, "")
    assert values(lab) == "1000 1000 1000"


@pytest.mark.parametrize("how", ["timeout", "release", "no listener", "listener dies"])
def test_an_optional_hold_lets_go(lab: Lab, how: str) -> None:
    if how != "no listener":
        listen(lab)
    hold(lab, "optional", 3 if how == "timeout" else LONG)
    begin(lab)
    if how == "release":
        held(lab)
        lab.machine.check(f"echo comer > {DEVICE}")
    if how == "listener dies":
        held(lab)
        lab.machine.check("kill -9 $(cat /tmp/listener)")
    assert ended(lab) == (0, "")
    assert values(lab) == "1000 1000 1000"
    patch(lab)
    assert values(lab) == "1000 1000 2000"


@pytest.mark.parametrize("how", ["timeout", "release", "no listener"])
def test_a_required_hold_fails_the_load(lab: Lab, how: str) -> None:
    if how != "no listener":
        listen(lab)
    hold(lab, "required", LONG if how == "release" else 3)
    begin(lab)
    if how == "release":
        held(lab)
        # Twice: busybox tries another system call where the first one fails.
        until(lab, f"echo comer > {DEVICE}; test -e /tmp/ended")
    status, said = ended(lab)
    assert status and "busy" in said
    assert lab.machine.run("grep ^comer /proc/modules").status
    assert "comer does not load: its old code" in lab.machine.check("dmesg | tail -n 3")
    listen(lab)
    hold(lab, "required")
    begin(lab)
    held(lab)
    patch(lab)
    assert ended(lab) == (0, "") and values(lab) == "2000 2000 2000"


def test_an_undo_lets_go(lab: Lab) -> None:
    listen(lab)
    hold(lab, "required")
    begin(lab)
    held(lab)
    assert lab.write("update_a", "reverse") == 0
    assert ended(lab) == (0, "") and values(lab) == "1000 1000 1000"


def test_a_load_that_is_killed(lab: Lab) -> None:
    listen(lab)
    hold(lab, "optional")
    for _ in range(2):
        begin(lab)
        held(lab)
        lab.machine.check("kill -9 $(cat /tmp/insmod)")
        assert ended(lab)[0] == 128 + 9
        assert lab.machine.run("grep ^comer /proc/modules").status


def test_an_init_that_fails_after_the_switch(lab: Lab) -> None:
    listen(lab)
    hold(lab, "required")
    begin(lab, "fail=1")
    held(lab)
    patch(lab)
    status, _ = ended(lab)
    assert status and "init began with 2000" in lab.machine.check("dmesg | tail -n 3")
    assert lab.read("update_c", "lost") == "comer\tcomer_value\n"
    assert (lab.read("update_c", "spans"), lab.read("update_c", "original")) == ("", "")
    # Whoever has the memory now must not find the old code's bytes in it.
    before = lab.machine.check("insmod /watcher.ko; cat /sys/module/watcher/sections/.text")
    assert lab.write("update_c", "reverse") == 0
    assert lab.write("update_c", "apply") == errno.ENODEV
    assert before == lab.machine.check("cat /sys/module/watcher/sections/.text; rmmod watcher")


def test_old_code_that_is_there_already(lab: Lab) -> None:
    begin(lab)
    assert ended(lab) == (0, "")
    assert lab.write("update_a", '"hold comer required 9"') == 0
    assert lab.write("update_a", "apply") == errno.EAGAIN
    assert lab.state("update_a") == ("preparing", "arrived")
    assert lab.write("update_a", '"hold comer optional 9"') == 0
    assert lab.write("update_a", "apply") == 0


def test_a_module_that_nothing_holds_is_no_target_before_its_init(lab: Lab) -> None:
    """update_c names a module that is held by nobody, so the switch waits for its init."""
    listen(lab)
    hold(lab, "optional")
    begin(lab)
    held(lab)
    command = insmod_part(lab)
    lab.machine.check(f"echo comer > {DEVICE}")
    assert ended(lab) == (0, "")
    lab.machine.check(command)
    assert lab.write("update_c", "apply") == 0


def test_the_core_stays_while_somebody_is_held(lab: Lab) -> None:
    listen(lab)
    hold(lab, "optional")
    begin(lab)
    held(lab)
    assert lab.machine.run("rmmod kspliced").status
    lab.machine.check(f"echo comer > {DEVICE}")
    assert ended(lab) == (0, "")


def test_whoever_waits_for_the_list_of_listeners_is_waited_for(lab: Lab) -> None:
    """A module that registers a notifier keeps our own update from loading: the hold ends."""
    listen(lab)
    hold(lab, "optional", 5)
    begin(lab)
    held(lab)
    lab.machine.check("(insmod /watcher.ko; touch /tmp/watches) > /dev/null 2>&1 & sleep 1")
    command = insmod_part(lab)
    lab.machine.check(command)
    assert ended(lab) == (0, "") and values(lab) == "1000 1000 1000"
    assert lab.write("update_c", "apply") == 0 and values(lab).endswith(" 2000")
    until(lab, "test -e /tmp/watches")
    lab.machine.check("rmmod watcher")


@pytest.mark.parametrize(
    "line", ["comer", "comer maybe 3", "comer optional", "comer optional 0", "comer required 601"]
)
def test_what_is_no_hold(lab: Lab, line: str) -> None:
    assert lab.write("update_a", f'"hold {line}"') == errno.EINVAL
    assert lab.read("update_a", "holds") == ""
