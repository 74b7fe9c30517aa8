# SPDX-License-Identifier: GPL-2.0-or-later
"""A hostile client: ``flood.py ADDRESS UID`` sends for as long as its stdin is open.

A thousand messages a second, or as many as the bus takes, of every kind that anybody may send, and
never a look at the answers but to make room. It says so when it has sent the first thousand.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from dbus_next.constants import MessageFlag, MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from kspliced.client import NAME, ROOT
from tests.dbus.raw import raw_connection

_A_SECOND = 1000
_BATCH = 50
_PROPERTIES = "org.freedesktop.DBus.Properties"
_MANAGER = "org.kspliced1.Manager"
_ONE_WAY = MessageFlag.NO_REPLY_EXPECTED
_HUGE = "A" * 1_000_000


def _calls() -> list[tuple[int, Any]]:
    """Kinds of messages, and of how many one is such."""

    def call(path: str, interface: str, member: str, signature: str = "", *body: object) -> Message:
        return Message(
            destination=NAME,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
        )

    manager = "org.freedesktop.DBus.ObjectManager"
    calls = [
        (1, call(ROOT, manager, "GetManagedObjects")),
        (2, call(ROOT, _PROPERTIES, "GetAll", "s", _MANAGER)),
        (3, call(ROOT, "org.freedesktop.DBus.Introspectable", "Introspect")),
        (3, call("/nowhere/" + "a" * 200, _MANAGER, "Apply")),
        (3, call(ROOT, _MANAGER, "Apply", "s", "x")),
        (3, call(ROOT, _MANAGER, "Refresh")),
        (200, call(ROOT, _PROPERTIES, "Set", "ssv", _MANAGER, "State", Variant("s", _HUGE))),
        (200, call(ROOT, _PROPERTIES, "GetAll", "s", _HUGE)),
    ]
    one_way = [
        (1, call(ROOT, manager, "GetManagedObjects")),
        (1, call(ROOT, _PROPERTIES, "GetAll", "s", _MANAGER)),
        (3, call(ROOT, _MANAGER, "Refresh")),
    ]
    for _, message in one_way:
        message.flags = _ONE_WAY
    signal = Message(
        message_type=MessageType.SIGNAL,
        destination=NAME,
        path=ROOT,
        interface="org.freedesktop.DBus",
        member="NameOwnerChanged",
    )
    return [*calls, *one_way, (5, signal)]


def _mixed() -> Iterator[bytes]:
    calls, serial = _calls(), itertools.count(2)
    for number in itertools.count(1):
        for every, message in calls:
            if number % every == 0:
                message.serial = next(serial) & 0xFFFFFFFF
                yield bytes(message._marshall())


def _send(connection: socket.socket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        readable, writable, _ = select.select([connection], [connection], [])
        if readable and not connection.recv(1 << 20):
            sys.exit("the bus has dropped the connection")
        if writable:
            view = view[connection.send(view) :]


def main(address: str, uid: int) -> None:
    """Send until stdin closes."""
    if uid != os.geteuid():
        os.setgroups([])
        os.setresuid(uid, uid, uid)
    begin, sent = time.monotonic(), 0
    with raw_connection(address) as connection:
        connection.setblocking(False)
        messages = _mixed()
        while not select.select([sys.stdin], [], [], 0)[0]:
            for message in itertools.islice(messages, _BATCH):
                _send(connection, message)
            sent += _BATCH
            if sent == _A_SECOND:
                print(sent, flush=True)
            ahead = begin + sent / _A_SECOND - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
            else:
                begin -= ahead


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
