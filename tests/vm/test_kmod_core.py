# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel core on stock kernels: docs/kernel-core.md, promise by promise.

The updates are modules by hand (tests/vm/kmod/). ``victim_value`` gives 1000 in the original,
2000 in update_a and 3000 in update_b; so does what stands in /proc/cmdline.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator

import pytest

import kspliced
from tests.vm import kmod_build, kmod_lab
from tests.vm.kmod_build import Modules, Tree
from tests.vm.kmod_lab import (
    CONSTANTS,
    HOOKS,
    REPLACED,
    UPDATES,
    VICTIMS,
    Lab,
    find,
    sizes_in,
    unharmed,
)
from tests.vm.kmod_trees import TREES

pytestmark = pytest.mark.vm

CORE = "/sys/kernel/kspliced"
TRACING = "/sys/kernel/tracing"

FENTRY_SIZE = 5
ENDBR_SIZE = 4
WATCHABLE = ("multi_cpu_stop", "ksys_write")


@pytest.fixture(scope="module", params=TREES)
def modules(request: pytest.FixtureRequest) -> Modules:
    make: Callable[[], Tree] = request.param
    return kmod_build.build(make())


@pytest.fixture(scope="module")
def booted(modules: Modules) -> Iterator[Lab]:
    name = f"kmod-{modules.tree.release}"
    with kmod_lab.booted(name, modules, {}, (*WATCHABLE, *CONSTANTS, HOOKS)) as lab:
        yield lab


@pytest.fixture
def lab(booted: Lab) -> Iterator[Lab]:
    with unharmed(booted):
        yield booted


def resident(lab: Lab) -> int:
    """The bytes that stay until the reboot."""
    return int(lab.machine.check(f"cat {CORE}/resident"))


def test_describes_itself(lab: Lab) -> None:
    crcs = {line.split("\t")[1]: line.split("\t")[0] for line in lab.modules.symvers.splitlines()}
    assert len(crcs) == 2
    assert lab.machine.check(f"cat {CORE}/abi {CORE}/version").split() == [
        "2",
        kspliced.__version__,
    ]
    lines = lab.machine.check(f"cat {CORE}/register_crc").splitlines()
    assert lines == [f"{name} {crcs[name]}" for name in sorted(crcs)]


def test_files_of_an_update(lab: Lab) -> None:
    assert lab.load("update_a") == ""
    modes = dict(
        line.split()[::-1]
        for line in lab.machine.check(f"cd {lab.at('update_a')}; stat -c '%a %n' *").splitlines()
    )
    assert modes == {
        "stage": "444", "control": "200", "abort_cause": "444", "conflicts": "400",
        "mismatch": "400", "pause_ns": "444", "spans": "400", "original": "400",
        "stacks": "400", "probes": "444", "redirected": "400", "data": "400",
        "lost": "444", "holds": "444", "resident": "444",
    }  # fmt: skip
    assert lab.state("update_a") == ("preparing", "ok")
    assert lab.values() == (1000, "")
    spans = [line.split("\t") for line in lab.read("update_a", "spans").splitlines()]
    for fields, name in zip(spans, REPLACED, strict=True):
        place = lab.places[name]
        target = "victim" if name in VICTIMS else "vmlinux"
        assert fields[:2] == [f"{place.addr:#x}", str(place.size)]
        assert int(fields[2]) in (FENTRY_SIZE, ENDBR_SIZE + FENTRY_SIZE)
        assert fields[4:] == [target, name]
    # In pieces it is the same text.
    pieces = lab.machine.check(f"dd if={lab.at('update_a')}/spans bs=7 2>/dev/null")
    assert pieces == lab.read("update_a", "spans")


