# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon below another root: ``daemon.py ROOT WORKER…``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from kspliced.engine.paths import Paths
from kspliced.errors import KsplicedError
from kspliced.service.daemon import Setup, serve

if __name__ == "__main__":
    try:
        asyncio.run(serve(Setup(Paths(Path(sys.argv[1])), tuple(sys.argv[2:]))))
    except KsplicedError as error:
        sys.exit(f"kspliced: {error}")
