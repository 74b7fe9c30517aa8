# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's edges: what it needs of apt, the builder, the kernel and the clock, as protocols.

engine/fetch.py, engine/builder.py and engine/live.py implement them; tests bring their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from kspliced.engine.journal import Journal
from kspliced.engine.paths import Paths
from kspliced.engine.policy import Backoff
from kspliced.engine.resident import Limit
from kspliced.errors import Code, KsplicedError
from kspliced.model import (
    ChangelogEntry,
    FunctionChange,
    Hold,
    KernelId,
    Linked,
    Progress,
    ProgressSink,
    Refusal,
)
from kspliced.pack import Pack


@dataclass(frozen=True)
class BuildOrder:
    """What the builder needs: ``source`` and ``target`` are .deb or .dsc files, ``targets`` names
    vmlinux and the loaded modules, ``foreign`` those of them that are not of the kernel's own tree.
    """

    kernel: KernelId
    to_version: str
    source: Path
    target: Path
    config: Path
    headers: Path
    targets: tuple[str, ...]
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """What the builder made: ``content`` is the untrusted pack, None when nothing can go live."""

    content: bytes | None
    functions: tuple[FunctionChange, ...]
    refused: tuple[Refusal, ...]
    entries: tuple[ChangelogEntry, ...] = ()


class CoreStage(str, Enum):
    """The core's own words (docs/kernel-core.md)."""

    PREPARING = "preparing"
    APPLIED = "applied"
    REVERSED = "reversed"


@dataclass(frozen=True)
class CoreUpdate:
    """An update that is registered with the core, under the name of ``module``, which is its own or
    that of a part; ``pause_us`` is of its last switch; ``lost``: a module that it has code for went
    while it was applied, and that code with it."""

    name: str
    module: str
    stage: CoreStage
    pause_us: int
    lost: bool = False


class Fetcher(Protocol):
    """Gets sources and headers."""

    def order(self, running: KernelId, newest: KernelId, job: Job) -> BuildOrder:
        """Everything that building the update needs, fetched if it is not there.

        :raises KsplicedError: SOURCE_UNAVAILABLE, HEADERS_MISSING, CONFIG_MISSING, NO_SPACE.
        """
        ...

    def ahead(self, running: KernelId, newest: KernelId, job: Job) -> tuple[str, ...]:
        """Fetch what a later build will need, drop what none will; names of what is there."""
        ...


class Builder(Protocol):
    """Makes packs."""

    def build(self, order: BuildOrder, job: Job) -> Built:
        """Build the update.

        :raises KsplicedError: what the builder reports; NOTHING_TO_DO when no code changes.
        """
        ...


class Kernel(Protocol):
    """The running kernel and its core."""

    def ready(self) -> None:
        """Load the core if it is not.

        :raises KsplicedError: CORE_NOT_LOADED, CORE_ABI.
        """
        ...

    def updates(self) -> tuple[CoreUpdate, ...]:
        """What is registered with the core; nothing when the core is not loaded."""
        ...

    def link(self, pack: Pack, sink: ProgressSink) -> Linked:
        """The module to load: the pack matched against the running kernel and linked, as far as its
        targets are loaded.

        :raises KsplicedError: NO_MATCH, AMBIGUOUS, UNRESOLVED, TARGET_NOT_LOADED, ...
        """
        ...

    def load(self, name: str, module: bytes) -> None:
        """Load and register the update module called ``name``.

        :raises KsplicedError: LOAD_FAILED.
        """
        ...

    def apply(self, name: str) -> int:
        """One attempt at the switch; how long it held the CPUs, in microseconds.

        :raises KsplicedError: CODE_BUSY (details: the conflicts), PROBED, REDIRECTED, NO_MATCH,
            SWITCH_FAILED.
        """
        ...

    def reverse(self, name: str) -> int:
        """One attempt at the switch back, as apply()."""
        ...

    def hold(self, name: str, hold: Hold) -> None:
        """Have the loads of a module wait for their part while the update module is applied.

        :raises KsplicedError: SWITCH_FAILED.
        """
        ...

    def nudge(self, name: str) -> bool:
        """Ask the threads that were in the way of the last attempt to leave; whether there are any.

        :raises KsplicedError: SWITCH_FAILED.
        """
        ...

    def unload(self, name: str) -> None:
        """Remove an update module that was never applied.

        :raises KsplicedError: LOAD_FAILED when the kernel still uses it.
        """
        ...


class Clock(Protocol):
    """Time, so that tests need not wait."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after ``seconds``, or earlier if a signal came."""
        ...


class Cancel:
    """A wish to stop, seen at safe points only: a switch is never interrupted half-way."""

    def __init__(self) -> None:
        self.wanted = False

    def check(self) -> None:
        """A safe point.

        :raises KsplicedError: CANCELLED.
        """
        if self.wanted:
            raise KsplicedError(Code.CANCELLED, "cancelled; nothing was changed")


@dataclass(frozen=True)
class Job:
    """What a transaction reports to and asks whether to go on."""

    sink: ProgressSink
    cancel: Cancel

    def at(self, phase: str, fraction: float, message: str) -> None:
        """Report progress at a safe point.

        :raises KsplicedError: CANCELLED.
        """
        self.cancel.check()
        self.sink(Progress(phase, fraction, message))

    def part(self, start: float, end: float) -> ProgressSink:
        """A sink for a part of the job, whose own 0..1 is ``start`` to ``end`` of the whole."""

        def scaled(step: Progress) -> None:
            fraction = start + (end - start) * step.fraction
            self.sink(Progress(step.phase, fraction, step.message))

        return scaled


@dataclass(frozen=True)
class Context:
    """Everything that a transaction reaches the outside through."""

    paths: Paths
    job: Job
    journal: Journal
    fetcher: Fetcher
    builder: Builder
    kernel: Kernel
    clock: Clock
    backoff: Backoff
    resident_limit: Limit
