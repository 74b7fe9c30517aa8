# SPDX-License-Identifier: GPL-2.0-or-later
"""A worker that does what a test wrote down: ``worker.py ROOT VERB [OPERAND]``.

ROOT/worker/VERB.json is a list of steps; without it the worker ends well at once. What it was
called with is a line of ROOT/worker/calls.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from kspliced.engine import queue
from kspliced.engine.paths import Paths
from kspliced.errors import Code, KsplicedError
from kspliced.model import Progress
from kspliced.worker import Reporter

_PATIENCE = 30.0


@dataclass(frozen=True)
class Ended:
    """The beginning of the engine's Outcome."""

    action: str
    message: str


class Script:
    """One run."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._reporter = Reporter(sys.stdout.buffer)
        self._cancelled = False
        signal.signal(signal.SIGTERM, self._stop)

    def run(self, verb: str, operands: list[str]) -> int:
        """Follow the steps; the exit status."""
        contents = [Path(operand).read_text("utf-8", "replace") for operand in operands]
        script = self._root / f"worker/{verb}.json"
        steps: list[list[Any]] = json.loads(script.read_text("utf-8")) if script.exists() else []
        # A test that sees the call may write the next script at once.
        with (self._root / "worker/calls").open("a", encoding="utf-8") as calls:
            calls.write(json.dumps([verb, *contents]) + "\n")
        try:
            for name, *values in steps:
                getattr(self, name)(*values)
        except KsplicedError as error:
            self._reporter.failure(error)
            return int(error.exit_code)
        self._reporter.result(Ended(verb, f"{verb} is done"))
        return 0

    def progress(self, phase: str, fraction: float, message: str) -> None:
        """Report."""
        self._reporter.progress(Progress(phase, fraction, message))

    def until(self, name: str) -> None:
        """Wait for a file; cancellable."""
        end = time.monotonic() + _PATIENCE
        while not (self._root / name).exists() and time.monotonic() < end:
            if self._cancelled:
                raise KsplicedError(Code.CANCELLED, "cancelled; nothing was changed")
            time.sleep(0.01)

    def fail(self, code: str, message: str, remedy: str, details: list[str]) -> None:
        """Fail."""
        raise KsplicedError(Code(code), message, remedy, tuple(details))

    def write(self, text: str) -> None:
        """Write to stdout, whatever the protocol says."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def die(self, number: int) -> None:
        """End by a signal."""
        signal.raise_signal(number)

    def take_queue(self) -> None:
        """Deal with the queue as the engine does."""
        paths = Paths(self._root)
        queue.discard(paths, queue.read_queue(paths))

    def defer(self) -> None:
        """Keep the queue for later as the engine does."""
        paths = Paths(self._root)
        queue.defer(paths, queue.read_queue(paths))

    def resume(self) -> None:
        """Bring deferred requests back as the engine does."""
        queue.resume(Paths(self._root))

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._cancelled = True


if __name__ == "__main__":
    sys.exit(Script(Path(sys.argv[1])).run(sys.argv[2], sys.argv[3:]))
