# SPDX-License-Identifier: GPL-2.0-or-later
"""``kspliced reboot-required``."""

from __future__ import annotations

import asyncio
from argparse import Namespace

from kspliced.cli import output
from kspliced.cli.uname import status
from kspliced.errors import ExitCode
from kspliced.record import encode
from kspliced.worker import clean

_CHECK = {"yes": ExitCode.DONE, "no": ExitCode.NOTHING_TO_DO, "pending": ExitCode.BUSY}


def run(arguments: Namespace) -> ExitCode:
    """Print the verdict, or with --check make it the exit code.

    :raises KsplicedError: NO_DAEMON; what the daemon reports.
    """
    answer = asyncio.run(status()).reboot_required
    if arguments.json:
        output.print_json({"reboot_required": encode(answer)})
    elif not arguments.check:
        print(answer.verdict)
        for reason in answer.reasons:
            print(f"  {clean(reason.reason)} [{reason.code}]")
    if arguments.check:
        return _CHECK.get(answer.verdict, ExitCode.FAILED)
    return ExitCode.DONE
