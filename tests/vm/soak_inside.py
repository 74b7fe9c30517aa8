# SPDX-License-Identifier: GPL-2.0-or-later
"""The soak's part inside the guest: switches by the product's own code, and what memory they cost.

    soak_inside.py link PACK MODULE
    soak_inside.py measure
    soak_inside.py loaded CYCLES RELOAD_EVERY UPDATE=MODULE UPDATE=MODULE
    soak_inside.py quiet CYCLES RELOAD_EVERY UPDATE=MODULE UPDATE=MODULE

A cycle applies one update, in every other one replaces it by the other, and reverses. ``loaded``
expects somebody else to keep the machine busy; ``quiet`` puts a process of its own to sleep in
code that would change, so that each cycle has an attempt that must be refused.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kspliced.engine.live import RunningKernel
from kspliced.engine.paths import Paths
from kspliced.errors import Code, KernelError
from kspliced.kernel.core import Core
from kspliced.model import no_progress
from kspliced.pack import read_pack

PATIENCE = 120.0  # seconds for a switch
POLITE = 8  # refused attempts before the threads are asked to leave
TARGET = "ext4"  # the module that both updates change
REPORT_EVERY = 25
SLAB_LOOKS = 5


class Broken(Exception):
    """Something is not as it has to be."""


@dataclass
class Tally:
    """What came of the cycles.

    ``named``: conflicts of refused attempts, each with a thread's name and id; ``alive``: how many
    of those threads were still there when they were looked up. ``calls``: how often new code ran.
    """

    cycles: int = 0
    switches: int = 0
    replacements: int = 0
    reloads: int = 0
    attempts: int = 0
    refused: int = 0
    nudges: int = 0
    named: int = 0
    alive: int = 0
    most_tries: int = 0
    calls: int = 0
    seconds: float = 0.0
    pauses_us: list[int] = field(default_factory=list)
    functions: dict[str, int] = field(default_factory=dict)


class Cycles:
    """Runs cycles of two updates; ``files`` are their modules, loaded where need be."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.core = Core()
        self.modules = {update: path.read_bytes() for update, path in files.items()}
        self._shown = {update: path.stem for update, path in files.items()}
        self.tally = Tally()
        self._base = _references(TARGET)
        self._random = random.Random(1)
        for update in files.keys() - set(self.core.updates()):
            self.core.load(update, self.modules[update])

    def run(self, cycles: int, reload_every: int, hinder: Callable[[str], None]) -> None:
        """``hinder`` is called with an update's name before it is applied.

        :raises Broken: when anything is not as it has to be. KsplicedError passes.
        """
        started = time.monotonic()
        names = sorted(self.modules)
        for number in range(cycles):
            first, second = names if number % 4 < 2 else reversed(names)
            hinder(first)
            self._switch(first, "apply")
            self._witness(first)
            if number % 2:
                self._switch(second, "apply")
                self.tally.replacements += 1
                _require(self.core.stage(first) == "reversed", f"{first} was replaced")
                first = second
                self._witness(first)
            self._switch(first, "reverse")
            _require(_version()[0] == "Linux", "the original code is back")
            self.tally.cycles += 1
            if self.tally.cycles % reload_every == 0:
                self._reload()
            self.tally.seconds = round(time.monotonic() - started, 1)
            if self.tally.cycles % REPORT_EVERY == 0:
                print(json.dumps({"cycles": self.tally.cycles}), flush=True)

    def _switch(self, update: str, word: str) -> None:
        """Insist until it is done, and see that the pins are what they have to be."""
        attempt = self.core.apply if word == "apply" else self.core.reverse
        deadline = time.monotonic() + PATIENCE
        tries = 0
        while not self._try(attempt, update):
            tries += 1
            if time.monotonic() > deadline:
                raise Broken(f"{word} {update}: refused {tries} times: {self.tally.functions}")
            if tries >= POLITE:
                self.tally.nudges += self.core.nudge(update)
            else:
                time.sleep(self._random.uniform(0.0, 0.03))
        applied = word == "apply"
        _require(self.core.stage(update) == ("applied" if applied else "reversed"), "the stage")
        for module, count in ((TARGET, self._base + applied), (update, applied)):
            seen = _references(module)
            _require(seen == count, f"{module} is held {count} times after {word}", seen)
        self.tally.switches += 1
        self.tally.most_tries = max(self.tally.most_tries, tries + 1)
        self.tally.pauses_us.append(self.core.pause_ns(update) // 1000)

    def _try(self, attempt: Callable[[str], None], update: str) -> bool:
        """One attempt; whether it succeeded."""
        self.tally.attempts += 1
        try:
            attempt(update)
        except KernelError as error:
            if error.code is not Code.CODE_BUSY:
                raise
            self.note_refusal(update)
            return False
        return True

    def note_refusal(self, update: str) -> tuple[int, ...]:
        """Every refused attempt names its threads; returns their ids."""
        self.tally.refused += 1
        conflicts = self.core.conflicts(update)
        _require(conflicts, f"a refused attempt at {update} has a conflict")
        for conflict in conflicts:
            idle = conflict.pid == 0 and conflict.comm.startswith("swapper/")
            _require(conflict.comm and (conflict.pid > 0 or idle), "it names a thread", conflict)
            _require(conflict.stack, "it has a stack", conflict)
            functions = self.tally.functions
            functions[conflict.function] = functions.get(conflict.function, 0) + 1
            self.tally.alive += Path(f"/proc/{conflict.pid}").exists()
        self.tally.named += len(conflicts)
        return tuple(conflict.pid for conflict in conflicts)

    def _witness(self, update: str) -> None:
        """The new code runs: it counts its calls."""
        name, *rest = _version()
        _require(name == self._shown[update], f"{update} is live", name)
        before = int(rest[0])
        time.sleep(self._random.uniform(0.0, 0.05))
        after = int(_version()[1])
        _require(after > before, "the new code is called", (before, after))
        self.tally.calls += after - before

    def _reload(self) -> None:
        for update in self.modules:
            self.core.unload(update)
        _require(not self.core.updates(), "no update is left", self.core.updates())
        _require(_references("kspliced") == 0, "nothing holds the core")
        for update, module in self.modules.items():
            self.core.load(update, module)
        self.tally.reloads += 1


def hinder(cycles: Cycles, update: str) -> None:
    """A process that sleeps in code that would change: the attempt is refused, and names it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    try:
        _wait_for(lambda: "pipe_read" in Path(f"/proc/{child}/stack").read_text())
        cycles.tally.attempts += 1
        try:
            cycles.core.apply(update)
        except KernelError as error:
            if error.code is not Code.CODE_BUSY:
                raise
            pids = cycles.note_refusal(update)
            _require(child in pids, "the process that sleeps is named", pids)
        else:
            raise Broken(f"{update} was applied around a thread in pipe_read")
    finally:
        os.close(reader)
        os.close(writer)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def measure() -> dict[str, dict[str, int]]:
    """Kernel memory: kB of /proc/meminfo, objects of each slab cache, vmalloc areas of each
    caller, and the references of each module."""
    active, sizes = _slabs()
    wanted = {"Slab", "SUnreclaim", "Percpu", "VmallocUsed", "KernelStack", "PageTables"}
    memory = [line.split() for line in Path("/proc/meminfo").read_text().splitlines()]
    areas = [line.split() for line in Path("/proc/vmallocinfo").read_text().splitlines()]
    callers = Counter(words[2].split("+")[0] for words in areas)
    return {
        "memory": {name[:-1]: int(kb) for name, kb, *_ in memory if name[:-1] in wanted},
        "slabs": active,
        "sizes": sizes,
        "vmalloc": dict(callers),
        "modules": {
            path.name: _references(path.name)
            for path in Path("/sys/module").iterdir()
            if (path / "refcnt").exists()
        },
    }


def _slabs() -> tuple[dict[str, int], dict[str, int]]:
    """By cache, the objects in use, and the bytes of each."""
    active: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for _ in range(SLAB_LOOKS):
        # Objects that wait in a processor's own slabs count as used until the slabs are given
        # back; it may take a new one (512 objects of kmalloc-8) before they are counted.
        for cache in Path("/sys/kernel/slab").glob("[!:]*/shrink"):
            cache.write_text("1")
        lines = Path("/proc/slabinfo").read_text().splitlines()[2:]
        for name, used, _all, size, *_ in map(str.split, lines):
            active[name] = min(int(used), active.get(name, int(used)))
            sizes[name] = int(size)
    return active, sizes


def _references(module: str) -> int:
    return int(Path(f"/sys/module/{module}/refcnt").read_text())


def _version() -> list[str]:
    """The words of /proc/version: "Linux ..." or the update's name and its number of calls."""
    return Path("/proc/version").read_text().split()


def _require(condition: object, what: str, seen: object = "") -> None:
    if not condition:
        raise Broken(f"{what}; seen: {seen}")


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise Broken("a process did not fall asleep within 30 s")
        time.sleep(0.002)


def main(arguments: list[str]) -> int:
    """Do one verb; what it finds is JSON on the last line."""
    verb, *rest = arguments
    if verb == "link":
        pack = read_pack(Path(rest[0]))
        Path(rest[1]).write_bytes(RunningKernel(Paths()).link(pack, no_progress).content)
        return 0
    if verb == "measure":
        print(json.dumps(measure()))
        return 0
    named = (word.split("=") for word in rest[2:])
    cycles = Cycles({update: Path(path) for update, path in named})
    quiet = verb == "quiet"
    cycles.run(int(rest[0]), int(rest[1]), lambda update: hinder(cycles, update) if quiet else None)
    print(json.dumps(asdict(cycles.tally)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
