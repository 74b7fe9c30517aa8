# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine for the engine: real files below a root, a kernel that keeps the core's rules."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from kspliced.engine import transactions
from kspliced.engine.edges import (
    BuildOrder,
    Built,
    Cancel,
    Context,
    CoreStage,
    CoreUpdate,
    Job,
)
from kspliced.engine.journal import NO_FACTS, Event, Facts
from kspliced.engine.paths import Paths
from kspliced.engine.policy import RESIDENT_LIMIT, Backoff
from kspliced.engine.resident import Limit, fitting, has_loaded, loading
from kspliced.engine.state import update_of
from kspliced.engine.status import loaded_modules
from kspliced.errors import Code, KernelError, KsplicedError
from kspliced.model import (
    ChangeKind,
    ChangelogEntry,
    FunctionChange,
    Group,
    Hold,
    KernelId,
    Linked,
    Manifest,
    Progress,
    ProgressSink,
    Refusal,
)
from kspliced.pack import Blob, Pack, pack_bytes

RUNNING = KernelId("6.1.0-55-amd64", "6.1.192-1", "x86_64")
NEWER = KernelId("6.1.0-56-amd64", "6.1.192-2", "x86_64")
NEWEST = KernelId("6.1.0-57-amd64", "6.1.193-1", "x86_64")
UPDATE = "ks_0123456789abcdef"
MALLOC = "ext4_mb_load_buddy_gfp"
GLUE = Group("part/glue", (), (), (), (), (), (), False)


def manifest(to: KernelId = NEWER, update: str = UPDATE, new: bool = False) -> Manifest:
    """The manifest of an update of two ext4 functions, and of a new one with ``new``."""
    names = ["ext4_mb_init_group", MALLOC]
    functions = [
        FunctionChange("ext4", "fs/ext4/mballoc.o", name, ChangeKind.CHANGED, "own source")
        for name in names
    ]
    if new:
        functions.append(
            FunctionChange("ext4", "fs/ext4/mballoc.o", "fresh", ChangeKind.NEW, "new function")
        )
    entry = ChangelogEntry(to.version, "ext4: fix a crash", (), ("1140001",))
    return Manifest(
        update,
        RUNNING,
        to.version,
        "gcc-12",
        1,
        (),
        tuple(functions),
        (),
        (entry,),
        GLUE,
        (Group("part/ext4", ("ext4",), ("fs/ext4/mballoc.o",), (), (), (), (), new),),
    )


def pack_content(of: Manifest) -> bytes:
    """A real pack's bytes."""
    blobs = [Blob(GLUE.blob, b"\x7fELF" + of.update.encode())]
    blobs += [Blob(group.blob, b"\x7fELF") for group in of.groups]
    return pack_bytes(of, tuple(blobs))[0]


@dataclass
class FakeJournal:
    """Remembers what was sent."""

    entries: list[tuple[Event, str, Facts]] = field(default_factory=list)

    def send(self, event: Event, message: str, facts: Facts = NO_FACTS) -> None:
        """Remember one entry."""
        self.entries.append((event, message, facts))

    def events(self) -> list[Event]:
        """The kinds of what was sent, in order."""
        return [event for event, _, _ in self.entries]


@dataclass
class FakeClock:
    """Time that passes only when somebody sleeps."""

    time: float = 1_000_000.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds


@dataclass
class FakeFetcher:
    """Has every source."""

    root: Path
    error: KsplicedError | None = None

    def order(self, running: KernelId, newest: KernelId, job: Job) -> BuildOrder:
        """An order whose files need not exist."""
        if self.error is not None:
            raise self.error
        file = self.root / "source.deb"
        return BuildOrder(running, newest.version, file, file, file, self.root, ("vmlinux",))

    def ahead(self, running: KernelId, newest: KernelId, job: Job) -> tuple[str, ...]:
        """Fetch nothing."""
        if self.error is not None:
            raise self.error
        return (f"source-{running.version}",)


@dataclass
class FakeBuilder:
    """Builds a real, small pack, or what ``result`` says."""

    result: Built | KsplicedError | None = None
    new: bool = False
    orders: list[BuildOrder] = field(default_factory=list)

    def build(self, order: BuildOrder, job: Job) -> Built:
        """The pack for any order."""
        self.orders.append(order)
        if isinstance(self.result, KsplicedError):
            raise self.result
        if self.result is not None:
            return self.result
        to = replace(NEWER, version=order.to_version)
        update = UPDATE if order.to_version == NEWER.version else UPDATE[:-1] + "0"
        built = manifest(to, update, self.new)
        return Built(pack_content(built), built.functions, built.refused)


