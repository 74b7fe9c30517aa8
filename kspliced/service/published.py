# SPDX-License-Identifier: GPL-2.0-or-later
"""The three kinds of objects on the bus: what the daemon knows, as property values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from kspliced import __version__
from kspliced.engine.state import UpdateRecord
from kspliced.engine.status import Verdict, status_json
from kspliced.errors import KsplicedError
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
            values["StatusJson"] = _dumps(status_json(status))
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

    def values(self) -> dict[str, Any]:
        """The property values."""
        record = self.record
        return {
            "Id": update_id(record),
            "Digest": record.digest,
            "From": record.kernel.version,
            "To": record.to_version,
            "Stage": record.stage.value,
            "Functions": [[f.target, f.unit, f.name, f.why] for f in record.functions],
            "Entries": [[e.version, e.subject, list(e.cves), list(e.bugs)] for e in record.entries],
            "Refused": [[r.code, r.unit, r.symbol, r.reason, r.evidence] for r in record.refused],
            "Waiting": list(record.waiting),
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


def _is_plain(name: str) -> bool:
    return re.fullmatch(r"ks_[A-Za-z0-9]+", name) is not None


def _dumps(value: dict[str, Any]) -> str:
    return json.dumps(public(value), separators=(",", ":"), sort_keys=True)
