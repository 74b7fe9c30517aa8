# SPDX-License-Identifier: GPL-2.0-or-later
"""Evidence for root: addresses, bytes and stacks of the running kernel, which errors do not show.

Each update, and each job without one, has one file in /var/lib/kspliced/evidence, of mode 0600:
that of its last failure. It goes with its update; number and size of the files are bounded.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from kspliced.engine.files import write_durably
from kspliced.engine.paths import Paths
from kspliced.errors import KsplicedError

MAX_FILES = 16
MAX_BYTES = 256 << 10
_SUFFIX = ".txt"


def keep(paths: Paths, error: KsplicedError, name: str) -> None:
    """Write the evidence of ``error`` to the file of ``name``, an update or a job, and name it in
    the error's details. A second call does nothing. Never fails: a disk may be the very cause.
    """
    if not error.evidence:
        return
    file = paths.evidence / f"{name}{_SUFFIX}"
    text = "\n".join((f"{error.code.value}: {error.message}", *error.evidence, ""))
    content = text.encode("utf-8", "backslashreplace")
    if len(content) > MAX_BYTES:
        content = content[:MAX_BYTES] + b"\n(more was left out)\n"
    error.evidence = ()
    try:
        paths.evidence.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_durably(file, content, 0o600)
        _bound(paths.evidence)
    except OSError:
        return
    error.details = (*error.details, f"addresses, bytes and stacks, for root: {file}")


def forget(paths: Paths, kept: Collection[str]) -> None:
    """Remove the evidence of updates that are not among ``kept``. OSError passes to the caller."""
    if paths.evidence.is_dir():
        for file in paths.evidence.glob(f"ks_*{_SUFFIX}"):
            if file.stem not in kept:
                file.unlink(missing_ok=True)


def _bound(directory: Path) -> None:
    """Remove the oldest files above the number."""
    found = []
    for file in directory.iterdir():
        with suppress(FileNotFoundError):
            found.append((file.stat().st_mtime_ns, file))
    for _, file in sorted(found)[:-MAX_FILES]:
        file.unlink(missing_ok=True)