def test_apply_redirects_and_reverse_restores(lab: Lab) -> None:
    lab.load("update_a")
    assert lab.write("update_a", "apply") == 0
    assert lab.state("update_a") == ("applied", "ok")
    assert lab.values() == (2000, "2000")
    pause = int(lab.read("update_a", "pause_ns"))
    assert 0 < pause < 10**9
    original = [line.split("\t") for line in lab.read("update_a", "original").splitlines()]
    jumps = {f"{lab.places[name].addr + lab.head('update_a', name):#x}" for name in REPLACED}
    assert {addr for addr, _ in original} == jumps
    assert all(re.fullmatch("[0-9a-f]{10}", data) for _, data in original)
    assert (
        f"kspliced: applied {lab.name('update_a')}: 4 spans, all CPUs held for {pause // 1000} us"
        in lab.machine.check("dmesg")
    )

    assert lab.write("update_a", "reverse") == 0
    assert lab.state("update_a") == ("reversed", "ok")
    assert lab.values() == (1000, "")
    assert lab.read("update_a", "original") == ""


def test_words_that_do_nothing(lab: Lab) -> None:
    lab.load("update_a")
    assert lab.write("update_a", "appl") == errno.EINVAL
    assert lab.state("update_a") == ("preparing", "ok")
    assert lab.write("update_a", "reverse") == errno.EALREADY
    assert lab.state("update_a") == ("preparing", "already")
    assert lab.write("update_a", "apply") == 0
    assert lab.write("update_a", "apply") == errno.EALREADY
    assert lab.state("update_a") == ("applied", "already")
    assert lab.values() == (2000, "2000")


def test_other_bytes_are_no_match(lab: Lab) -> None:
    lab.load("update_a", wrong="byte")
    assert lab.write("update_a", "apply") == errno.EILSEQ
    assert lab.state("update_a") == ("preparing", "no_match")
    assert lab.values() == (1000, "")
    (line,) = lab.read("update_a", "mismatch").splitlines()
    target, name, offset, expected, found = line.split("\t")
    size = lab.places["victim_value"].size
    assert (target, name, int(offset)) == ("victim", "victim_value", size - 1)
    assert int(expected, 16) ^ int(found, 16) == 0x40 and len(found) == 2


def test_masked_bytes_may_be_anything(lab: Lab) -> None:
    lab.load("update_a", wrong="masked")
    assert lab.write("update_a", "apply") == 0
    assert lab.values() == (2000, "2000")


@pytest.mark.parametrize(
    ("word", "comm", "function", "how"),
    [
        ("sleep", r"vic tim\0", "victim_sleeper", "reliable"),
        # Behind code without unwind data: only the scan finds it.
        ("deep", r"vic tim\1", "victim_deep", "scan"),
    ],
)
def test_a_thread_in_old_code_is_a_conflict(
    lab: Lab, word: str, comm: str, function: str, how: str
) -> None:
    lab.load("update_a")
    pid = lab.sleep_in(word, comm)
    assert lab.write("update_a", "apply") == errno.EBUSY
    assert lab.state("update_a") == ("preparing", "code_busy")
    assert lab.values() == (1000, "")
    (line,) = lab.read("update_a", "conflicts").splitlines()
    who, where, found_by = line.split("\t")
    escaped = comm.replace("\\", "\\x5c").replace(" ", "\\x20")
    assert who == f"{pid} {escaped}"
    assert re.fullmatch(rf"{function}\+0x[0-9a-f]+", where)
    assert found_by == how
    (line,) = lab.read("update_a", "stacks").splitlines()
    assert line.startswith(f"{pid} {escaped}\t")
    if how == "reliable":
        frames = [frame.split("+")[0] for frame in line.split("\t")[1].split()]
        assert frames.index("park_wait") < frames.index(function) < frames.index("kthread")

    lab.wake()
    assert lab.write("update_a", "apply") == 0
    assert lab.state("update_a") == ("applied", "ok")
    assert lab.read("update_a", "conflicts") == ""
    assert lab.values() == (2000, "2000")


def test_a_return_address_that_a_probe_hides_is_a_conflict(lab: Lab) -> None:
    """A return probe took an address off the stack, so the scan cannot know it."""
    lab.load("update_a")
    lab.machine.check(f"""cd {TRACING}
        echo 'r:back park_wait' > kprobe_events; echo 1 > events/kprobes/back/enable""")
    pid = lab.sleep_in("deep", r"vic tim\1")
    assert lab.write("update_a", "apply") == errno.EBUSY
    (line,) = lab.read("update_a", "conflicts").splitlines()
    assert line == rf"{pid} vic\x20tim\x5c1" + "\tarch_rethook_trampoline+0x0\tscan"
    lab.wake()
    lab.machine.check(f"cd {TRACING}; echo 0 > events/kprobes/back/enable; echo > kprobe_events")
    assert lab.write("update_a", "apply") == 0


