# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules whose loads the core holds: a job puts their parts in, then they may go on.

The core holds for a listener only what need not wait for its part; so the device is open while an
update is applied, and no longer, as it pins the core (docs/kernel-core.md, "Holds").
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from kspliced.engine.paths import Paths
from kspliced.engine.status import core_applied, held_modules
from kspliced.errors import KsplicedError
from kspliced.service.jobs import Job, Jobs, Order
from kspliced.service.listener import Listener

_WIDEN = Order("widen")
# Far above a turn of the loop, far below the time that the core gives a hold.
_PATIENCE_SECONDS = 5.0


class Holds:
    """Answers the core for each module that is held, after a job or at once."""

    def __init__(
        self,
        paths: Paths,
        jobs: Jobs,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        self._paths, self._jobs, self._spawn = paths, jobs, spawn
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._listener: Listener | None = None
        self._told = False
        # Names without an answer, and those of them that the job under way is for.
        self._waiting: set[str] = set()
        self._served: frozenset[str] = frozenset()

    def look(self) -> None:
        """Listen while an update is applied."""
        applied = bool(core_applied(self._paths))
        if applied and self._listener is None:
            flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
            try:
                file = os.open(self._paths.listener, flags)
            except OSError as error:
                self._tell(error)
            else:
                self._listener = Listener(
                    file,
                    self._soon(self._heard),
                    self._soon(self._lost),
                    self._optional,
                    self._patience,
                )
        elif not applied:
            self.close()

    def ended(self, job: Job) -> None:
        """A job has ended: those that it was for may go on, and those that came since have one."""
        if job.order == _WIDEN:
            self._release(self._served)
        self._served = frozenset()
        self._begin()

    def close(self) -> None:
        """Listen no more; the core lets go whom it held for us only."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self._waiting.clear()

    def _soon(self, action: Callable[[Any], None]) -> Callable[[Any], None]:
        """``action`` as the listener's thread may call it."""

        def call(value: Any) -> None:
            # Nobody is there any more when the daemon ends.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(action, value)

        return call

    def _heard(self, names: frozenset[str]) -> None:
        if self._listener is not None:
            self._listener.taken(names)
            self._waiting |= names
            self._begin()

    def _lost(self, error: OSError | None) -> None:
        if error is not None:
            self._tell(error)
        self.close()

    def _optional(self) -> frozenset[str]:
        return frozenset(hold.module for hold in held_modules(self._paths) if not hold.required)

    def _tell(self, error: OSError) -> None:
        """Once, as it is tried often."""
        if not self._told:
            print(f"kspliced: loads of modules are not held: {error}", file=sys.stderr, flush=True)
        self._told = True

    def _begin(self) -> None:
        if not self._waiting:
            return
        # Whose part came with another job has gone on.
        self._waiting &= {hold.module for hold in held_modules(self._paths)}
        current = self._jobs.current
        if self._waiting and current is not None and not current.order.background:
            if current.order != _WIDEN:
                # It may build for long. What may run its old code for a while does.
                self._release(self._waiting & self._optional())
        elif self._waiting:
            self._spawn(self._start())

    async def _start(self) -> None:
        served = frozenset(self._waiting)
        try:
            await self._jobs.start(_WIDEN)
        except KsplicedError as error:
            # Another job was quicker; its end begins again.
            print(f"kspliced: widen: {error}", file=sys.stderr, flush=True)
        else:
            self._served = served

    def _release(self, names: set[str] | frozenset[str]) -> None:
        for name in sorted(names):
            if self._listener is not None:
                self._listener.release(name)
        self._waiting -= names
