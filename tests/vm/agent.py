#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's end of the harness: runs commands that arrive on a virtio-serial port.

One JSON object a line in each direction. A request has an ``id`` that its reply repeats, so that
after a power cut the host can tell a stale line from an answer. Requests are ``hello``, ``run``
(``argv``, ``stdin``, ``timeout``, ``limit``), ``put`` and ``get`` (``path``, ``data``/``offset``,
binary as base64). The agent runs in the guest from the standard library alone.
"""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, BinaryIO

PORT = Path("/dev/virtio-ports/org.kspliced.harness")
GRACE = 2.0
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Run ``argv`` in a session of its own; output goes to files, so no daemon can hold us up."""
    limit = int(request["limit"])
    with (
        tempfile.TemporaryFile(dir="/run") as source,
        tempfile.TemporaryFile(dir="/run") as out,
        tempfile.TemporaryFile(dir="/run") as err,
    ):
        source.write(base64.b64decode(request["stdin"]))
        source.seek(0)
        started = time.monotonic()
        process = subprocess.Popen(
            request["argv"],
            stdin=source,
            stdout=out,
            stderr=err,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
        timed_out = False
        try:
            process.wait(request["timeout"])
        except subprocess.TimeoutExpired:
            timed_out = True
            end(process)
        return {
            "status": process.returncode,
            "timed_out": timed_out,
            "seconds": time.monotonic() - started,
            "stdout": tail(out, limit),
            "stderr": tail(err, limit),
        }


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the command's session. One that sleeps uninterruptibly is left behind."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(GRACE)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def tail(handle: BinaryIO, limit: int) -> str:
    """The last ``limit`` bytes of a file, as base64."""
    size = os.fstat(handle.fileno()).st_size
    handle.seek(max(0, size - limit))
    return base64.b64encode(handle.read(limit)).decode()


def put(request: dict[str, Any]) -> dict[str, Any]:
    """Write a piece of a file; the piece at offset 0 creates it."""
    path = Path(request["path"])
    with path.open("wb" if request["offset"] == 0 else "ab") as handle:
        handle.write(base64.b64decode(request["data"]))
    return {}


def get(request: dict[str, Any]) -> dict[str, Any]:
    """Read a piece of a file; an empty piece is the end."""
    with Path(request["path"]).open("rb") as handle:
        handle.seek(request["offset"])
        return {"data": base64.b64encode(handle.read(request["limit"])).decode()}


class Port:
    """Whole lines over an unbuffered character device, which cannot seek."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._rest = b""

    def readline(self) -> bytes:
        """The next line without its end; empty where the host is not connected."""
        while b"\n" not in self._rest:
            data = self._raw.read(1 << 16)
            if not data:
                return b""
            self._rest += bytes(data)
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def write(self, data: bytes) -> None:
        """Write all of ``data``."""
        view = memoryview(data)
        while view:
            view = view[self._raw.write(view) or 0 :]


VERBS = {"hello": lambda _: {}, "run": run, "put": put, "get": get}


def serve(port: Port) -> None:
    """Answer requests for ever. Lines that are no request are dropped: the host asks again."""
    while True:
        line = port.readline()
        if not line:
            time.sleep(0.2)  # the host is not connected yet
            continue
        try:
            request = json.loads(line)
            verb = VERBS[request["verb"]]
        except (ValueError, KeyError, TypeError):
            continue
        try:
            reply = verb(request)
        except OSError as error:
            reply = {"error": str(error)}
        reply["id"] = request["id"]
        port.write(json.dumps(reply).encode() + b"\n")


def main() -> int:
    """Open the port and serve."""
    with PORT.open("r+b", buffering=0) as raw:
        serve(Port(raw))
    return 0


if __name__ == "__main__":
    sys.exit(main())
