# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches against 6.1.192-1, each built, applied in one guest, seen, and undone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from kspliced.elf.read import read_object
from kspliced.errors import Code, KsplicedError
from kspliced.kernel.memory import RANGES
from kspliced.model import ChangeKind
from kspliced.pack import Pack
from kspliced.source.functions import function_lines
from tests.vm.scenario_build import PATCHES, Built, Files, Workshop
from tests.vm.scenario_guest import UPDATES, ScenarioGuest

pytestmark = pytest.mark.vm

TRACE = "/sys/kernel/tracing"
SCHEDSTATS = "/proc/sys/kernel/sched_schedstats"
DROP = "dmesg -c > /dev/null; echo 1 > /proc/sys/vm/drop_caches; dmesg | grep -o drop_caches.*"
# The kernel tears it down when it finds the time.
NAMESPACE = "dmesg -c > /dev/null; unshare -n true; sleep 2; dmesg | grep -o 'callback: .*'"
LINKS = "dmesg -c > /dev/null; ls /proc/1/task/1 > /dev/null; dmesg | grep -o 'links: .*'"
LO = "/sys/class/net/lo"
STATUS = "/proc/sys/fs/binfmt_misc/status"

# Units of vmlinux with many functions that nothing is asleep in.
MANY = ("dev", "skbuff", "sock", "rtnetlink", "neighbour", "dst")
# The kernel rewrites bytes right behind the fentry slot of these, or of what inlines them.
REWRITTEN = {
    "netif_device_detach", "__netif_schedule", "synchronize_net", "__netif_napi_del",
    "__netif_rx", "netif_tx_wake_queue", "netif_device_attach", "netif_napi_add_weight",
    "msg_zerocopy_put_abort", "__consume_stateless_skb",
    "netif_tx_stop_all_queues", "msg_zerocopy_callback",
}  # fmt: skip
NOT_THESE = re.compile(r"\b(static|inline|__init|__exit|noinstr|notrace|__sched|asmlinkage)\b")


@dataclass(frozen=True)
class Scenario:
    """``before`` and ``after`` are patterns for what ``probe`` prints; it may fail."""

    name: str
    probe: str
    before: str
    after: str


SCENARIOS = (
    Scenario("string", "cat /proc/cmdline", "console=", "patched: console="),
    Scenario("new_code", "cat /proc/version", "Linux version 6", r"read 42 4[12] Linux version 6"),
    # The guest's own variable says that the message was silenced: so it is the kernel's.
    Scenario("static_changed", DROP, "", "drop_caches: silent\n"),
    Scenario("static_removed", DROP, "", "drop_caches: 1\n"),
    Scenario(
        "inlined",
        f"cat {LO}/ifindex {LO}/mtu {LO}/type {LO}/addr_len {LO}/flags",
        "1\n65536\n772\n6\n0x",
        "(cat: read error: Invalid argument\n){5}",
    ),
    Scenario("syscall", "uname -m", "x86_64\n", "spliced\n"),
    Scenario("notrace", "echo j > /sys/module/printk/parameters/time", ".*Invalid argument\n", ""),
    Scenario(
        "together",
        f"cat /proc/cmdline {STATUS} /sys/block/loop0/loop/offset",
        "console=.*\nenabled\n0\n",
        "together: .*\non\nat 0\n",
    ),
    Scenario("exported", "cat /sys/block/loop0/loop/offset", "0\n", "1\n42 0\n"),
    Scenario(
        "static_key",
        f"for n in 0 1 0; do echo $n > {SCHEDSTATS}; cut -c1-12 /proc/cmdline; done",
        "(console=.*\n){3}",
        "schedstats o\nschedstats o\nschedstats o\n",
    ),
    Scenario(
        "tracepoint",
        f"cd {TRACE}; echo > trace; echo 1 > events/oom/oom_score_adj_update/enable; "
        "cat /proc/cmdline; echo 0 > events/oom/oom_score_adj_update/enable; grep -o oom_.* trace",
        "console=.*\n$",
        r"console=.*\noom_score_adj_update: pid=\d+ comm=cat oom_score_adj=0\n",
    ),
    Scenario("percpu", "cat /proc/sys/fs/inode-nr", r"\d{1,6}\t", r"10000\d{5}\t"),
    Scenario("exception", "cat /proc/version", "Linux", "value 0 Linux"),
    Scenario(
        "alternatives",
        "cut -c1-8 /proc/version; cut -c1-8 /proc/version",
        "Linux ve\nLinux ve\n",
        "count 17\ncount 28\n",
    ),
    # The function that counts them was freed with start-up.
    Scenario("init_left", LINKS, "", r"(links: [5-9]\n)+"),
    Scenario("const_data", "head -c 2 /dev/null | wc -c", "0\n", "2\n"),
    Scenario("callback", NAMESPACE, "", "callback: a namespace goes\n"),
    Scenario("const_string", "head -n 1 /proc/vmstat", "nr_free_pages ", "nr_spare_pages "),
)
REFUSED = {
    "noinstr": "noinstr",
    "init": "init_only",
    "init_dropped": "section_class_changed",
    "layout": "layout_changed",
    "initialiser": "writable_data_changed",
    "export": "export_changed",
    "assembly": "assembly",
    "vdso": "vdso",
}


