# SPDX-License-Identifier: GPL-2.0-or-later
"""What to do about an installed kernel, and how long to insist: decisions without side effects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from kspliced.engine.state import Guard, Stage, State, UpdateRecord
from kspliced.engine.versions import compare_versions
from kspliced.errors import Code, KsplicedError, StateError
from kspliced.model import KernelId, Manifest

APPLY_ANYWAY = "run `kspliced apply` to apply it all the same"

# Bytes that update modules may keep until the reboot; engine/resident.py reads another.
RESIDENT_LIMIT = 256 << 20

# What may be due to a few units of many: the rest can go live without them.
_ABOUT_UNITS = frozenset({Code.NO_MATCH, Code.AMBIGUOUS, Code.UNRESOLVED, Code.CODE_BUSY})


@dataclass(frozen=True)
class Try:
    """A further attempt at a switch: where ``nudge``, the threads in the way are asked to leave;
    then ``delay`` seconds pass."""

    nudge: bool
    delay: float


@dataclass(frozen=True)
class Backoff:
    """How long to insist on a switch while code is busy, in seconds.

    The delay is ``first``, then times ``factor``, at most ``longest``. For the first ``polite``
    seconds the threads in the way are left alone. After that each delay is followed by ``nudges``
    attempts in quick succession: a nudge, ``settle`` seconds for the threads to leave, an attempt.
    All delays together are at most ``total``.
    """

    first: float = 0.05
    factor: float = 1.7
    longest: float = 5.0
    polite: float = 5.0
    nudges: int = 3
    settle: float = 0.02
    total: float = 60.0

    def tries(self) -> Iterator[Try]:
        """Each further attempt; they end when the time is over."""
        delay, spent = self.first, 0.0
        while spent + delay <= self.total:
            yield Try(False, delay)
            spent += delay
            delay = min(delay * self.factor, self.longest)
            for _ in range(self.nudges if spent >= self.polite else 0):
                yield Try(True, self.settle)
                spent += self.settle


class Action(str, Enum):
    """What an upgrade has to do."""

    NOTHING = "nothing"
    BUILD = "build"
    REUSE = "reuse"


@dataclass(frozen=True)
class Decision:
    """``reason`` explains NOTHING; ``record`` is the update that a pack is reused of."""

    action: Action
    reason: str = ""
    record: UpdateRecord | None = None


def decide(
    state: State,
    running: KernelId,
    newest: KernelId,
    applied: frozenset[str],
    version: str,
    insist: bool,
) -> Decision:
    """What an upgrade of ``running`` to ``newest`` has to do.

    ``applied`` names the updates that the core has applied, ``version`` is that of this kspliced
    (only packs that it built are reused), ``insist`` is an administrator's wish to apply what was
    undone or looked dangerous before.

    :raises StateError: BOOT_LOOP when the machine went down over this update before.
    """
    if compare_versions(newest.version, running.version, running) <= 0:
        return Decision(Action.NOTHING, f"the newest installed kernel, {running.version}, runs")

    def same(r: UpdateRecord) -> bool:
        return r.kernel == running and r.to_version == newest.version

    if any(r.update in applied for r in state.history if same(r)):
        return Decision(Action.NOTHING, f"the changes up to {newest.version} are live already")
    record = state.newest(same)
    if record is not None:
        if record.stage is Stage.EMPTY:
            return Decision(
                Action.NOTHING, f"{newest.version} changes nothing that runs on this machine"
            )
        if not insist and not record.wanted:
            return Decision(
                Action.NOTHING, f"the update to {newest.version} was undone; {APPLY_ANYWAY}"
            )
    if not insist:
        refuse_danger(state, record)
    if record is not None and record.digest and record.made_by == version:
        return Decision(Action.REUSE, record=record)
    return Decision(Action.BUILD)


def blamed_units(manifest: Manifest, error: KsplicedError) -> frozenset[str]:
    """The units of a pack to do without after ``error``; none when it is not about some few.

    Where half of the units are blamed or more, something else is wrong than these.
    """
    if error.code not in _ABOUT_UNITS:
        return frozenset()
    units = {unit for group in manifest.groups for unit in group.units}
    blamed = units.intersection(error.blamed)
    blamed |= {change.unit for change in manifest.functions if change.name in error.blamed}
    return frozenset(blamed if 2 * len(blamed) < len(units) else ())


def refuse_danger(state: State, record: UpdateRecord | None) -> None:
    """Refuse to apply unasked what the machine went down over before.

    :raises StateError: BOOT_LOOP.
    """
    if record is not None and record.problem is not None:
        problem = record.problem
        if problem.code is Code.BOOT_LOOP:
            raise StateError(problem.code, problem.message, problem.remedy)
    if state.guard is not None and state.guard.guard is Guard.TRIPPED:
        raise StateError(
            Code.BOOT_LOOP,
            "the last boot that replayed an update never became healthy",
            APPLY_ANYWAY,
        )


def replayable(state: State, running: KernelId) -> UpdateRecord | None:
    """The update that a boot of ``running`` should have again: wanted, and live at some time."""

    def wanted(record: UpdateRecord) -> bool:
        if record.kernel != running or not record.wanted or not record.digest:
            return False
        if record.stage is Stage.LIVE or (record.stage is Stage.BUILT and record.waiting):
            return True
        failed_before = record.problem is not None and record.problem.code is Code.BOOT_LOOP
        return record.stage is Stage.FAILED and record.applied_at > 0 and not failed_before

    return state.newest(wanted)
