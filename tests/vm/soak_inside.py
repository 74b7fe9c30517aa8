# SPDX-License-Identifier: GPL-2.0-or-later
"""The soak's part inside the guest: switches by the product's own code, and what memory they cost.

    soak_inside.py link PACK MODULE ...
    soak_inside.py measure
    soak_inside.py loaded CYCLES RELOAD_EVERY SPARE UPDATE=MODULE UPDATE=MODULE
    soak_inside.py quiet CYCLES RELOAD_EVERY SPARE UPDATE=MODULE UPDATE=MODULE
    soak_inside.py grow MODULE ...

``link`` makes modules of different names of a pack, as different builds are. A cycle applies one
update, in every other one replaces it by the other, and reverses; both stay loaded. SPARE is never
applied: it is loaded and unloaded now and then. ``loaded`` expects somebody else to keep the
machine busy; ``quiet`` puts a process of its own to sleep in code that would change, so that each
cycle has an attempt that must be refused. ``grow`` has each module take the place of the one
before, and tells how much memory the core says that they keep.
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

from kspliced.engine.paths import Paths
from kspliced.engine.resident import read_limit, read_resident
from kspliced.errors import Code, KernelError
from kspliced.kernel.core import Core
from kspliced.kernel.live import LiveKernel
from kspliced.match import link, match
from kspliced.model import no_progress
from kspliced.pack import Pack, read_pack

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

    def __init__(self, files: dict[str, Path], spare: Path) -> None:
        self.core = Core()
        self._spare = spare
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
        kept = resident()
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
            if kept["total"] and all(kept.get(name) for name in names):
                _require(resident() == kept, "what stays is the same after a cycle", resident())
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
        # It was applied once, so it stays; while it is, it is pinned, too.
        for module, count in ((TARGET, self._base + applied), (update, 1 + applied)):
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
            if conflict.pid == 0 and conflict.comm.endswith("exiting"):
                continue  # 6.1 only counts the threads that have left its list
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
        """What was applied cannot be unloaded; what never was can, and leaves nothing behind."""
        for update in self.modules:
            if self.core.stage(update) == "reversed":
                _require(not _unloads(self.core, update), f"{update} stays")
        known, name = self.core.updates(), self._spare.stem
        self.core.load(name, self._spare.read_bytes())
        _require(set(self.core.updates()) == {*known, name}, "it is loaded", self.core.updates())
        _require(_unloads(self.core, name), f"{name} was never applied")
        _require(self.core.updates() == known, "it is gone", self.core.updates())
        held = _references("kspliced")
        _require(held == len(known), "each update holds the core once", held)
        self.tally.reloads += 1


def _unloads(core: Core, update: str) -> bool:
    """Whether an update module can be unloaded; if so, it is."""
    try:
        core.unload(update)
    except KernelError as error:
        _require(error.code is Code.LOAD_FAILED, "it is in use", error)
        return False
    return True


def resident() -> dict[str, int]:
    """The bytes that the core says stay: of each update, and in all."""
    found = read_resident(Paths(), read_limit({}))
    return {"total": found.bytes} | {one.module: one.bytes for one in found.updates}


def grow(modules: list[Path]) -> dict[str, int]:
    """Have each module take the place of the one before; what stays of each, and how large the
    engine took all of them to be."""
    core, before, expected = Core(), resident()["total"], 0
    for module in modules:
        core.load(module.stem, module.read_bytes())
        expected += int(module.with_suffix(".size").read_text())
        _insist(core.apply, module.stem)
    _insist(core.reverse, modules[-1].stem)
    kept = resident()
    sizes = {module.stem: kept[module.stem] for module in modules}
    _require(kept["total"] == before + sum(sizes.values()), "all of it is counted", kept)
    return sizes | {"expected": expected}


def _insist(attempt: Callable[[str], None], update: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return attempt(update)
        except KernelError as error:
            if error.code is not Code.CODE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def link_all(pack: Pack, files: list[Path]) -> None:
    """Write modules of different names, and beside each its size as the engine knows it."""
    taken: frozenset[str] = frozenset()
    with LiveKernel(Path("/proc"), Path("/sys")) as kernel:
        matched = match(pack, kernel, no_progress)
    for file in files:
        linked = link(pack, matched, Core().crcs(), taken)
        taken |= {linked.name}
        place = file.with_name(f"{linked.name}.ko")
        place.write_bytes(linked.content)
        place.with_suffix(".size").write_text(str(linked.size))
        file.symlink_to(place)


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
    caller and their bytes, and the references of each module."""
    active, sizes = _slabs()
    wanted = {"Slab", "SUnreclaim", "Percpu", "VmallocUsed", "KernelStack", "PageTables"}
    memory = [line.split() for line in Path("/proc/meminfo").read_text().splitlines()]
    areas = [line.split() for line in Path("/proc/vmallocinfo").read_text().splitlines()]
    callers: Counter[str] = Counter()
    space: Counter[str] = Counter()
    for words in areas:
        caller = words[2].split("+")[0]
        callers[caller] += 1
        space[caller] += int(words[1])
    return {
        "memory": {name[:-1]: int(kb) for name, kb, *_ in memory if name[:-1] in wanted},
        "slabs": active,
        "sizes": sizes,
        "vmalloc": dict(callers),
        "space": dict(space),
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
        link_all(read_pack(Path(rest[0])), [Path(name) for name in rest[1:]])
        return 0
    if verb == "grow":
        print(json.dumps(grow([Path(name).resolve() for name in rest])))
        return 0
    if verb == "measure":
        print(json.dumps(measure()))
        return 0
    named = (word.split("=") for word in rest[3:])
    files = {update: Path(path) for update, path in named}
    cycles = Cycles(files, Path(rest[2]).resolve())
    quiet = verb == "quiet"
    cycles.run(int(rest[0]), int(rest[1]), lambda update: hinder(cycles, update) if quiet else None)
    print(json.dumps(asdict(cycles.tally)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
