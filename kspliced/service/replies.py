# SPDX-License-Identifier: GPL-2.0-or-later
"""Replies to reads, marshalled once: what anybody may ask for, as often as he likes, costs little.

dbus-next marshals each message value by value, which takes a hundred times as long as to send it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

from dbus_next._private.marshaller import Marshaller
from dbus_next.constants import MessageType

# Of all replies that are kept; the state that they tell of has bounds of its own.
_MOST_BYTES = 8 << 20
# It has no types.
_MARSHALLER: Any = Marshaller


class Reply:
    """A method return whose body is marshalled already; dbus-next's connection sends it."""

    def __init__(self, call: Any, signature: str, body: bytes) -> None:
        self.serial = 0
        self.unix_fds: list[int] = []
        self._call, self._signature, self._body = call, signature, body
        self.size = len(body)

    def _marshall(self, negotiate_unix_fd: bool = False) -> bytes:
        """The bytes of the message (D-Bus specification, "Message Format")."""
        fields = bytearray(struct.pack("<BB2sI", 5, 1, b"u\0", self._call.serial))
        if self._call.sender:
            sender = self._call.sender.encode("ascii")
            fields += struct.pack("<BB2sI", 6, 1, b"s\0", len(sender)) + sender + b"\0"
        if self._signature:
            signature = self._signature.encode("ascii")
            fields += bytes(-len(fields) % 8)
            fields += struct.pack("<BB2sB", 8, 1, b"g\0", len(signature)) + signature + b"\0"
        kind = MessageType.METHOD_RETURN.value
        head = struct.pack(
            "<BBBBIII", ord("l"), kind, 0, 1, len(self._body), self.serial, len(fields)
        )
        return head + bytes(fields) + bytes(-len(fields) % 8) + self._body


class Replies:
    """The bodies of replies, by what was asked (path, method, arguments), until something changes.

    An object's part of the answer to GetManagedObjects is kept by itself: most never change.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, ...], tuple[str, bytes]] = {}
        self._parts: dict[str, bytes] = {}
        self._bytes = 0

    def find(self, call: Any, asked: tuple[str, ...]) -> Reply | None:
        """The reply to ``call`` if what it asks is known."""
        found = self._kept.get(asked)
        return Reply(call, *found) if found else None

    def keep(self, call: Any, asked: tuple[str, ...], signature: str, body: list[Any]) -> Reply:
        """The reply to ``call``; the next one who asks the same gets it, too."""
        return self._keep(call, asked, signature, _marshalled(signature, body))

    def keep_managed(
        self, call: Any, asked: tuple[str, ...], paths: Iterable[str], part: Callable[[str], Any]
    ) -> Reply:
        """keep() for GetManagedObjects; ``part`` gives the interfaces of the object at a path."""
        content = bytearray()
        for path in paths:
            if path not in self._parts:
                self._parts[path] = _marshalled("oa{sa{sv}}", [path, part(path)])
            # A dict entry begins at a multiple of eight, as it did when it was marshalled.
            content += bytes(-len(content) % 8) + self._parts[path]
        whole = struct.pack("<Ixxxx", len(content)) + bytes(content)
        return self._keep(call, asked, "a{oa{sa{sv}}}", whole)

    def _keep(self, call: Any, asked: tuple[str, ...], signature: str, content: bytes) -> Reply:
        if self._bytes + len(content) > _MOST_BYTES:
            self._clear()
        self._kept[asked] = (signature, content)
        self._bytes += len(content)
        return Reply(call, signature, content)

    def forget(self, path: str) -> None:
        """The object at ``path`` has come, gone or changed."""
        self._parts.pop(path, None)
        self._clear()

    def _clear(self) -> None:
        self._kept.clear()
        self._bytes = 0


def _marshalled(signature: str, body: list[Any]) -> bytes:
    marshaller = _MARSHALLER(signature, body)
    marshaller.marshall()
    return bytes(marshaller.buffer)
