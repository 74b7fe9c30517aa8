# SPDX-License-Identifier: GPL-2.0-or-later
"""The queue of requests that package manager hooks leave for the daemon. Cheap to import.

A request is a hint that a kernel may have come; what is installed is asked of dpkg. So all requests
coalesce into one upgrade, and a lying one does no harm.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from kspliced.engine.paths import Paths
from kspliced.engine.state import set_aside, sync_directory
from kspliced.record import RecordError, loads

SCHEMA = 1
MAX_BYTES = 256 << 10
MAX_FILES = 1000


@dataclass(frozen=True)
class Package:
    """A package that a hook saw: ``old`` and ``new`` are versions, "" for none."""

    name: str
    old: str
    new: str


@dataclass(frozen=True)
class Request:
    """The content of a request file; ``time`` in seconds since the epoch."""

    schema: int
    source: str
    packages: tuple[Package, ...]
    time: float


@dataclass(frozen=True)
class Queued:
    """A request and its file."""

    file: Path
    request: Request


@dataclass(frozen=True)
class Bad:
    """A file in the queue that is no request, and why."""

    file: Path
    reason: str


@dataclass(frozen=True)
class Queue:
    """What was in the queue at one moment, oldest first."""

    requests: tuple[Queued, ...]
    bad: tuple[Bad, ...]


def pending(paths: Paths) -> bool:
    """Whether any request waits: one directory read, for the daemon."""
    try:
        return any(_is_request_name(file.name) for file in paths.queue.iterdir())
    except OSError:
        return False


def read_queue(paths: Paths) -> Queue:
    """Read all requests; nothing is changed. OSError on the directory passes to the caller."""
    try:
        files = sorted(file for file in paths.queue.iterdir() if _is_request_name(file.name))
    except FileNotFoundError:
        return Queue((), ())
    requests: list[Queued] = []
    bad: list[Bad] = []
    for file in files[:MAX_FILES]:
        try:
            requests.append(Queued(file, _read(file)))
        except (OSError, RecordError) as error:
            bad.append(Bad(file, str(error)))
    requests.sort(key=lambda queued: queued.request.time)
    return Queue(tuple(requests), tuple(bad))


def discard(paths: Paths, queue: Queue) -> None:
    """Remove the requests of ``queue``, durably: call it when their result is durable.

    Requests that came meanwhile stay. OSError passes to the caller.
    """
    for queued in queue.requests:
        queued.file.unlink(missing_ok=True)
    if queue.requests:
        sync_directory(paths.queue)


def put_aside(paths: Paths, bad: Bad) -> Path | None:
    """Keep a file that is no request where it is not read again; None if it went meanwhile."""
    try:
        return set_aside(paths, bad.file)
    except FileNotFoundError:
        return None


def _is_request_name(name: str) -> bool:
    # Writers use a name with a leading dot until the file is whole.
    return name.endswith(".json") and not name.startswith(".")


def _read(file: Path) -> Request:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RecordError("not a regular file")
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise RecordError(f"over {MAX_BYTES} bytes")
    request = loads(Request, content)
    if request.schema != SCHEMA:
        raise RecordError(f"schema {request.schema}, expected {SCHEMA}")
    return request
