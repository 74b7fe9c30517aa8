# SPDX-License-Identifier: GPL-2.0-or-later
"""An update beside the kernel's own live patch of the same functions, in the same guest.

    python3 -m bench.livepatch [--json] [RELEASE]

Until in effect: from the system call that loads the prepared module to the moment when every
thread runs the new code; what user space does before that, matching and linking or building the
live patch, is in neither. Calls and stops are also counted in instructions, in a second guest of
one CPU whose clock advances by a nanosecond with each (QEMU's -icount). Both are emulated: times
are many times a real machine's, counts are not, but say nothing of caches.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from tests.vm import fresh, guest_tools, kmod_build, kmod_lab
from tests.vm.initramfs import Initramfs
from tests.vm.kmod_build import KERNELS, Kernel, Modules
from tests.vm.kmod_lab import UPDATES, Place

HERE = Path(__file__).parent
NAMES = tuple(f"bench_{number:02}" for number in range(100))
FUNCTIONS = (1, 10, 100)
THREADS = (50, 500, 5000)
RUNS = 3
CALLS = 100_000
ICOUNT = ("-icount", "shift=0")

LIVE_PATCH = "/sys/kernel/livepatch/bench_livepatch"
UPDATE = "bench_update"

# What the update's may be at most, as a part of the live patch's.
EFFECT_LIMIT = 0.1
CALL_LIMIT = 0.2


@dataclass(frozen=True)
class Spread:
    """Milliseconds: the least, the median and the most of RUNS."""

    least: float
    median: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:g} ({self.least:g} to {self.most:g})"


@dataclass(frozen=True)
class Effect:
    """Until in effect, and how long the update held all CPUs; a live patch holds none.

    ``threads`` sleep in the guest beside the kernel's own. ``ratio`` is that of the medians.
    """

    functions: int
    threads: int
    update: Spread
    live_patch: Spread
    ratio: float
    pause: Spread


@dataclass(frozen=True)
class Stop:
    """Instructions while the update held the CPU."""

    functions: int
    threads: int
    instructions: int


@dataclass(frozen=True)
class Call:
    """One call of a function, not replaced and replaced, in ``unit``; with the loop around it.

    ``ratio``: what the update adds to what the live patch adds.
    """

    unit: str
    plain: float
    update: float
    live_patch: float
    ratio: float


@dataclass(frozen=True)
class Figures:
    """All of one kernel."""

    kernel: str
    effects: tuple[Effect, ...]
    stops: tuple[Stop, ...]
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class Bench:
    """A guest with the core and the functions, whose places are ``places``.

    An update that was applied stays loaded, so each has a name of its own; ``names`` are those.
    """

    machine: Initramfs
    modules: Modules
    places: tuple[Place, ...]
    names: list[str] = field(default_factory=list)

    def update(self, functions: int) -> int:
        """Load and apply the update; returns the nanoseconds."""
        places = self.places[:functions]
        addrs = ",".join(str(place.addr) for place in places)
        sizes = ",".join(str(place.size) for place in places)
        parameters = f"addrs={addrs} sizes={sizes}"
        name = self._named()
        return self._effect(f"{name}.ko '{parameters}' {UPDATES}/{name}/control apply", functions)

    def _named(self) -> str:
        """A copy of the update's module, under a new name."""
        name = fresh.name(UPDATE, len(self.names))
        content = self.modules.files[f"{UPDATE}.ko"].read_bytes()
        writes = "".join(
            f"printf {name} | dd of=/{name}.ko bs=1 seek={at} conv=notrunc 2> /dev/null\n"
            for at in fresh.offsets(content, UPDATE)
        )
        self.machine.check(f"cp /{UPDATE}.ko /{name}.ko\n{writes}")
        self.names.append(name)
        return name

    def pause(self) -> int:
        """Nanoseconds that the update which is applied held all CPUs."""
        return int(self.machine.check(f"cat {UPDATES}/{self.names[-1]}/pause_ns"))

    def no_update(self) -> None:
        """Reverse it."""
        self.machine.check(f"echo reverse > {UPDATES}/{self.names[-1]}/control")

    def live_patch(self, functions: int) -> int:
        """Load the live patch and wait until no thread is in transition; the nanoseconds."""
        transition = f"{LIVE_PATCH}/transition"
        return self._effect(f"bench_livepatch.ko count={functions} {transition}", functions)

    def no_live_patch(self) -> None:
        """Disable and unload it."""
        self.machine.check(
            f"""echo 0 > {LIVE_PATCH}/enabled
            while [ -e {LIVE_PATCH} ]; do sleep 0.1; done; rmmod bench_livepatch"""
        )

    def _effect(self, words: str, functions: int) -> int:
        text = self.machine.check(f"/effect /{words}; cat /proc/bench", 150)
        nanoseconds, replaced, _ = map(int, text.split())
        assert replaced == functions, f"{replaced} functions are new, not {functions}: {words}"
        return nanoseconds

    def call(self) -> float:
        """The TSC's ticks of one call."""
        script = f"echo {CALLS} > /proc/bench; cut -d ' ' -f 2 /proc/bench\n"
        return median(map(int, self.machine.check(script * RUNS, 120).split())) / CALLS

    @contextmanager
    def crowd(self, threads: int) -> Iterator[None]:
        """That many threads that sleep."""
        self.machine.check(
            f"""rm -f /tmp/crowd; /crowd {threads} > /tmp/crowd &
            until grep -qs ready /tmp/crowd; do sleep 0.1; done""",
            120,
        )
        yield
        self.machine.check("killall crowd; while pidof crowd > /dev/null; do sleep 0.1; done", 120)


