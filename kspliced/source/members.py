# SPDX-License-Identifier: GPL-2.0-or-later
"""A source as a stream of its files, whatever it is packed in.

The tar reader is our own: a kernel source has 80,000 members, for which tarfile makes 15 million
calls, twice what decompressing the archive costs. It reads what GNU tar, git and dpkg write and
refuses the rest.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kspliced.errors import Code, SourceError

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_MAX_FILE = 256 << 20

# Type flags of POSIX.1-2017 pax and of GNU tar (tar(5)).
_FILE, _OLD_FILE, _SYMLINK, _DIRECTORY = 0x30, 0, 0x32, 0x35
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = 0x78, 0x67, 0x4C, 0x4B


@dataclass(frozen=True)
class Member:
    """A file of a source: ``path`` relative to the tree's top, ``link`` a symlink's text."""

    path: str
    data: bytes
    executable: bool
    link: str


def tree_paths(top: Path) -> Iterator[str]:
    """The files of an unpacked tree, in a stable order; version control is left out."""
    for directory, folders, files in os.walk(top):
        links = [name for name in folders if (Path(directory) / name).is_symlink()]
        folders[:] = sorted(f for f in folders if f not in (".git", ".pc", *links))
        below = os.path.relpath(directory, top)
        for name in sorted([*files, *links]):
            yield name if below == "." else f"{below}/{name}"


def tree_member(top: Path, path: str) -> Member:
    """One file of an unpacked tree.

    :raises SourceError: SOURCE_UNREADABLE for what is no file.
    """
    file = top / path
    mode = file.lstat().st_mode
    if stat.S_ISLNK(mode):
        return Member(path, b"", False, str(file.readlink()))
    if not stat.S_ISREG(mode):
        raise SourceError(
            Code.SOURCE_UNREADABLE, f"{file} is not a regular file", "do not use this source"
        )
    return Member(path, file.read_bytes(), bool(mode & 0o100), "")


def tar_members(stream: IO[bytes], name: str) -> Iterator[Member]:
    """The files of an uncompressed tar stream, the first path component taken off.

    :param name: what to call the stream in errors.
    :raises SourceError: SOURCE_UNREADABLE for a damaged stream or a path that leaves the tree.
    """
    try:
        yield from _members(stream, name)
    except (ValueError, EOFError) as error:
        raise SourceError(
            Code.SOURCE_UNREADABLE, f"{name} is damaged: {error}", "fetch the package again"
        ) from error


def _members(stream: IO[bytes], name: str) -> Iterator[Member]:
    long_path = long_link = ""
    while True:
        header = _take(stream, _BLOCK)
        if header == _ZEROS:
            # An archive ends with two of them; one that stops without was cut.
            if _take(stream, _BLOCK) != _ZEROS:
                raise ValueError("a member without a header")
            return
        _verify(header)
        size = _octal(header, 124, 136)
        if size > _MAX_FILE:
            raise ValueError(f"a member of {size} bytes")
        data = _take(stream, size)
        _take(stream, -size % _BLOCK)
        kind = header[156]
        if kind == _PAX:
            long_path, long_link = _pax(data, long_path, long_link)
        elif kind == _GNU_NAME:
            long_path = _text(data)
        elif kind == _GNU_LINK:
            long_link = _text(data)
        elif kind in (_FILE, _OLD_FILE, _SYMLINK):
            path = _inside(long_path or _path(header), name)
            link = long_link or _text(header[157:257])
            long_path = long_link = ""
            executable = kind != _SYMLINK and bool(_octal(header, 100, 108) & 0o100)
            if path:
                yield Member(path, data, executable, link if kind == _SYMLINK else "")
        elif kind == _DIRECTORY:
            long_path = long_link = ""
        elif kind != _PAX_GLOBAL:
            raise ValueError(f"a member of the unexpected type {kind:#x}")


def _take(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("it ends too early")
    return data


def _verify(header: bytes) -> None:
    # The checksum counts its own field as blanks.
    if sum(header) - sum(header[148:156]) + 8 * 0x20 != _octal(header, 148, 156):
        raise ValueError("a header's checksum is wrong")


def _octal(header: bytes, start: int, end: int) -> int:
    return int(header[start:end].strip(b" \0") or b"0", 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8")


def _path(header: bytes) -> str:
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    path = _text(header[:100])
    return f"{prefix}/{path}" if prefix else path


def _pax(data: bytes, path: str, link: str) -> tuple[str, str]:
    """The path and linkpath of an extended header: records "LENGTH KEY=VALUE\\n"."""
    while data:
        length = int(data[: data.index(b" ")])
        record, data = data[:length], data[length:]
        if length <= 0 or len(record) != length or not record.endswith(b"\n"):
            raise ValueError("an extended header is malformed")
        key, _, value = record.partition(b" ")[2][:-1].partition(b"=")
        if key == b"path":
            path = value.decode("utf-8")
        elif key == b"linkpath":
            link = value.decode("utf-8")
        elif key == b"size":
            raise ValueError("a member of more than 8 GiB")
    return path, link


def _inside(path: str, name: str) -> str:
    if path.startswith("/") or "/../" in f"/{path}/":
        raise SourceError(
            Code.SOURCE_UNREADABLE,
            f"{name} holds a path outside its own tree: {path!r}",
            "do not use this source",
        )
    return path.removeprefix("./").partition("/")[2]
