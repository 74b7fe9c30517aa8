# SPDX-License-Identifier: GPL-2.0-or-later
"""What comes from the bus is cut into messages, whatever it is and however it comes."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from dbus_next.constants import MessageFlag, MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from kspliced.service.connection import LARGEST, Frames, Writer
from kspliced.service.replies import Replies
from tests.dbus.raw import raw_call

_PROPERTIES = "org.freedesktop.DBus.Properties"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Frames]]:
    """The bus's end, and ours."""
    theirs, ours = socket.socketpair()
    ours.setblocking(False)
    with theirs, ours:
        yield theirs, Frames(ours)


def _call(member: str, text: str = "", flags: MessageFlag = MessageFlag.NONE) -> bytes:
    message: Any = Message(
        destination="org.kspliced1",
        path="/org/kspliced1",
        interface="org.kspliced1.Manager" if member == "Refresh" else _PROPERTIES,
        member=member,
        signature="s" if text else "",
        body=[text] if text else [],
        flags=flags,
        serial=7,
    )
    return bytes(message._marshall())


def _all(frames: Frames) -> list[Any]:
    found = []
    while True:
        read, message = frames.next()
        if message is not None:
            found.append(message)
        if not read:
            return found


def _open() -> set[str]:
    return {file.name for file in Path("/proc/self/fd").iterdir()}


def test_messages_that_come_byte_by_byte(pair: tuple[socket.socket, Frames]) -> None:
    theirs, frames = pair
    found = []
    for byte in _call("GetAll", "some") + _call("Refresh"):
        theirs.send(bytes([byte]))
        found += _all(frames)
    assert [(m.member, m.body) for m in found] == [("GetAll", ["some"]), ("Refresh", [])]


def test_what_nobody_has_to_see(pair: tuple[socket.socket, Frames]) -> None:
    theirs, frames = pair
    signal: Any = Message(
        message_type=MessageType.SIGNAL, path="/a", interface="a.b", member="C", serial=1
    )
    theirs.send(bytes(signal._marshall()))
    theirs.send(_call("GetAll", "x", MessageFlag.NO_REPLY_EXPECTED))
    theirs.send(raw_call("/a", "a.b", "C", 1, kind=77))
    theirs.send(_call("Refresh", flags=MessageFlag.NO_REPLY_EXPECTED))
    assert [m.member for m in _all(frames)] == ["Refresh"]


def test_what_is_too_large_has_no_body_and_costs_no_memory(
    pair: tuple[socket.socket, Frames],
) -> None:
    theirs, frames = pair
    theirs.settimeout(5)
    large = _call("GetAll", "A" * (32 << 20))
    found, sent = [], 0
    while sent < len(large):
        sent += theirs.send(large[sent : sent + (64 << 10)])
        found += _all(frames)
        assert len(frames._buffer) <= LARGEST
    theirs.send(_call("GetAll", "next"))
    found += _all(frames)
    assert [(m.member, m.signature, m.body) for m in found] == [
        ("GetAll", "s", []),
        ("GetAll", "s", ["next"]),
    ]


def test_a_header_that_is_too_large_is_passed_over(pair: tuple[socket.socket, Frames]) -> None:
    theirs, frames = pair
    theirs.sendall(raw_call("/" + "a" * 100_000, "a.b", "C", 1) + _call("Refresh"))
    assert [m.member for m in _all(frames)] == ["Refresh"]


def test_what_cannot_be_parsed_is_passed_over(pair: tuple[socket.socket, Frames]) -> None:
    theirs, frames = pair
    good = raw_call("/a", "a.b", "C", 1)
    for position in range(16, len(good)):
        wrong = bytearray(good)
        wrong[position] ^= 0xFF
        theirs.sendall(bytes(wrong))
        _all(frames)
    theirs.sendall(_call("Refresh"))
    assert [m.member for m in _all(frames)] == ["Refresh"]


@pytest.mark.parametrize("text", ["", "A" * (2 * LARGEST)])
def test_descriptors_of_what_is_left_out_are_closed(
    pair: tuple[socket.socket, Frames], text: str, tmp_path: Path
) -> None:
    theirs, frames = pair
    before = _open()
    with (tmp_path / "file").open("wb") as file:
        data = _call("GetAll", text, MessageFlag.NO_REPLY_EXPECTED)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()] * 3))
        theirs.sendmsg([data], [rights])
    for message in _all(frames):
        for descriptor in message.unix_fds:
            os.close(descriptor)
    assert _open() == before


class _Bus:
    """What a writer needs of a connection."""

    _negotiate_unix_fd = True
    unique_name = ":1.1"

    def __init__(self, ours: socket.socket) -> None:
        self._sock, self._fd = ours, ours.fileno()
        self._loop = asyncio.get_running_loop()
        self.ended: list[Any] = []

    def _finalize(self, error: Any) -> None:
        self.ended.append(error)


def test_a_bus_that_takes_nothing_for_a_moment_gets_all_later() -> None:
    """dbus-next's own writer takes that for the end of the connection."""

    async def work() -> tuple[int, list[Any]]:
        theirs, ours = socket.socketpair()
        with theirs, ours:
            theirs.setblocking(False)
            ours.setblocking(False)
            bus = _Bus(ours)
            writer: Any = Writer
            queue = writer(bus)
            reply = Replies().keep(_asker(), ("/", "Introspect"), "s", ["A" * 10_000])
            sent = [asyncio.get_running_loop().create_future() for _ in range(200)]
            for future in sent:
                queue.schedule_write(reply, future)
            got = 0
            while got < 200 * len(reply._marshall()) and not bus.ended:
                await asyncio.sleep(0.001)
                with suppress(BlockingIOError):
                    got += len(theirs.recv(50_000))
            assert bus.ended or all(future.done() for future in sent)
            return got // len(reply._marshall()), bus.ended

    assert asyncio.run(work()) == (200, [])


def _asker() -> Any:
    return Message(path="/", interface="a.b", member="C", sender=":1.7", serial=9)


def test_a_reply_that_was_kept_is_what_dbus_next_would_send() -> None:
    values = {"a.b": {"S": Variant("s", "x" * 3), "A": Variant("as", ["y", "zz"])}}
    objects = {"/o/1": values, "/o/22": {"a.b": {}}, "/o/333": values}
    cases: list[tuple[str, str, Any]] = [
        ("Get", "v", Variant("a(ss)", [["a", "b"]])),
        ("GetAll", "a{sv}", values["a.b"]),
        ("Introspect", "s", "\N{PILE OF POO}"),
        ("GetManagedObjects", "a{oa{sa{sv}}}", objects),
    ]
    replies = Replies()
    for member, signature, value in cases:
        expected: Any = Message.new_method_return(_asker(), signature, [value])
        asked = ("/", member)
        if member == "GetManagedObjects":
            first = replies.keep_managed(_asker(), asked, objects, lambda path: objects[path])
        else:
            first = replies.keep(_asker(), asked, signature, [value])
        second = replies.find(_asker(), asked)
        assert second is not None
        for reply in (first, second):
            reply.serial = expected.serial = 5
            assert reply._marshall() == bytes(expected._marshall())
    replies.forget("/o/1")
    assert replies.find(_asker(), ("/", "Get")) is None
