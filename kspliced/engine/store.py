# SPDX-License-Identifier: GPL-2.0-or-later
"""The one writer of the state and the packs: whoever holds the lock."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from kspliced.engine import evidence
from kspliced.engine.budget import require_fit
from kspliced.engine.files import make_private, set_aside, sync_directory, write_durably
from kspliced.engine.journal import Event, Facts, Journal
from kspliced.engine.paths import Paths
from kspliced.engine.state import (
    Problem,
    Stage,
    State,
    UpdateRecord,
    blank_record,
    load_state,
    problem_of,
    save_state,
)
from kspliced.errors import Code, KsplicedError, PackError, StateError
from kspliced.model import KernelId
from kspliced.pack import Pack, parse_pack, read_pack
from kspliced.record import encode

# The name becomes a file name in sysfs and an argument to the module loader.
_UPDATE_NAME = re.compile(r"ks_[0-9a-f]{8,48}")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+~:-]{0,100}")
_LOCK_POLL_SECONDS = 0.1
# Packs of these stages may be applied (again); those of others are removed.
_KEPT = {Stage.BUILT, Stage.APPLYING, Stage.LIVE, Stage.UNDOING, Stage.UNDONE, Stage.FAILED}


class Store:
    """The state and the packs, while the lock is held (use opened())."""

    def __init__(self, paths: Paths, state: State) -> None:
        self.paths = paths
        self.state = state

    def save(self, state: State) -> None:
        """Make ``state`` durable and current. OSError passes to the caller."""
        if state != self.state:
            self.state = save_state(self.paths, state)

    def put(self, record: UpdateRecord) -> None:
        """Make ``record`` durable as the newest of the history. OSError passes to the caller."""
        self.save(self.state.put(record))

    def problem(self, error: KsplicedError, name: str, now: float) -> Problem:
        """The memory of ``error``, a failure of the update or job ``name``; its evidence is kept
        for root."""
        evidence.keep(self.paths, error, name)
        return problem_of(error, int(now))

    def take_pack(self, content: bytes, name: str, running: KernelId) -> Pack:
        """Verify an untrusted pack for the running kernel; keep it durably under its digest.

        :raises PackError: PACK_MALFORMED, PACK_FORMAT, PACK_OTHER_KERNEL. OSError passes to the
            caller.
        """
        pack = parse_pack(content, name)
        manifest = pack.manifest
        if not _UPDATE_NAME.fullmatch(manifest.update) or not _VERSION.fullmatch(
            manifest.to_version
        ):
            raise PackError(
                Code.PACK_MALFORMED, f"{name} has an impossible name or version", "build it again"
            )
        if not _printable(encode(manifest)):
            raise PackError(
                Code.PACK_MALFORMED, f"{name} holds control characters", "build it again"
            )
        require_fit(manifest, name)
        check_kernel(pack, running)
        write_durably(self.paths.pack(pack.digest), content)
        return pack

    def load_pack(self, digest: str) -> Pack:
        """A kept pack, verified once more.

        :raises PackError: IO, PACK_MALFORMED (also when the file holds another pack).
        """
        pack = read_pack(self.paths.pack(digest))
        if pack.digest != digest:
            raise PackError(
                Code.PACK_MALFORMED, f"the stored pack {digest} is another one", "build it again"
            )
        return pack

    def has_pack(self, record: UpdateRecord) -> bool:
        """Whether the record's pack is kept."""
        return bool(record.digest) and self.paths.pack(record.digest).exists()

    def prune(self) -> None:
        """Remove the packs, and the evidence, of records that cannot be applied any more. OSError
        passes to the caller."""
        able = [r for r in self.state.history if r.stage in _KEPT]
        evidence.forget(self.paths, {r.update for r in able})
        kept = {self.paths.pack(r.digest) for r in able}
        if not self.paths.packs.is_dir():
            return
        removed = [file for file in self.paths.packs.iterdir() if file not in kept]
        for file in removed:
            file.unlink(missing_ok=True)
        if removed:
            sync_directory(self.paths.packs)


def _printable(value: object) -> bool:
    """Whether no text in a JSON value would command a terminal."""
    if isinstance(value, str):
        return all(c.isprintable() or c in "\n\t" for c in value)
    if isinstance(value, dict):
        return all(_printable(item) for item in value.values())
    return not isinstance(value, list) or all(_printable(item) for item in value)


@contextmanager
def opened(paths: Paths, journal: Journal, now: float, wait: float = 0.0) -> Iterator[Store]:
    """Hold the lock and give the store. A state that cannot be believed is kept aside first.

    :raises StateError: BUSY when another worker holds the lock for more than ``wait`` seconds.
        OSError passes to the caller.
    """
    paths.run.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        # Whoever can open it can hold it, and packages of before made it everybody's.
        os.fchmod(descriptor, 0o600)
        _lock(descriptor, wait)
        make_private(paths.state)
        yield Store(paths, _load(paths, journal, now))
    finally:
        os.close(descriptor)


def _lock(descriptor: int, wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise StateError(
                    Code.BUSY,
                    "another job of kspliced is under way",
                    "wait for it: `kspliced status` shows its progress",
                ) from error
        time.sleep(_LOCK_POLL_SECONDS)


def _load(paths: Paths, journal: Journal, now: float) -> State:
    try:
        return load_state(paths)
    except StateError as error:
        if error.code is not Code.STATE_MALFORMED:
            raise
        kept = set_aside(paths.aside, paths.state)
        journal.send(Event.BAD_FILE, f"{error.message}; kept as {kept}", Facts(file=str(kept)))
        state = replace(State(), problem=problem_of(error, int(now)))
        save_state(paths, state)
        return state


def check_kernel(pack: Pack, running: KernelId) -> None:
    """Refuse a pack that is not for exactly the running kernel.

    :raises PackError: PACK_OTHER_KERNEL.
    """
    kernel = pack.manifest.kernel
    if kernel != running:
        raise PackError(
            Code.PACK_OTHER_KERNEL,
            f"the pack is for {kernel.release} ({kernel.version}, {kernel.arch}), but "
            f"{running.release} ({running.version}, {running.arch}) runs",
            "build a pack for the running kernel: `kspliced build`",
        )


def record_of(pack: Pack) -> UpdateRecord:
    """A fresh record of a pack, in stage BUILT."""
    manifest = pack.manifest
    return replace(
        blank_record(manifest.kernel, manifest.to_version),
        update=manifest.update,
        digest=pack.digest,
        stage=Stage.BUILT,
        functions=manifest.functions,
        entries=manifest.entries,
        refused=manifest.refused,
        pinned=manifest.pinned,
    )
