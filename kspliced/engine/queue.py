# SPDX-License-Identifier: GPL-2.0-or-later
"""The queue of requests that package manager hooks leave for the daemon. Cheap to import.

A request is a hint that a kernel may have come; what is installed is asked of dpkg. So all requests
coalesce into one upgrade, and a lying one does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kspliced.engine.files import read_regular, set_aside, sync_directory
from kspliced.engine.paths import Paths
from kspliced.record import RecordError, loads

SCHEMA = 1
MAX_BYTES = 256 << 10
MAX_FILES = 1000
_LATER = "later"


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


def defer(paths: Paths, queue: Queue) -> None:
    """Keep the requests of ``queue`` for later, where pending() does not see them.

    For failures that time may mend; resume() brings them back. OSError passes to the caller.
    """
    later = paths.queue / _LATER
    if queue.requests:
        later.mkdir(exist_ok=True)
        for queued in queue.requests:
            queued.file.replace(later / queued.file.name)
        sync_directory(later)
        sync_directory(paths.queue)


def resume(paths: Paths) -> bool:
    """Bring deferred requests back; whether there were any. OSError passes to the caller."""
    later = paths.queue / _LATER
    if not later.is_dir():
        return False
    files = list(later.iterdir())
    for file in files:
        file.replace(paths.queue / file.name)
    sync_directory(paths.queue)
    return bool(files)


def put_aside(paths: Paths, bad: Bad) -> Path | None:
    """Keep a file that is no request where it is not read again; None if it went meanwhile."""
    try:
        return set_aside(paths.aside, bad.file)
    except FileNotFoundError:
        return None


def _is_request_name(name: str) -> bool:
    # Writers use a name with a leading dot until the file is whole.
    return name.endswith(".json") and not name.startswith(".")


def _read(file: Path) -> Request:
    content = read_regular(file, MAX_BYTES)
    request = loads(Request, content)
    if request.schema != SCHEMA:
        raise RecordError(f"schema {request.schema}, expected {SCHEMA}")
    return request
