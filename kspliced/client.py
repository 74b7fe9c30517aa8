# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's client: status and jobs over D-Bus, as typed values and one error tree."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import BusType, MessageFlag, MessageType
from dbus_next.errors import AuthError
from dbus_next.message import Message

from kspliced.errors import BusError, Code, KsplicedError
from kspliced.model import ChangelogEntry, FunctionChange, KernelId, Progress, ProgressSink, Refusal
from kspliced.record import decode
from kspliced.worker import clean

NAME = "org.kspliced1"
ROOT = "/org/kspliced1"
_ERROR = "org.kspliced1.Error."
_BUS = "org.freedesktop.DBus"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_NO_JOB = "/"
_CODES = {"".join(w.capitalize() for w in c.value.split("_")): c for c in Code}
_ABSENT = ("ServiceUnknown", "NameHasNoOwner", "NoReply", "Disconnected", "TimedOut", "Timeout")
_START = "start it with `systemctl start kspliced.service`, and see its journal"
_MATCHES = (
    f"type='signal',sender='{NAME}',path_namespace='{ROOT}'",
    f"type='signal',sender='{_BUS}',member='NameOwnerChanged',arg0='{NAME}'",
)


class Action(str, Enum):
    """The Manager's methods that start a job."""

    APPLY = "Apply"
    APPLY_PACK = "ApplyPack"
    BUILD = "Build"
    UNDO = "Undo"


@dataclass(frozen=True)
class Counts:
    """Changed units that are live as a whole, of all that the upgrade changes here."""

    live: int
    total: int
    waiting: int


@dataclass(frozen=True)
class Reason:
    """Why a reboot is needed."""

    code: str
    reason: str


@dataclass(frozen=True)
class RebootRequired:
    """``verdict`` is no, yes or pending."""

    verdict: str
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class ProblemReport:
    """A failure that is remembered; ``time`` in seconds since the epoch."""

    code: Code
    message: str
    remedy: str
    details: tuple[str, ...]
    time: int


@dataclass(frozen=True)
class PreconditionReport:
    """What an update needs before it is built; ``state`` is ok, failed or unknown."""

    code: Code
    state: str
    words: str
    remedy: str


@dataclass(frozen=True)
class JobReport:
    """A job under way."""

    verb: str
    phase: str
    fraction: float
    message: str


@dataclass(frozen=True)
class UpdateReport:
    """The update that the status is about (engine/state.py, UpdateRecord; engine/status.py)."""

    update: str
    digest: str
    kernel: KernelId
    to_version: str
    stage: str
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
    problem: ProblemReport | None
    live: bool
    changes: Counts
    summary: str


@dataclass(frozen=True)
class ResidentModule:
    """An update module that stays loaded, its memory in bytes, the core's word for its stage."""

    module: str
    bytes: int
    stage: str


@dataclass(frozen=True)
class ResidentReport:
    """Memory of updates that stays until the reboot, and how much may, in bytes."""

    bytes: int
    limit_bytes: int
    updates: tuple[ResidentModule, ...]


@dataclass(frozen=True)
class StatusReport:
    """The daemon's answer. Versions are source package versions, ``release`` is uname -r;
    ``ignored`` are newer kernel packages that are not the distribution's."""

    running: str
    release: str
    effective: str
    installed: str
    state: str
    update: UpdateReport | None
    job: JobReport | None
    reboot_required: RebootRequired
    problem: ProblemReport | None
    ignored: tuple[str, ...]
    preconditions: tuple[PreconditionReport, ...]
    resident: ResidentReport | None


@dataclass(frozen=True)
class JobEnd:
    """How a job went well: ``result`` is its JSON object."""

    path: str
    verb: str
    result: dict[str, Any]


def parse_status(text: str) -> StatusReport:
    """The typed form of the StatusJson property; members that joined later are passed over.

    :raises BusError: FAILED when the daemon is of another version of kspliced.
    """
    try:
        value = _known(StatusReport, json.loads(text))
        if isinstance(value, dict):
            value["update"] = _known(UpdateReport, value.get("update"))
            value["resident"] = _known(ResidentReport, value.get("resident"))
        return decode(StatusReport, value)
    except (ValueError, RecursionError) as error:
        raise BusError(
            Code.FAILED,
            f"the daemon's status is not of this version of kspliced: {error!s:.200}",
            "restart it: `systemctl restart kspliced.service`",
        ) from error


