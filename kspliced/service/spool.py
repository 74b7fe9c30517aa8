# SPDX-License-Identifier: GPL-2.0-or-later
"""A caller's pack, copied from its descriptor to where only root can change it."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from kspliced import limits
from kspliced.errors import BusError, Code, KsplicedError
from kspliced.pack import Identity, identify

_PIECE = 1 << 20
_PREFIX = "pack-"
_SUFFIX = ".kspack"
_MESSAGE = (
    "Authentication is required to run the code of an update pack in the kernel: "
    "version $(version), digest $(digest)"
)
T = TypeVar("T")


def clear_spool(directory: Path) -> None:
    """Remove what a daemon that died left. OSError passes to the caller."""
    for file in directory.glob(f"{_PREFIX}*{_SUFFIX}"):
        file.unlink()


class Offer:
    """A pack that a caller has opened. It is the caller's, who can change it at any time: what is
    copied must be what was asked about. ``descriptor`` stays open until take() has returned."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._asked: Identity | None = None

    async def describe(self) -> dict[str, str]:
        """What polkit is told of it. OSError passes to the caller.

        :raises PackError: PACK_MALFORMED.
        """
        # Nothing is copied before it is allowed: anybody could fill the memory with that.
        own = os.dup(self._descriptor)
        self._asked = await _on_a_thread(lambda: _identify(own))
        return {
            "digest": self._asked.digest,
            "version": self._asked.to_version,
            "polkit.message": _MESSAGE,
        }

    async def take(self, directory: Path) -> Path:
        """A copy of the regular file in ``directory``. OSError passes to the caller.

        :raises KsplicedError: PACK_MALFORMED over limits.PACK_BYTES, or when it is not what
            describe() told.
        """
        own = os.dup(self._descriptor)
        return await _on_a_thread(lambda: _copy(own, directory, self._asked))


async def _on_a_thread(work: Callable[[], T]) -> T:
    """The caller's file system may be slow, or never answer: nothing waits for such a thread, the
    end of the daemon neither, as it would for asyncio.to_thread()'s."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        value, failure = None, None
        try:
            value = work()
        except (OSError, KsplicedError) as error:
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=run, name="pack", daemon=True).start()
    return await done


def _identify(source: int) -> Identity:
    try:
        return identify(source, "the pack")
    finally:
        os.close(source)


def _copy(source: int, directory: Path, asked: Identity | None) -> Path:
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        target, name = tempfile.mkstemp(prefix=_PREFIX, suffix=_SUFFIX, dir=directory)
        file = Path(name)
        try:
            with os.fdopen(target, "w+b") as output:
                _write(source, output.fileno())
                if asked is not None and identify(output.fileno(), "the pack") != asked:
                    text = "the pack was changed while it was asked about"
                    raise BusError(Code.PACK_MALFORMED, text, "name a pack that nobody writes to")
        except (OSError, KsplicedError):
            file.unlink(missing_ok=True)
            raise
        return file
    finally:
        os.close(source)


def _write(source: int, target: int) -> None:
    offset = 0
    while piece := os.pread(source, _PIECE, offset):
        offset += len(piece)
        if offset > limits.PACK_BYTES:
            text = f"the pack has over {limits.PACK_BYTES // limits.MIB} MiB"
            raise BusError(Code.PACK_MALFORMED, text, "name a pack")
        view = memoryview(piece)
        while view:
            view = view[os.write(target, view) :]
