# SPDX-License-Identifier: GPL-2.0-or-later
"""The plan of an upgrade. One that was made before, of the same, is not made again."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kspliced.build.pipeline import build
from kspliced.build.plan import Plan, plan_of
from kspliced.build.remembered import Shelf, accidental
from kspliced.build.request import BuildRequest
from kspliced.model import ChangelogEntry, ProgressSink


@dataclass(frozen=True)
class Planned:
    """A plan with the entries of the changelog."""

    plan: Plan
    entries: tuple[ChangelogEntry, ...]


def planned(request: BuildRequest, progress: ProgressSink) -> Planned:
    """Plan an upgrade.

    :raises KsplicedError: what the builder raises.
    """
    shelf = Shelf(request.cache / "plans" if request.cache else None, Planned)
    known = shelf.keys()
    result = build(replace(request, known=known), progress)
    if result.key in known:
        found = shelf.read(result.key)
        if found is not None:
            return found
        result = build(request, progress)
    made = Planned(plan_of(result), result.entries)
    if result.key and not _by_accident(made.plan):
        shelf.write(result.key, made)
    return made


def _by_accident(plan: Plan) -> bool:
    """Whether it may be another one another time, for what the machine did."""
    return any(accidental(r.evidence) for c in plan.components for r in c.reasons)