def many(workshop: Workshop) -> Files:
    """A change to hundreds of functions, each of which counts its calls; /proc/version tells."""
    files: dict[str, bytes] = {}
    for name in MANY:
        path = f"net/core/{name}.c"
        lines = (workshop.source / path).read_text().splitlines()
        for function, start, end in reversed(function_lines("\n".join(lines))):
            head = next((n for n in range(start - 1, end) if lines[n] == "{"), None)
            if head is None or function in REWRITTEN:
                continue
            if not NOT_THESE.search(" ".join(lines[start - 1 : head])):
                lines[head] = "{\textern unsigned long ks_calls; ks_calls++;"
        files[path] = "\n".join([*lines, ""]).encode()
    path = f"net/core/{MANY[2]}.c"
    files[path] += b"unsigned long ks_calls;\n"
    shown = (workshop.source / "fs/proc/version.c").read_text()
    shown = shown.replace(
        "\tseq_printf(m, linux",
        "\textern unsigned long ks_calls;\n\n"
        '\tseq_printf(m, "%lu calls ", ks_calls);\n\tseq_printf(m, linux',
    )
    files["fs/proc/version.c"] = shown.encode()
    return files


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    scenarios = {
        patch.stem: workshop.patched(patch.stem)
        for patch in sorted(PATCHES.glob("*.patch"))
        if patch.stem != "string_again"
    }
    scenarios["string_again"] = workshop.patched("string", "string_again")
    scenarios["many"] = many(workshop)
    return workshop.build(scenarios)


@pytest.fixture(scope="module")
def guest() -> Iterator[ScenarioGuest]:
    with ScenarioGuest("scenarios", ("fs/binfmt_misc", "drivers/block/loop")) as machine:
        machine.check(
            "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc; ip link set lo up; "
            "truncate -s 1M /tmp/disk; losetup /dev/loop0 /tmp/disk; "
            # The bit that silences the message lives in drop_caches' static local.
            "echo 4 > /proc/sys/vm/drop_caches"
        )
        yield machine


@pytest.fixture(autouse=True)
def sound(request: pytest.FixtureRequest) -> Iterator[None]:
    """The kernel of the guest complains of nothing, and nothing stays applied."""
    yield
    if "guest" in request.fixturenames:
        machine: ScenarioGuest = request.getfixturevalue("guest")
        assert machine.faults() == ""
        assert "applied" not in machine.check(f"cat {UPDATES}/*/stage 2> /dev/null || true")


def see(guest: ScenarioGuest, probe: str) -> str:
    return guest.machine.run(probe).text


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_applied_seen_and_undone(
    guest: ScenarioGuest, built: dict[str, Built], scenario: Scenario
) -> None:
    pack = built[scenario.name].live
    assert re.match(scenario.before, see(guest, scenario.probe))
    guest.apply(pack)
    text = see(guest, scenario.probe)
    assert re.match(scenario.after, text), text
    assert bool(text) == bool(scenario.after)
    guest.undo(pack)
    text = see(guest, scenario.probe)
    assert re.match(scenario.before, text), text
    assert bool(text) == bool(scenario.before)


def test_the_kernel_says_what_memory_is_where(guest: ScenarioGuest) -> None:
    """Or nothing of what is matched would be compared with that."""
    for name in (name for first, last, _ in RANGES for name in (first, last)):
        assert see(guest, f"grep -c ' {name}$' /proc/kallsyms") == "1\n", name


@pytest.mark.parametrize(("name", "code"), REFUSED.items())
def test_refused_with_its_own_code(built: dict[str, Built], name: str, code: str) -> None:
    assert built[name].pack is None
    assert built[name].codes == {code}
    assert all(refusal.reason for refusal in built[name].refused)


def test_a_blank_line_is_nothing_to_do(built: dict[str, Built]) -> None:
    assert built["blank_line"] == Built(None, (), ())


def test_every_change_says_why(built: dict[str, Built]) -> None:
    def whys(name: str) -> dict[str, str]:
        return {function.name: function.why for function in built[name].functions}

    assert whys("syscall") == {"__do_sys_newuname": "own source"}
    assert whys("new_code") == {
        "version_proc_show": "own source",
        "ks_read": "new, for another unit",
        "ks_reads": "new, used by ks_read",
    }
    changed = [f for f in built["inlined"].functions if f.kind is ChangeKind.CHANGED]
    assert len(changed) > 5
    assert {function.why for function in changed} == {"inlined callee: dev_isalive"}
    assert whys("const_data") == {"devlist": "own source, in place"}


def test_a_new_string_in_a_table_pins_the_update(built: dict[str, Built]) -> None:
    assert built["const_string"].live.manifest.pinned
    assert not built["const_data"].live.manifest.pinned


def test_special_sections_of_new_code(built: dict[str, Built]) -> None:
    """What the scenarios are about is in their modules: no sections, no proof."""
    for name, sections in {
        "static_key": {"__jump_table", ".static_call_sites"},
        "tracepoint": {"__jump_table", ".static_call_sites"},
        "percpu": {".data..percpu"},
        "exception": {"__ex_table"},
        "alternatives": {".altinstructions", ".smp_locks"},
    }.items():
        assert sections <= section_names(built[name].live)


