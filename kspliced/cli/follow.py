# SPDX-License-Identifier: GPL-2.0-or-later
"""Start a job and follow it to its end; an interrupt asks it to stop at its next safe point."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kspliced.cli import output
from kspliced.client import Action, Client, JobEnd, connected
from kspliced.errors import KsplicedError


async def perform(action: Action, pack: int | None, wait: bool, quiet: bool) -> JobEnd | str:
    """Start a job; its end, or its object path unless ``wait``.

    :raises KsplicedError: NO_DAEMON, NOT_AUTHORIZED, BUSY; the job's own failure.
    """
    async with connected() as client:
        with _agent():
            job = await client.start(action, pack)
        if not wait:
            return job
        return await follow(client, job, quiet, own=True)


async def follow(client: Client, job: str, quiet: bool, own: bool) -> JobEnd:
    """Show a job's progress until it ends. An interrupt cancels it if it is our ``own``; a second
    one, or one of somebody else's job, only stops the watching.

    :raises KsplicedError: the job's own failure; NO_DAEMON.
    """
    loop = asyncio.get_running_loop()
    interrupts = 0
    asked: set[asyncio.Task[None]] = set()
    watching = asyncio.current_task()
    assert watching is not None

    def interrupted() -> None:
        nonlocal interrupts
        interrupts += 1
        if own and interrupts == 1:
            print("kspliced: cancelling at the next safe point", file=sys.stderr, flush=True)
            asked.add(loop.create_task(_cancel(client, job)))
        else:
            watching.cancel()

    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        with output.progress(not quiet) as sink:
            return await client.wait(job, sink)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _cancel(client: Client, job: str) -> None:
    try:
        await client.cancel(job)
    except KsplicedError as error:
        output.print_error(error)


@contextmanager
def _agent() -> Iterator[None]:
    """polkit's own question on this terminal, where no desktop asks it."""
    program = shutil.which("pkttyagent")
    if os.geteuid() == 0 or program is None or not sys.stdin.isatty():
        yield
        return
    ready, said = os.pipe()
    try:
        agent = subprocess.Popen(
            [program, "--process", str(os.getpid()), "--fallback", "--notify-fd", str(said)],
            pass_fds=(said,),
        )
    except OSError:
        # Without it polkit says no, which is what the user then reads.
        os.close(said)
        os.close(ready)
        yield
        return
    os.close(said)
    os.read(ready, 1)
    os.close(ready)
    try:
        yield
    finally:
        agent.terminate()
        with suppress(subprocess.TimeoutExpired):
            agent.wait(2)
