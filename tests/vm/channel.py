# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON lines over QEMU's Unix sockets: QMP, and the agent's virtio-serial port."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

from tests.vm.errors import GuestLost


class Lines:
    """One JSON object a line, both ways, each receive bounded by a deadline."""

    def __init__(self, path: Path, timeout: float) -> None:
        """Connect; QEMU makes its sockets a moment after it starts, so keep trying."""
        deadline = time.monotonic() + timeout
        while True:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                self._socket.connect(str(path))
                break
            except OSError as error:
                self._socket.close()
                if time.monotonic() > deadline:
                    raise GuestLost(f"QEMU's socket {path} cannot be reached: {error}") from error
                time.sleep(0.05)
        self._rest = bytearray()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def send(self, message: dict[str, Any], timeout: float = 30.0) -> None:
        """Send one message. GuestLost where the other end takes nothing any more."""
        self._socket.settimeout(timeout)
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise GuestLost(f"the guest takes no more input: {error}") from error

    def receive(self, deadline: float) -> dict[str, Any] | None:
        """The next message, or None at the deadline (of time.monotonic). Garbage is skipped."""
        while True:
            line, found, rest = self._rest.partition(b"\n")
            if found:
                self._rest = bytearray(rest)
                message = _parse(bytes(line))
                if message is not None:
                    return message
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                return None
            except OSError as error:
                raise GuestLost(f"QEMU closed its socket: {error}") from error
            if not data:
                raise GuestLost("QEMU has gone")
            self._rest += data


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


class Qmp:
    """The QEMU machine protocol: commands, and waiting for an event."""

    def __init__(self, path: Path) -> None:
        self._lines = Lines(path, 20.0)
        self._events: list[str] = []
        self.execute("qmp_capabilities")

    def execute(self, name: str, **arguments: Any) -> Any:
        """Run a command and return what it returns; GuestLost where QEMU refuses or is gone."""
        self._lines.send({"execute": name, "arguments": arguments})
        deadline = time.monotonic() + 30.0
        while (message := self._lines.receive(deadline)) is not None:
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise GuestLost(f"QEMU refuses {name}: {message['error']}")
            if "event" in message:
                self._events.append(message["event"])
        raise GuestLost(f"QEMU does not answer {name}")

    def wait_event(self, name: str, timeout: float) -> bool:
        """Whether the event came (or had come since the last wait) within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while name not in self._events:
            message = self._lines.receive(deadline)
            if message is None:
                return False
            if "event" in message:
                self._events.append(message["event"])
        self._events.clear()
        return True

    def close(self) -> None:
        """Close the connection; QEMU runs on."""
        self._lines.close()
