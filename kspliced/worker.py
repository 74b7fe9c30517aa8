# SPDX-License-Identifier: GPL-2.0-or-later
"""Both ends of the worker protocol: JSON lines on stdout (ARCHITECTURE.md, "Worker protocol").

A worker owns a Reporter, which lets nothing out that is for root: an error's evidence stays with
the worker (kspliced/public.py). Who started it parses its lines with parse_line(), or lets
run_worker() do all of it. What a worker writes is untrusted: lines are bounded and control
characters go.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kspliced import limits
from kspliced.errors import Code, KsplicedError
from kspliced.lines import split_lines
from kspliced.model import Progress, ProgressSink, no_progress
from kspliced.public import public
from kspliced.record import RecordError, decode, encode

MAX_LINE = limits.WORKER_LINE
_TAIL = 4096
# Characters of a text that is too long which are kept of its end.
_END = 512
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Result:
    """The last line of a worker that succeeded; ``value`` is for record.decode()."""

    value: object


@dataclass(frozen=True)
class Failure:
    """The last line of a worker that failed."""

    code: Code
    message: str
    remedy: str
    details: tuple[str, ...]

    def error(self) -> KsplicedError:
        """The failure as an exception to raise on this side."""
        return KsplicedError(self.code, self.message, self.remedy, self.details)


class WorkerLost(KsplicedError):
    """A process that ended without a last line: ``status`` is its exit status, ``details`` the end
    of its stderr."""

    def __init__(self, command: str, status: int, details: tuple[str, ...]) -> None:
        text = f"{command} ended with status {status} and no result"
        super().__init__(Code.FAILED, text, "see the journal", details)
        self.status = status


Message = Progress | Result | Failure


class Reporter:
    """The worker's end. Each message is one write, so lines of two threads never mix."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def progress(self, progress: Progress) -> None:
        """Say where the job is. A reader that went away does not stop the work."""
        self._line({"progress": encode(progress)})

    def result(self, value: Any) -> None:
        """The last line of a success: ``value`` is a record."""
        self._line({"result": encode(value)})

    def failure(self, error: KsplicedError) -> None:
        """The last line of a failure; its evidence is not in it."""
        message, remedy = limits.cut(error.message), limits.cut(error.remedy)
        failure = Failure(error.code, message, remedy, limits.cut_lines(error.details))
        self._line({"error": encode(failure)})

    def _line(self, value: dict[str, Any]) -> None:
        text = json.dumps(public(value), separators=(",", ":"), sort_keys=True)
        try:
            self._stream.write(text.encode("utf-8") + b"\n")
            self._stream.flush()
        except BrokenPipeError:
            # The daemon was restarted. A transaction is finished all the same: its result is
            # in the state. Point the stream elsewhere so that later writes are quiet.
            with Path(os.devnull).open("wb") as null:
                os.dup2(null.fileno(), self._stream.fileno())


def parse_line(line: bytes) -> Message:
    """Parse one line of a worker.

    :raises KsplicedError: FAILED for a line that is not of the protocol.
    """
    try:
        value = json.loads(line.decode("utf-8"))
        if not isinstance(value, dict) or len(value) != 1:
            raise RecordError("not an object with one key")
        ((kind, body),) = value.items()
        if kind == "progress":
            step = decode(Progress, body)
            fraction = min(1.0, max(0.0, step.fraction))
            return Progress(clean(step.phase), fraction, clean(step.message))
        if kind == "result":
            return Result(body)
        if kind == "error":
            failed = decode(Failure, body)
            details = limits.cut_lines(tuple(clean(text) for text in failed.details))
            return Failure(failed.code, clean(failed.message), clean(failed.remedy), details)
        raise RecordError(f"unknown kind {kind!r:.40}")
    except (ValueError, RecursionError) as error:
        raise KsplicedError(
            Code.FAILED, f"the worker wrote a line that is not of its protocol: {error!s:.200}"
        ) from error


def clean(text: str) -> str:
    """``text`` without control characters (a terminal would obey them), of bounded length: what
    is too long loses its middle, as a path's end and the cause behind it say more."""
    kept = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    if len(kept) <= limits.TEXT:
        return kept
    return f"{kept[: limits.TEXT - _END]}…{kept[-_END:]}"


class _Lines:
    """Cuts a byte stream into lines and keeps the last message that is not progress."""

    def __init__(self, sink: ProgressSink) -> None:
        self._sink = sink
        self._pending = b""
        self.last: Result | Failure | None = None

    def feed(self, data: bytes) -> None:
        *lines, self._pending = (self._pending + data).split(b"\n")
        if len(self._pending) > MAX_LINE:
            raise KsplicedError(Code.FAILED, f"the worker wrote a line over {MAX_LINE} bytes")
        for line in lines:
            message = parse_line(line)
            if isinstance(message, Progress):
                self._sink(message)
            else:
                self.last = message


def run_worker(
    argv: Iterable[str],
    sink: ProgressSink = no_progress,
    cancelled: Callable[[], bool] = lambda: False,
    stop: Callable[[], None] | None = None,
) -> object:
    """Run a worker to its end and return the value of its result.

    ``cancelled`` is asked four times a second; once it is true, ``stop`` (by default SIGTERM to
    the process) is called once and the worker's own last line is still awaited.

    :raises KsplicedError: what the worker reports; CANCELLED; FAILED if it breaks the protocol;
        TOOL_MISSING if it cannot be started.
    :raises WorkerLost: it died without a last line.
    """
    command = list(argv)
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise KsplicedError(
            Code.TOOL_MISSING, f"cannot start {command[0]}: {error.strerror}", "install it"
        ) from error
    lines = _Lines(sink)
    with process:
        try:
            was_cancelled, tail = _pump(process, lines, cancelled, stop)
        except KsplicedError:
            (stop or process.terminate)()
            process.kill()
            raise
    if was_cancelled:
        raise KsplicedError(Code.CANCELLED, "cancelled")
    if isinstance(lines.last, Failure):
        raise lines.last.error()
    if lines.last is None or process.returncode != 0:
        details = tuple(clean(line) for line in split_lines(tail.decode("utf-8", "replace"))[-20:])
        raise WorkerLost(command[0], process.returncode, details)
    return lines.last.value


def _pump(
    process: subprocess.Popen[bytes],
    lines: _Lines,
    cancelled: Callable[[], bool],
    stop: Callable[[], None] | None,
) -> tuple[bool, bytes]:
    """Read both pipes to their end: whether it was cancelled, and the end of stderr."""
    assert process.stdout is not None and process.stderr is not None
    tail = b""
    stopped = False
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(_POLL_SECONDS):
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fd == process.stdout.fileno():
                    lines.feed(data)
                else:
                    tail = (tail + data)[-_TAIL:]
            if not stopped and cancelled():
                stopped = True
                (stop or process.terminate)()
    process.wait()
    return stopped, tail
