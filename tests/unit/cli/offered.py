# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line in a process of its own, with little memory and time, and what it is offered."""

from __future__ import annotations

import multiprocessing
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

# What a child has at hand need not be loaded by each. It is a child of a process that has nothing
# else: what the tests' runner has in memory by then is none of a command's.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])
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
    """Carry out a command line in a process of its own, whose output goes to ``folder``.

    :param user: as whom, if not as the one who runs the tests.
    :param largest: how many bytes a file may get.
    """
    out, err = folder.parent / "stdout", folder.parent / "stderr"
    child = _PROCESSES.Process(target=_carry_out, args=(words, (out, err), user, largest))
    child.start()
    child.join()
    assert child.exitcode is not None
    texts = [path.read_text("utf-8", "replace") for path in (out, err)]
    for path in (out, err):
        path.unlink()
    return Ended(child.exitcode, *texts)


def _carry_out(
    words: list[str], files: tuple[Path, Path], user: int | None, largest: int | None
) -> None:
    code = 99
    try:
        signal.alarm(SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        for number, path in enumerate(files, start=1):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
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
