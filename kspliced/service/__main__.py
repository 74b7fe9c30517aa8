# SPDX-License-Identifier: GPL-2.0-or-later
"""``python3 -m kspliced.service``: the daemon, as kspliced.service runs it."""

from __future__ import annotations

import asyncio
import os
import sys

from kspliced.errors import KsplicedError
from kspliced.service.daemon import Setup, serve

# "keep" leaves /run/reboot-required to others (kspliced(8), "REBOOT REQUIRED").
_KEEP_REBOOT = "KSPLICED_REBOOT_REQUIRED"


def main() -> int:
    """Run the daemon; its exit status."""
    try:
        keep = os.environ.get(_KEEP_REBOOT) == "keep"
        asyncio.run(serve(Setup(follow_reboot=not keep)))
    except KsplicedError as error:
        print(f"kspliced: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
