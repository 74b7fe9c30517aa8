# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that a person names: only regular ones are read, a bounded part of them, and one is written
as a whole or not at all.

All functions raise OSError, with words for a person in ``strerror``.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path
from typing import IO

_NO_FILE = "it is not a regular file"


def open_named(path: Path) -> IO[bytes]:
    """The file at ``path``, to be read. Opening a FIFO does not wait, and is an error."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _check(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def read_named(path: Path, limit: int) -> bytes:
    """The content of the file at ``path``, which has to have at most ``limit`` bytes."""
    with open_named(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it has over {limit >> 20} MiB", str(path))
    return content


def check_output(path: Path) -> None:
    """Try whether a file can be written to ``path``, which is left as it is."""
    try:
        _check(path.stat().st_mode, path)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    except FileNotFoundError:
        pass  # also where a link leads nowhere yet
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = _beside(path)
    temporary.open("xb").close()
    temporary.unlink()


def write_named(path: Path, content: bytes) -> None:
    """Write a file to ``path``, or to where a link there leads; what was there before stays until
    the new content is on the disk."""
    check_output(path)
    temporary = _beside(path)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(os.path.realpath(path))
    finally:
        temporary.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return Path(os.path.realpath(path)).with_name(f".kspliced.{secrets.token_hex(8)}")


def _check(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, _NO_FILE, str(path))