def test_a_thread_in_new_code_keeps_it(lab: Lab) -> None:
    lab.load("update_a")
    lab.load("update_b")
    assert lab.write("update_a", "apply") == 0
    pid = lab.sleep_in("sleep", r"vic tim\0")
    for update, word in (("update_a", "reverse"), ("update_b", "apply")):
        assert lab.write(update, word) == errno.EBUSY
        who, where, how = lab.read(update, "conflicts").rstrip("\n").split("\t")
        assert who == rf"{pid} vic\x20tim\x5c0"
        assert re.fullmatch(r"new_sleeper\+0x[0-9a-f]+", where)
        assert how == "reliable"
    assert lab.state("update_a") == ("applied", "code_busy")
    assert lab.values() == (2000, "2000")
    lab.wake()
    assert lab.write("update_a", "reverse") == 0


def test_a_thread_is_asked_to_leave(lab: Lab) -> None:
    lab.load("update_a")
    assert lab.write("update_a", "nudge") == errno.ESRCH
    pid = lab.sleep_in("nap", r"vic tim\2")
    assert lab.write("update_a", "apply") == errno.EBUSY
    assert lab.read("update_a", "conflicts").startswith(f"{pid} ")
    assert lab.write("update_a", "nudge") == 0
    lab.machine.check(
        f"for i in $(seq 100); do [ -e /proc/{pid} ] || exit 0; sleep 0.1; done; exit 1"
    )
    assert lab.write("update_a", "nudge") == errno.ESRCH
    assert lab.write("update_a", "apply") == 0
    lab.wake()


def test_code_that_the_switch_itself_runs_is_a_conflict(lab: Lab) -> None:
    lab.load("update_a", watched="multi_cpu_stop")
    assert lab.write("update_a", "apply") == errno.EBUSY
    lines = lab.read("update_a", "conflicts").splitlines()
    names = sorted(line.split("\t")[0].split()[1] for line in lines)
    assert names == ["migration/0", "migration/1"]
    assert all(line.endswith("\treliable") for line in lines)
    lab.machine.check(f"rmmod {lab.name('update_a')}")

    lab.load("update_a", watched="ksys_write")
    assert lab.write("update_a", "apply") == errno.EBUSY
    (line,) = lab.read("update_a", "conflicts").splitlines()
    assert re.fullmatch(r"\d+ sh\twatched\+0x[0-9a-f]+\treliable", line)


def test_a_second_update_replaces_the_first(lab: Lab) -> None:
    lab.load("update_a")
    # This one leaves cmdline_proc_show alone, so that goes back to the original.
    lab.load("update_b", count=3)
    assert lab.write("update_a", "apply") == 0
    first = set(lab.read("update_a", "original").splitlines())
    assert lab.write("update_b", "apply") == 0
    assert lab.state("update_a") == ("reversed", "ok")
    assert lab.state("update_b") == ("applied", "ok")
    assert lab.values() == (3000, "")
    assert set(lab.read("update_b", "original").splitlines()) < first
    names = [lab.name(update) for update in ("update_b", "update_a")]
    assert f"applied {names[0]}, replacing {names[1]}: 3 spans" in lab.machine.check("dmesg")
    # The replaced one stays, and may come back.
    assert lab.machine.run(f"rmmod {names[1]}").status
    assert lab.write("update_a", "apply") == 0
    assert lab.values() == (2000, "2000")
    assert lab.write("update_b", "apply") == 0
    lab.renew("update_a")
    lab.load("update_a")
    # Its expected bytes are those of now, jumps included: not the original.
    assert lab.write("update_a", "apply") == errno.EILSEQ
    assert len(lab.read("update_a", "mismatch").splitlines()) == 3
    assert lab.values() == (3000, "")
    assert lab.write("update_b", "reverse") == 0


