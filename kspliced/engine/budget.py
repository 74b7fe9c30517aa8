# SPDX-License-Identifier: GPL-2.0-or-later
"""Records and states that fit kspliced/limits.py: what is written can be read again, and sent.

What is cut says how much is not there: a last refusal of the code ``more``, a last changelog entry
without a version. Cheap to import: the daemon's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from kspliced import limits
from kspliced.errors import Code, PackError
from kspliced.limits import cut, cut_lines
from kspliced.model import ChangelogEntry, Manifest, Refusal
from kspliced.record import encode

if TYPE_CHECKING:
    from kspliced.engine.state import Problem, UpdateRecord

MORE = "more"
T = TypeVar("T")


def fit_list(items: tuple[T, ...], limit: int, more: Callable[[int], T]) -> tuple[T, ...]:
    """``items`` as far as their JSON has ``limit`` bytes; then ``more`` of how many are missing."""
    size = 0
    for number, item in enumerate(items):
        size += _size(item) + 1
        # Room for what stands for the rest, which may be the last one already.
        if size > (limit if number == len(items) - 1 else limit - limits.KIB):
            return (*items[:number], more(len(items) - number))
    return items


def more_refused(count: int) -> Refusal:
    """What stands for ``count`` refusals that are not listed."""
    return Refusal(MORE, "", "", f"{count} more changes were refused", str(count))


def fit_refused(refused: tuple[Refusal, ...], limit: int) -> tuple[Refusal, ...]:
    """fit_list() of refusals; those that were left out before are counted in."""
    before = unlisted(refused)
    listed = tuple(r for r in refused if r.code != MORE)
    fitted = fit_list(listed, limit, lambda count: more_refused(count + before))
    return (*fitted, more_refused(before)) if before and fitted == listed else fitted


def more_entries(count: int) -> ChangelogEntry:
    """What stands for ``count`` changelog entries that are not listed."""
    return ChangelogEntry("", f"{count} more entries", (), ())


def unlisted(refused: tuple[Refusal, ...]) -> int:
    """How many changes were refused that are not in the list."""
    counts = (r.evidence for r in refused if r.code == MORE)
    return sum(int(count) for count in counts if count.isdecimal() and len(count) < 10)


def fit_problem(problem: Problem) -> Problem:
    """A problem with bounded texts."""
    return replace(
        problem,
        message=cut(problem.message),
        remedy=cut(problem.remedy),
        details=cut_lines(problem.details),
    )


def fit_record(record: UpdateRecord) -> UpdateRecord:
    """A record with bounded lists and texts; the same object where nothing is to be cut."""
    refused = tuple(
        Refusal(cut(r.code), cut(r.unit), cut(r.symbol), cut(r.reason), cut(r.evidence))
        for r in record.refused
    )
    entries = tuple(
        ChangelogEntry(cut(e.version), cut(e.subject), cut_lines(e.cves), cut_lines(e.bugs))
        for e in record.entries
    )
    fitted = replace(
        record,
        refused=fit_refused(refused, limits.RECORD_REFUSED),
        entries=fit_list(entries, limits.RECORD_ENTRIES, more_entries),
        problem=fit_problem(record.problem) if record.problem is not None else None,
    )
    return record if fitted == record else fitted


def _size(value: object) -> int:
    """Bytes of JSON as the bus is sent it."""
    return len(json.dumps(encode(value), separators=(",", ":")))


def require_fit(manifest: Manifest, name: str) -> None:
    """Refuse a pack whose record could not be kept whole where it has to be.

    :raises PackError: PACK_MALFORMED.
    """
    names = tuple((*g.targets, *g.units) for g in manifest.groups)
    for what, value, limit in (
        ("functions", manifest.functions, limits.RECORD_FUNCTIONS),
        ("units and targets", names, limits.RECORD_NAMES),
    ):
        if _size(value) > limit:
            raise PackError(
                Code.PACK_MALFORMED,
                f"{name} has more {what} than any upgrade ({limit >> 10} KiB of names)",
                "build it again",
            )