@dataclass
class FakeKernel:
    """A kernel core by the rules of docs/kernel-core.md, showing its files below ``paths``."""

    paths: Paths
    core_error: KsplicedError | None = None
    link_error: KsplicedError | None = None
    link_errors: list[KsplicedError] = field(default_factory=list)
    busy: int = 0
    stubborn: int = -1
    calls: list[str] = field(default_factory=list)
    loaded: dict[str, CoreStage] = field(default_factory=dict)
    holds: dict[str, list[Hold]] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    size: int = 65536  # of each module that is applied
    kept: dict[str, int] = field(default_factory=dict)
    groups: dict[str, list[Group]] = field(default_factory=dict)

    @property
    def applied(self) -> set[str]:
        """The modules that are applied; others that were stay loaded."""
        return {name for name, stage in self.loaded.items() if stage is CoreStage.APPLIED}

    def ready(self) -> None:
        """The core is there unless told otherwise."""
        if self.core_error is not None:
            raise self.core_error

    def updates(self) -> tuple[CoreUpdate, ...]:
        """What is registered."""
        return tuple(
            CoreUpdate(update_of(name), name, stage, 1180, name in self.lost)
            for name, stage in self.loaded.items()
        )

    def link(self, pack: Pack, sink: ProgressSink) -> Linked:
        """Link anything whose targets are loaded."""
        self.calls.append("link")
        if self.link_errors:
            raise self.link_errors.pop(0)
        if self.link_error is not None:
            raise self.link_error
        groups = pack.manifest.groups
        there = loaded_modules(self.paths) | {"vmlinux"}
        waiting = {t for g in groups for t in g.targets} - there
        held = [g for g in groups if waiting & set(g.targets)]
        if len(held) == len(groups):
            raise KsplicedError(Code.TARGET_NOT_LOADED, f"module {min(waiting)} is not loaded")
        name = pack.manifest.update + (f"_{len(held):04x}" if held else "")
        units = tuple(unit for group in held for unit in group.units)
        holds = tuple(Hold(t, t in g.required) for g in groups for t in g.targets)
        modules = (self.paths.proc / "modules").read_text().splitlines()
        targets = {t for g in groups for t in g.targets}
        where = [line for line in modules if line.split()[0] in targets]
        content = pack.blob(GLUE.blob) + "\n".join(where).encode()

        def named(taken: frozenset[str]) -> Linked:
            names = (name, *(f"{pack.manifest.update}_{c * 4}" for c in "abcdef"))
            chosen = next(n for n in names if n not in taken)
            self.groups[chosen] = [g for g in groups if g not in held]
            return Linked(chosen, content, self.size, tuple(sorted(waiting)), units, holds)

        loaded = frozenset(n for n, s in self.loaded.items() if s is not CoreStage.APPLIED)
        return fitting(self.paths, loaded, frozenset(self.lost), named)

    def load(self, name: str, module: bytes) -> None:
        """Register in stage preparing."""
        self.calls.append(f"load {name}")
        if name in self.loaded or not module:
            raise KernelError(Code.LOAD_FAILED, "cannot load it")
        loading(self.paths, name)
        self._set(name, CoreStage.PREPARING)
        has_loaded(self.paths, name, module)

    def apply(self, name: str) -> int:
        """Switch; another applied update goes in the same switch."""
        self._attempt("apply", name)
        for other, stage in self.loaded.items():
            if stage is CoreStage.APPLIED:
                self._set(other, CoreStage.REVERSED)
        self.kept[name] = self.size
        self._set(name, CoreStage.APPLIED)
        return 1180

    def reverse(self, name: str) -> int:
        """Switch back."""
        self._attempt("reverse", name)
        self._set(name, CoreStage.REVERSED)
        return 900

    def hold(self, name: str, hold: Hold) -> None:
        """Remember it; after the switch it would be too late."""
        assert self.loaded[name] is not CoreStage.APPLIED
        self.holds.setdefault(name, []).append(hold)

    def nudge(self, name: str) -> bool:
        """Threads leave when they were asked ``stubborn`` times."""
        self.calls.append(f"nudge {name}")
        self.stubborn -= 1
        self.busy *= self.stubborn != 0
        return True

    def unload(self, name: str) -> None:
        """Forget an update that was never applied."""
        self.calls.append(f"unload {name}")
        if self.loaded.get(name) is not CoreStage.PREPARING:
            raise KernelError(Code.LOAD_FAILED, f"{name} is in use")
        del self.loaded[name]
        shutil.rmtree(self.paths.core / "updates" / name)

    def reboot(self) -> None:
        """Nothing is applied after a boot."""
        for name in list(self.loaded):
            del self.loaded[name]
        self.kept.clear()
        for directory in (self.paths.core, self.paths.run):
            shutil.rmtree(directory, ignore_errors=True)

    def _attempt(self, what: str, name: str) -> None:
        self.calls.append(f"{what} {name}")
        if name not in self.loaded:
            raise KernelError(Code.SWITCH_FAILED, f"{name} is not loaded")
        if self.busy:
            self.busy -= 1
            raise KernelError(
                Code.CODE_BUSY, "code is in use", "", (f"dd (pid 4711) is in {MALLOC}",)
            )

    def _set(self, name: str, stage: CoreStage) -> None:
        self.loaded[name] = stage
        directory = self.paths.core / "updates" / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "stage").write_text(f"{stage.value}\n")
        (directory / "pause_ns").write_text("1180000\n")
        groups = self.groups.get(name, [])
        spans = [f"0x1\t9\t4\t0x2\t{s.target}\t{s.symbol}\n" for g in groups for s in g.spans]
        (directory / "spans").write_text("".join(spans))
        (directory / "data").write_text("")
        (directory / "resident").write_text(f"{self.kept.get(name, 0)}\n")
        (self.paths.core / "resident").write_text(f"{sum(self.kept.values())}\n")