def test_modules_stay_while_they_are_needed(lab: Lab) -> None:
    lab.load("update_a")
    assert lab.write("update_a", "apply") == 0
    update = lab.name("update_a")
    for name in (update, "victim", "kspliced"):
        assert lab.machine.run(f"rmmod {name}").status != 0
    assert lab.values() == (2000, "2000")
    assert lab.write("update_a", "reverse") == 0
    for name in (update, "kspliced"):
        assert lab.machine.run(f"rmmod {name}").status != 0


def test_what_an_update_handed_over_outlives_it(lab: Lab) -> None:
    """/proc/interrupts shows a string that new code passed to request_irq(), after the undo, too.

    And after what took the update's place, and with other modules in what would be free memory.
    """
    lab.load("update_a")
    lab.load("update_b")
    before = resident(lab)
    assert lab.read("update_a", "resident") == "0\n"
    assert lab.write("update_a", "apply") == 0
    size = int(lab.read("update_a", "resident"))
    update = lab.name("update_a")
    assert size == int(lab.machine.check(f"cat /sys/module/{update}/coresize"))
    assert resident(lab) == before + size
    lab.machine.check("echo hand > /proc/victim")
    owner = r"^ *\d+:.*\bhanded over by update 2000$"
    seen = "cat /proc/interrupts"
    assert re.search(owner, lab.machine.check(seen), re.MULTILINE)
    for update, word in (("update_a", "reverse"), ("update_a", "apply"), ("update_b", "apply")):
        assert lab.write(update, word) == 0
        lab.machine.run(f"rmmod {lab.name('update_a')}; insmod /watcher.ko; rmmod watcher")
        assert re.search(owner, lab.machine.check(seen), re.MULTILINE)
    # Counted once, however often it comes.
    assert int(lab.read("update_a", "resident")) == size
    assert resident(lab) == before + size + int(lab.read("update_b", "resident"))
    lab.machine.check("echo back > /proc/victim")
    assert not re.search(owner, lab.machine.check(seen), re.MULTILINE)


def test_an_update_that_is_still_loading(lab: Lab) -> None:
    """Its init may yet fail, and the loader then frees it."""
    lab.sleep_in("sleep", r"vic tim\0")
    words = lab.insmod("update_a", wrong="slow")
    lab.machine.check(f"""{words} &
        for i in $(seq 100); do [ -e {lab.at("update_a")}/control ] && exit 0; sleep 0.1; done
        exit 1""")
    assert lab.write("update_a", "apply") == errno.EIO
    assert lab.state("update_a") == ("preparing", "unexpected")
    assert f"update {lab.name('update_a')}: its module is not live" in lab.machine.check("dmesg")
    lab.wake()
    live = f"grep -q '^{lab.name('update_a')} .* Live ' /proc/modules"
    lab.machine.check(f"for i in $(seq 100); do {live} && exit 0; sleep 0.1; done; exit 1")
    assert lab.write("update_a", "apply") == 0


def test_a_target_that_has_gone(lab: Lab) -> None:
    lab.load("update_a")
    lab.machine.check("rmmod victim")
    assert lab.write("update_a", "apply") == errno.ENODEV
    assert lab.state("update_a") == ("preparing", "target_gone")
    lab.machine.check(f"rmmod {lab.name('update_a')}; insmod /victim.ko")
    sizes = sizes_in(lab.modules.files["victim.ko"])
    lab.places.update(find(lab.machine, (*VICTIMS, "victim_table", HOOKS), sizes))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("abi", "another version of the interface"),
        ("empty", "no spans"),
        ("size", "size is 0"),
        ("outside", "not lie in the text of one module"),
        ("target", "not lie in the kernel's text"),
        ("new_addr", "new_addr is not in the text of the update"),
        ("fit", "the jump does not fit"),
        ("mask", "overlaps bytes that the kernel may rewrite"),
        ("overlap", "spans victim_value and victim_sleeper overlap"),
        ("expect", "expect or mask is not in the update"),
        ("owner", "not lie in the module that owns it"),
        ("data_size", "size is 0"),
        ("data_outside", "not lie in the read-only data of one module"),
        ("data_text", "not lie in the kernel's read-only data"),
        ("data_target", "not lie in the read-only data of one module"),
        ("data_value", "expect or value is not in the update"),
        ("data_overlap", "data victim_table and victim_table overlap"),
        ("hook_misaligned", "not lie in the read-only data of one module"),
        ("hook_large", "not lie in the read-only data of one module"),
        ("hook_code", "not lie in the read-only data of one module"),
    ],
)
def test_a_wrong_update_is_refused(lab: Lab, wrong: str, why: str) -> None:
    lab.machine.check("dmesg -c > /dev/null")
    assert "invalid" in lab.load_with_data("update_a", wrong=wrong, hook=True).lower()
    lines = [line for line in lab.machine.check("dmesg -c").splitlines() if "kspliced:" in line]
    assert len({re.sub(r"^\[.*?\] ", "", line) for line in lines}) == 1
    assert "refused: " in lines[0] and why in lines[0]
    assert lab.name("update_a") not in lab.machine.check(f"ls {UPDATES}").split()


