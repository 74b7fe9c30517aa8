# SPDX-License-Identifier: GPL-2.0-or-later
"""``kspliced uname``."""

from __future__ import annotations

import asyncio
from argparse import Namespace

from kspliced.cli import output
from kspliced.client import StatusReport, connected
from kspliced.errors import ExitCode


async def status() -> StatusReport:
    """The daemon's status.

    :raises KsplicedError: NO_DAEMON; what the daemon reports.
    """
    async with connected() as client:
        return await client.status()


def run(arguments: Namespace) -> ExitCode:
    """Print the effective version.

    :raises KsplicedError: NO_DAEMON; what the daemon reports.
    """
    found = asyncio.run(status())
    if arguments.json:
        keys = {"effective": found.effective, "running": found.running, "release": found.release}
        output.print_json(keys)
    elif arguments.all:
        print(f"{found.release} {found.effective} (booted {found.running})")
    else:
        print(found.effective)
    return ExitCode.DONE
