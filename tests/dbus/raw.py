# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections and messages as bytes, which no library would send."""

from __future__ import annotations

import os
import socket
import struct

from kspliced.client import NAME


def raw_connection(address: str) -> socket.socket:
    """A connection to the bus that has said hello."""
    options = dict(item.split("=", 1) for item in address.split(":", 1)[1].split(","))
    name = "\0" + options["abstract"] if "abstract" in options else options["path"]
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(5)
    connection.connect(name)
    uid = str(os.geteuid()).encode("ascii").hex().encode("ascii")
    connection.sendall(b"\0AUTH EXTERNAL " + uid + b"\r\n")
    assert connection.recv(200).startswith(b"OK ")
    bus = "org.freedesktop.DBus"
    hello = raw_call("/org/freedesktop/DBus", bus, "Hello", 1, destination=bus)
    connection.sendall(b"BEGIN\r\n" + hello)
    assert connection.recv(65536)
    return connection


def raw_call(
    path: str,
    interface: str,
    member: str,
    serial: int,
    kind: int = 1,
    destination: str = NAME,
    flags: int = 0,
    more: tuple[tuple[int, bytes, str], ...] = (),
) -> bytes:
    """A message as bytes (D-Bus specification, "Message Format"); ``more`` header fields."""
    header = bytearray()
    for code, signature, value in (
        (1, b"o", path),
        (2, b"s", interface),
        (3, b"s", member),
        (6, b"s", destination),
        *more,
    ):
        header += bytes(-len(header) % 8)
        header += bytes((code, 1)) + signature + b"\0"
        text = value.encode("utf-8")
        header += struct.pack("<I", len(text)) + text + b"\0"
    start = struct.pack("<BBBBIII", ord("l"), kind, flags, 1, 0, serial, len(header))
    return start + bytes(header) + bytes(-len(header) % 8)
