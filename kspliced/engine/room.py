# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether there is room on a disk. Cheap to import: the daemon and the hooks do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kspliced.engine.view import there
from kspliced.errors import Code, KsplicedError

# A packed source of 6.1 takes 800 MB in the cache, the temporary trees 300 MB.
BUILD_BYTES = 3 << 29
# 48 000 files of the source that may be laid out, 10 000 directories, the objects of 300 units.
BUILD_FILES = 80_000


@dataclass(frozen=True)
class Lack:
    """How much room something needs and how much there is, in words, and what helps."""

    words: str
    remedy: str


def lacking(directory: Path, needed: int, purpose: str, files: int = 0) -> Lack | None:
    """What is missing of ``needed`` bytes, and inodes for ``files``, where ``directory`` is or
    will be; None where there is room for ``purpose``. OSError passes to the caller."""
    status = os.statvfs(next(path for path in (directory, *directory.parents) if there(path)))
    free = status.f_bavail * status.f_frsize
    if free < needed:
        return Lack(
            f"{purpose} needs {needed >> 20} MiB in {directory}, where {free >> 20} MiB are free",
            f"free {(needed - free + (1 << 20) - 1) >> 20} MiB there",
        )
    # A file system that makes inodes as it needs them (btrfs) counts none.
    if status.f_files and status.f_favail < files:
        return Lack(
            f"{purpose} needs {files} inodes in {directory}, where {status.f_favail} are free",
            f"remove {files - status.f_favail} files there",
        )
    return None


def require_space(directory: Path, needed: int, purpose: str, files: int = 0) -> None:
    """Refuse to start what would fill the disk; as lacking(). OSError passes to the caller.

    :raises KsplicedError: NO_SPACE, naming how much is needed and how much is free, and where.
    """
    lack = lacking(directory, needed, purpose, files)
    if lack is not None:
        raise KsplicedError(Code.NO_SPACE, lack.words, lack.remedy)


def packed_bytes(cache: Path) -> int:
    """What a build's cache (engine/builder_cache.py) has of the room that the next one of the same
    inputs needs. OSError passes to the caller."""
    return sum(file.lstat().st_blocks * 512 for file in cache.glob("sources/*/content"))
