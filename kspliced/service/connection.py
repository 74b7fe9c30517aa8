# SPDX-License-Identifier: GPL-2.0-or-later
"""dbus-next's connection, bounded: whatever arrives, each turn of the loop ends soon.

Anybody may send to the daemon. dbus-next reads for as long as there is something to read, parses
messages of any size, and drops the connection over one that it does not like, or when the bus is
busy for a moment and takes nothing.
"""

from __future__ import annotations

import array
import io
import os
import socket
import struct
import time
from typing import Any

from dbus_next._private.unmarshaller import MAX_UNIX_FDS, Unmarshaller
from dbus_next.aio.message_bus import MessageBus, _MessageWriter
from dbus_next.constants import BusType, MessageFlag, MessageType

# Nothing that we take is larger: calls name a property, polkit's and the bus's answers are short.
LARGEST = 16 << 10
_PIECE = 64 << 10
# Of one turn: what comes first. The rest waits in the socket, whose sender waits, too.
_TURN_MESSAGES = 64
_TURN_SECONDS = 0.01
_HEAD = 16
# It has no types.
_UNMARSHALLER: Any = Unmarshaller
_OURS = (b"org.kspliced1.Manager\0", b"org.kspliced1.Job\0")


class Frames:
    """Cuts what comes from the bus into messages, and leaves out what nobody has to see."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()
        self._descriptors: list[int] = []
        self._skip = 0

    def next(self) -> tuple[bool, Any]:
        """Whether a message was read to its end, and the message unless it is left out; one that
        is over LARGEST has no body.

        :raises EOFError: the bus has gone. OSError passes to the caller.
        """
        if self._skip:
            return self._skipped(), None
        if not self._fill(_HEAD):
            return False, None
        little = self._buffer[0] == ord("l")
        body, _, fields = struct.unpack_from("<III" if little else ">III", self._buffer, 4)
        head = _HEAD + fields + -fields % 8
        if head + body <= LARGEST:
            return self._whole(head + body)
        if head > LARGEST:
            return self._begin_skip(head + body - len(self._buffer), None)
        if not self._fill(head):
            return False, None
        # Its sender is told: the header says who that is.
        self._buffer[4:8] = bytes(4)
        message = self._parsed()
        return self._begin_skip(body, message)

    def close(self) -> None:
        """Close the descriptors of a message that did not come whole."""
        self._drop()

    def _whole(self, size: int) -> tuple[bool, Any]:
        if not self._fill(size):
            return False, None
        if self._unwanted():
            self._drop()
            return True, None
        return True, self._parsed()

    def _begin_skip(self, size: int, message: Any) -> tuple[bool, Any]:
        self._drop()
        self._skip = size
        return True, message

    def _unwanted(self) -> bool:
        """Signals, of which we ask for none; reads whose sender wants no answer, and any message of
        a kind that is not known."""
        kind, flags = self._buffer[1], self._buffer[2]
        if kind == MessageType.METHOD_CALL.value:
            one_way = flags & MessageFlag.NO_REPLY_EXPECTED.value
            return bool(one_way) and not any(name in self._buffer for name in _OURS)
        return kind not in (MessageType.METHOD_RETURN.value, MessageType.ERROR.value)

    def _parsed(self) -> Any:
        parser = _UNMARSHALLER(io.BytesIO(self._buffer))
        parser.unix_fds = self._descriptors
        try:
            message = parser.unmarshall()
        except Exception:  # noqa: BLE001 (whatever dbus-next does not like: it is dropped)
            self._drop()
            return None
        self._buffer, self._descriptors = bytearray(), []
        return message

    def _fill(self, size: int) -> bool:
        while len(self._buffer) < size:
            data = self._receive(min(_PIECE, size - len(self._buffer)))
            if data is None:
                return False
            self._buffer += data
        return True

    def _skipped(self) -> bool:
        data = self._receive(min(_PIECE, self._skip))
        if data is None:
            return False
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        self._skip -= len(data)
        return True

    def _receive(self, size: int) -> bytes | None:
        room = socket.CMSG_LEN(MAX_UNIX_FDS * array.array("i").itemsize)
        try:
            data, ancillary, *_ = self._socket.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                self._descriptors.extend(numbers)
        if not data:
            raise EOFError
        return data

    def _drop(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._buffer, self._descriptors = bytearray(), []


class Writer(_MessageWriter):
    """Writes what is queued, for as long as the bus takes it. The daemon sends no descriptors."""

    def write_callback(self) -> None:
        """Write; dbus-next has the loop call it while anything is queued."""
        try:
            for _ in range(_TURN_MESSAGES):
                if self.buf is None:
                    if self.messages.empty():
                        self.loop.remove_writer(self.fd)
                        return
                    content, _, self.fut = self.messages.get_nowait()
                    self.buf, self.offset = memoryview(content), 0
                self.offset += self.sock.send(self.buf[self.offset :])
                if self.offset < len(self.buf):
                    return
                self.buf = None
                if self.fut is not None and not self.fut.done():
                    self.fut.set_result(None)
        except BlockingIOError:
            return
        except OSError as error:
            if self.fut is not None and not self.fut.done():
                self.fut.set_exception(error)
            self.bus._finalize(error)


class BoundedBus(MessageBus):
    """A connection to the system bus."""

    def __init__(self) -> None:
        super().__init__(bus_type=BusType.SYSTEM, negotiate_unix_fd=True)
        writer: Any = Writer
        self._writer = writer(self)
        self._frames = Frames(self._sock)

    def _message_reader(self) -> None:
        bus: Any = self
        end = time.monotonic() + _TURN_SECONDS
        try:
            for _ in range(_TURN_MESSAGES):
                read, message = self._frames.next()
                if message is not None:
                    bus._on_message(message)
                if not read or time.monotonic() > end:
                    return
        except (OSError, EOFError) as error:
            self._frames.close()
            bus._finalize(error)
