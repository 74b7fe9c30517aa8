# SPDX-License-Identifier: GPL-2.0-or-later
"""Notice changes of directories without polling: the daemon sleeps until the kernel says so.

fcntl(2) F_NOTIFY, since Python's library has no inotify and ctypes would cost memory.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path

_EVENTS = fcntl.DN_CREATE | fcntl.DN_RENAME | fcntl.DN_DELETE | fcntl.DN_MULTISHOT


class DirectoryWatch:
    """Calls ``changed`` when a file of one of the directories comes, goes or is replaced."""

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        # Before the first F_NOTIFY: an unhandled SIGIO ends a process.
        loop.add_signal_handler(signal.SIGIO, changed)
        self._loop = loop
        self._descriptors: list[int] = []

    def add(self, directory: Path) -> None:
        """Watch a directory. OSError passes to the caller."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._descriptors.append(descriptor)
        fcntl.fcntl(descriptor, fcntl.F_NOTIFY, _EVENTS)

    def close(self) -> None:
        """Watch nothing any more."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        self._loop.remove_signal_handler(signal.SIGIO)