def test_a_cpu_that_is_offline(lab: Lab) -> None:
    lab.load("update_a")
    cpu = "/sys/devices/system/cpu/cpu1/online"
    lab.machine.check(f"echo 0 > {cpu}")
    assert lab.write("update_a", "apply") == 0
    lab.machine.check(f"echo 1 > {cpu}")
    assert lab.machine.check("taskset 2 cat /proc/victim") == "2000\n"
    assert lab.write("update_a", "reverse") == 0


def test_cycles_under_load(lab: Lab) -> None:
    """Switches while both CPUs call the old functions; busy is allowed, anything else is not."""
    switches = 400 if lab.modules.tree.release == kmod_build.KERNELS[0].release else 40
    lab.load("update_a")
    script = f"""
        touch /tmp/go
        reader() {{ while [ -e /tmp/go ]; do cat /proc/victim /proc/cmdline; done > /dev/null; }}
        reader & reader &
        done=0; tries=0
        while [ $done -lt {switches} ] && [ $tries -lt 4000 ]; do
            word=apply; [ $((done % 2)) = 1 ] && word=reverse
            tries=$((tries + 1))
            if (echo $word > {lab.at("update_a")}/control) 2> /dev/null; then
                done=$((done + 1))
            elif [ $(cat {lab.at("update_a")}/abort_cause) != code_busy ]; then
                break
            fi
        done
        rm /tmp/go; wait
        echo $done $tries $(cat {lab.at("update_a")}/pause_ns)
    """
    done, tries, pause = map(int, lab.machine.check(script, 600).split())
    assert done == switches
    print(f"{done} switches in {tries} tries; the last pause {pause / 1e6:.2f} ms")


# Unloading by force ends the debugging kernel's watch over locks, so these are the last.


def test_forced_unload_reverses_first(lab: Lab) -> None:
    lab.load("update_a")
    assert lab.write("update_a", "apply") == 0
    before = resident(lab)
    update = lab.name("update_a")
    lab.machine.check(f"rmmod -f {update}")
    assert lab.values() == (1000, "")
    said = lab.machine.check("dmesg")
    assert f"{update} is unloaded while applied" in said
    assert f"update {update} is unloaded by force; the kernel may still point" in said
    assert resident(lab) < before
    lab.load("update_b")
    assert lab.write("update_b", "apply") == 0
    assert lab.values() == (3000, "3000")


def test_unregistering_while_control_is_written(lab: Lab) -> None:
    """By force, so that it meets every stage of a switch; then again, nine times."""
    words = lab.insmod("update_a")
    script = f"""
        control={lab.at("update_a")}/control
        writer() {{ while [ -e /tmp/go ]; do [ -e $control ] && echo $1 > $control; done; }}
        reader() {{ while [ -e /tmp/go ]; do cat {lab.at("update_a")}/*; done > /dev/null; }}
        exec 2> /dev/null
        touch /tmp/go
        writer apply & writer reverse & reader &
        status=0
        for i in $(seq 10); do
            {words} || status=1
            until grep -q . {lab.at("update_a")}/original; do :; done
            rmmod -f {lab.name("update_a")} || status=1
        done
        rm /tmp/go; wait; exit $status
    """
    assert lab.machine.run(script, 300).status == 0
    assert f"{lab.name('update_a')} is unloaded while applied" in lab.machine.check("dmesg")
