# SPDX-License-Identifier: GPL-2.0-or-later
"""The three kinds of objects on the bus: what the daemon knows, as property values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kspliced import __version__
from kspliced.engine.budget import MORE, fit_list, fit_refused, more_entries
from kspliced.engine.state import UpdateRecord
from kspliced.engine.status import Reason, Status, Verdict, status_json
from kspliced.errors import KsplicedError
from kspliced.limits import PUBLISHED_JSON, PUBLISHED_LIST, cut_lines
from kspliced.model import ChangeKind, FunctionChange
from kspliced.public import public
from kspliced.service import api
from kspliced.service.interface import Interface
from kspliced.service.jobs import Job
from kspliced.service.objects import BusObject
from kspliced.service.snapshot import Snapshot

ROOT_PATH = "/org/kspliced1"
NO_JOB = "/"
_UNSAFE = re.compile(r"[^A-Za-z0-9]")


def job_path(number: int) -> str:
    """The object path of a job."""
    return f"{ROOT_PATH}/job/{number}"


def update_id(record: UpdateRecord) -> str:
    """The Id of an update; one without a pack is named after its versions."""
    return record.update or f"{record.kernel.version}..{record.to_version}"


def update_path(record: UpdateRecord) -> str:
    """The object path of an update: its Id, other characters than letters and digits as _XX."""

    def escaped(found: re.Match[str]) -> str:
        return "".join(f"_{byte:02x}" for byte in found[0].encode("utf-8"))

    name = update_id(record)
    return f"{ROOT_PATH}/update/" + (name if _is_plain(name) else _UNSAFE.sub(escaped, name))


class ManagerObject(BusObject):
    """org.kspliced1.Manager."""

    def __init__(self, snapshot: Snapshot, current: Callable[[], Job | None]) -> None:
        self.path = ROOT_PATH
        self.interface: Interface = api.MANAGER
        self._snapshot = snapshot
        self._current = current

    def values(self) -> dict[str, Any]:
        """The property values; StatusJson is missing while the kernel cannot be identified."""
        job = self._current()
        values: dict[str, Any] = {
            "Version": __version__,
            "Release": "",
            "Running": "",
            "Effective": "",
            "Installed": "",
            "State": "failed",
            "RebootRequired": False,
            "CurrentJob": job_path(job.number) if job else NO_JOB,
        }
        status = self._snapshot.status
        if status is not None:
            values["Release"] = status.running.release
            values["Running"] = status.running.version
            values["Effective"] = status.effective
            values["Installed"] = status.installed
            values["State"] = status.state.value
            values["RebootRequired"] = status.reboot_required.verdict is Verdict.YES
            values["StatusJson"] = _bounded_json(status)
        return values

    def missing(self) -> KsplicedError:
        """Why there is no status."""
        return self._snapshot.error or super().missing()


class UpdateObject(BusObject):
    """org.kspliced1.Update."""

    def __init__(self, record: UpdateRecord) -> None:
        self.path = update_path(record)
        self.interface: Interface = api.UPDATE
        self.record = record
        self._known: tuple[UpdateRecord, dict[str, Any]] | None = None

    def values(self) -> dict[str, Any]:
        """The property values; of long lists the beginning, and how many more there are."""
        record = self.record
        if self._known is None or self._known[0] is not record:
            self._known = record, self._values(record)
        return self._known[1]

    def _values(self, record: UpdateRecord) -> dict[str, Any]:
        functions = fit_list(record.functions, PUBLISHED_LIST, _more_functions)
        entries = fit_list(record.entries, PUBLISHED_LIST, more_entries)
        refused = fit_refused(record.refused, PUBLISHED_LIST)
        return {
            "Id": update_id(record),
            "Digest": record.digest,
            "From": record.kernel.version,
            "To": record.to_version,
            "Stage": record.stage.value,
            "Functions": [[f.target, f.unit, f.name, f.why] for f in functions],
            "Entries": [[e.version, e.subject, list(e.cves), list(e.bugs)] for e in entries],
            "Refused": [[r.code, r.unit, r.symbol, r.reason, r.evidence] for r in refused],
            "Waiting": list(cut_lines(record.waiting, PUBLISHED_LIST)),
            "PauseMicroseconds": max(0, record.pause_us),
            "AppliedAt": max(0, record.applied_at),
        }


class JobObject(BusObject):
    """org.kspliced1.Job."""

    def __init__(self, job: Job) -> None:
        self.path = job_path(job.number)
        self.interface: Interface = api.JOB
        self.job = job

    def values(self) -> dict[str, Any]:
        """The property values."""
        job, failure = self.job, self.job.failure
        return {
            "Verb": job.order.verb,
            "State": job.state.value,
            "Phase": job.progress.phase,
            "Fraction": job.progress.fraction,
            "Message": job.progress.message,
            "ErrorCode": failure.code.value if failure else "",
            "ErrorMessage": failure.message if failure else "",
            "ErrorRemedy": failure.remedy if failure else "",
            "ErrorDetails": list(failure.details) if failure else [],
            "Result": job.result,
        }


def _more_functions(count: int) -> FunctionChange:
    return FunctionChange("", "", "", ChangeKind.CHANGED, f"{count} more functions")


def _bounded_json(status: Status) -> str:
    """The status as JSON; where it would be too much for the bus, the beginning of long lists."""
    text = _dumps(status_json(status))
    if len(text) <= PUBLISHED_JSON or status.update is None:
        return text
    update = replace(
        status.update,
        functions=fit_list(status.update.functions, PUBLISHED_LIST, _more_functions),
        entries=fit_list(status.update.entries, PUBLISHED_LIST, more_entries),
        refused=fit_refused(status.update.refused, PUBLISHED_LIST),
    )
    reasons = fit_list(status.reboot_required.reasons, PUBLISHED_LIST, _more_reasons)
    reboot = replace(status.reboot_required, reasons=reasons)
    return _dumps(status_json(replace(status, update=update, reboot_required=reboot)))


def _more_reasons(count: int) -> Reason:
    return Reason(MORE, f"{count} more reasons")


def _is_plain(name: str) -> bool:
    return re.fullmatch(r"ks_[A-Za-z0-9]+", name) is not None


def _dumps(value: dict[str, Any]) -> str:
    return json.dumps(public(value), separators=(",", ":"), sort_keys=True)
