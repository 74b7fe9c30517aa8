# SPDX-License-Identifier: GPL-2.0-or-later
"""The builder's caches: a directory for each set of inputs, of which only the last is kept.

What the builder writes there (the packed source, compiled objects, searches) is as good as the
sources it compiled. It is read again only by a build of the very same sources: the unit has the
one directory mounted that is named by their digest, and cannot see those of others.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from kspliced import __version__
from kspliced.engine.command import run
from kspliced.engine.edges import BuildOrder, Cancel
from kspliced.engine.paths import Paths

_KEY_LENGTH = 32
_KEY = re.compile(f"[0-9a-f]{{{_KEY_LENGTH}}}")
_REMOVE_SECONDS = 600.0


def cache_of(paths: Paths, order: BuildOrder) -> Path:
    """The directory for builds of the inputs of ``order``; reads them all, which takes a second.

    OSError passes to the caller.
    """
    digest = hashlib.sha256()
    kernel = order.kernel
    for text in (__version__, kernel.release, kernel.version, kernel.arch, str(order.headers)):
        digest.update(text.encode() + b"\0")
    for file in (*_files(order.source), *_files(order.target), order.config):
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return paths.cache / digest.hexdigest()[:_KEY_LENGTH]


def inputs(source: Path) -> Path:
    """What is to be read of a source package: a .dsc has files beside it."""
    return source.parent if source.suffix == ".dsc" else source


def _files(source: Path) -> list[Path]:
    place = inputs(source)
    return sorted(f for f in place.iterdir() if f.is_file()) if place.is_dir() else [place]


def keep_only(paths: Paths, cache: Path, cancel: Cancel) -> None:
    """Remove the caches of all other inputs. OSError passes to the caller.

    :raises KsplicedError: CANCELLED, TOOL_MISSING.
    """
    if paths.cache.is_symlink():
        paths.cache.unlink()  # a version before had one cache for all inputs
    real = paths.cache.parent / "private" / paths.cache.name
    for place in (paths.cache, real):
        stale = [entry for entry in _entries(place) if entry.name != cache.name]
        stale = [entry for entry in stale if place == real or _KEY.fullmatch(entry.name)]
        if stale:
            # Not by our own recursion: whoever wrote there says how deep it is. rm follows no link.
            command = ("rm", "-rf", "--one-file-system", "--", *map(str, stale))
            run(command, cancel, _REMOVE_SECONDS, None)


def _entries(place: Path) -> list[Path]:
    try:
        return list(place.iterdir())
    except FileNotFoundError:
        return []
