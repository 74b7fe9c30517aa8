# SPDX-License-Identifier: GPL-2.0-or-later
"""``python3 -m kspliced.engine.announce [--root DIR]``: the last line of apt's and dnf's hooks.

Told from what is so at that moment, not from what a daemon once knew. At most one line; none where
there is no kernel that we look after. The hooks give it 0.3 s.
"""

from __future__ import annotations

import sys
from pathlib import Path

from kspliced.engine.kernels import installed_kernels, running_kernel
from kspliced.engine.paths import Paths
from kspliced.engine.preconditions import evaluate, first_failed
from kspliced.engine.versions import compare_versions
from kspliced.engine.view import View
from kspliced.errors import KsplicedError


def announcement(paths: Paths) -> str:
    """The line about the kernel that came.

    :raises KsplicedError: FOREIGN_KERNEL, KERNEL_UNREADABLE: there is nothing to be said.
    """
    running = running_kernel(paths)
    installed = installed_kernels(paths, running)
    newest = installed.newest
    if compare_versions(newest.version, running.version, running) <= 0:
        packages = ", ".join(installed.ignored)
        return f"{packages} is not the distribution's, and is left alone" if packages else ""
    lacking = first_failed(evaluate(View(paths)))
    if lacking is not None:
        words = f"linux {newest.version} will not go live by itself: {lacking.words}"
        return f"{words}; see kspliced doctor"
    return f"making linux {newest.version} live in the background; see kspliced status"


def main(arguments: list[str]) -> int:
    """Print the line; the exit status."""
    root = Path(arguments[1]) if arguments[:1] == ["--root"] and len(arguments) > 1 else Path("/")
    try:
        line = announcement(Paths(root))
    except KsplicedError:
        line = ""
    if line:
        print(f"kspliced: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