@contextmanager
def bench(
    name: str, modules: Modules, cpus: int, accel: str, arguments: tuple[str, ...] = ()
) -> Iterator[Bench]:
    """A booted guest."""
    files = dict(modules.files)
    for tool in ("crowd", "effect"):
        files |= guest_tools.compiled(HERE / f"{tool}.c")
    words = ("-m", "1536M", *arguments)
    with Initramfs(name, modules.tree.image, files, cpus, words, accel) as machine:
        machine.check("insmod /kspliced.ko; insmod /bench_victim.ko")
        sizes = kmod_lab.sizes_in(modules.files["bench_victim.ko"])
        places = kmod_lab.find(machine, NAMES, sizes)
        yield Bench(machine, modules, tuple(places[name] for name in NAMES))


def spread(nanoseconds: list[int]) -> Spread:
    """To a tenth of a millisecond."""
    values = (min(nanoseconds), median(nanoseconds), max(nanoseconds))
    return Spread(*(round(value / 1e6, 1) for value in values))


def effect(guest: Bench, functions: int, threads: int) -> Effect:
    """Update and live patch in turns."""
    updates, live_patches, pauses = [], [], []
    for _ in range(RUNS):
        updates.append(guest.update(functions))
        pauses.append(guest.pause())
        guest.no_update()
        live_patches.append(guest.live_patch(functions))
        guest.no_live_patch()
    ratio = round(median(updates) / median(live_patches), 3)
    return Effect(functions, threads, spread(updates), spread(live_patches), ratio, spread(pauses))


def stop(guest: Bench, functions: int, threads: int) -> Stop:
    """One switch in the guest that counts instructions."""
    guest.update(functions)
    instructions = guest.pause()
    guest.no_update()
    return Stop(functions, threads, instructions)


def call(guest: Bench, unit: str) -> Call:
    """The cost of a call, neither, one, and the other replacing the function."""
    plain = guest.call()
    guest.update(1)
    update = guest.call()
    guest.no_update()
    guest.live_patch(1)
    live_patch = guest.call()
    guest.no_live_patch()
    ratio = (update - plain) / (live_patch - plain)
    return Call(unit, round(plain, 1), round(update, 1), round(live_patch, 1), round(ratio, 3))


def measure(kernel: Kernel) -> Figures:
    """All figures of one kernel, in two guests."""
    modules = kmod_build.build(kmod_build.tree(kernel), HERE / "kmod")
    name = f"bench-{kernel.release}"
    effects: list[Effect] = []
    stops: list[Stop] = []
    with bench(name, modules, 2, "tcg,thread=multi") as guest:
        calls = [call(guest, "ticks")]
        for threads in THREADS:
            with guest.crowd(threads):
                effects += [effect(guest, functions, threads) for functions in FUNCTIONS]
    with bench(f"{name}-icount", modules, 1, "tcg,thread=single", ICOUNT) as guest:
        calls.append(call(guest, "instructions"))
        for threads in THREADS:
            with guest.crowd(threads):
                stops += [stop(guest, functions, threads) for functions in FUNCTIONS]
    return Figures(kernel.release, tuple(effects), tuple(stops), tuple(calls))


def misses(figures: Figures) -> tuple[str, ...]:
    """The limits that were missed."""
    found = [
        f"{e.functions} functions, {e.threads} threads: {e.ratio} of the live patch's time"
        for e in figures.effects
        if e.ratio > EFFECT_LIMIT
    ]
    found += [
        f"a call adds {c.ratio} of the live patch's {c.unit}"
        for c in figures.calls
        if c.ratio > CALL_LIMIT
    ]
    return tuple(found)


def table(figures: Figures) -> str:
    """For people, and for docs/coverage.md."""
    lines = [
        f"{figures.kernel}\n",
        "| functions | threads | update, ms | live patch, ms | ratio | pause, ms | instructions |",
        "|---|---|---|---|---|---|---|",
    ]
    for e, s in zip(figures.effects, figures.stops, strict=True):
        lines.append(
            f"| {e.functions} | {e.threads} | {e.update} | {e.live_patch} | {e.ratio} "
            f"| {e.pause} | {s.instructions} |"
        )
    lines += ["", "| a call in | plain | update | live patch | ratio of what is added |"]
    lines.append("|---|---|---|---|---|")
    for c in figures.calls:
        lines.append(f"| {c.unit} | {c.plain} | {c.update} | {c.live_patch} | {c.ratio} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Print the figures; 1 when a limit was missed."""
    releases = [word for word in arguments if word != "--json"] or [KERNELS[0].release]
    (kernel,) = (kernel for kernel in KERNELS if kernel.release in releases)
    figures = measure(kernel)
    print(json.dumps(asdict(figures)) if "--json" in arguments else table(figures))
    missed = misses(figures)
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