def section_names(pack: Pack) -> set[str]:
    (group,) = pack.manifest.groups
    return {section.name for section in read_object(pack.blob(group.blob)).sections}


def test_a_static_key_is_followed(guest: ScenarioGuest, built: dict[str, Built]) -> None:
    pack = built["static_key"].live
    guest.apply(pack)
    for value, word in ((0, "off"), (1, "on"), (0, "off")):
        text = see(guest, f"echo {value} > {SCHEDSTATS}; cat /proc/cmdline")
        assert text.startswith(f"schedstats {word}: ")
    guest.undo(pack)


def test_a_patch_on_a_patch_up_and_down(guest: ScenarioGuest, built: dict[str, Built]) -> None:
    """Both updates go from the running kernel's source; the second replaces the first."""
    first, second = built["string"].live, built["string_again"].live
    probe = "cut -c1-10 /proc/cmdline /proc/version"
    guest.apply(first)
    assert see(guest, probe) == "patched: c\nLinux vers\n"
    guest.apply(second)
    assert see(guest, probe) == "patched tw\ncumulative\n"
    assert (guest.stage(first), guest.stage(second)) == ("reversed", "applied")
    guest.apply(first)
    assert see(guest, probe) == "patched: c\nLinux vers\n"
    assert (guest.stage(first), guest.stage(second)) == ("applied", "reversed")
    guest.undo(first)
    assert see(guest, probe) == "console=tt\nLinux vers\n"


def test_a_module_before_it_is_loaded_and_loaded_again(
    guest: ScenarioGuest, built: dict[str, Built]
) -> None:
    """What is not loaded is refused by its own code; what is patched stays until it is undone."""
    pack = built["module"].live
    mount = "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc"
    guest.check("umount /proc/sys/fs/binfmt_misc; rmmod binfmt_misc")
    with pytest.raises(KsplicedError) as caught:
        guest.match(pack)
    assert caught.value.code is Code.TARGET_NOT_LOADED
    for _ in range(2):
        guest.check(f"insmod /binfmt_misc.ko; {mount}")
        guest.apply(pack)
        assert see(guest, f"cat {STATUS}") == "yes\n"
        guest.check("umount /proc/sys/fs/binfmt_misc")
        assert "in use" in see(guest, "rmmod binfmt_misc 2>&1 || echo in use")
        guest.check(mount)
        guest.undo(pack)
        assert see(guest, f"cat {STATUS}") == "enabled\n"
        guest.check("umount /proc/sys/fs/binfmt_misc; rmmod binfmt_misc")
    guest.check(f"insmod /binfmt_misc.ko; {mount}")


def test_what_waits_for_a_module_joins_the_rest(
    guest: ScenarioGuest, built: dict[str, Built]
) -> None:
    """A module is patched before it is loaded: the rest is live, and it joins when it comes."""
    pack = built["together"].live
    mount = "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc"
    probe = "cat /proc/cmdline /sys/block/loop0/loop/offset"
    assert {group.targets for group in pack.manifest.groups} == {
        ("binfmt_misc",), ("loop",), ("vmlinux",),
    }  # fmt: skip
    guest.check("umount /proc/sys/fs/binfmt_misc; rmmod binfmt_misc")
    part = guest.apply(pack)
    assert (part.waiting, part.held) == (("binfmt_misc",), ("fs/binfmt_misc.o",))
    assert part.name.startswith(f"{pack.manifest.update}_")
    assert re.match("together: .*\nat 0\n", see(guest, probe))
    guest.check(f"insmod /binfmt_misc.ko; {mount}")
    assert see(guest, f"cat {STATUS}") == "enabled\n"
    whole = guest.apply(pack)
    # What was applied before keeps its name.
    assert whole.name.startswith(pack.manifest.update) and whole.name != part.name
    assert (whole.waiting, whole.held) == ((), ())
    assert see(guest, f"cat {STATUS}") == "on\n"
    assert re.match("together: .*\nat 0\n", see(guest, probe))
    assert guest.check(f"cat {UPDATES}/{part.name}/stage") == "reversed\n"
    guest.undo(pack)
    assert see(guest, f"cat {STATUS}") == "enabled\n"


def test_five_hundred_functions(guest: ScenarioGuest, built: dict[str, Built]) -> None:
    pack = built["many"].live
    changed = [f for f in pack.manifest.functions if f.kind is ChangeKind.CHANGED]
    assert len(changed) >= 500
    guest.apply(pack)
    counts = []
    for _ in range(2):
        see(guest, "ping -c 3 -W 1 127.0.0.1; ip addr")
        text = see(guest, "cat /proc/version")
        counts.append(int(text.split(" calls ")[0]))
    assert 0 < counts[0] < counts[1]
    guest.undo(pack)
    assert see(guest, "cat /proc/version").startswith("Linux")
    see(guest, "ping -c 3 -W 1 127.0.0.1; ip addr")