def _known(kind: type[Any], value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    names = {member.name for member in fields(kind)}
    return {name: item for name, item in value.items() if name in names}


class Client:
    """A connection to the daemon (use connected())."""

    def __init__(self, bus: Any) -> None:
        self._bus = bus
        self._changed: set[str] = set()
        self._gone = False
        self._wake = asyncio.Event()
        self._listening = False
        self._watcher = asyncio.ensure_future(bus.wait_for_disconnect())
        self._watcher.add_done_callback(self._disconnected)

    async def status_json(self) -> str:
        """The whole status as the daemon's JSON text.

        :raises KsplicedError: NO_DAEMON; what the daemon reports.
        """
        return str(await self._property(ROOT, "org.kspliced1.Manager", "StatusJson"))

    async def status(self) -> StatusReport:
        """The whole status.

        :raises KsplicedError: NO_DAEMON; what the daemon reports.
        """
        return parse_status(await self.status_json())

    async def current_job(self) -> str | None:
        """The path of the job that runs, or None."""
        path = str(await self._property(ROOT, "org.kspliced1.Manager", "CurrentJob"))
        return None if path == _NO_JOB else path

    async def start(self, action: Action, pack: int | None = None) -> str:
        """Start a job; its object path. ``pack`` is an open file for APPLY_PACK.

        :raises KsplicedError: NOT_AUTHORIZED, BUSY, NO_DAEMON.
        """
        await self.listen()
        message = Message(
            destination=NAME,
            path=ROOT,
            interface="org.kspliced1.Manager",
            member=action.value,
            flags=MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION,
            signature="" if pack is None else "h",
            body=[] if pack is None else [0],
            unix_fds=[] if pack is None else [pack],
        )
        return str((await self._call(message))[0])

    async def cancel(self, job: str) -> None:
        """Ask a job to stop at its next safe point.

        :raises KsplicedError: NOT_AUTHORIZED, NO_DAEMON.
        """
        message = Message(
            destination=NAME,
            path=job,
            interface="org.kspliced1.Job",
            member="Cancel",
            flags=MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION,
        )
        await self._call(message)

    async def wait(self, job: str, sink: ProgressSink) -> JobEnd:
        """Wait for a job's end, telling ``sink`` of its progress; how it ended.

        :raises KsplicedError: the job's own failure; NO_DAEMON when the daemon went meanwhile.
        """
        await self.listen()
        while True:
            values = await self._all(job, "org.kspliced1.Job")
            if values["State"] != "running":
                return _end(job, values)
            if values["Phase"]:
                message = clean(values["Message"])
                sink(Progress(clean(values["Phase"]), values["Fraction"], message))
            await self.news(job)

    async def listen(self) -> None:
        """Receive the daemon's signals from now on."""
        if self._listening:
            return
        self._listening = True
        self._bus.add_message_handler(self._heard)
        for rule in _MATCHES:
            await self._call(
                Message(
                    destination=_BUS,
                    path="/org/freedesktop/DBus",
                    interface=_BUS,
                    member="AddMatch",
                    signature="s",
                    body=[rule],
                )
            )

    async def news(self, path: str) -> None:
        """Wait until something changes about the object ``path``; listen() before.

        :raises BusError: NO_DAEMON when the daemon goes.
        """
        while path not in self._changed:
            if self._gone:
                text = "the daemon ended; a switch under way was finished or not begun"
                raise BusError(Code.NO_DAEMON, text, "see `kspliced status`")
            self._wake.clear()
            await self._wake.wait()
        self._changed.discard(path)

    async def news_of_manager(self) -> None:
        """Wait until something changes about the Manager; listen() before.

        :raises BusError: NO_DAEMON when the daemon goes.
        """
        await self.news(ROOT)

    def _heard(self, message: Any) -> bool:
        if message.message_type is MessageType.SIGNAL:
            if message.member == "NameOwnerChanged":
                self._gone = self._gone or bool(message.body[1])
            self._changed.add(message.path)
            self._wake.set()
        return False

    def _disconnected(self, watcher: asyncio.Future[Any]) -> None:
        if not watcher.cancelled():
            watcher.exception()
        self._gone = True
        self._wake.set()

    async def _property(self, path: str, interface: str, name: str) -> Any:
        message = Message(
            destination=NAME,
            path=path,
            interface=_PROPERTIES,
            member="Get",
            signature="ss",
            body=[interface, name],
        )
        return (await self._call(message))[0].value

    async def _all(self, path: str, interface: str) -> dict[str, Any]:
        message = Message(
            destination=NAME,
            path=path,
            interface=_PROPERTIES,
            member="GetAll",
            signature="s",
            body=[interface],
        )
        return {name: value.value for name, value in (await self._call(message))[0].items()}

    async def _call(self, message: Any) -> list[Any]:
        try:
            reply = await self._bus.call(message)
        except (OSError, EOFError) as error:
            raise BusError(Code.NO_DAEMON, "the system bus went away", "try again") from error
        if reply is None:
            raise BusError(Code.NO_DAEMON, "the system bus went away", "try again")
        if reply.message_type is MessageType.ERROR:
            raise error_of(reply)
        body: list[Any] = reply.body
        return body


@asynccontextmanager
async def connected() -> AsyncIterator[Client]:
    """A client of the system bus's daemon, which the bus starts if it does not run.

    :raises BusError: NO_DAEMON when there is no bus.
    """
    try:
        bus: Any = await MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect()
    except (OSError, AuthError) as error:
        text = f"cannot connect to the system bus: {error}"
        raise BusError(Code.NO_DAEMON, text, "start dbus.service") from error
    try:
        yield Client(bus)
    finally:
        bus.disconnect()


def error_of(reply: Any) -> KsplicedError:
    """The exception that an error reply stands for."""
    name, body = str(reply.error_name), reply.body
    text = clean(body[0]) if reply.signature.startswith("s") else name
    if name.startswith(_ERROR):
        code = _CODES.get(name.removeprefix(_ERROR), Code.FAILED)
        if reply.signature == "ssas":
            return BusError(code, text, clean(body[1]), tuple(map(clean, body[2])))
        return BusError(code, text)
    last = name.rsplit(".", 1)[-1]
    if last in _ABSENT or ".Spawn." in name or name.startswith("org.freedesktop.systemd1."):
        return BusError(Code.NO_DAEMON, f"the daemon cannot be reached: {text}", _START)
    if last in ("AccessDenied", "AuthFailed"):
        return BusError(Code.NOT_AUTHORIZED, f"the bus does not allow it: {text}", "run it as root")
    return BusError(Code.FAILED, text)


def _end(path: str, values: dict[str, Any]) -> JobEnd:
    if values["State"] == "done":
        result = json.loads(values["Result"])
        return JobEnd(path, values["Verb"], result if isinstance(result, dict) else {})
    code = _CODES_BY_VALUE.get(values["ErrorCode"], Code.FAILED)
    details = tuple(clean(line) for line in values["ErrorDetails"])
    raise KsplicedError(code, clean(values["ErrorMessage"]), clean(values["ErrorRemedy"]), details)


_CODES_BY_VALUE = {code.value: code for code in Code}
