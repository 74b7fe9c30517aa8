# SPDX-License-Identifier: GPL-2.0-or-later
"""Tracers, probes, BPF, perf and live patches on the functions that an update replaces.

docs/kernel-core.md, "Probes on a function that is replaced" and "Live patches". The update is
update_a of tests/vm/kmod/; test_kmod_core.py has the kprobes that are refused. Tracers have the
kernel rewrite its code all the time, so the processors take turns (initramfs.py).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.vm import debug_kernel, guest_tools, kmod_build, kmod_lab
from tests.vm.guest_tools import PERF
from tests.vm.initramfs import TURNS
from tests.vm.kmod_build import Kernel
from tests.vm.kmod_lab import Lab, unharmed

pytestmark = pytest.mark.vm

FUNCTION = "cmdline_proc_show"
ASLEEP = "hrtimer_nanosleep"
# Functions of such names may be given another result by BPF (fmod_ret) on any kernel.
CHECK = "security_syslog"
OVERRIDER = "/sys/module/overrider/parameters"
OVERRIDDEN = -errno.EXDEV
TRACING = "cd /sys/kernel/tracing\n"
LIVE_PATCH = "/sys/kernel/livepatch/live_patch"
REDIRECTED = ["victim\tvictim_sleeper", "victim\tvictim_value", f"vmlinux\t{FUNCTION}"]

TEXT_2000 = "cmdline of update 2000\n"
TEXT_5000 = "cmdline of update 5000\n"


@dataclass(frozen=True)
class Tool:
    """A program that watches FUNCTION, as shell scripts.

    ``look`` reads /proc/cmdline once and prints it, and after it what the tool saw of that; a
    regular expression for this is ``seen``, with the size of the text for {size}.
    """

    name: str
    attach: str
    look: str
    detach: str
    seen: str


def traced(events: str) -> str:
    """A look that counts the lines of the trace that ``events`` matches."""
    return f"{TRACING} echo > trace; cat /proc/cmdline; grep -cE '{events}' trace"


def kprobe(name: str, definition: str) -> Tool:
    """A probe of tracefs."""
    enable = "events/kprobes/interop/enable"
    return Tool(
        name,
        f"{TRACING} echo '{definition}' > kprobe_events && echo 1 > {enable}",
        traced(rf": interop: \(.*{FUNCTION}"),
        f"{TRACING} echo 0 > {enable} && echo > kprobe_events",
        "1",
    )


def bpf(how: str, seen: str) -> Tool:
    """A BPF program on the entry or the exit: runs, text in the seq_file, what was returned."""
    place = f"/sys/fs/bpf/{how}"
    look = f"""
        before=$(/bpf_trace show {place} | cut -d ' ' -f 1)
        cat /proc/cmdline
        set -- $(/bpf_trace show {place})
        echo $(($1 - before)) $2 $3"""
    return Tool(how, f"/bpf_trace attach {how} {FUNCTION} {place}", look, f"rm -r {place}", seen)


# One sample of each event; the stack of the entry's goes through the caller.
PERF_SEEN = (
    rf"(?s)cat probe:{FUNCTION}:\s+\w+ {FUNCTION}\+0x\w+ \S+\s+\w+ seq_read_iter\+.*"
    rf"cat probe:{FUNCTION}__return:\s+\w+ seq_read_iter\+.*"
)
TOOLS = (
    Tool(
        "function tracer",
        f"{TRACING} echo {FUNCTION} > set_ftrace_filter && echo function > current_tracer",
        traced(f": {FUNCTION} <-seq_read_iter"),
        f"{TRACING} echo nop > current_tracer && echo > set_ftrace_filter",
        "1",
    ),
    Tool(
        "function graph tracer",
        f"{TRACING} echo {FUNCTION} > set_ftrace_filter && echo function_graph > current_tracer",
        traced(rf"\| +{FUNCTION}\(\);"),
        f"{TRACING} echo nop > current_tracer && echo > set_ftrace_filter",
        "1",
    ),
    kprobe("kprobe", f"p:interop {FUNCTION}"),
    kprobe("kretprobe", f"r:interop {FUNCTION} $retval"),
    # At the entry nothing has been written.
    bpf("fentry", "1 0 0"),
    bpf("fexit", "1 {size} 0"),
    Tool(
        "perf",
        f"{PERF} perf probe -q --add {FUNCTION} && perf probe -q --add '{FUNCTION}%return'",
        f"""{PERF}
        perf record -q -N -B -a -g -o /tmp/data -e 'probe:*' cat /proc/cmdline
        perf script -i /tmp/data -F comm,event,ip,sym,symoff,dso | tr -s ' '""",
        f"{PERF} perf probe -q -d 'probe:*'",
        PERF_SEEN,
    ),
)
# On kernels with CONFIG_FPROBE.
FPROBE = Tool(
    "fprobe",
    f"{TRACING} echo 'f:interop {FUNCTION}' > dynamic_events && "
    f"echo 'f:back {FUNCTION}%return' >> dynamic_events && echo 1 > events/fprobes/enable",
    traced(": (interop|back): "),
    f"{TRACING} echo 0 > events/fprobes/enable && echo > dynamic_events",
    "2",
)
ORDERS = (
    "attach apply reverse detach",
    "attach apply detach reverse",
    "apply attach detach reverse",
    "apply attach reverse detach",
)


@pytest.fixture(scope="module", params=kmod_build.KERNELS, ids=lambda kernel: kernel.release)
def booted(request: pytest.FixtureRequest) -> Iterator[Lab]:
    kernel: Kernel = request.param
    files = {**guest_tools.compiled(guest_tools.BPF_TRACE), **guest_tools.perf()}
    modules = kmod_build.build(kmod_build.tree(kernel))
    name = f"interop-{kernel.release}"
    with kmod_lab.booted(name, modules, files, [ASLEEP, CHECK], TURNS) as lab:
        lab.machine.check("mount -t bpf none /sys/fs/bpf")
        yield lab


@pytest.fixture
def lab(booted: Lab) -> Iterator[Lab]:
    with unharmed(booted):
        booted.load("update_a")
        yield booted


def play(lab: Lab, tool: Tool, order: str) -> None:
    """Do the steps; after each the function must do what it should, and the tool must see it."""
    original = lab.machine.check("cat /proc/cmdline")
    attached = applied = False
    for step in order.split():
        if step in ("attach", "detach"):
            lab.machine.check(tool.attach if step == "attach" else tool.detach, 120)
            attached = step == "attach"
        else:
            assert lab.write("update_a", step) == 0
            applied = step == "apply"
        text = TEXT_2000 if applied else original
        found = lab.machine.check(tool.look if attached else "cat /proc/cmdline", 120)
        assert found.startswith(text)
        seen = tool.seen.replace("{size}", str(len(text))) if attached else ""
        assert re.fullmatch(seen, found[len(text) :].strip()), f"after {step}: {found}"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_a_tool_keeps_working(lab: Lab, tool: Tool, order: str) -> None:
    play(lab, tool, order)


@pytest.mark.parametrize("order", ORDERS)
def test_an_fprobe_keeps_working(lab: Lab, order: str) -> None:
    if lab.machine.run(f"{TRACING} grep -q 'f\\[:' README").status:
        pytest.skip("this kernel is built without CONFIG_FPROBE")
    play(lab, FPROBE, order)


@dataclass(frozen=True)
class Overrider:
    """A kprobe of overrider.c on FUNCTION: what it does, and whether ftrace marks the function."""

    words: str
    returns: bool
    marked: bool


def play_overrider(lab: Lab, overrider: Overrider, order: str) -> None:
    """Do the steps; with ``returns`` nothing of the function runs while the kprobe is there."""
    original = lab.machine.check("cat /proc/cmdline")
    attached = applied = False
    for step in order.split():
        if step == "attach":
            lab.machine.check(f"insmod /overrider.ko function={FUNCTION} {overrider.words}")
            attached = True
        elif step == "detach":
            lab.machine.check("rmmod overrider")
            attached = False
        else:
            refused = step == "apply" and attached and overrider.marked
            assert lab.write("update_a", step) == (errno.EADDRINUSE if refused else 0)
            if refused:
                assert lab.state("update_a") == ("preparing", "redirected")
                assert redirected(lab) == REDIRECTED[2:]
                lab.machine.check("rmmod overrider")
                return
            applied = step == "apply"
        text = TEXT_2000 if applied else original
        seen = runs(lab) if attached else 0
        hidden = attached and overrider.returns
        assert lab.machine.check("cat /proc/cmdline") == ("" if hidden else text)
        assert redirected(lab) == (REDIRECTED[2:] if attached and overrider.marked else [])
        if attached:
            assert runs(lab) > seen


def runs(lab: Lab) -> int:
    """How often the kprobe's handlers ran."""
    return int(lab.machine.check(f"cat {OVERRIDER}/before"))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "overrider",
    [
        pytest.param(Overrider("post=1", False, True), id="post handler"),
        pytest.param(Overrider("post=1 override=1", True, True), id="as fail_function"),
        pytest.param(Overrider("override=1", True, False), id="as bpf_override_return"),
    ],
)
def test_a_kprobe_that_may_redirect(lab: Lab, overrider: Overrider, order: str) -> None:
    """A post handler marks the function as a live patch does, whatever the handler does."""
    play_overrider(lab, overrider, order)


