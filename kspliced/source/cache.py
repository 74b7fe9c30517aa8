# SPDX-License-Identifier: GPL-2.0-or-later
"""Packed sources by the digest of their package: the running kernel's is needed at every upgrade.

Decompressing and walking a kernel source costs more than all the rest of a small update (measured:
6 s on two cores, against 4 s), so its files are kept uncompressed, with an index. So
are the files that were laid out for a compilation: making ten thousand files is slow too.
Who can write here can change what is built, just as who can write the package; contents are
verified against the index to notice a broken disk and what a power cut left.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from kspliced.errors import Code, SourceError
from kspliced.source.package import Source, TreeSource
from kspliced.source.snapshot import (
    Entry,
    PackedSnapshot,
    Snapshot,
    TreeSnapshot,
    included_sources,
    member_digest,
    resolved,
)

LIMIT = 2 << 30
_FORMAT = 5
_INDEX, _CONTENT, _TREE, _LOCK = "index.json", "content", "tree", "lock"
_BUFFER = 1 << 20
_KEY = re.compile("[0-9a-f]{64}")
# Temporary directories, and the seconds after which they are nobody's: longer than any build.
_TEMPORARY = ("new.", "kspliced.", "work")
_ABANDONED = 24 * 3600

Keep = Callable[[str, int], bool]


class SourceCache:
    """Packed sources in ``folder``.

    :param keep: by path and size in bytes, whether a file's content may ever be asked for. To be
        changed only together with the name of the folder.
    :param limit: bytes to keep at most, of what was not used last.
    """

    def __init__(self, folder: Path, keep: Keep, limit: int = LIMIT) -> None:
        self._folder, self._keep, self._limit = folder, keep, limit

    @contextmanager
    def snapshot(self, source: Source, seen: Callable[[int], None]) -> Iterator[Snapshot]:
        """The files of ``source``; a package that is not here yet is walked once.

        :param seen: told the number of files walked so far; may raise to cancel.
        :raises SourceError: the source is damaged.
        :raises OSError: no space left.
        """
        if isinstance(source, TreeSource):
            yield TreeSnapshot(source)
            return
        place = self._folder / source.key
        if _read_index(place) is None:
            self._pack(source, place, seen)
        index = _read_index(place)
        if index is None:
            raise SourceError(Code.SOURCE_UNREADABLE, f"{place} was removed meanwhile", "try again")
        os.utime(place)
        self._trim(place)
        with lock_file(place / _LOCK) as lock:
            tree = place / _TREE if locked(lock) else None
            with closing(PackedSnapshot(*index, place / _CONTENT, tree)) as snapshot:
                yield snapshot

    def _pack(self, source: Source, place: Path, seen: Callable[[int], None]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="new.") as directory:
            # A folder of its own inside: the temporary directory must stay to be removed.
            made = Path(directory) / "made"
            made.mkdir()
            self._fill(source, made, seen)
            shutil.rmtree(place, ignore_errors=True)
            made.rename(place)

    def _fill(self, source: Source, made: Path, seen: Callable[[int], None]) -> None:
        rows: list[list[str | int]] = []
        included: set[str] = set()
        offset = 0
        with (made / _CONTENT).open("wb", buffering=_BUFFER) as content:
            for count, member in enumerate(source.members()):
                size, where = len(member.data), -1
                if self._keep(member.path, size):
                    content.write(member.data)
                    where, offset = offset, offset + size
                included.update(included_sources(member))
                digest = member_digest(member).hex()
                rows.append([member.path, digest, int(member.executable), member.link, where, size])
                if count % 1000 == 0:
                    seen(count)
        index = {
            "format": _FORMAT,
            "version": source.version,
            "size": offset,
            "included": sorted(resolved(included, {str(row[0]) for row in rows})),
            "files": rows,
        }
        (made / _INDEX).write_text(json.dumps(index), "utf-8")

    def _trim(self, used: Path) -> None:
        """Remove what was used longest ago beyond the limit, and what a killed build left."""
        others = [p for p in self._folder.iterdir() if p.is_dir() and p != used]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        total = _size(used)
        for path in others:
            if _KEY.fullmatch(path.name):
                total += _size(path)
                unwanted = total > self._limit
            elif path.name.startswith(_TEMPORARY):
                unwanted = time.time() - path.stat().st_mtime > _ABANDONED
            else:
                unwanted = False
            if unwanted:
                shutil.rmtree(path, ignore_errors=True)


def _size(folder: Path) -> int:
    """The most that a packed source can come to: all of it laid out too."""
    content = folder / _CONTENT
    return 2 * content.stat().st_size if content.is_file() else 0


def lock_file(path: Path) -> IO[bytes]:
    """The open file of a lock, only for its owner: whoever can open it can hold it. OSError passes
    to the caller."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")


def locked(lock: IO[bytes]) -> bool:
    """Whether nobody else has what the file stands for; until it is closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_index(place: Path) -> tuple[str, frozenset[str], dict[str, Entry]] | None:
    """What is packed in ``place``, or None where it is missing, cut or of another format."""
    try:
        index = json.loads((place / _INDEX).read_text("utf-8"))
        if index["format"] != _FORMAT or index["size"] != (place / _CONTENT).stat().st_size:
            return None
        entries = {
            str(path): Entry(bytes.fromhex(digest), bool(executable), str(link), offset, size)
            for path, digest, executable, link, offset, size in index["files"]
        }
        return str(index["version"]), frozenset(map(str, index["included"])), entries
    except (OSError, ValueError, KeyError, TypeError):
        return None
