# SPDX-License-Identifier: GPL-2.0-or-later
"""The directory that a build works in."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kspliced.build.request import BuildRequest
from kspliced.errors import BuildError, Code
from kspliced.oserror import translate
from kspliced.source.cache import lock_file, locked


@contextmanager
def work_directory(request: BuildRequest) -> Iterator[Path]:
    """An empty directory, where hard links to the cache can be made if nothing else is said.

    The same each time for those who keep a cache and are alone: compilers are told paths, and
    what was compiled before is found by what the compiler was told.

    :raises BuildError: NO_SPACE, IO when a directory that the request names cannot be used.
    """
    parent = request.workdir or request.cache
    _make(request.workdir, "--workdir")
    _make(request.cache, "--cache")
    if request.cache is not None:
        with lock_file(request.cache / "work.lock") as lock:
            if locked(lock):
                with _emptied((parent or request.cache) / "work") as directory:
                    yield directory
                return
    with tempfile.TemporaryDirectory(prefix="kspliced.", dir=parent) as temporary:
        yield Path(temporary)


def _make(place: Path | None, option: str) -> None:
    """Make a directory that the caller names, and try whether files can be made there."""
    if place is None:
        return
    try:
        place.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        found = translate(error)
        code = Code.IO if found.code is Code.NOT_AUTHORIZED else found.code
        text = f"cannot use {place}: {error.strerror}"
        raise BuildError(code, text, f"name another directory with {option}") from error


@contextmanager
def _emptied(directory: Path) -> Iterator[Path]:
    """The directory, emptied of what a killed build left, and gone afterwards."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