@pytest.fixture(scope="module")
def injecting() -> Iterator[Lab]:
    """A kernel with error injection, which Debian's have not."""
    modules = kmod_build.build(debug_kernel.tree())
    files = guest_tools.compiled(guest_tools.BPF_TRACE)
    with kmod_lab.booted("interop-debug", modules, files, (), TURNS) as lab:
        lab.machine.check("mount -t bpf none /sys/fs/bpf; mount -t debugfs none /sys/kernel/debug")
        yield lab


INJECT = "cd /sys/kernel/debug/fail_function\n"
# Each has the function return OVERRIDDEN; whether ftrace marks the function.
INJECTORS = (
    (
        f"{INJECT} echo victim_value > inject && "
        f"echo {OVERRIDDEN + 2**64} > victim_value/retval && "
        "echo 100 > probability && echo -1 > times && echo 0 > verbose",
        f"{INJECT} echo > inject",
        True,
    ),
    (
        "/bpf_trace attach override victim_value /sys/fs/bpf/override",
        "rm -r /sys/fs/bpf/override",
        False,
    ),
)


@pytest.mark.full
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("injector", INJECTORS, ids=["fail_function", "bpf_override_return"])
def test_error_injection(injecting: Lab, injector: tuple[str, str, bool], order: str) -> None:
    attach, detach, marked = injector
    mark = ["victim\tvictim_value"]
    with unharmed(injecting) as lab:
        lab.load("update_a")
        attached = applied = False
        for step in order.split():
            if step == "apply" and attached and marked:
                assert lab.write("update_a", step) == errno.EADDRINUSE
                assert redirected(lab) == mark
                lab.machine.check(detach)
                break
            if step in ("attach", "detach"):
                lab.machine.check(attach if step == "attach" else detach)
                attached = step == "attach"
            else:
                assert lab.write("update_a", step) == 0
                applied = step == "apply"
            live = 2000 if applied else 1000
            found = int(lab.machine.check("cat /proc/victim"))
            assert found == (OVERRIDDEN if attached else live), f"after {step}"
            assert redirected(lab) == (mark if attached and marked else [])