class Machine:
    """A machine below ``root`` that runs RUNNING and has ``installed`` installed."""

    def __init__(self, root: Path, *installed: KernelId) -> None:
        self.paths = Paths(root)
        self.boots = 0
        self.journal = FakeJournal()
        self.clock = FakeClock()
        self.fetcher = FakeFetcher(root)
        self.builder = FakeBuilder()
        self.kernel = FakeKernel(self.paths)
        self.cancel = Cancel()
        self.limit = Limit(RESIDENT_LIMIT)
        self.steps: list[Progress] = []
        self.boot(RUNNING)
        self.install(RUNNING, *installed)

    @property
    def context(self) -> Context:
        """What a worker gets."""
        return Context(
            paths=self.paths,
            job=Job(self.steps.append, self.cancel),
            journal=self.journal,
            fetcher=self.fetcher,
            builder=self.builder,
            kernel=self.kernel,
            clock=self.clock,
            backoff=Backoff(),
            resident_limit=self.limit,
        )

    def boot(self, kernel: KernelId, cmdline: str = "root=/dev/vda1 ro quiet") -> None:
        """Power off, and boot ``kernel``."""
        self.boots += 1
        self.kernel.reboot()
        proc = self.paths.proc
        (proc / "sys/kernel/random").mkdir(parents=True, exist_ok=True)
        (proc / "sys/kernel/osrelease").write_text(f"{kernel.release}\n")
        (proc / "sys/kernel/version").write_text(
            f"#1 SMP PREEMPT_DYNAMIC Debian {kernel.version} (2026-11-14)\n"
        )
        (proc / "sys/kernel/random/boot_id").write_text(f"boot-{self.boots}\n")
        (proc / "cmdline").write_text(cmdline + "\n")
        (proc / "modules").write_text("ext4 1056768 1 - Live 0x0\nkspliced 65536 0 - Live 0x0\n")
        self.build_core(kernel)

    def build_core(self, kernel: KernelId) -> None:
        """What DKMS and depmod leave."""
        modules = self.paths.root / "lib/modules" / kernel.release
        modules.mkdir(parents=True, exist_ok=True)
        (modules / "modules.dep").write_text("updates/dkms/kspliced.ko:\n")

    def modprobe(self, name: str, address: int = 0) -> None:
        """Load a module; one that is loaded comes again, at another address."""
        file = self.paths.proc / "modules"
        lines = [line for line in file.read_text().splitlines() if line.split()[0] != name]
        lines.append(f"{name} 4096 0 - Live {address:#x}")
        file.write_text("\n".join(lines) + "\n")

    def install(self, *kernels: KernelId, flavour: str = "") -> None:
        """What dpkg says is installed."""
        stanzas = [
            f"Package: linux-image-{k.release}\nStatus: install ok installed\n"
            f"Architecture: amd64\nSource: linux-signed-amd64 ({k.version.replace('-', '+')})\n"
            f"Version: {k.version}\n"
            for k in kernels
        ]
        self.paths.dpkg.mkdir(parents=True, exist_ok=True)
        (self.paths.dpkg / "status").write_text("\n".join(stanzas))


def refusal(symbol: str = "ext4_init_fs") -> Refusal:
    """A refusal in another unit."""
    return Refusal("init_code", "fs/ext4/super.o", symbol, "runs only at boot")


def leave_request(machine: Machine, name: str = "apt-1", content: str | None = None) -> Path:
    """Leave apt's request to look at a new kernel package in the queue, or ``content``."""
    machine.paths.queue.mkdir(parents=True, exist_ok=True)
    file = machine.paths.queue / f"{name}.json"
    packages = [{"name": "linux-image-6.1.0-56-amd64", "old": "", "new": "6.1.192-2"}]
    request = {"schema": 1, "source": "apt", "packages": packages, "time": 1}
    file.write_text(json.dumps(request) if content is None else content)
    return file


def fails(machine: Machine, code: Code) -> KsplicedError:
    """The error of an upgrade that has to fail with ``code``."""
    with pytest.raises(KsplicedError) as caught:
        transactions.upgrade(machine.context)
    assert caught.value.code is code
    return caught.value
