# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon: owns org.kspliced1, starts workers, publishes what is so. Idle, it only waits."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dbus_next.constants import NameFlag, RequestNameReply
from dbus_next.errors import AuthError, DBusError

from kspliced.engine.files import make_private
from kspliced.engine.paths import Paths
from kspliced.engine.reboot_flag import RebootFlag
from kspliced.engine.status import JobStatus
from kspliced.errors import BusError, Code, KsplicedError
from kspliced.service import api
from kspliced.service.arrivals import Arrivals
from kspliced.service.authority import Authority
from kspliced.service.connection import BoundedBus
from kspliced.service.holds import Holds
from kspliced.service.intake import Intake, Patience
from kspliced.service.interface import Method
from kspliced.service.jobs import Job, Jobs, Order
from kspliced.service.objects import BusObject, ObjectTree, close_descriptors
from kspliced.service.published import (
    JobObject,
    ManagerObject,
    UpdateObject,
    job_path,
    update_path,
)
from kspliced.service.snapshot import Snapshot
from kspliced.service.spool import Offer, clear_spool
from kspliced.service.watch import DirectoryWatch

NAME = "org.kspliced1"
# Isolated: nothing of the environment or the current directory decides what runs as root.
WORKER = (sys.executable, "-I", "-m", "kspliced.engine")
_SIGNAL_SECONDS = 0.1
# Of one sender at a time; each may wait for polkit.
_MOST_CALLS = 16


@dataclass(frozen=True)
class Setup:
    """Where the daemon lives: ``worker`` is the command that a verb is appended to. Without
    ``follow_reboot`` /run/reboot-required is left alone."""

    paths: Paths = field(default_factory=Paths)
    worker: tuple[str, ...] = WORKER
    patience: Patience = Patience()  # noqa: RUF009 (it is frozen)
    follow_reboot: bool = True


