# SPDX-License-Identifier: GPL-2.0-or-later
"""``kspliced apply``."""

from __future__ import annotations

import asyncio
import os
from argparse import Namespace
from pathlib import Path

from kspliced.cli.follow import perform
from kspliced.cli.outcome import show_end
from kspliced.client import Action
from kspliced.errors import Code, ExitCode, PackError


def run(arguments: Namespace) -> ExitCode:
    """Have the daemon make an update live.

    :raises KsplicedError: what the daemon or the job reports; IO for an unreadable pack.
    """
    wait, quiet = not arguments.no_wait, arguments.json
    if arguments.PACK is None:
        end = asyncio.run(perform(Action.APPLY, None, wait, quiet))
    else:
        # Opened with the caller's rights; the daemon never opens a path that somebody names.
        descriptor = _open(Path(arguments.PACK))
        try:
            end = asyncio.run(perform(Action.APPLY_PACK, descriptor, wait, quiet))
        finally:
            os.close(descriptor)
    show_end(end, arguments.json)
    return ExitCode.DONE


def _open(pack: Path) -> int:
    try:
        return os.open(pack, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        text = f"cannot read {pack}: {error.strerror}"
        raise PackError(Code.IO, text, "name a readable pack") from error
