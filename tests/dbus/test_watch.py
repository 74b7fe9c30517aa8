# SPDX-License-Identifier: GPL-2.0-or-later
"""A directory that changes is noticed, also by a kernel that cannot tell."""

from __future__ import annotations

import asyncio
import errno
import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

from kspliced.service.watch import DirectoryWatch

MOST = 20.0


def without_dnotify(descriptor: int, command: int, argument: int) -> int:
    """fcntl(2) of a kernel without CONFIG_DNOTIFY."""
    raise OSError(errno.EINVAL, "Invalid argument")


async def noticed(folder: Path, changes: tuple[Callable[[], object], ...]) -> None:
    """Every change must be noticed, one after the other."""
    event = asyncio.Event()
    watch = DirectoryWatch(asyncio.get_running_loop(), event.set, seconds=0.05)
    try:
        watch.add(folder)
        for change in changes:
            event.clear()
            change()
            await asyncio.wait_for(event.wait(), MOST)
        event.clear()
    finally:
        watch.close()
    (folder / "late").touch()
    await asyncio.sleep(0.2)
    assert not event.is_set()


@pytest.mark.parametrize("kernel", [fcntl.fcntl, without_dnotify])
def test_a_file_that_comes_is_replaced_or_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Callable[[int, int, int], int]
) -> None:
    monkeypatch.setattr(fcntl, "fcntl", kernel)
    here, away = tmp_path / "here", tmp_path / "away"
    here.mkdir()
    away.touch()
    file = here / "file"
    asyncio.run(noticed(here, (file.touch, lambda: away.rename(file), file.unlink)))
