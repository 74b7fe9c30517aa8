# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon below another root, less patient: ``daemon.py ROOT RETRY_SECONDS WORKER…``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from kspliced.engine.paths import Paths
from kspliced.errors import KsplicedError
from kspliced.service.daemon import Setup, serve
from kspliced.service.intake import Patience

if __name__ == "__main__":
    try:
        patience = Patience(refresh=1.0, first=float(sys.argv[2]), longest=3600.0)
        asyncio.run(serve(Setup(Paths(Path(sys.argv[1])), tuple(sys.argv[3:]), patience)))
    except KsplicedError as error:
        sys.exit(f"kspliced: {error}")
