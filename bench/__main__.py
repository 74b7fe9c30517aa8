# SPDX-License-Identifier: GPL-2.0-or-later
"""All benchmarks, one after the other: ``make bench``."""

from __future__ import annotations

import subprocess
import sys

MODULES = ("bench.build", "bench.guest", "bench.livepatch")


def main() -> int:
    """Run each as a process of its own, so that none sees another's memory; 1 if one failed."""
    failed = [name for name in MODULES if subprocess.run([sys.executable, "-m", name]).returncode]
    for name in failed:
        print(f"{name} failed or missed a limit", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
