# SPDX-License-Identifier: GPL-2.0-or-later
"""From the directory that apt's own user downloads into to one of root's.

Whoever takes apt's downloader over can put there what he likes and change it at any moment. So
nothing in it is used: each file that apt announced is copied through a descriptor, and the copy has
to have the size and the digest of apt's signed index.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from kspliced.errors import Code, SourceError

_LINE = re.compile(r"'(?P<uri>[^']*)' (?P<name>\S+) (?P<size>\d+) ?(?P<digest>\S*)")
_DIGEST = re.compile(r"(?P<kind>SHA256|SHA512):(?P<hex>[0-9a-f]{64,128})")
_CHUNK = 1 << 20
_REMEDY = "run `apt update` and try again; if it stays so, somebody may be tampering with the files"


@dataclass(frozen=True)
class Announced:
    """A file that apt is about to fetch: ``digest`` is of its signed index, ``size`` in bytes."""

    uri: str
    name: str
    size: int
    kind: str
    digest: str


def announced(output: str) -> tuple[Announced, ...]:
    """The files in the output of ``apt-get --print-uris``.

    :raises SourceError: SOURCE_UNAVAILABLE where apt knows no strong digest of one.
    """
    found = []
    for line in _LINE.finditer(output):
        digest = _DIGEST.fullmatch(line["digest"])
        if digest is None or "/" in line["name"] or line["name"].startswith("."):
            raise SourceError(
                Code.SOURCE_UNAVAILABLE,
                f"apt knows no SHA256 of {line['name'][:80]}",
                "use an archive whose index has one",
            )
        uri, name, size = line["uri"], line["name"], int(line["size"])
        found.append(Announced(uri, name, size, digest["kind"], digest["hex"]))
    return tuple(found)


def claim(partial: Path, whole: Path, files: tuple[Announced, ...]) -> None:
    """Copy ``files`` from ``partial`` into ``whole``, a directory of ours, and verify the copies.

    :raises SourceError: SOURCE_UNAVAILABLE for one that is not what apt announced.
    OSError passes to the caller.
    """
    source = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        owners = {os.geteuid(), os.fstat(source).st_uid}
        for file in files:
            descriptor = _opened(source, file)
            try:
                _check(descriptor, file, owners)
                _copy(descriptor, whole / file.name, file)
            finally:
                os.close(descriptor)
    finally:
        os.close(source)


def _opened(directory: int, file: Announced) -> int:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        scheme, _, path = file.uri.partition(":")
        # Of an archive on this machine apt makes links; the archive's file is opened instead.
        if scheme == "file":
            return os.open(unquote(path), flags)
        return os.open(file.name, flags, dir_fd=directory)
    except OSError as error:
        raise _refused(file, f"it cannot be opened: {error.strerror}") from error


def _check(descriptor: int, file: Announced, owners: set[int]) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise _refused(file, "it is not a regular file")
    if not file.uri.startswith("file:"):
        if found.st_nlink != 1:
            raise _refused(file, "it has another name as well")
        if found.st_uid not in owners:
            raise _refused(file, f"it belongs to user {found.st_uid}")
    if found.st_size != file.size:
        raise _refused(file, f"it has {found.st_size} bytes, not {file.size}")


def _copy(descriptor: int, target: Path, file: Announced) -> None:
    """Copy and verify; what is verified is what was written, whatever becomes of the original."""
    digest = hashlib.new(file.kind.lower())
    left = file.size
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, 0o644), "wb") as copy:
        os.fchmod(copy.fileno(), 0o644)
        while left and (chunk := os.read(descriptor, min(left, _CHUNK))):
            digest.update(chunk)
            copy.write(chunk)
            left -= len(chunk)
    if left or digest.hexdigest() != file.digest:
        raise _refused(file, f"its {file.kind} is another")


def _refused(file: Announced, why: str) -> SourceError:
    text = f"{file.name} is not what apt announced: {why}"
    return SourceError(Code.SOURCE_UNAVAILABLE, text, _REMEDY)