def log_size(lab: Lab) -> int:
    return int(lab.machine.check("/bpf_trace syslog"))


@pytest.mark.parametrize("order", ORDERS)
def test_fmod_ret_keeps_overriding(lab: Lab, order: str) -> None:
    """Its program runs before the function, which is new or not: neither runs after it."""
    lab.machine.check(f"rmmod {lab.name('update_a')}")
    if lab.load("update_a", watched=CHECK, diverted=1):
        assert "the jump overlaps a" in lab.machine.check("dmesg | tail -n 1")
        pytest.skip("this kernel patches the start of its security hooks: nothing can replace them")
    original = log_size(lab)
    attached = applied = False
    for step in order.split():
        if step == "attach":
            lab.machine.check(f"/bpf_trace attach fmod_ret {CHECK} /sys/fs/bpf/fmod_ret")
        elif step == "detach":
            lab.machine.check("rm -r /sys/fs/bpf/fmod_ret")
        else:
            assert lab.write("update_a", step) == 0
        attached = step == "attach" or (attached and step != "detach")
        applied = step == "apply" or (applied and step != "reverse")
        live = 2000 if applied else original
        assert log_size(lab) == (OVERRIDDEN if attached else live), f"after {step}"


def test_a_thread_under_a_bpf_program_is_a_conflict(lab: Lab) -> None:
    """The kernel's unwinder does not vouch for a stack with a BPF trampoline, so it is scanned."""
    lab.machine.check(
        f"rmmod {lab.name('update_a')}; /bpf_trace attach fexit {ASLEEP} /sys/fs/bpf/asleep"
    )
    pid = int(lab.machine.check("sleep 1000 > /dev/null & echo $!"))
    lab.machine.check(f"until grep -q {ASLEEP} /proc/{pid}/stack; do sleep 0.1; done")
    assert "bpf_trampoline" in lab.machine.check(f"cat /proc/{pid}/stack")
    lab.load("update_a", watched=ASLEEP)
    assert lab.write("update_a", "apply") == errno.EBUSY
    (line,) = [line for line in lab.read("update_a", "conflicts").splitlines() if str(pid) in line]
    assert re.fullmatch(rf"{pid} sleep\twatched\+0x[0-9a-f]+\tscan", line)
    lab.machine.check(f"kill {pid}; rm -r /sys/fs/bpf/asleep")
    lab.machine.check(f"while [ -e /proc/{pid} ]; do sleep 0.1; done")
    assert lab.write("update_a", "apply") == 0


def test_perf_unwinds_through_the_new_code(lab: Lab) -> None:
    assert lab.write("update_a", "apply") == 0
    stacks = lab.machine.check(
        f"""{PERF} perf probe -q --add seq_printf
        perf record -q -N -B -g -o /tmp/data -e probe:seq_printf cat /proc/cmdline
        perf script -i /tmp/data -F ip,sym
        perf probe -q -d probe:seq_printf""",
        120,
    )
    frames = re.findall(r"^\s+[0-9a-f]+ (\w+)", stacks, re.MULTILINE)
    assert frames[:3] == ["seq_printf", f"new_{FUNCTION}", "seq_read_iter"]
    assert "do_syscall_64" in frames


