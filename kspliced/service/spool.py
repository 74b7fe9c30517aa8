# SPDX-License-Identifier: GPL-2.0-or-later
"""A caller's pack, copied from its descriptor to where only root can change it."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from kspliced.errors import BusError, Code

MAX_BYTES = 256 << 20
_PIECE = 1 << 20
_PREFIX = "pack-"
_SUFFIX = ".kspack"


def clear_spool(directory: Path) -> None:
    """Remove what a daemon that died left. OSError passes to the caller."""
    for file in directory.glob(f"{_PREFIX}*{_SUFFIX}"):
        file.unlink()


async def spooled(descriptor: int, directory: Path) -> Path:
    """A copy of the regular file behind ``descriptor``, in ``directory``, from its beginning.

    It is copied on a thread: the caller's file system may be slow. OSError passes to the caller.

    :raises BusError: PACK_MALFORMED over 256 MiB, or when the descriptor is not for reading.
    """
    # The thread has its own, which stays open however long it takes.
    own = os.dup(descriptor)
    return await asyncio.to_thread(_copy, own, directory)


def _copy(source: int, directory: Path) -> Path:
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        target, name = tempfile.mkstemp(prefix=_PREFIX, suffix=_SUFFIX, dir=directory)
        file = Path(name)
        try:
            with os.fdopen(target, "wb") as output:
                offset = 0
                while piece := os.pread(source, _PIECE, offset):
                    offset += len(piece)
                    if offset > MAX_BYTES:
                        text = f"the pack is over {MAX_BYTES} bytes"
                        raise BusError(Code.PACK_MALFORMED, text, "name a pack")
                    output.write(piece)
        except (OSError, BusError):
            file.unlink(missing_ok=True)
            raise
        return file
    finally:
        os.close(source)
