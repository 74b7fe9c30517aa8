# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that survive power cuts, and files that cannot be trusted."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_regular(file: Path, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; links are not followed.

    :raises OSError: also for a file that is something else (EINVAL) or larger (EFBIG).
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(file))
        content = opened.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"over {limit} bytes", str(file))
    return content


def set_aside(directory: Path, file: Path) -> Path:
    """Move a file that cannot be believed into ``directory``; returns its new name.

    :raises OSError: to the caller.
    """
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / file.name
    for number in range(1, 1000):
        if not os.path.lexists(target):
            break
        target = directory / f"{file.name}.{number}"
    file.rename(target)
    sync_directory(directory)
    sync_directory(file.parent)
    return target


def write_durably(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Replace ``path`` atomically and durably: readers and power cuts see the old or the new file,
    which has exactly the permissions ``mode``, whoever may have left a temporary one.

    OSError passes to the caller, and the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        try:
            os.fchmod(descriptor, mode)
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def make_private(file: Path) -> None:
    """Take the rights of others from a file that an older version wrote, if it is there.

    OSError passes to the caller.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o077:
            os.fchmod(descriptor, mode & 0o700)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make renames and removals in a directory durable. OSError passes to the caller."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
