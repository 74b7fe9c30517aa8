# SPDX-License-Identifier: GPL-2.0-or-later
"""The running kernel as the transactions need it: match, link, and the core.

Heavy imports (pyelftools, capstone) happen when a pack is linked, not before: most boots have
nothing to replay.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kspliced.engine.command import run
from kspliced.engine.edges import Cancel, CoreStage, CoreUpdate
from kspliced.engine.paths import Paths
from kspliced.engine.state import update_of
from kspliced.errors import Code, KernelError
from kspliced.kernel.core import Core
from kspliced.model import Linked, ProgressSink
from kspliced.pack import Pack

_MODPROBE_SECONDS = 60.0


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

        :raises KsplicedError: NO_MATCH, AMBIGUOUS, UNRESOLVED, TARGET_NOT_LOADED, CORE_ABI,
            KERNEL_UNREADABLE.
        """
        from kspliced.kernel.live import LiveKernel
        from kspliced.match import link, match

        with LiveKernel(self.paths.proc, self._sys) as kernel:
            matched = match(pack, kernel, sink)
        crcs = self._core.crcs() if self._core.present else ()
        return link(pack, matched, crcs)

    def load(self, name: str, module: bytes) -> None:
        """Load and register an update module.

        :raises KernelError: LOAD_FAILED.
        """
        self._core.load(name, module)

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

    def nudge(self, name: str) -> bool:
        """Ask the threads that were in the way of the last attempt to leave; whether there are any.

        :raises KernelError: SWITCH_FAILED.
        """
        return self._core.nudge(name)

    def unload(self, name: str) -> None:
        """Remove an update module that is not applied.

        :raises KernelError: LOAD_FAILED when the kernel still uses it.
        """
        self._core.unload(name)

    @property
    def _sys(self) -> Path:
        return self.paths.root / "sys"


def _update(core: Core, name: str) -> CoreUpdate:
    stage = core.stage(name)
    try:
        return CoreUpdate(update_of(name), name, CoreStage(stage), _pause_us(core, name))
    except ValueError as error:
        raise KernelError(
            Code.CORE_ABI,
            f"the kernel core says that {name} is {stage[:20]!r}",
            "install kspliced and kspliced-dkms of one version",
        ) from error


def _pause_us(core: Core, name: str) -> int:
    return (core.pause_ns(name) + 500) // 1000
