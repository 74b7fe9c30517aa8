# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line in a process of its own, with little memory and time, and what it is offered."""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from kspliced.cli import build, match, plan, report, show
from kspliced.cli.main import main
from kspliced.cli.output import open_output

# What a child has at hand need not be loaded by each.
VERBS = (build, match, plan, report, show)
SECONDS = 20
MEMORY = 1 << 30
NOBODY = 65534


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, -N if signal N ended it."""

    code: int
    out: str
    err: str


def run(
    words: list[str], folder: Path, user: int | None = None, largest: int | None = None
) -> Ended:
    """Carry out a command line in a child of this process, whose output goes to ``folder``.

    :param user: as whom, if not as the one who runs the tests.
    :param largest: how many bytes a file may get.
    """
    out, err = folder.parent / "stdout", folder.parent / "stderr"
    files = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC) for path in (out, err)]
    child = os.fork()
    if not child:
        _carry_out(words, files, user, largest)
    _, status = os.waitpid(child, 0)
    for file in files:
        os.close(file)
    code = os.waitstatus_to_exitcode(status)
    texts = [path.read_text("utf-8", "replace") for path in (out, err)]
    for path in (out, err):
        path.unlink()
    return Ended(code, *texts)


def _carry_out(words: list[str], files: list[int], user: int | None, largest: int | None) -> None:
    code = 99
    try:
        signal.alarm(SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        for number, file in enumerate(files, start=1):
            os.dup2(file, number)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        open_output()
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        code = main(words)
    except SystemExit as ended:
        code = int(ended.code or 0)
    except Exception:  # noqa: BLE001 - what a test looks for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
