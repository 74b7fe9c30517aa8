# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever anybody sends, the daemon answers with one clear error, or not at all, and lives."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from typing import Any

import pytest
from dbus_next.constants import MessageFlag, MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from kspliced.client import NAME, ROOT
from tests.dbus.harness import JOB, MANAGER, NOBODY, Caller, Machine
from tests.dbus.raw import raw_call, raw_connection

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
        with raw_connection(running.address) as connection:
            message = bytearray(raw_call(ROOT, MANAGER, "Refresh", round_number + 2))
            for _ in range(chance.randrange(1, 4)):
                # Behind the lengths, so that it is a message of another content.
                message[chance.randrange(16, len(message))] = chance.randrange(256)
            # The bus may drop the connection over it.
            with suppress(OSError):
                connection.sendall(message)
                connection.sendall(raw_call(ROOT, MANAGER, "Explode", 1000, kind=77))
    _alive(running)


@pytest.mark.parametrize("flags", [0, 0xF8])
@pytest.mark.parametrize("more", [(), ((77, b"s", "what is this"),), ((5, b"s", "no number"),)])
def test_headers_of_a_protocol_to_come(
    running: Machine, flags: int, more: tuple[tuple[int, bytes, str], ...]
) -> None:
    with raw_connection(running.address) as connection:
        message = raw_call(ROOT, MANAGER, "Refresh", 2, flags=flags, more=more)
        # The bus may drop the connection over it.
        with suppress(OSError):
            connection.sendall(message)
            connection.recv(1)
    _alive(running)
