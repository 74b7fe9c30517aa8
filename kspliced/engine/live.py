# SPDX-License-Identifier: GPL-2.0-or-later
"""The running kernel as the transactions need it: match, link, and the core.

Heavy imports (pyelftools, capstone) happen when a pack is linked, not before: most boots have
nothing to replay.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kspliced.engine.command import run
from kspliced.engine.edges import Cancel, CoreStage, CoreUpdate
from kspliced.engine.files import write_durably
from kspliced.engine.paths import Paths
from kspliced.engine.resident import fitting, has_loaded, loading
from kspliced.engine.state import update_of
from kspliced.errors import Code, KernelError
from kspliced.kernel.core import Core
from kspliced.model import Hold, Linked, ProgressSink
from kspliced.pack import Pack

_MODPROBE_SECONDS = 60.0
# Whoever needs a symbol of a module that loads waits for 30 s (kernel/module/main.c,
# resolve_symbol_wait()); for a required one it takes the daemon, which early in the boot is not
# there yet.
OPTIONAL_SECONDS = 25
REQUIRED_SECONDS = 120


@dataclass(frozen=True)
class RunningKernel:
    """The kernel that runs, below ``paths``."""

    paths: Paths

    @property
    def _core(self) -> Core:
        return Core(self.paths.core)

    def ready(self) -> None:
        """Load the core if it is not, and check that it is of our ABI.

        :raises KernelError: CORE_NOT_LOADED, CORE_ABI.
        """
        if not self._core.present:
            finished = run(("modprobe", "kspliced"), Cancel(), _MODPROBE_SECONDS, None)
            if finished.status != 0:
                raise KernelError(
                    Code.CORE_NOT_LOADED,
                    "the kernel core cannot be loaded",
                    "install kspliced-dkms and the headers of the running kernel "
                    "(linux-headers-$(uname -r)); `dkms status kspliced` must say installed",
                    finished.errors[-5:],
                )
        self._core.check_abi()

    def updates(self) -> tuple[CoreUpdate, ...]:
        """What is registered with the core; nothing when the core is not loaded."""
        core = self._core
        return tuple(_update(core, name) for name in core.updates())

    def link(self, pack: Pack, sink: ProgressSink) -> Linked:
        """The module to load: the pack matched against the running kernel and linked, as far as its
        targets are loaded.

        :raises KsplicedError: PACK_MALFORMED, NO_MATCH, AMBIGUOUS, UNRESOLVED, TARGET_NOT_LOADED,
            CORE_ABI, KERNEL_UNREADABLE.
        """
        from kspliced.kernel.live import LiveKernel
        from kspliced.match import check_coherence, link, match
        from kspliced.match.known import from_bytes, to_bytes

        check_coherence(pack)
        core, updates = self._core, self.updates()
        taken = frozenset(u.module for u in updates if u.lost)
        applied = [u.module for u in updates if u.stage is CoreStage.APPLIED]
        known = None
        for name in set(applied) - taken:
            with suppress(OSError):
                known = from_bytes(pack, (self.paths.matched / name).read_bytes())
            # What else it says stands or falls with where its spans are.
            if known is not None and known.addresses != core.places(name):
                known = None
        with LiveKernel(self.paths.proc, self._sys) as kernel:
            matched = match(pack, kernel, sink, known)
        crcs = core.crcs() if core.present else ()
        loaded = frozenset(u.module for u in updates if u.stage is not CoreStage.APPLIED)
        linked = fitting(self.paths, loaded, taken, lambda names: link(pack, matched, crcs, names))
        self._keep(frozenset((*applied, linked.name)), linked.name, to_bytes(pack, matched))
        return linked

    def _keep(self, names: frozenset[str], name: str, content: bytes) -> None:
        """Keep what matching found, for the next time, and forget what is of no more use."""
        folder = self.paths.matched
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for file in folder.iterdir():
                if file.name not in names:
                    file.unlink()
            write_durably(folder / name, content)

    def load(self, name: str, module: bytes) -> None:
        """Load and register an update module.

        :raises KernelError: LOAD_FAILED.
        """
        loading(self.paths, name)
        self._core.load(name, module)
        has_loaded(self.paths, name, module)

    def apply(self, name: str) -> int:
        """One attempt at the switch; how long it held the CPUs, in microseconds.

        :raises KernelError: CODE_BUSY (details: the conflicts), PROBED, REDIRECTED, NO_MATCH,
            SWITCH_FAILED.
        """
        self._core.apply(name)
        return _pause_us(self._core, name)

    def reverse(self, name: str) -> int:
        """One attempt at the switch back; as apply()."""
        self._core.reverse(name)
        return _pause_us(self._core, name)

    def hold(self, name: str, hold: Hold) -> None:
        """Have the loads of a module wait for their part while the update module is applied.

        :raises KernelError: SWITCH_FAILED.
        """
        self._core.hold(name, hold, REQUIRED_SECONDS if hold.required else OPTIONAL_SECONDS)

    def nudge(self, name: str) -> bool:
        """Ask the threads that were in the way of the last attempt to leave; whether there are any.

        :raises KernelError: SWITCH_FAILED.
        """
        return self._core.nudge(name)

    def unload(self, name: str) -> None:
        """Remove an update module that was never applied.

        :raises KernelError: LOAD_FAILED when the kernel still uses it.
        """
        self._core.unload(name)

    @property
    def _sys(self) -> Path:
        return self.paths.root / "sys"


def _update(core: Core, name: str) -> CoreUpdate:
    stage = core.stage(name)
    try:
        return CoreUpdate(
            update_of(name), name, CoreStage(stage), _pause_us(core, name), core.lost(name)
        )
    except ValueError as error:
        raise KernelError(
            Code.CORE_ABI,
            f"the kernel core says that {name} is {stage[:20]!r}",
            "install kspliced and kspliced-dkms of one version",
        ) from error


def _pause_us(core: Core, name: str) -> int:
    return (core.pause_ns(name) + 500) // 1000
