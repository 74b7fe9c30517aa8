# SPDX-License-Identifier: GPL-2.0-or-later
"""``kspliced undo``."""

from __future__ import annotations

import asyncio
from argparse import Namespace

from kspliced.cli.follow import perform
from kspliced.cli.outcome import show_end
from kspliced.client import Action
from kspliced.errors import ExitCode


def run(arguments: Namespace) -> ExitCode:
    """Have the daemon restore the kernel's own code.

    :raises KsplicedError: what the daemon or the job reports.
    """
    end = asyncio.run(perform(Action.UNDO, None, not arguments.no_wait, arguments.json))
    show_end(end, arguments.json)
    return ExitCode.DONE
