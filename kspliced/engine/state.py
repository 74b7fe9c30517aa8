# SPDX-License-Identifier: GPL-2.0-or-later
"""The durable state: what was done, what is wanted, what is under way. Cheap to import.

One JSON file, replaced atomically: a power cut at any moment leaves the old or the new one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from kspliced import __version__, limits
from kspliced.engine.budget import fit_problem, fit_record
from kspliced.engine.files import write_durably
from kspliced.engine.paths import Paths
from kspliced.errors import Code, KsplicedError, StateError
from kspliced.model import ChangelogEntry, FunctionChange, KernelId, Refusal
from kspliced.public import public
from kspliced.record import RecordError, decode, encode

SCHEMA = 2
MAX_HISTORY = 32
_PART = re.compile(r"ks_[0-9a-f]+_[0-9a-f]{4}")


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


# What a record is in while its update is live; switches that were interrupted are for recover().
LIVE_STAGES = (Stage.LIVE, Stage.APPLYING, Stage.UNDOING)


class Guard(str, Enum):
    """The boot-loop guard: REPLAYING when a boot replays, TRIPPED when it never became healthy.

    That it did is in a file of its own (Paths.healthy): a job may hold the lock for long.
    """

    REPLAYING = "replaying"
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

    ``update`` is its module name ("" while there is no pack), ``digest`` its pack's; that and
    ``to_version`` are "" where the pack of what the core has applied is missing. ``wanted`` is
    False once the administrator undid it: it is then neither replayed nor built again unasked.
    ``boot_id`` is the boot of the last switch. ``made_by`` is the version of kspliced that built
    it. ``pinned``: the kernel may keep an address inside it. ``waiting`` are targets that were not
    loaded at the last switch: the units ``held`` go live when they are. Times are seconds since the
    epoch, 0 for never.
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
    pinned: bool
    waiting: tuple[str, ...]
    held: tuple[str, ...]
    problem: Problem | None


@dataclass(frozen=True)
class ReplayGuard:
    """Which boot replayed last, and what came of it."""

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
        """The state with ``record`` as its newest, in place of the same update's older record.

        A record stands for one pack; where that is missing, for an update; where there never was
        one, for (kernel, to_version).
        """
        others = tuple(old for old in self.history if not _supersedes(record, old))
        return replace(self, history=(*others, fit_record(record))[-MAX_HISTORY:])

    def change(self, record: UpdateRecord, changed: UpdateRecord) -> State:
        """The state with ``changed`` in the place of ``record``."""
        changed = fit_record(changed)
        return replace(self, history=tuple(changed if r is record else r for r in self.history))

    def newest(self, accept: Callable[[UpdateRecord], bool]) -> UpdateRecord | None:
        """The newest record that ``accept`` takes, or None."""
        return next((record for record in reversed(self.history) if accept(record)), None)


def blank_record(kernel: KernelId, to_version: str) -> UpdateRecord:
    """The record of an update of which nothing is known or done yet, in stage FAILED."""
    return UpdateRecord(
        update="",
        digest="",
        kernel=kernel,
        to_version=to_version,
        stage=Stage.FAILED,
        wanted=True,
        functions=(),
        entries=(),
        refused=(),
        pause_us=0,
        applied_at=0,
        boot_id="",
        made_by=__version__,
        pinned=False,
        waiting=(),
        held=(),
        problem=None,
    )


def _supersedes(new: UpdateRecord, old: UpdateRecord) -> bool:
    """Whether ``new`` takes the place of ``old``: same pack, or the first with one."""
    if old.digest:
        return old.digest == new.digest
    if old.update:
        return old.update == new.update
    return (old.kernel, old.to_version) == (new.kernel, new.to_version)


def update_of(module: str) -> str:
    """The update that a loaded update module is, or is a part of (match/link.py names it)."""
    return module.rpartition("_")[0] if _PART.fullmatch(module) else module


def problem_of(error: KsplicedError, time: int) -> Problem:
    """The memory of ``error``."""
    return fit_problem(Problem(error.code, error.message, error.remedy, error.details, time))


def _with_waiting(value: dict[str, Any]) -> dict[str, Any]:
    """Before schema 2 an update went live with all of its targets loaded, or not at all."""
    for record in value.get("history", ()):
        record |= {"waiting": [], "held": []}
    return value | {"schema": 2}


# One step a schema: _MIGRATIONS[n] turns the JSON object of schema n into that of schema n + 1.
_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _with_waiting}


def load_state(paths: Paths) -> State:
    """The durable state; a fresh one where there is none.

    :raises StateError: STATE_MALFORMED for a file that is not a state (it stays where it is),
        IO when it cannot be read.
    """
    try:
        with paths.state.open("rb") as file:
            content = file.read(limits.STATE_BYTES + 1)
    except FileNotFoundError:
        return State()
    except OSError as error:
        raise StateError(Code.IO, f"cannot read {paths.state}: {error.strerror}") from error
    try:
        return _parse(content)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise StateError(
            Code.STATE_MALFORMED,
            f"{paths.state} is not a state file of kspliced: {error}",
            "the next job, for example `kspliced apply`, keeps it aside and starts afresh",
        ) from error


def _parse(content: bytes) -> State:
    if len(content) > limits.STATE_BYTES:
        raise RecordError("too large")
    value = json.loads(content.decode("utf-8"))
    schema = value.get("schema") if isinstance(value, dict) else None
    if type(schema) is not int or not 0 < schema <= SCHEMA:
        raise RecordError(f"schema {schema!r:.20}; this version of kspliced knows up to {SCHEMA}")
    for step in range(schema, SCHEMA):
        value = _MIGRATIONS[step](value)
    state = decode(State, value)
    if len(content) > limits.RECORD_REFUSED:
        # An older version cut nothing.
        state = replace(state, history=tuple(fit_record(record) for record in state.history))
    return state


def save_state(paths: Paths, state: State) -> State:
    """Make ``state`` durable: on return it survives a power cut. OSError passes to the caller.

    What is written can be read again: what does not fit kspliced/limits.py is cut, and says so, or
    of the oldest updates left out. Returns the state that was written. Only root reads the file;
    what is in it is public all the same, as the bus shows it.
    """
    if state.problem is not None:
        state = replace(state, problem=fit_problem(state.problem))
    content = _content(state)
    if len(content) > limits.STATE_BYTES:
        state = replace(state, history=tuple(fit_record(record) for record in state.history))
        content = _content(state)
    while len(content) > limits.STATE_BYTES:
        state = replace(state, history=_without_oldest(state.history))
        content = _content(state)
    write_durably(paths.state, content, 0o600)
    return state


def _content(state: State) -> bytes:
    value = public(encode(state))
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "replace") + b"\n"


def _without_oldest(history: tuple[UpdateRecord, ...]) -> tuple[UpdateRecord, ...]:
    """A history without its oldest update that does nothing; the newest and what is live stay."""
    for number, record in enumerate(history[:-1]):
        if record.stage not in LIVE_STAGES:
            return history[:number] + history[number + 1 :]
    raise StateError(Code.FAILED, "what is live has a larger record than any upgrade", "report it")
