# SPDX-License-Identifier: GPL-2.0-or-later
"""In the guest: stops the engine's worker before the durable step whose number a file names.

Python imports this at its start, by a .pth file. The worker then waits, stopped, for the power to
be cut; the number is in /run, so the next boot goes on undisturbed. All steps are written down;
with the number 0 none is stopped before.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

NUMBER = Path("/run/torture-cut")
REACHED = Path("/run/torture-reached")
STEPS_TAKEN = Path("/run/torture-steps")
# What makes a change of a file or a directory durable, or visible to the next boot.
STEPS = ("fsync", "rename", "replace", "unlink")


def _name(argument: object) -> str:
    if isinstance(argument, int):
        return str(Path(f"/proc/self/fd/{argument}").readlink())
    return os.fsdecode(argument) if isinstance(argument, bytes | str | os.PathLike) else "?"


def _watch(cut: int) -> None:
    count = 0

    def watched(step: str, original: Any) -> Any:
        def call(*arguments: Any, **words: Any) -> Any:
            nonlocal count
            count += 1
            line = f"{step} {_name(arguments[0])}\n"
            with STEPS_TAKEN.open("a") as taken:
                taken.write(line)
            if count == cut:
                REACHED.write_text(line)
                os.kill(os.getpid(), signal.SIGSTOP)
            return original(*arguments, **words)

        return call

    for step in STEPS:
        setattr(os, step, watched(step, getattr(os, step)))


if sys.orig_argv[-2:] == ["kspliced.engine", "upgrade"] and NUMBER.exists():
    _watch(int(NUMBER.read_text()))
