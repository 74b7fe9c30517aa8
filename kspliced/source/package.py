# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel sources: an unpacked tree, Debian's linux-source .deb or .dsc."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Protocol

from kspliced.errors import Code, SourceError
from kspliced.lines import split_lines
from kspliced.source.members import Member, tar_members, tree_member, tree_paths

_INNER = "./usr/src/linux-source-*.tar.xz"
_CHANGELOG = "./usr/share/doc/*/changelog.Debian.gz"
_PIPE_BYTES = 1 << 20
_VERSION = re.compile(r"^linux(?:-signed-\S+)? \(([^)]+)\)", re.MULTILINE)


class Source(Protocol):
    """A source package: its version, its Debian changelog and its files."""

    @property
    def version(self) -> str:
        """The source package's version, such as 6.1.192-1."""

    @property
    def changelog(self) -> str:
        """The text of debian/changelog, or '' where the source has none."""

    @property
    def key(self) -> str:
        """A name for exactly these files, or '' where there is none."""

    def members(self) -> Iterator[Member]:
        """The files, each once."""


class TreeSource:
    """An unpacked kernel tree, with debian/changelog if it is a Debian one."""

    def __init__(self, top: Path) -> None:
        if not (top / "Makefile").is_file() or not (top / "Kbuild").is_file():
            raise SourceError(
                Code.SOURCE_UNREADABLE,
                f"{top} is not the top of a kernel source tree",
                "name the directory that holds the kernel's Makefile",
            )
        self.top = top

    @property
    def key(self) -> str:
        """None: a tree may change at any time."""
        return ""

    @property
    def version(self) -> str:
        """From debian/changelog, else the Makefile's kernel version."""
        match = _VERSION.search(self.changelog)
        return match.group(1) if match else _makefile_version(self.top / "Makefile")

    @property
    def changelog(self) -> str:
        """The text of debian/changelog or ''."""
        path = self.top / "debian/changelog"
        return path.read_text("utf-8", "replace") if path.is_file() else ""

    def members(self) -> Iterator[Member]:
        """Every file of the tree but debian/."""
        return (tree_member(self.top, path) for path in self.paths())

    def paths(self) -> Iterator[str]:
        """Every file of the tree but debian/."""
        return (path for path in tree_paths(self.top) if not path.startswith("debian/"))


class DscSource:
    """A Debian source package; it is unpacked when something of it is asked for."""

    def __init__(self, path: Path, into: Path) -> None:
        self._path, self._into = path, into

    @property
    def key(self) -> str:
        """Of the .dsc, which holds the digests of its parts."""
        return file_key(self._path)

    @property
    def version(self) -> str:
        """As debian/changelog has it."""
        return self._tree.version

    @property
    def changelog(self) -> str:
        """The text of debian/changelog."""
        return self._tree.changelog

    def members(self) -> Iterator[Member]:
        """Every file but debian/."""
        return self._tree.members()

    @cached_property
    def _tree(self) -> TreeSource:
        """Unpacked by dpkg-source, which verifies the checksums and applies the patches. Whose
        signature it has is a matter of the fetch."""
        _output(["dpkg-source", "-x", str(self._path), str(self._into)], self._path)
        return TreeSource(self._into)


class DebSource:
    """A linux-source-X.Y binary package, read as a stream; nothing is unpacked on the way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._control = _output(["dpkg-deb", "-f", str(path), "Package", "Version"], path)
        if not re.search(r"^Package: linux-source-", self._control, re.MULTILINE):
            raise SourceError(
                Code.SOURCE_UNREADABLE,
                f"{path} is not a linux-source package",
                "name the linux-source package of the kernel",
            )

    @property
    def key(self) -> str:
        """Of the package file."""
        return file_key(self._path)

    @property
    def version(self) -> str:
        """The package's Version field."""
        match = re.search(r"^Version: (\S+)", self._control, re.MULTILINE)
        return match.group(1) if match else ""

    @property
    def changelog(self) -> str:
        """The package's Debian changelog."""
        with _pipeline(
            ["dpkg-deb", "--fsys-tarfile", str(self._path)],
            ["tar", "-xO", "--wildcards", _CHANGELOG],
            name=self._path,
        ) as stream:
            data = stream.read()
        try:
            return gzip.decompress(data).decode("utf-8", "replace")
        except (OSError, EOFError) as error:
            raise _damaged(self._path, str(error)) from error

    def members(self) -> Iterator[Member]:
        """The files of the tar archive inside the package."""
        with _pipeline(
            ["dpkg-deb", "--fsys-tarfile", str(self._path)],
            ["tar", "-xO", "--wildcards", _INNER],
            # The archive is made of blocks, which xz decompresses side by side.
            ["xz", "-dc", "-T0"],
            name=self._path,
        ) as stream:
            yield from tar_members(stream, self._path.name)


@contextmanager
def _pipeline(*commands: list[str], name: Path) -> Iterator[IO[bytes]]:
    """The output of a pipeline; a command that fails makes the whole fail, at its end."""
    with ExitStack() as stack, tempfile.TemporaryFile() as errors:
        processes: list[subprocess.Popen[bytes]] = []
        source: IO[bytes] | int = subprocess.DEVNULL
        for command in commands:
            process = _start(command, source, errors)
            stack.callback(_end, process)
            if not isinstance(source, int):
                source.close()
            processes.append(process)
            assert process.stdout is not None
            source = process.stdout
            fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        assert not isinstance(source, int)
        yield source
        while source.read(1 << 20):
            continue
        failed = [p for p in processes if p.wait() != 0]
        if failed:
            errors.seek(0)
            words = split_lines(errors.read(2000).decode("utf-8", "replace").strip())
            errors_said = [line for line in words if "error:" in line] or words
            raise _damaged(name, next(iter(errors_said), f"{failed[0].args!r:.40} failed"))


def _start(
    command: list[str], source: IO[bytes] | int, errors: IO[bytes]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, stdin=source, stdout=subprocess.PIPE, stderr=errors, bufsize=_PIPE_BYTES
        )
    except FileNotFoundError as error:
        raise SourceError(
            Code.TOOL_MISSING, f"{command[0]} is not installed", f"install {command[0]}"
        ) from error


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _output(command: list[str], name: Path) -> str:
    with _pipeline(command, name=name) as stream:
        data: bytes = stream.read()
    return data.decode("utf-8", "replace")


def file_key(path: Path) -> str:
    """A digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _makefile_version(makefile: Path) -> str:
    text = makefile.read_text("utf-8", "replace")
    pattern = re.compile(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *= *(\S*)", re.MULTILINE)
    found = {match.group(1): match.group(2) for match in pattern.finditer(text)}
    numbers = [found.get(key, "0") for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
    return ".".join(numbers) + found.get("EXTRAVERSION", "")


def _damaged(path: Path, why: str) -> SourceError:
    return SourceError(
        Code.SOURCE_UNREADABLE, f"{path} cannot be read: {why}", "fetch the package again"
    )
