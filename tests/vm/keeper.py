# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a command that must not outlive who started it: it is killed at the end of our stdin.

A pipe tells of the death of its writer, however that came about.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys


def main(command: list[str]) -> int:
    """Run ``command`` until it ends or stdin does; its exit code."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    with selectors.DefaultSelector() as selector:
        selector.register(os.pidfd_open(process.pid), selectors.EVENT_READ)
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        selector.select()
    if process.poll() is None:
        process.kill()
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