def test_perf_samples_while_updates_come_and_go(lab: Lab) -> None:
    """The reader is in the functions nearly all the time, as `read` asks for each character."""
    samples = lab.machine.check(
        f"""{PERF} cat > /tmp/switches <<'END'
        control={lab.at("update_a")}/control
        while :; do read -r a < /proc/cmdline; read -r b < /proc/victim; done & reader=$!
        done=0
        while [ $done -lt 20 ]; do
            word=apply; [ $((done % 2)) = 1 ] && word=reverse
            (echo $word > $control) 2> /dev/null && done=$((done + 1))
        done
        kill $reader
END
        perf record -q -N -B -a -g -e cpu-clock -F 99 -o /tmp/data sh /tmp/switches
        perf script -i /tmp/data -F ip,sym""",
        240,
    )
    assert "seq_read_iter" in samples


def live_patch(lab: Lab) -> None:
    """Load the live patch and wait until all threads are patched."""
    lab.machine.check(
        f"insmod /live_patch.ko; until grep -q 0 {LIVE_PATCH}/transition; do sleep 0.1; done"
    )


def no_live_patch(lab: Lab) -> None:
    """Disable the live patch, wait until no thread is patched, unload it."""
    lab.machine.check(
        f"""echo 0 > {LIVE_PATCH}/enabled
        while [ -e {LIVE_PATCH} ]; do sleep 0.1; done; rmmod live_patch"""
    )


def redirected(lab: Lab, update: str = "update_a") -> list[str]:
    """The lines of the file, sorted."""
    return sorted(lab.read(update, "redirected").splitlines())


def test_no_update_under_a_live_patch(lab: Lab) -> None:
    """It would be reported live, and nobody would ever run it."""
    assert redirected(lab) == []
    live_patch(lab)
    assert lab.values() == (5000, "5000")
    assert lab.write("update_a", "apply") == errno.EADDRINUSE
    assert lab.state("update_a") == ("preparing", "redirected")
    assert redirected(lab) == REDIRECTED
    no_live_patch(lab)
    assert redirected(lab) == []
    assert lab.values() == (1000, "")
    assert lab.write("update_a", "apply") == 0
    assert lab.values() == (2000, "2000")


def test_no_update_while_a_live_patch_comes(lab: Lab) -> None:
    pid = lab.sleep_in("sleep", r"vic tim\0")
    lab.machine.check("insmod /live_patch.ko")
    assert lab.machine.check(f"sleep 3; cat {LIVE_PATCH}/transition /proc/{pid}/patch_state") == (
        "1\n0\n"
    )
    assert lab.write("update_a", "apply") == errno.EADDRINUSE
    lab.wake()
    lab.machine.check(f"until grep -q 0 {LIVE_PATCH}/transition; do sleep 0.1; done")
    no_live_patch(lab)


def test_a_live_patch_over_an_update_is_told(lab: Lab) -> None:
    """It has its say, as it comes first; the update has it again when the live patch has gone."""
    lab.load("update_b")
    assert lab.write("update_a", "apply") == 0
    live_patch(lab)
    assert lab.values() == (5000, "5000")
    assert lab.state("update_a") == ("applied", "ok")
    assert redirected(lab) == REDIRECTED
    # What would replace it would not be reached either.
    assert lab.write("update_b", "apply") == errno.EADDRINUSE
    assert lab.state("update_a") == ("applied", "ok")
    no_live_patch(lab)
    assert redirected(lab) == []
    assert lab.values() == (2000, "2000")
    assert lab.write("update_a", "reverse") == 0
    assert lab.values() == (1000, "")


def test_an_undo_under_a_live_patch(lab: Lab) -> None:
    assert lab.write("update_a", "apply") == 0
    live_patch(lab)
    assert lab.write("update_a", "reverse") == 0
    assert lab.values() == (5000, "5000")
    no_live_patch(lab)
    assert lab.values() == (1000, "")


def test_a_live_patch_does_not_know_who_is_in_new_code(lab: Lab) -> None:
    """Its transition looks for the original function only; the undo of the update still waits."""
    assert lab.write("update_a", "apply") == 0
    lab.sleep_in("sleep", r"vic tim\0")
    live_patch(lab)
    assert lab.write("update_a", "reverse") == errno.EBUSY
    assert re.search(r"\tnew_sleeper\+0x[0-9a-f]+\treliable", lab.read("update_a", "conflicts"))
    lab.wake()
    assert lab.write("update_a", "reverse") == 0
    no_live_patch(lab)
