# SPDX-License-Identifier: GPL-2.0-or-later
"""Running the machine's own tools, bounded in time and cancellable."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from kspliced.engine.edges import Cancel
from kspliced.errors import Code, KsplicedError
from kspliced.lines import split_lines
from kspliced.worker import clean

_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Finished:
    """A tool's end: ``errors`` is its stderr, line by line, made safe to show."""

    status: int
    output: str
    errors: tuple[str, ...]


def run(argv: tuple[str, ...], cancel: Cancel, seconds: float, directory: Path | None) -> Finished:
    """Run a tool to its end, in the C locale, without a terminal to ask on.

    :raises KsplicedError: TOOL_MISSING, CANCELLED, FAILED when it takes over ``seconds``.
    """
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        process = subprocess.Popen(
            argv,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise KsplicedError(
            Code.TOOL_MISSING, f"{argv[0]} is not there", f"install {argv[0]}"
        ) from error
    deadline = time.monotonic() + seconds
    with process:
        while True:
            try:
                output, errors = process.communicate(timeout=_POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                late = time.monotonic() > deadline
                if not cancel.wanted and not late:
                    continue
            process.terminate()
            process.communicate()
            cancel.check()
            raise KsplicedError(Code.FAILED, f"{argv[0]} did not end within {seconds:.0f} s")
    lines = (clean(line).strip() for line in split_lines(errors.decode("utf-8", "replace")))
    return Finished(
        process.returncode, output.decode("utf-8", "replace"), tuple(line for line in lines if line)
    )
