# SPDX-License-Identifier: GPL-2.0-or-later
"""A private bus, the daemon on it, and callers of any user."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import BusType, MessageFlag, MessageType
from dbus_next.message import Message

from kspliced.client import NAME, ROOT, error_of
from kspliced.engine.paths import Paths

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parents[2]
MANAGER = "org.kspliced1.Manager"
JOB = "org.kspliced1.Job"
NOBODY = 65534
ANOTHER = 1  # "daemon": the bus wants users that exist
_PATIENCE = 20.0
_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:tmpdir=/tmp</listen>
  <auth>EXTERNAL</auth>
  <!-- The default policy of a system bus (dbus's own system.conf). -->
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <allow own="org.freedesktop.PolicyKit1"/>
    <allow send_destination="org.freedesktop.PolicyKit1"/>
  </policy>
  <include>{policy}</include>
</busconfig>
"""


def eventually(true: Callable[[], T], what: str) -> T:
    """Wait until ``true()`` is truthy; its value."""
    end = time.monotonic() + _PATIENCE
    while not (value := true()):
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)
    return value


@contextmanager
def private_bus(directory: Path) -> Iterator[str]:
    """A bus with our shipped policy; its address."""
    policy = directory / "policy.conf"
    shipped = (REPOSITORY / "data/org.kspliced1.conf").read_text("utf-8")
    policy.write_text(shipped.replace('user="root"', f'user="{os.geteuid()}"'), "utf-8")
    config = directory / "bus.conf"
    config.write_text(_CONFIG.format(policy=policy), "utf-8")
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address"]
    with (directory / "bus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


@dataclass
class Machine:
    """A root directory, a bus, and the processes on it."""

    root: Path
    address: str
    daemon: subprocess.Popen[bytes] | None = None
    polkit: subprocess.Popen[bytes] | None = None

    @property
    def paths(self) -> Paths:
        """Where things lie."""
        return Paths(self.root)

    def start(self, real_worker: bool = False, retry: float = 3600.0) -> None:
        """Start the daemon and wait for its name. ``retry``: seconds until it tries again."""
        own = (sys.executable, "-m", "tests.dbus.worker", str(self.root))
        real = (sys.executable, "-m", "kspliced.engine", "--root", str(self.root))
        worker = real if real_worker else own
        self.daemon = self._python("tests.dbus.daemon", str(self.root), str(retry), *worker)
        self.wait_for_name(NAME)

    def stop(self) -> int:
        """SIGTERM the daemon; its exit status."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGTERM)
        return self.daemon.wait(_PATIENCE)

    def start_polkit(self, *allowed: str) -> None:
        """Start a polkit that allows these actions."""
        self.allow(*allowed)
        self.polkit = self._python("tests.dbus.polkit", str(self.root))
        self.wait_for_name("org.freedesktop.PolicyKit1")

    def allow(self, *allowed: str) -> None:
        """What polkit allows from now on."""
        (self.root / "polkit/allowed").write_text("\n".join(allowed), "utf-8")

    def asked(self) -> list[list[Any]]:
        """The questions polkit got."""
        return _lines(self.root / "polkit/asked")

    def script(self, verb: str, *steps: list[Any]) -> None:
        """What the worker does for a verb."""
        (self.root / f"worker/{verb}.json").write_text(json.dumps(steps), "utf-8")

    def calls(self, verb: str = "") -> list[list[str]]:
        """What the worker was called with."""
        return [c for c in _lines(self.root / "worker/calls") if verb in ("", c[0])]

    def touch(self, name: str) -> None:
        """Make a file that a worker waits for."""
        (self.root / name).write_bytes(b"")

    def request(self, name: str, content: str | None = None) -> None:
        """Leave a hook's request in the queue."""
        valid = {"schema": 1, "source": "apt", "packages": [], "time": 1.0}
        self.paths.queue.mkdir(parents=True, exist_ok=True)
        temporary = self.paths.queue / f".{name}"
        temporary.write_text(json.dumps(valid) if content is None else content, "utf-8")
        temporary.rename(self.paths.queue / f"{name}.json")

    def kspliced(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        command = [sys.executable, "-m", "kspliced.cli", *arguments]
        return subprocess.run(
            command,
            cwd=REPOSITORY,
            text=True,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
            **{"env": self.environment, **options},
        )

    @property
    def environment(self) -> dict[str, str]:
        """For processes that are to use the bus."""
        return {
            **os.environ,
            "DBUS_SYSTEM_BUS_ADDRESS": self.address,
            "PYTHONPATH": str(REPOSITORY),
        }

    def ask(self, work: Callable[[Caller], Coroutine[Any, Any, T]], uid: int = -1) -> T:
        """Run ``work`` with a connection of its own, as another user if ``uid`` says so."""
        if uid in (-1, os.geteuid()):
            return asyncio.run(self._connected(work))
        return _as_user(uid, lambda: asyncio.run(self._connected(work)))

    def wait_for_name(self, name: str) -> None:
        """Wait until somebody owns a name."""

        async def owned(caller: Caller) -> bool:
            return bool((await caller.bus_call("NameHasOwner", "s", name))[0])

        eventually(lambda: self.ask(owned), f"{name} on the bus")

    def clean_up(self) -> None:
        """End what was started."""
        for process in (self.daemon, self.polkit):
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(_PATIENCE)

    async def _connected(self, work: Callable[[Caller], Coroutine[Any, Any, T]]) -> T:
        os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = self.address
        bus: Any = await MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect()
        try:
            async with asyncio.timeout(_PATIENCE):
                return await work(Caller(bus))
        finally:
            bus.disconnect()

    def _python(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.Popen(command, cwd=REPOSITORY, env=self.environment)


class Caller:
    """A connection to the bus; error replies are raised as the client raises them."""

    def __init__(self, bus: Any) -> None:
        self.bus = bus
        self.signals: list[Any] = []

    async def call(self, message: Any) -> list[Any]:
        """Call and return the reply's body.

        :raises KsplicedError: for an error reply.
        """
        reply = await self.raw(message)
        if reply.message_type is MessageType.ERROR:
            raise error_of(reply)
        body: list[Any] = reply.body
        return body

    async def raw(self, message: Any) -> Any:
        """Call and return the reply, errors too."""
        return await self.bus.call(message)

    async def manager(
        self,
        member: str,
        signature: str = "",
        *body: Any,
        interactive: bool = False,
        fds: tuple[int, ...] = (),
    ) -> Any:
        """Call a method of the Manager; its first result."""
        flags = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION if interactive else MessageFlag.NONE
        message = Message(
            destination=NAME,
            path=ROOT,
            interface=MANAGER,
            member=member,
            flags=flags,
            signature=signature,
            body=list(body),
            unix_fds=list(fds),
        )
        result = await self.call(message)
        return result[0] if result else None

    async def get_all(self, path: str, interface: str) -> dict[str, Any]:
        """All properties, unpacked."""
        message = Message(
            destination=NAME,
            path=path,
            interface="org.freedesktop.DBus.Properties",
            member="GetAll",
            signature="s",
            body=[interface],
        )
        return {name: value.value for name, value in (await self.call(message))[0].items()}

    async def standard(self, path: str, interface: str, member: str, *body: Any) -> Any:
        """Call a method of org.freedesktop.DBus.* whose arguments are strings."""
        message = Message(
            destination=NAME,
            path=path,
            interface=f"org.freedesktop.DBus.{interface}",
            member=member,
            signature="s" * len(body),
            body=list(body),
        )
        result = await self.call(message)
        return result[0] if result else None

    async def cancel(self, job: str) -> None:
        """Cancel a job."""
        await self.call(Message(destination=NAME, path=job, interface=JOB, member="Cancel"))

    async def end_of(self, job: str) -> dict[str, Any]:
        """The properties of a job once it has ended."""
        while True:
            values = await self.get_all(job, JOB)
            if values["State"] != "running":
                return values
            await asyncio.sleep(0.02)

    async def listen(self) -> None:
        """Gather the daemon's signals from now on."""
        self.bus.add_message_handler(self._heard)
        await self.bus_call("AddMatch", "s", f"type='signal',sender='{NAME}'")

    async def heard(self, member: str, path: str, count: int = 1) -> list[Any]:
        """Bodies of the signals of that name from that object, once there are ``count``."""
        while True:
            found = [s.body for s in self.signals if (s.member, s.path) == (member, path)]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.02)

    async def bus_call(self, member: str, signature: str, *body: Any) -> list[Any]:
        """Call the bus itself."""
        message = Message(
            destination="org.freedesktop.DBus",
            path="/org/freedesktop/DBus",
            interface="org.freedesktop.DBus",
            member=member,
            signature=signature,
            body=list(body),
        )
        return await self.call(message)

    def _heard(self, message: Any) -> bool:
        if message.message_type is MessageType.SIGNAL:
            self.signals.append(message)
        return False


def _as_user(uid: int, work: Callable[[], T]) -> T:
    """Run ``work`` in a child that is another user; what it returns or raises is pickled."""
    ready, said = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ready)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        answer: tuple[bool, Any]
        try:
            answer = (True, work())
        except BaseException as error:  # noqa: BLE001 (it is raised again in the parent)
            answer = (False, (type(error), error.args, getattr(error, "__dict__", {})))
        with os.fdopen(said, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(said)
    with os.fdopen(ready, "rb") as pipe:
        content = pipe.read()
    os.waitpid(child, 0)
    well, value = pickle.loads(content)
    if well:
        result: T = value
        return result
    kind, arguments, attributes = value
    failure = kind.__new__(kind, *arguments)
    failure.__dict__.update(attributes)
    raise failure


def _lines(path: Path) -> list[Any]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
