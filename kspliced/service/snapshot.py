# SPDX-License-Identifier: GPL-2.0-or-later
"""The status, read again only when one of the files behind it has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kspliced.engine.paths import Paths
from kspliced.engine.preconditions import evaluate, first_failed, stamp
from kspliced.engine.state import State, load_state
from kspliced.engine.status import (
    JobStatus,
    Status,
    awaited_modules,
    core_applied,
    core_redirected,
    core_resident,
    current_status,
    known_state,
    loaded_modules,
)
from kspliced.engine.view import Precondition, View
from kspliced.errors import Code, KsplicedError

_Stamp = tuple[object, ...]


class Snapshot:
    """What is known of the machine. ``error`` says why there is no ``status``; ``blocked`` is the
    first precondition that fails."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._stamp: _Stamp | None = None
        # Another number means that something may be different.
        self.version = 0
        self.status: Status | None = None
        self.state = State()
        self.error: KsplicedError | None = None
        self.blocked: Precondition | None = None

    def update(self, job: JobStatus | None, background: bool = False) -> None:
        """Bring it up to date; cheap when nothing has changed.

        ``background``: the job is shown, but changes nothing about the kernel.
        """
        busy = None if background else job
        paths = self._paths
        # A job changes the word of the status; its progress changes nothing but itself.
        now: _Stamp = (
            _stat(paths.state),
            _stat(paths.packs),
            _stat(paths.dpkg / "status"),
            _stat(paths.dpkg / "updates"),
            _stat(paths.rpm / "rpmdb.sqlite"),
            _stat(paths.rpm / "rpmdb.sqlite-wal"),
            core_applied(paths),
            core_redirected(paths),
            core_resident(paths),
            busy is not None,
            self._arrived(),
            stamp(paths),
        )
        if now == self._stamp:
            self._show(job)
            return
        self._stamp = now
        self.version += 1
        preconditions = evaluate(View(paths))
        self.blocked = first_failed(preconditions)
        try:
            self.status = current_status(paths, busy, preconditions)
            self.error = None
        except KsplicedError as error:
            self.status = None
            self.error = error
        try:
            running = self.status.running if self.status is not None else None
            self.state = known_state(paths, running) if running else load_state(paths)
        except KsplicedError as error:
            # A malformed state is part of the status already.
            self.state = State()
            self.error = self.error or (None if error.code is Code.STATE_MALFORMED else error)
        self._show(job)

    def awaited(self) -> frozenset[str]:
        """The modules that updates of the running kernel wait for."""
        if self.status is None:
            return frozenset()
        return awaited_modules(self.state, self.status.running)

    def _arrived(self) -> frozenset[str]:
        awaited = self.awaited()
        return awaited & loaded_modules(self._paths) if awaited else awaited

    def _show(self, job: JobStatus | None) -> None:
        if self.status is not None and self.status.job != job:
            self.version += 1
            self.status = replace(self.status, job=job)


def _stat(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
