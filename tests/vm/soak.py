# SPDX-License-Identifier: GPL-2.0-or-later
"""The soak: cycles of apply, replace and undo on a machine under load.

    make soak [CYCLES=1000]

prints a line of figures and writes build/soak/result.json. Two updates of the same hot functions,
of vmlinux and of ext4, take turns in a Debian guest whose processors, network and file system are
kept busy. A quarter as many quiet cycles follow: there memory is still enough to see small leaks.
Both updates stay in memory, which is all that stays: in the end different builds take one
another's place, and memory grows by what the core says (`resident`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from kspliced.pack import read_pack
from tests.vm import counting, image, product
from tests.vm.errors import HarnessError
from tests.vm.guest import CommandFailed, Guest

HERE = Path(__file__).parent
RESULT = HERE.parents[1] / "build" / "soak" / "result.json"
INSIDE = "/root/soak_inside.py"
NAMES = ("one", "other")
HOT = {
    "fs/namei.c": ("path_openat", "path_lookupat", "do_unlinkat"),
    "fs/pipe.c": ("pipe_read", "pipe_write"),
    "kernel/fork.c": ("copy_process",),
    "mm/memory.c": ("handle_mm_fault", "do_anonymous_page"),
    "net/ipv4/tcp.c": ("tcp_sendmsg_locked",),
    "net/ipv4/tcp_input.c": ("tcp_rcv_established", "tcp_ack", "tcp_data_queue"),
    "fs/ext4/fsync.c": ("ext4_sync_file",),
    "fs/ext4/inode.c": ("ext4_da_write_begin", "ext4_map_blocks"),
}
PLACE = "/var/tmp/soak"
_STRESS = f"exec stress-ng --temp-path {PLACE} --verify --timeout 0"
LOADS = {
    "files": f"cd {PLACE}; while cp -r /etc copy && mv copy moved && rm -r moved; "
    "do sleep 0.1; done",
    "network": f"{_STRESS} --sock 1 --udp 1",
    "processes": f"{_STRESS} --fork 1 --pthread 1 --pthread-max 16",
    # Few but steady: somebody who waits for the disk holds up a switch.
    "syncs": f"exec fio --name=s --directory={PLACE} --size=4m --bs=4k --rw=randwrite --fsync=8 "
    "--rate_iops=8 --time_based --runtime=100000 --minimal",
}
RELOAD_EVERY = 10
SPARE = "/root/spare.ko"
BUILDS = tuple(f"/root/build{number}.ko" for number in range(6))
# What a module that stays costs beside its own memory, at most: its guard page and the tables of
# the core in vmalloc, and what the kernel keeps of any module in slabs.
BESIDE = 32 << 10
BESIDE_SLABS_KB = 160
CYCLE_SECONDS = 20.0  # at most, on an emulated machine that shares its processors
POLL_SECONDS = 5.0


@dataclass(frozen=True)
class Limits:
    """How much of what may be more afterwards: kB; areas of vmalloc; objects of a kmalloc cache."""

    unreclaimable_kb: int
    percpu_kb: int
    areas: int
    objects: int


def loaded_limits() -> Limits:
    """Under load: what the load's own processes leave in caches is most of it."""
    return Limits(8 << 10, 1 << 10, 8, 4000)


