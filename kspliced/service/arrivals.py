# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules that an update waits for: noticed when the kernel says that one was loaded.

The kernel's uevent of a module comes when its init is over (kernel/module/main.c,
do_init_module()).
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from kspliced.engine.paths import Paths
from kspliced.engine.status import loaded_modules
from kspliced.errors import KsplicedError
from kspliced.service.intake import Patience
from kspliced.service.jobs import Job, Jobs, Order

_WIDEN = Order("widen")
_NETLINK_KOBJECT_UEVENT = 15
_KERNEL_GROUP = 1
_LOADED = b"add@/module/"
_LARGEST = 16384
# Modules come in bursts; one switch is for all of them.
_GATHER_SECONDS = 0.3


class Arrivals:
    """Starts a job when a module is there that ``awaited`` names; sets no timer before."""

    def __init__(
        self,
        paths: Paths,
        jobs: Jobs,
        patience: Patience,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        awaited: Callable[[], frozenset[str]],
    ) -> None:
        self._paths, self._jobs, self._patience = paths, jobs, patience
        self._spawn, self._awaited = spawn, awaited
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._due: asyncio.TimerHandle | None = None
        self._delay = patience.first
        # What the last job was for: not at once again, even if it left them.
        self._tried: frozenset[str] = frozenset()

    def begin(self) -> None:
        """Listen to the kernel, and look at what is loaded already."""
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _NETLINK_KOBJECT_UEVENT
            )
            self._socket.bind((0, _KERNEL_GROUP))
        except OSError as error:
            print(f"kspliced: modules that load are not noticed: {error}", file=sys.stderr)
            self.close()
        else:
            self._loop.add_reader(self._socket, self._read)
        self.look()

    def look(self) -> None:
        """Start a job if a module is there that none was started for."""
        there = self._awaited() & loaded_modules(self._paths)
        self._tried &= there
        if there - self._tried and self._jobs.current is None:
            self._tried = there
            self._spawn(self._start())

    def ended(self, job: Job) -> None:
        """A job has ended: another may be due now, or this one again later."""
        self.look()
        if not self._tried:
            self._delay = self._patience.first
        elif job.order == _WIDEN:
            self._later(self._delay, self._again)
            self._delay = min(2 * self._delay, self._patience.longest)

    def close(self) -> None:
        """Notice nothing any more."""
        if self._due is not None:
            self._due.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        assert self._socket is not None
        wanted = False
        while True:
            try:
                message = self._socket.recv(_LARGEST)
            except BlockingIOError:
                break
            except OSError:
                wanted = True  # some were lost (ENOBUFS), of whatever modules
                continue
            name = message.partition(b"\0")[0].removeprefix(_LOADED)
            wanted |= message.startswith(_LOADED) and name.decode("utf-8", "replace") in (
                self._awaited()
            )
        if wanted:
            self._later(_GATHER_SECONDS, self.look)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        if self._due is not None:
            self._due.cancel()
        self._due = self._loop.call_later(seconds, action)

    def _again(self) -> None:
        self._tried = frozenset()
        self.look()

    async def _start(self) -> None:
        try:
            await self._jobs.start(_WIDEN)
        except KsplicedError as error:
            # Another job was quicker; its end looks again.
            self._tried = frozenset()
            print(f"kspliced: widen: {error}", file=sys.stderr, flush=True)
