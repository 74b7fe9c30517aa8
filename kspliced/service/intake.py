# SPDX-License-Identifier: GPL-2.0-or-later
"""Work that nobody asked for over the bus: hooks' requests in the queue, sources ahead, retries.

The worker reads the queue (engine/queue.py); here only file names are looked at.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from kspliced.engine.paths import Paths
from kspliced.errors import KsplicedError
from kspliced.service.jobs import Job, Jobs, Order

Spawn = Callable[[Coroutine[Any, Any, None]], None]
_UPGRADE = Order("upgrade")
_FETCH = Order("fetch", background=True)


@dataclass(frozen=True)
class Patience:
    """Seconds. ``refresh``: between two looks that Refresh asks for. ``first``, doubled up to
    ``longest``: until what failed, but may succeed later (code in use, no network), is retried.
    """

    refresh: float = 5.0
    first: float = 300.0
    longest: float = 6 * 3600.0


class Intake:
    """Starts upgrades and fetches. Without requests in the queue it sets no timer."""

    def __init__(self, paths: Paths, jobs: Jobs, patience: Patience, spawn: Spawn) -> None:
        self._paths = paths
        self._jobs = jobs
        self._patience = patience
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        # Requests that an upgrade has been started for: not in a loop, even if it left them.
        self._tried: frozenset[str] = frozenset()
        self._refreshed = float("-inf")
        self._refresh_due: asyncio.TimerHandle | None = None
        self._retry_due: asyncio.TimerHandle | None = None
        self._delay = patience.first

    async def first(self, running: str | None) -> None:
        """At the start: the queue, then, once, the sources of the ``running`` version ahead."""
        if self._new_requests():
            await self._start(_UPGRADE)
            await self._jobs.idle()
        if running is None:
            return
        if self._deferred() or not (self._paths.sources / f"source-{running}").is_dir():
            await self._start(_FETCH)

    def look(self) -> None:
        """Start an upgrade if there are requests that none was started for."""
        if self._new_requests():
            self._spawn(self._start(_UPGRADE))

    def refresh(self) -> None:
        """look() again, at requests that were tried too, but not too often."""
        due = self._refreshed + self._patience.refresh
        if self._loop.time() >= due:
            self._refreshed = self._loop.time()
            self._tried = frozenset()
            self.look()
        elif self._refresh_due is None:
            self._refresh_due = self._loop.call_at(due, self._refresh_late)

    def mended(self) -> None:
        """Every precondition holds again: what was deferred need not wait for its retry."""
        self._cancel_retry()
        self._delay = self._patience.first
        self._retry()

    def ended(self, job: Job) -> None:
        """A job has ended: look for what came meanwhile, and plan the retry of what is left."""
        self.look()
        left = self._deferred() or bool(self._waiting() & self._tried)
        if not left:
            self._delay = self._patience.first
            self._cancel_retry()
        elif job.order.verb in ("upgrade", "fetch") and self._retry_due is None:
            self._retry_due = self._loop.call_later(self._delay, self._retry)
            self._delay = min(2 * self._delay, self._patience.longest)

    def close(self) -> None:
        """Start nothing any more."""
        self._cancel_retry()
        if self._refresh_due is not None:
            self._refresh_due.cancel()

    def _retry(self) -> None:
        self._retry_due = None
        self._tried = frozenset()
        if self._waiting():
            self.look()
        elif self._deferred():
            # It brings the requests back into the queue, where they are noticed.
            self._spawn(self._start(_FETCH))

    def _refresh_late(self) -> None:
        self._refresh_due = None
        self.refresh()

    def _cancel_retry(self) -> None:
        if self._retry_due is not None:
            self._retry_due.cancel()
            self._retry_due = None

    def _new_requests(self) -> bool:
        """Whether an upgrade is to be started now; then its requests count as tried."""
        names = self._waiting()
        if not names - self._tried:
            self._tried &= names
            return False
        current = self._jobs.current
        if current is not None and not current.order.background:
            return False  # its end looks again
        self._tried = names
        return True

    async def _start(self, order: Order) -> None:
        try:
            await self._jobs.start(order)
        except KsplicedError as error:
            # Another job was quicker; its end looks at the queue again.
            self._tried = frozenset()
            print(f"kspliced: {order.verb}: {error}", file=sys.stderr, flush=True)

    def _waiting(self) -> frozenset[str]:
        """Names of the request files; writers use a leading dot until a file is whole."""
        try:
            names = [file.name for file in self._paths.queue.iterdir()]
        except OSError:
            return frozenset()
        return frozenset(name for name in names if name.endswith(".json") and name[0] != ".")

    def _deferred(self) -> bool:
        """Whether requests were kept for later; a fetch brings them back."""
        try:
            return any((self._paths.queue / "later").iterdir())
        except OSError:
            return False
