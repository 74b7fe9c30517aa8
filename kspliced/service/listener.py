# SPDX-License-Identifier: GPL-2.0-or-later
"""Listens to the core on a thread of its own, so that a hold has an answer whatever the loop does.

While the loop does not take up what is heard, whose part is optional goes on with its old code.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

_LARGEST = 256


class Listener:
    """Reads names of held modules from the core's device, and answers.

    :param heard: called on the listener's thread with names, to be taken up by taken().
    :param lost: called on the listener's thread, with why, when the device is no more.
    :param optional: names of the held modules that may go on with their old code.
    :param patience: seconds that the loop has to take a name up.
    """

    def __init__(
        self,
        file: int,
        heard: Callable[[frozenset[str]], None],
        lost: Callable[[OSError | None], None],
        optional: Callable[[], frozenset[str]],
        patience: float,
    ) -> None:
        self._file, self._heard, self._lost, self._optional = file, heard, lost, optional
        self._patience = patience
        # What the loop has not taken up, and until when it has time.
        self._untaken: dict[str, float] = {}
        self._lock = threading.Lock()
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="holds", daemon=True)
        self._thread.start()

    def taken(self, names: Iterable[str]) -> None:
        """The loop sees to these from now on."""
        with self._lock:
            for name in names:
                self._untaken.pop(name, None)

    def release(self, name: str) -> None:
        """Let a module go on."""
        # Whose part is in has gone on by itself.
        with suppress(OSError):
            os.write(self._file, name.encode())

    def close(self) -> None:
        """Listen no more; the core lets go whom it held for us only."""
        os.write(self._woken, b"x")
        self._thread.join()
        for descriptor in (self._file, self._wake, self._woken):
            os.close(descriptor)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._file, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll(self._timeout())]
            if self._wake in ready:
                return
            if self._file in ready and not self._read():
                return
            self._let_late_go()

    def _timeout(self) -> int | None:
        """Milliseconds until the loop is late; None if nothing waits for it."""
        with self._lock:
            first = min(self._untaken.values(), default=None)
        return None if first is None else max(0, int(1000 * (first - time.monotonic())) + 1)

    def _read(self) -> bool:
        """Read what is there; whether there may be more later."""
        names: set[str] = set()
        while True:
            try:
                line = os.read(self._file, _LARGEST)
            except BlockingIOError:
                break
            except OSError as error:
                self._lost(error)
                return False
            if not line:
                self._lost(None)
                return False
            names.update(line.decode("utf-8", "replace").split())
        if names:
            end = time.monotonic() + self._patience
            with self._lock:
                self._untaken.update(dict.fromkeys(names, end))
            self._heard(frozenset(names))
        return True

    def _let_late_go(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = {name for name, end in self._untaken.items() if end <= now}
            for name in late:
                del self._untaken[name]
        for name in sorted(late & self._optional()) if late else ():
            self.release(name)
