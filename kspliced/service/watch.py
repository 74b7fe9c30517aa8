# SPDX-License-Identifier: GPL-2.0-or-later
"""Notice changes of directories: the daemon sleeps until the kernel says so.

fcntl(2) F_NOTIFY, since Python's library has no inotify and ctypes would cost memory. A kernel may
be made without it (CONFIG_DNOTIFY); then the directories are looked at every few seconds.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path

_EVENTS = fcntl.DN_CREATE | fcntl.DN_RENAME | fcntl.DN_DELETE | fcntl.DN_MULTISHOT
_SECONDS = 5.0


class DirectoryWatch:
    """Calls ``changed`` when a file of one of the directories comes, goes or is replaced.

    :param seconds: between two looks, where the kernel does not tell.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[], None],
        seconds: float = _SECONDS,
    ) -> None:
        # Before the first F_NOTIFY: an unhandled SIGIO ends a process.
        loop.add_signal_handler(signal.SIGIO, changed)
        self._loop, self._changed, self._seconds = loop, changed, seconds
        self._descriptors: list[int] = []
        self._seen: dict[int, int] = {}
        self._look_due: asyncio.TimerHandle | None = None

    def add(self, directory: Path) -> None:
        """Watch a directory. OSError passes to the caller."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._descriptors.append(descriptor)
        try:
            fcntl.fcntl(descriptor, fcntl.F_NOTIFY, _EVENTS)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._seen[descriptor] = os.fstat(descriptor).st_mtime_ns
            if self._look_due is None:
                self._look_due = self._loop.call_later(self._seconds, self._look)

    def _look(self) -> None:
        now = {descriptor: os.fstat(descriptor).st_mtime_ns for descriptor in self._seen}
        if now != self._seen:
            self._seen = now
            self._changed()
        self._look_due = self._loop.call_later(self._seconds, self._look)

    def close(self) -> None:
        """Watch nothing any more."""
        if self._look_due is not None:
            self._look_due.cancel()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        self._seen.clear()
        self._loop.remove_signal_handler(signal.SIGIO)
