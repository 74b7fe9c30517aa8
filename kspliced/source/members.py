# SPDX-License-Identifier: GPL-2.0-or-later
"""A source as a stream of its files, whatever it is packed in."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from kspliced.errors import Code, SourceError

_END = 1024


@dataclass(frozen=True)
class Member:
    """A file of a source: ``path`` relative to the tree's top, ``link`` a symlink's text."""

    path: str
    data: bytes
    executable: bool
    link: str


def tree_members(top: Path) -> Iterator[Member]:
    """The files of an unpacked tree, in a stable order; version control is left out."""
    for directory, folders, files in os.walk(top):
        folders[:] = sorted(f for f in folders if f not in (".git", ".pc"))
        for name in sorted(files):
            path = Path(directory) / name
            relative = path.relative_to(top).as_posix()
            if path.is_symlink():
                yield Member(relative, b"", False, str(path.readlink()))
            elif path.is_file():
                executable = os.access(path, os.X_OK)
                yield Member(relative, path.read_bytes(), executable, "")


def tar_members(stream: IO[bytes], name: str) -> Iterator[Member]:
    """The files of an uncompressed tar stream, the first path component taken off.

    :param name: what to call the stream in errors.
    :raises SourceError: SOURCE_UNREADABLE for a damaged stream or a path that leaves the tree.
    """
    tail = _Tail(stream)
    try:
        with tarfile.open(fileobj=cast(IO[bytes], tail), mode="r|", errorlevel=2) as archive:
            for info in archive:
                path = _inside(info.name, name)
                if not path:
                    continue
                if info.issym():
                    yield Member(path, b"", False, info.linkname)
                elif info.isreg():
                    content = archive.extractfile(info)
                    data = content.read() if content else b""
                    yield Member(path, data, bool(info.mode & 0o100), "")
                # The list of members would grow with the archive.
                archive.members = []  # type: ignore[attr-defined]
        # tarfile takes a stream that stops between two members for a whole one.
        if not tail.ended():
            raise EOFError("it ends too early")
    except (tarfile.TarError, EOFError) as error:
        raise SourceError(
            Code.SOURCE_UNREADABLE, f"{name} is damaged: {error}", "fetch the package again"
        ) from error


class _Tail:
    """A stream that knows whether it ended as a tar archive must: with two blocks of zeros."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._last = b""

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._last = (self._last + data)[-_END:]
        return data

    def ended(self) -> bool:
        while self.read(1 << 20):
            continue
        return self._last == bytes(_END)


def _inside(path: str, name: str) -> str:
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts:
        raise SourceError(
            Code.SOURCE_UNREADABLE,
            f"{name} holds a path outside its own tree: {path!r}",
            "do not use this source",
        )
    return "/".join(part for part in parts[1:])
