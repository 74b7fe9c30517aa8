# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether work waits in the queue: names only, the worker reads the files (engine/queue.py)."""

from __future__ import annotations

from kspliced.engine.paths import Paths


def waiting(paths: Paths) -> frozenset[str]:
    """Names of the request files; writers use a leading dot until a file is whole."""
    try:
        names = [file.name for file in paths.queue.iterdir()]
    except OSError:
        return frozenset()
    return frozenset(name for name in names if name.endswith(".json") and name[0] != ".")


def deferred(paths: Paths) -> bool:
    """Whether requests were kept for later, which a fetch brings back."""
    try:
        return any((paths.queue / "later").iterdir())
    except OSError:
        return False
