# SPDX-License-Identifier: GPL-2.0-or-later
"""A megabyte each way through TCP and SCTP, between the namespace `other` and the first one."""

import ctypes
import hashlib
import os
import socket
import sys
from pathlib import Path

SCTP = 132
DATA = os.urandom(1 << 20)
CLONE_NEWNET = 0x40000000


def serve(listener: socket.socket) -> None:
    """Send back what comes, until there is no more."""
    connection, _ = listener.accept()
    with connection:
        while data := connection.recv(1 << 16):
            connection.sendall(data)


def echo(protocol: int, port: int) -> bool:
    """Whether what comes back is what was sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol) as client:
        client.settimeout(60)
        client.connect(("10.9.0.1", port))
        found = hashlib.sha256()
        for start in range(0, len(DATA), 8192):
            piece = DATA[start : start + 8192]
            client.sendall(piece)
            left = len(piece)
            while left:
                data = client.recv(left)
                found.update(data)
                left -= len(data)
        return found.digest() == hashlib.sha256(DATA).digest()


def main() -> int:
    for protocol, port in ((socket.IPPROTO_TCP, 5001), (SCTP, 5002)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("10.9.0.1", port))
            listener.listen()
            child = os.fork()
            if not child:
                with Path("/run/netns/other").open() as space:
                    assert ctypes.CDLL(None).setns(space.fileno(), CLONE_NEWNET) == 0
                os._exit(0 if echo(protocol, port) else 1)
            serve(listener)
            if os.waitpid(child, 0)[1]:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
