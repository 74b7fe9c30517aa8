# SPDX-License-Identifier: GPL-2.0-or-later
"""The durable state: what was done, what is wanted, what is under way. Cheap to import.

One JSON file, replaced atomically: a power cut at any moment leaves the old or the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from kspliced.engine.paths import Paths
from kspliced.errors import Code, KsplicedError, StateError
from kspliced.model import ChangelogEntry, FunctionChange, KernelId, Refusal
from kspliced.record import RecordError, decode, dumps

SCHEMA = 1
MAX_HISTORY = 32
_MAX_BYTES = 64 << 20


class Stage(str, Enum):
    """How far an update got.

    BUILT: a pack is there. APPLYING, UNDOING: recorded before the switch is tried. LIVE, UNDONE:
    after it. REPLACED: a later update took its place. RETIRED: another kernel was booted. FAILED:
    see ``problem``. REFUSED: nothing of it can go live. EMPTY: it changes nothing that runs here.
    """

    BUILT = "built"
    APPLYING = "applying"
    LIVE = "live"
    UNDOING = "undoing"
    UNDONE = "undone"
    REPLACED = "replaced"
    RETIRED = "retired"
    FAILED = "failed"
    REFUSED = "refused"
    EMPTY = "empty"


class Guard(str, Enum):
    """The boot-loop guard: REPLAYING until the boot is HEALTHY; TRIPPED when it never was."""

    REPLAYING = "replaying"
    HEALTHY = "healthy"
    TRIPPED = "tripped"


@dataclass(frozen=True)
class Problem:
    """A failure as it is remembered; ``time`` in seconds since the epoch."""

    code: Code
    message: str
    remedy: str
    details: tuple[str, ...]
    time: int


@dataclass(frozen=True)
class UpdateRecord:
    """One update in the history.

    ``update`` is its module name ("" while there is no pack), ``digest`` its pack's. ``wanted`` is
    False once the administrator undid it: it is then neither replayed nor built again unasked.
    ``boot_id`` is the boot of the last switch. ``made_by`` is the version of kspliced that built
    it. Times are seconds since the epoch, 0 for never.
    """

    update: str
    digest: str
    kernel: KernelId
    to_version: str
    stage: Stage
    wanted: bool
    functions: tuple[FunctionChange, ...]
    entries: tuple[ChangelogEntry, ...]
    refused: tuple[Refusal, ...]
    pause_us: int
    applied_at: int
    boot_id: str
    made_by: str
    problem: Problem | None


@dataclass(frozen=True)
class ReplayGuard:
    """Which boot replayed last, and whether it became healthy."""

    boot_id: str
    guard: Guard


@dataclass(frozen=True)
class State:
    """Everything durable. ``history`` has the newest update last, of one record each."""

    schema: int = SCHEMA
    history: tuple[UpdateRecord, ...] = ()
    problem: Problem | None = None
    guard: ReplayGuard | None = None
    installed: str = ""

    def put(self, record: UpdateRecord) -> State:
        """The state with ``record`` as its newest, in place of the record of the same update.

        A record stands for the pair (kernel, to_version) and, once built, its digest.
        """
        others = tuple(r for r in self.history if not same_update(r, record))
        return replace(self, history=(*others, record)[-MAX_HISTORY:])

    def live(self) -> UpdateRecord | None:
        """The update that this file says is live (only the core knows, see engine/status.py)."""
        return self.newest(lambda record: record.stage in (Stage.LIVE, Stage.UNDOING))

    def newest(self, accept: Callable[[UpdateRecord], bool]) -> UpdateRecord | None:
        """The newest record that ``accept`` takes, or None."""
        return next((record for record in reversed(self.history) if accept(record)), None)


def same_update(left: UpdateRecord, right: UpdateRecord) -> bool:
    """Whether two records are of one update: same pack, or same versions with no pack yet."""
    if left.digest and right.digest:
        return left.digest == right.digest
    return (left.kernel, left.to_version) == (right.kernel, right.to_version)


def problem_of(error: KsplicedError, time: int) -> Problem:
    """The memory of ``error``."""
    return Problem(error.code, error.message, error.remedy, error.details, time)


# One step a schema: _MIGRATIONS[n] turns the JSON object of schema n into that of schema n + 1.
_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}


def load_state(paths: Paths) -> State:
    """The durable state; a fresh one where there is none.

    :raises StateError: STATE_MALFORMED for a file that is not a state (it stays where it is),
        IO when it cannot be read.
    """
    try:
        with paths.state.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return State()
    except OSError as error:
        raise StateError(Code.IO, f"cannot read {paths.state}: {error.strerror}") from error
    try:
        return _parse(content)
    except (ValueError, RecursionError) as error:
        raise StateError(
            Code.STATE_MALFORMED,
            f"{paths.state} is not a state file of kspliced: {error}",
            "run `kspliced apply`: it keeps the file aside and starts afresh",
        ) from error


def _parse(content: bytes) -> State:
    if len(content) > _MAX_BYTES:
        raise RecordError("too large")
    value = json.loads(content.decode("utf-8"))
    schema = value.get("schema") if isinstance(value, dict) else None
    if type(schema) is not int or not 0 < schema <= SCHEMA:
        raise RecordError(f"schema {schema!r:.20}; this version of kspliced knows up to {SCHEMA}")
    for step in range(schema, SCHEMA):
        value = _MIGRATIONS[step](value)
    return decode(State, value)


def set_aside(paths: Paths, file: Path) -> Path:
    """Move a file that cannot be believed out of the way, keeping it; returns its new name.

    :raises OSError: to the caller.
    """
    paths.aside.mkdir(parents=True, exist_ok=True)
    target = paths.aside / file.name
    for number in range(1, 1000):
        if not os.path.lexists(target):
            break
        target = paths.aside / f"{file.name}.{number}"
    file.rename(target)
    sync_directory(paths.aside)
    sync_directory(file.parent)
    return target


def save_state(paths: Paths, state: State) -> None:
    """Make ``state`` durable: on return it survives a power cut. OSError passes to the caller."""
    write_durably(paths.state, dumps(state) + b"\n")


def write_durably(path: Path, content: bytes) -> None:
    """Replace ``path`` atomically and durably: readers and power cuts see the old or the new file.

    OSError passes to the caller, and the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    try:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames and removals in a directory durable. OSError passes to the caller."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