class Daemon:
    """Everything that hangs on one connection to the bus."""

    def __init__(self, setup: Setup, bus: Any) -> None:
        self._paths = setup.paths
        self._loop = asyncio.get_running_loop()
        self._authority = Authority(bus)
        self._snapshot = Snapshot(setup.paths)
        self._jobs = Jobs(
            setup.worker, self._job_started, self._job_told, self._job_ended, self._job_forgotten
        )
        self._snapshot.update(None)
        self._blocked = self._snapshot.blocked
        self._manager = ManagerObject(self._snapshot, lambda: self._jobs.current)
        self._tree = ObjectTree(bus, self._manager, self)
        self._updates: dict[str, UpdateObject] = {}
        self._job_objects: dict[int, JobObject] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Calls under way by who sent them; what the objects were made of; looked in this turn.
        self._calls: Counter[str] = Counter()
        self._published = (0, 0)
        self._looked = False
        self._progress_due: asyncio.TimerHandle | None = None
        self._intake = Intake(setup.paths, self._jobs, setup.patience, self._spawn)
        self._arrivals = Arrivals(
            setup.paths, self._jobs, setup.patience, self._spawn, self._snapshot.awaited
        )
        self._holds = Holds(setup.paths, self._jobs, self._spawn)
        self._reboot_flag = RebootFlag(setup.paths) if setup.follow_reboot else None
        self._watch = DirectoryWatch(self._loop, self._directory_changed)
        self._publish()
        bus.add_message_handler(self._tree.handle)

    def begin(self) -> None:
        """Take up the queue, and see that the running kernel's source is there."""
        clear_spool(self._paths.run)
        with suppress(OSError):
            make_private(self._paths.state)
        for directory in (self._paths.lib, self._paths.queue):
            directory.mkdir(parents=True, exist_ok=True)
            self._watch.add(directory)
        self._arrivals.begin()
        status, blocked = self._snapshot.status, self._snapshot.blocked
        ours = status is not None and (blocked is None or blocked.code is not Code.CONTAINER)
        self._spawn(self._intake.first(status.running.version if status and ours else None))

    async def end(self) -> None:
        """Cancel what runs and wait for its end."""
        self._watch.close()
        self._intake.close()
        self._arrivals.close()
        self._holds.close()
        if self._progress_due is not None:
            self._progress_due.cancel()
        await self._jobs.close()
        self._follow_reboot(ending=True)

    def before_read(self) -> None:
        """Bring the objects up to date (the core may have changed behind our back)."""
        # Once a turn of the loop, as anybody may ask as often as he likes.
        if not self._looked:
            self._looked = True
            self._loop.call_soon(self._look_again)
            self._look()
            if self._published != self._version():
                self._publish()

    def call(self, target: BusObject, method: Method, message: Any) -> None:
        """Carry out a call of one of our methods."""
        if self._calls[message.sender] >= _MOST_CALLS:
            close_descriptors(message)
            text = "too many of your calls wait for their answer"
            self._tree.fail(message, BusError(Code.BUSY, text, "wait for them"))
            return
        self._calls[message.sender] += 1
        self._spawn(self._answer(target, method, message))

    async def _answer(self, target: BusObject, method: Method, message: Any) -> None:
        try:
            body = await self._perform(target, method, message)
        except KsplicedError as error:
            self._tree.fail(message, error)
        except OSError as error:
            self._tree.fail(message, KsplicedError(Code.IO, error.strerror or str(error)))
        else:
            self._tree.reply(message, method, body)
        finally:
            close_descriptors(message)
            self._calls[message.sender] -= 1
            if not self._calls[message.sender]:
                del self._calls[message.sender]

    async def _perform(self, target: BusObject, method: Method, message: Any) -> list[Any]:
        if isinstance(target, JobObject):
            await self._cancel(target.job, message)
            return []
        if method.name == "ApplyPack":
            job = await self._apply_pack(method.action, message)
            return [job_path(job.number)]
        uid = await self._authority.require(message, method.action)
        if method.name == "Refresh":
            self._intake.refresh()
            return []
        job = await self._jobs.start(Order(method.name.lower(), uid=uid))
        return [job_path(job.number)]

    async def _apply_pack(self, action: str, message: Any) -> Job:
        index = message.body[0]
        if index >= len(message.unix_fds):
            raise BusError(Code.USAGE, "the call came without its file descriptor")
        if not stat.S_ISREG(os.fstat(message.unix_fds[index]).st_mode):
            raise BusError(Code.PACK_MALFORMED, "the pack is not a regular file", "name a pack")
        offer = Offer(message.unix_fds[index])
        uid = await self._authority.require(message, action, offer.describe)
        file = await offer.take(self._paths.run)
        try:
            job = await self._jobs.start(Order("apply", (str(file),), uid))
        except KsplicedError:
            file.unlink(missing_ok=True)
            raise
        return job

    async def _cancel(self, job: Job, message: Any) -> None:
        if await self._authority.uid(message) != job.order.uid:
            await self._authority.require(message, api.ACTION_CANCEL)
        job.cancel()

    def _directory_changed(self) -> None:
        self._intake.look()
        self._publish()

    def _job_started(self, job: Job) -> None:
        item = JobObject(job)
        self._job_objects[job.number] = item
        self._tree.add(item)
        self._publish()

    def _job_told(self, job: Job) -> None:
        # A fast worker must not flood the bus.
        if self._progress_due is None:
            self._progress_due = self._loop.call_later(
                _SIGNAL_SECONDS, partial(self._progress_late, job)
            )

    def _progress_late(self, job: Job) -> None:
        self._progress_due = None
        self._tree.changed(self._job_objects[job.number])

    def _job_ended(self, job: Job) -> None:
        if self._progress_due is not None:
            self._progress_due.cancel()
            self._progress_due = None
        if job.order.verb == "apply" and job.order.operands:
            Path(job.order.operands[0]).unlink(missing_ok=True)
        # The status first: who hears of the end finds its result.
        self._publish()
        item = self._job_objects[job.number]
        self._tree.changed(item)
        code = job.failure.code.value if job.failure else ""
        self._tree.signal(item, "Finished", [job.failure is None, code])
        # Whoever is held waits for it.
        self._holds.ended(job)
        self._loop.call_soon(self._intake.ended, job)
        self._loop.call_soon(self._arrivals.ended, job)

    def _job_forgotten(self, job: Job) -> None:
        self._tree.remove(self._job_objects.pop(job.number).path)

    def _publish(self) -> None:
        """Bring the Manager and Update objects up to date, and say what changed."""
        self._look()
        self._published = self._version()
        records = {update_path(record): record for record in self._snapshot.state.history}
        for path in self._updates.keys() - records.keys():
            del self._updates[path]
            self._tree.remove(path)
        for path, record in records.items():
            known = self._updates.get(path)
            if known is None:
                self._updates[path] = UpdateObject(record)
                self._tree.add(self._updates[path])
            elif known.record != record:
                known.record = record
                self._tree.changed(known)
        self._tree.changed(self._manager)
        self._holds.look()
        self._follow_reboot()
        if self._blocked is not None and self._snapshot.blocked is None:
            self._intake.mended()
        self._blocked = self._snapshot.blocked

    def _look(self) -> None:
        job = self._jobs.current
        shown = JobStatus(job.order.verb, job.progress) if job else None
        self._snapshot.update(shown, job is not None and job.order.background)

    def _look_again(self) -> None:
        self._looked = False

    def _version(self) -> tuple[int, int]:
        """Of what the objects are made of."""
        job = self._jobs.current
        return self._snapshot.version, job.number if job else 0

    def _follow_reboot(self, ending: bool = False) -> None:
        flag = self._reboot_flag
        if flag is None:
            return
        try:
            line = flag.abandon() if ending else flag.follow(self._snapshot.status)
        except OSError as error:
            # Once: this is called for each look at the status.
            self._reboot_flag = None
            line = f"/run/reboot-required is left alone: {error}"
        if line:
            print(f"kspliced: {line}", file=sys.stderr, flush=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def serve(setup: Setup) -> None:
    """Run the daemon until SIGTERM or SIGINT, or until the bus goes.

    :raises BusError: NO_DAEMON when there is no bus, or the name is taken or forbidden.
    """
    bus = await _connect()
    loop = asyncio.get_running_loop()
    daemon = Daemon(setup, bus)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Only now: who finds the name finds the objects.
    await _own_name(bus)
    daemon.begin()
    gone = asyncio.ensure_future(bus.wait_for_disconnect())
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({gone, stopped}, return_when=asyncio.FIRST_COMPLETED)
    await daemon.end()
    if stopped.done():
        stopped.result()
        bus.disconnect()
    else:
        stopped.cancel()
        raise BusError(Code.NO_DAEMON, "the system bus is gone", "it is started again")


async def _connect() -> Any:
    try:
        return await BoundedBus().connect()
    except (OSError, AuthError) as error:
        text = f"cannot connect to the system bus: {error}"
        raise BusError(Code.NO_DAEMON, text, "start dbus.service") from error


async def _own_name(bus: Any) -> None:
    try:
        reply = await bus.request_name(NAME, NameFlag.DO_NOT_QUEUE)
    except (OSError, EOFError) as error:
        raise BusError(Code.NO_DAEMON, "the system bus went away", "start dbus.service") from error
    except DBusError as error:
        text = f"the bus does not let this user own {NAME}"
        raise BusError(Code.NOT_AUTHORIZED, text, "run it as root") from error
    if reply is not RequestNameReply.PRIMARY_OWNER:
        raise BusError(Code.BUSY, f"{NAME} is taken", "the daemon runs already")