def quiet_limits(cycles: int) -> Limits:
    """Without load: less than one object for each two cycles, and what the caches round up to."""
    return Limits(512, 128, 0, max(150, cycles // 2))


@dataclass(frozen=True)
class Growth:
    """What was more of afterwards, in the units of Limits; ``cache`` is the one that grew most."""

    unreclaimable_kb: int
    percpu_kb: int
    areas: int
    objects: int
    cache: str


@dataclass(frozen=True)
class Phase:
    """Cycles of one kind. Pauses are microseconds, in the emulated guest.

    ``functions``: conflicts by the function that a thread was in. ``alive``: how many of the
    threads named were still there when they were looked up. ``calls`` of new code in vmlinux.
    """

    cycles: int
    switches: int
    replacements: int
    reloads: int
    attempts: int
    refused: int
    nudges: int
    named: int
    alive: int
    most_tries: int
    calls: int
    seconds: float
    pause_median: int
    pause_longest: int
    functions: dict[str, int]
    growth: Growth


@dataclass(frozen=True)
class Builds:
    """Different builds that took one another's place: what the core says stays of them, what
    the engine had expected, and what vmalloc and slabs grew by, in bytes."""

    builds: int
    resident: int
    expected: int
    space: int
    unreclaimable: int


@dataclass(frozen=True)
class Result:
    """The soak as it goes to build/soak/result.json."""

    kernel: str
    functions: int
    loaded: Phase
    quiet: Phase
    builds: Builds

    def line(self) -> str:
        """The figures in one line."""
        one, two, builds = self.loaded, self.quiet, self.builds
        most = max(one.functions, key=lambda name: one.functions[name], default="none")
        return (
            f"{one.cycles} cycles of {self.functions} functions under load, {one.switches} "
            f"switches ({one.replacements} replacements), {one.reloads} reloads, {one.refused} of "
            f"{one.attempts} attempts refused with {one.named} conflicts (most in {most}), pause "
            f"{one.pause_median / 1000:.1f} ms median, {one.pause_longest / 1000:.1f} ms longest, "
            f"{one.seconds:.0f} s; then {two.cycles} quiet ones: {two.growth.unreclaimable_kb} kB, "
            f"{two.growth.objects} objects of {two.growth.cache} more; then {builds.builds} "
            f"builds: {builds.resident >> 10} kB stay ({builds.expected >> 10} expected), "
            f"vmalloc has {builds.space >> 10} kB more, slabs {builds.unreclaimable >> 10}"
        )


class SoakError(AssertionError):
    """Something was not as it has to be."""


class Soak:
    """A guest with both updates loaded."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._modules = ""
        self._used: dict[str, int] = {}
        self.functions = 0

    def prepare(self) -> None:
        """Put the product there, and link both updates to the guest's kernel."""
        guest = self._guest
        product.place(guest)
        guest.put(HERE / "soak_inside.py", INSIDE)
        guest.run(f"mkdir -p {PLACE}")
        words = []
        others = [(SPARE, *BUILDS[::2]), BUILDS[1::2]]
        for name, pack in zip(NAMES, counting.packs(NAMES, HOT), strict=True):
            manifest = read_pack(pack).manifest
            self.functions = sum(len(group.spans) for group in manifest.groups)
            guest.put(pack, f"/root/{name}.kspack")
            files = " ".join((f"/root/{name}.ko", *others.pop(0)))
            guest.run(f"python3 {INSIDE} link /root/{name}.kspack {files}", timeout=300)
            words.append(f"{manifest.update}=/root/{name}.ko")
        self._modules = " ".join(words)
        self._cycles("quiet", 4, lambda _: None)  # whatever is only made once

    def loaded(self, cycles: int) -> Phase:
        """Cycles with all loads; each of them must go on all the time, and find nothing wrong."""
        before = self._measure()
        for name, script in LOADS.items():
            self._guest.background(name, script)
        tally = self._cycles("loaded", cycles, self._load_goes_on)
        self._end_load()
        return _phase(tally, growth(before, self._measure()), loaded_limits())

    def _end_load(self) -> None:
        """Every load still runs, and none has found anything wrong; then they are no more."""
        for name in LOADS:
            if not self._guest.run(f"systemctl -q is-active {name}", check=False).ok:
                raise SoakError(f"the load {name} has ended by itself")
        units = " ".join(LOADS)
        # Killed: asked to end, stress-ng frees what threads of its own still use, and they fault.
        gone = f"while systemctl -q is-active {units}; do sleep 0.2; done"
        self._guest.run(f"systemctl kill -s KILL {units}; {gone}", timeout=120)
        said = self._guest.run(f"journalctl -o cat -u {' -u '.join(LOADS)}").stdout
        # What --verify finds is a line with this word.
        if "fail:" in said or "dispatching hogs" not in said:
            raise SoakError(f"a load went wrong\n{said[-3000:]}")

    def quiet(self, cycles: int) -> Phase:
        """Cycles in which nothing else happens, and some before, while what a load left goes."""
        self._cycles("quiet", 10, lambda _: None)
        before = self._measure()
        tally = self._cycles("quiet", cycles, lambda _: None)
        return _phase(tally, growth(before, self._measure()), quiet_limits(cycles))

    def builds(self) -> Builds:
        """Builds that are each loaded once: what stays of them is all that memory grows by.

        :raises SoakError: where it is not.
        """
        before = self._measure()
        said = self._guest.run(f"python3 {INSIDE} grow {' '.join(BUILDS)}", timeout=600).stdout
        after, sizes = self._measure(), json.loads(said)
        expected = sizes.pop("expected")
        slabs = after["memory"]["SUnreclaim"] - before["memory"]["SUnreclaim"]
        space = sum(
            after["space"].get(caller, 0) - before["space"].get(caller, 0)
            for caller in {*after["space"], *before["space"]}
            if not caller.startswith(_OTHER_AREAS)
        )
        found = Builds(len(BUILDS), sum(sizes.values()), expected, space, slabs << 10)
        most = found.resident + len(BUILDS) * BESIDE
        if not found.resident <= space <= most:
            raise SoakError(f"vmalloc grew by other than what stays: {found}")
        if slabs > BESIDE_SLABS_KB * len(BUILDS):
            raise SoakError(f"slabs grew by more than modules cost: {found}")
        if not found.resident // 2 <= expected <= 2 * found.resident:
            raise SoakError(f"the engine expects other than what stays: {found}")
        return found

    def _cycles(self, verb: str, cycles: int, check: Callable[[float], None]) -> dict[str, Any]:
        """Run the part inside; ``check`` is called with the seconds that it runs."""
        command = f"{INSIDE} {verb} {cycles} {RELOAD_EVERY} {SPARE} {self._modules}"
        self._guest.background("soak", f"exec nice -n -10 python3 {command} > /root/soak.out 2>&1")
        started = time.monotonic()
        while self._guest.run("systemctl is-active soak", check=False).ok:
            seconds = time.monotonic() - started
            if seconds > 60 + cycles * CYCLE_SECONDS:
                raise SoakError(f"{verb}: {cycles} cycles have not ended after {seconds:.0f} s")
            check(seconds)
            time.sleep(POLL_SECONDS)
        said = self._guest.run("cat /root/soak.out").stdout.rstrip()
        try:
            tally: dict[str, Any] = json.loads(said.rpartition("\n")[2])
        except ValueError as error:
            raise SoakError(f"{verb}:\n{said}") from error
        return tally

    def _load_goes_on(self, seconds: float) -> None:
        """Every load has used its processors since it was looked at last."""
        stat = "/sys/fs/cgroup/system.slice/{}.service/cpu.stat"
        for name in LOADS:
            text = self._guest.run(f"cat {stat.format(name)}", check=False).stdout
            used = int(text.split()[1]) if text else 0
            if used <= self._used.get(name, 0):
                raise SoakError(f"the load {name} stands still after {seconds:.0f} s of cycles")
            self._used[name] = used

    def _measure(self) -> dict[str, dict[str, int]]:
        # Dentries and inodes only: this kernel cannot do without ext4's buddy pages (trigger.py).
        self._guest.run("sync; echo 2 > /proc/sys/vm/drop_caches; sleep 2")
        text = self._guest.run(f"python3 {INSIDE} measure").stdout
        measured: dict[str, dict[str, int]] = json.loads(text)
        return measured


# Areas of vmalloc that come and go with threads, or wait to be given back.
_OTHER_AREAS = ("dup_task_struct", "alloc_thread_stack_node", "kernel_clone", "unpurged")
_OUR_CACHES = ("kmalloc-", "kernfs_node_cache", "pid", "task_struct")


def growth(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> Growth:
    """What was more of in the second of two measurements (soak_inside.measure)."""
    if before["modules"] != after["modules"]:
        raise SoakError(f"modules are held: before {before['modules']}, after {after['modules']}")

    def more(kind: str, name: str) -> int:
        return after[kind].get(name, 0) - before[kind].get(name, 0)

    areas = sum(
        max(0, more("vmalloc", caller))
        for caller in after["vmalloc"]
        if not caller.startswith(_OTHER_AREAS)
    )
    caches = [name for name in after["slabs"] if name.startswith(_OUR_CACHES)]
    most = max(caches, key=lambda name: more("slabs", name))
    return Growth(
        more("memory", "SUnreclaim"), more("memory", "Percpu"), areas, more("slabs", most), most
    )


def _phase(tally: dict[str, Any], grown: Growth, limits: Limits) -> Phase:
    """The figures of a phase.

    :raises SoakError: where memory grew by more than ``limits``.
    """
    for name, limit in asdict(limits).items():
        if getattr(grown, name) > limit:
            raise SoakError(f"memory leaks: {name} over {limit}: {grown}")
    pauses = tally.pop("pauses_us")
    return Phase(**tally, pause_median=int(median(pauses)), pause_longest=max(pauses), growth=grown)


def soak(cycles: int) -> Result:
    """All of it: ``cycles`` under load, then a quarter as many without, 25 at least.

    :raises SoakError: where anything is not as it has to be. HarnessError passes.
    """
    with Guest("soak", image.base()) as guest:
        work = Soak(guest)
        work.prepare()
        loaded = work.loaded(cycles)
        quiet = work.quiet(max(25, cycles // 4))
        builds = work.builds()
        faults = guest.faults()
    if faults:
        raise SoakError(f"the kernel complained: {faults}")
    return Result(product.KERNEL.release, work.functions, loaded, quiet, builds)


def main(arguments: list[str]) -> int:
    """Soak; 0 where all was well. The result is written either way."""
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    cycles = int(arguments[0]) if arguments else 1000
    try:
        result = soak(cycles)
    except (SoakError, CommandFailed, HarnessError) as error:
        RESULT.write_text(json.dumps({"ok": False, "error": str(error)}, indent=2) + "\n")
        print(f"soak: {error}", file=sys.stderr)
        return 1
    RESULT.write_text(json.dumps({"ok": True, **asdict(result)}, indent=2) + "\n")
    print(result.line())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
