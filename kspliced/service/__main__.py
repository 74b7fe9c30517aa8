# SPDX-License-Identifier: GPL-2.0-or-later
"""``python3 -m kspliced.service``: the daemon, as kspliced.service runs it."""

from __future__ import annotations

import asyncio
import sys

from kspliced.errors import KsplicedError
from kspliced.service.daemon import Setup, serve


def main() -> int:
    """Run the daemon; its exit status."""
    try:
        asyncio.run(serve(Setup()))
    except KsplicedError as error:
        print(f"kspliced: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
