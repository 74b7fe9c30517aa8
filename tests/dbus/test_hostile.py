# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever anybody sends, the daemon answers with one clear error, or not at all, and lives."""

from __future__ import annotations

import os
import random
import socket
import struct
from contextlib import suppress
from typing import Any

import pytest
from dbus_next.constants import MessageFlag, MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from kspliced.client import NAME, ROOT
from tests.dbus.harness import JOB, MANAGER, NOBODY, Caller, Machine

_UID = NOBODY if os.geteuid() == 0 else -1
_PROPERTIES = "org.freedesktop.DBus.Properties"
_ERROR = "org.freedesktop.DBus.Error."
_NASTY = ("", "\x1b[2J", "\u202e", "A" * 100_000, "../../etc/shadow", "%n%s", "\U0001f4a9")


def _alive(machine: Machine) -> None:
    async def read(caller: Caller) -> str:
        return str((await caller.get_all(ROOT, MANAGER))["Running"])

    assert machine.ask(read, _UID) == "6.1.192-1"
    assert machine.daemon is not None and machine.daemon.poll() is None


def _call(path: str, interface: Any, member: str, signature: str, *body: Any) -> Any:
    return Message(
        destination=NAME,
        path=path,
        interface=interface,
        member=member,
        signature=signature,
        body=list(body),
    )


@pytest.fixture
def running(machine: Machine) -> Machine:
    """A machine whose daemon runs."""
    machine.start()
    return machine


_WRONG = (
    (_call("/nowhere", MANAGER, "Apply", ""), "UnknownObject"),
    (_call(f"{ROOT}/job/99", JOB, "Cancel", ""), "UnknownObject"),
    (_call(ROOT, JOB, "Cancel", ""), "UnknownInterface"),
    (_call(ROOT, MANAGER, "Explode", ""), "UnknownMethod"),
    # The bus's policy wants an interface.
    (_call(ROOT, None, "Apply", ""), "AccessDenied"),
    (_call(ROOT, MANAGER, "Apply", "s", "x"), "InvalidArgs"),
    (_call(ROOT, MANAGER, "ApplyPack", "s", "/etc/shadow"), "InvalidArgs"),
    (_call(ROOT, _PROPERTIES, "Get", "ss", MANAGER, "No"), "UnknownProperty"),
    (_call(ROOT, _PROPERTIES, "Get", "ss", "a.b", "State"), "UnknownInterface"),
    (_call(ROOT, _PROPERTIES, "GetAll", "s", "a.b"), "UnknownInterface"),
    (_call(ROOT, _PROPERTIES, "GetAll", "as", []), "InvalidArgs"),
    (_call("/org", _PROPERTIES, "GetAll", "s", MANAGER), "UnknownInterface"),
)


def test_wrong_calls_have_the_buss_own_errors(running: Machine) -> None:
    async def work(caller: Caller) -> list[tuple[str, str]]:
        replies = [await caller.raw(call) for call, _ in _WRONG]
        return [(reply.error_name, reply.body[0]) for reply in replies]

    replies = running.ask(work)
    assert [name for name, _ in replies] == [_ERROR + error for _, error in _WRONG]
    assert not [text for _, text in replies if "Traceback" in text]
    _alive(running)


def test_strings_of_any_kind(running: Machine) -> None:
    async def work(caller: Caller) -> None:
        for text in _NASTY:
            for call in (
                _call(ROOT, _PROPERTIES, "Get", "ss", text, text),
                _call(ROOT, _PROPERTIES, "GetAll", "s", text),
                _call(ROOT, _PROPERTIES, "Set", "ssv", text, text, Variant("s", text)),
                _call(ROOT, MANAGER, "Apply", "s", text),
            ):
                await caller.raw(call)

    running.ask(work, _UID)
    _alive(running)


def test_values_of_any_shape(running: Machine) -> None:
    value: Variant = Variant("y", 0)
    for _ in range(20):
        value = Variant("v", value)
    array = [[n, [str(n)]] for n in range(5000)]

    async def work(caller: Caller) -> None:
        for variant in (value, Variant("a(uas)", array), Variant("d", float("nan"))):
            await caller.raw(_call(ROOT, _PROPERTIES, "Set", "ssv", MANAGER, "State", variant))

    running.ask(work, _UID)
    _alive(running)


def test_messages_that_nobody_asked_for(running: Machine) -> None:
    async def work(caller: Caller) -> None:
        for message in (
            Message(
                destination=NAME,
                path=ROOT,
                interface="org.freedesktop.DBus",
                member="NameOwnerChanged",
                message_type=MessageType.SIGNAL,
                signature="as",
                body=[["a"]],
            ),
            Message(
                destination=NAME,
                message_type=MessageType.METHOD_RETURN,
                reply_serial=1,
                signature="s",
                body=["x"],
            ),
            Message(
                destination=NAME,
                path=ROOT,
                interface=MANAGER,
                member="Refresh",
                flags=MessageFlag.NO_REPLY_EXPECTED,
            ),
        ):
            await caller.bus.send(message)

    running.ask(work)
    _alive(running)


def test_who_leaves_before_the_answer(running: Machine) -> None:
    async def work(caller: Caller) -> None:
        for member in ("Apply", "Undo", "Refresh"):
            await caller.bus.send(_call(ROOT, MANAGER, member, ""))

    for _ in range(5):
        running.ask(work, _UID)
    _alive(running)


def test_bytes_that_no_library_would_send(running: Machine) -> None:
    chance = random.Random(7)
    for round_number in range(30):
        with _raw_connection(running.address) as connection:
            message = bytearray(_raw_call(ROOT, MANAGER, "Refresh", round_number + 2))
            for _ in range(chance.randrange(1, 4)):
                # Behind the lengths, so that it is a message of another content.
                message[chance.randrange(16, len(message))] = chance.randrange(256)
            # The bus may drop the connection over it.
            with suppress(OSError):
                connection.sendall(message)
                connection.sendall(_raw_call(ROOT, MANAGER, "Explode", 1000, kind=77))
    _alive(running)


def _raw_connection(address: str) -> socket.socket:
    options = dict(item.split("=", 1) for item in address.split(":", 1)[1].split(","))
    name = "\0" + options["abstract"] if "abstract" in options else options["path"]
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(5)
    connection.connect(name)
    uid = str(os.geteuid()).encode("ascii").hex().encode("ascii")
    connection.sendall(b"\0AUTH EXTERNAL " + uid + b"\r\n")
    assert connection.recv(200).startswith(b"OK ")
    bus = "org.freedesktop.DBus"
    hello = _raw_call("/org/freedesktop/DBus", bus, "Hello", 1, destination=bus)
    connection.sendall(b"BEGIN\r\n" + hello)
    assert connection.recv(65536)
    return connection


def _raw_call(
    path: str, interface: str, member: str, serial: int, kind: int = 1, destination: str = NAME
) -> bytes:
    """A message as bytes (D-Bus specification, "Message Format")."""
    header = bytearray()
    for code, signature, value in (
        (1, b"o", path),
        (2, b"s", interface),
        (3, b"s", member),
        (6, b"s", destination),
    ):
        header += bytes(-len(header) % 8)
        header += bytes((code, 1)) + signature + b"\0"
        text = value.encode("utf-8")
        header += struct.pack("<I", len(text)) + text + b"\0"
    start = struct.pack("<BBBBIII", ord("l"), kind, 0, 1, 0, serial, len(header))
    return start + bytes(header) + bytes(-len(header) % 8)
