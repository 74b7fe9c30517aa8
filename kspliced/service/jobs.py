# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs: one worker process at a time (ARCHITECTURE.md, "Worker protocol")."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from kspliced import limits
from kspliced.errors import Code, KsplicedError
from kspliced.model import Progress
from kspliced.public import public
from kspliced.worker import MAX_LINE, Failure, Result, parse_line


class JobState(str, Enum):
    """How a job stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Order:
    """What a job is to do. ``uid`` is who asked; a background job gives way to any other."""

    verb: str
    operands: tuple[str, ...] = ()
    uid: int = 0
    background: bool = False


class Job:
    """A worker process and what it has said so far."""

    def __init__(self, number: int, order: Order) -> None:
        self.number = number
        self.order = order
        self.state = JobState.RUNNING
        self.progress = Progress("", 0.0, "")
        self.failure: Failure | None = None
        self.result = ""
        self._process: Process | None = None
        self._cancelled = False

    def cancel(self) -> None:
        """Ask the worker to stop at its next safe point; it may still finish its work."""
        self._cancelled = True
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()

    async def run(self, command: tuple[str, ...], told: Callable[[], None]) -> None:
        """Run the worker to its end; ``told`` is called after each progress."""
        try:
            value = await self._work((*command, self.order.verb, *self.order.operands), told)
            result = json.dumps(public(value), separators=(",", ":"), sort_keys=True)
            if len(result) > limits.WORKER_RESULT:
                text = f"the worker's result has over {limits.WORKER_RESULT >> 10} KiB"
                raise KsplicedError(Code.FAILED, text, "see the journal")
        except KsplicedError as error:
            self.failure = Failure(error.code, error.message, error.remedy, error.details)
            cancelled = error.code is Code.CANCELLED
            self.state = JobState.CANCELLED if cancelled else JobState.FAILED
        else:
            self.result = result
            self.progress = Progress(self.progress.phase, 1.0, self.progress.message)
            self.state = JobState.DONE

    async def _work(self, command: tuple[str, ...], told: Callable[[], None]) -> object:
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, stdout=PIPE, limit=MAX_LINE
            )
        except OSError as error:
            text = f"cannot start the worker: {error.strerror}"
            raise KsplicedError(Code.FAILED, text, "see the journal") from error
        self._process = process
        if self._cancelled:
            self.cancel()
        try:
            last = await self._read(process, told)
        except KsplicedError:
            with suppress(ProcessLookupError):
                process.terminate()
            raise
        finally:
            status = await _drain(process)
        if isinstance(last, Failure):
            raise last.error()
        if last is None or status != 0:
            if self._cancelled:
                raise KsplicedError(Code.CANCELLED, "cancelled before it began")
            text = f"the worker ended with status {status} and no result"
            raise KsplicedError(Code.FAILED, text, "see the journal")
        return last.value

    async def _read(self, process: Process, told: Callable[[], None]) -> Result | Failure | None:
        assert process.stdout is not None
        last: Result | Failure | None = None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError as error:
                text = f"the worker wrote a line over {MAX_LINE} bytes"
                raise KsplicedError(Code.FAILED, text, "see the journal") from error
            if not line:
                return last
            message = parse_line(line)
            if isinstance(message, Progress):
                self.progress = message
                told()
            else:
                last = message


class Jobs:
    """Starts jobs, one at a time; keeps the last few that ended."""

    KEPT = 8

    def __init__(
        self,
        command: tuple[str, ...],
        started: Callable[[Job], None],
        told: Callable[[Job], None],
        ended: Callable[[Job], None],
        forgotten: Callable[[Job], None],
    ) -> None:
        self._command = command
        self._started = started
        self._told = told
        self._ended = ended
        self._forgotten = forgotten
        self._number = 0
        self._kept: list[Job] = []
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._closed = False
        self.current: Job | None = None

    async def start(self, order: Order) -> Job:
        """Start a job; one in the background is cancelled for it.

        :raises KsplicedError: BUSY while another job runs, or when the daemon ends.
        """
        async with self._lock:
            running = self.current
            if running is not None and running.order.background and not order.background:
                running.cancel()
                await self.idle()
            if self._closed:
                raise KsplicedError(Code.BUSY, "the daemon is ending", "try again")
            if self.current is not None:
                verb = self.current.order.verb
                text = f"a job ({verb}) is running"
                raise KsplicedError(Code.BUSY, text, "wait for it: `kspliced status --wait`")
            self._number += 1
            job = Job(self._number, order)
            self.current = job
            self._task = asyncio.create_task(self._run(job))
            self._started(job)
            return job

    async def idle(self) -> None:
        """Wait for the end of the job that runs."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def close(self) -> None:
        """Cancel the job that runs, take no more, and wait for its end."""
        self._closed = True
        if self.current is not None:
            self.current.cancel()
        await self.idle()

    async def _run(self, job: Job) -> None:
        await job.run(self._command, lambda: self._told(job))
        self.current = None
        self._ended(job)
        self._kept.append(job)
        while len(self._kept) > self.KEPT:
            self._forgotten(self._kept.pop(0))


async def _drain(process: Process) -> int:
    """Read what is left of the output, so that the worker is never blocked on it, to its end."""
    assert process.stdout is not None
    while await process.stdout.read(1 << 16):
        pass
    return await process.wait()
