# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of one source, to be had by path and in any order."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import subprocess
import tempfile
from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from kspliced.errors import Code, SourceError
from kspliced.source.members import Member, tree_member
from kspliced.source.package import TreeSource

_INCLUDE = re.compile(rb'^\s*#\s*include\s+"([^"]+\.c)"', re.MULTILINE)
_INCLUDE_ANY = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*["<]([^">]+)[">]', re.MULTILINE)
_INCLUDERS = (".c", ".h", ".S")


class Snapshot(Protocol):
    """A source's version, changelog and files. ``included`` holds the .c files that other sources
    include: their paths, or their base names where it cannot be told which file is meant."""

    @property
    def version(self) -> str:
        """The source package's version."""

    @property
    def included(self) -> frozenset[str]:
        """Paths, or base names, of included .c files."""

    @property
    def checkout(self) -> Path | None:
        """Where files of it may be laid out and kept for the next time, if anywhere."""

    def paths(self) -> Iterable[str]:
        """All files."""

    def digest(self, path: str) -> bytes:
        """Of the file's content and kind (:func:`member_digest`); b'' where there is none."""

    def has(self, path: str) -> bool:
        """Whether :meth:`read` can give the file."""

    def mentions(self, names: frozenset[str]) -> dict[str, frozenset[str]]:
        """The files in which each of ``names`` stands as a word."""

    def read(self, path: str) -> Member:
        """One file.

        :raises SourceError: SOURCE_UNREADABLE when it is not what it was.
        """


def member_digest(member: Member) -> bytes:
    """20 bytes that tell a file's content and kind."""
    head = f"{member.executable}\0{member.link}\0".encode()
    return hashlib.blake2b(head + member.data, digest_size=20).digest()


def included_sources(member: Member) -> Iterator[str]:
    """The .c files that a source file includes, as seen from its own directory, where the compiler
    looks first."""
    if b'.c"' in member.data and member.path.endswith(_INCLUDERS):
        folder = posixpath.dirname(member.path)
        for path in _INCLUDE.findall(member.data):
            yield posixpath.normpath(posixpath.join(folder, path.decode("utf-8", "replace")))


def resolved(included: Iterable[str], known: Container[str]) -> frozenset[str]:
    """The included files that are there; of others, which are found in another directory, the base
    names."""
    return frozenset(p if p in known else posixpath.basename(p) for p in included)


def is_included(path: str, included: frozenset[str]) -> bool:
    """Whether another source may include the file ``path``, as Snapshot.included has it."""
    return path in included or posixpath.basename(path) in included


def includers(path: str, source: Snapshot) -> frozenset[str]:
    """The files that may include the .c file ``path``."""
    name = posixpath.basename(path)
    by = source.mentions(frozenset({name}))[name] - {path}
    return frozenset(file for file in by if _includes(source.read(file), path, source))


def _includes(file: Member, path: str, source: Snapshot) -> bool:
    """Whether a file may include ``path``: what is not beside it is found in another directory."""
    return any(
        found == path
        or (posixpath.basename(found) == posixpath.basename(path) and not source.has(found))
        for found in included_sources(file)
    )


def header_readers(paths: Iterable[str], source: Snapshot) -> dict[str, frozenset[str]]:
    """The files that may include each of some headers, by whatever path."""
    by_name: dict[str, set[str]] = {}
    for path in paths:
        by_name.setdefault(posixpath.basename(path), set()).add(path)
    found: dict[str, set[str]] = {path: set() for names in by_name.values() for path in names}
    for name, files in source.mentions(frozenset(by_name)).items():
        for file in files:
            if file.endswith(_INCLUDERS):
                for path in _headers_of(source.read(file), by_name[name], source):
                    found[path].add(file)
    return {path: frozenset(files - {path}) for path, files in found.items()}


def _headers_of(file: Member, paths: Iterable[str], source: Snapshot) -> Iterator[str]:
    """Those of ``paths`` that a file may include: beside it, or else from any directory."""
    folder = posixpath.dirname(file.path)
    for word in _INCLUDE_ANY.findall(file.data):
        wanted = posixpath.normpath(word.decode("utf-8", "replace"))
        beside = posixpath.normpath(posixpath.join(folder, wanted))
        anywhere = f"/{wanted.lstrip('./')}"
        for path in paths:
            if path == beside or (path.endswith(anywhere) and not source.has(beside)):
                yield path


def grep(names: Iterable[str], options: Iterable[str], place: Path) -> Iterator[bytes]:
    """The lines that grep(1) prints of where one of ``names`` stands as a word in ``place``.

    :raises SourceError: TOOL_MISSING, SOURCE_UNREADABLE.
    """
    words = "".join(f"{name}\n" for name in sorted(names)).encode()
    with tempfile.TemporaryFile() as patterns, tempfile.TemporaryFile() as errors:
        patterns.write(words)
        patterns.seek(0)
        command = ["grep", "-aFw", "-f", "-", *options, str(place)]
        try:
            process = subprocess.Popen(
                command, stdin=patterns, stdout=subprocess.PIPE, stderr=errors, env={"LC_ALL": "C"}
            )
        except FileNotFoundError as error:
            raise SourceError(Code.TOOL_MISSING, "grep is not installed", "install grep") from error
        with process:
            assert process.stdout is not None
            yield from process.stdout
        if process.returncode > 1:
            errors.seek(0)
            said = errors.read(500).decode("utf-8", "replace").strip()
            raise SourceError(Code.SOURCE_UNREADABLE, f"searching {place} failed: {said}")


class TreeSnapshot:
    """An unpacked tree, read in place."""

    def __init__(self, source: TreeSource) -> None:
        self._source = source
        self.top = source.top
        self.checkout = None

    @property
    def version(self) -> str:
        """As the tree says."""
        return self._source.version

    @cached_property
    def included(self) -> frozenset[str]:
        """Reads every source file: some seconds."""
        names: set[str] = set()
        for path in self.paths():
            if path.endswith(_INCLUDERS):
                names.update(included_sources(self.read(path)))
        return resolved(names, frozenset(self.paths()))

    def paths(self) -> Iterable[str]:
        """All files."""
        return self._paths

    @cached_property
    def _paths(self) -> tuple[str, ...]:
        return tuple(self._source.paths())

    def digest(self, path: str) -> bytes:
        """Of the file as it is now."""
        return member_digest(self.read(path)) if os.path.lexists(self.top / path) else b""

    def has(self, path: str) -> bool:
        """Whether the file is there."""
        return os.path.lexists(self.top / path)

    def mentions(self, names: frozenset[str]) -> dict[str, frozenset[str]]:
        """By grep(1) over the tree."""
        found: dict[str, set[str]] = {name: set() for name in names}
        skipped = ("--exclude-dir=.git", "--exclude-dir=.pc", "--exclude-dir=debian")
        prefix = len(os.fsencode(self.top)) + 1
        for line in grep(names, ("-roZ", *skipped), self.top) if names else ():
            path, _, name = line.rstrip(b"\n").partition(b"\0")
            found[name.decode()].add(os.fsdecode(path[prefix:]))
        return {name: frozenset(paths) for name, paths in found.items()}

    def read(self, path: str) -> Member:
        """One file."""
        return tree_member(self.top, path)


@dataclass(frozen=True)
class Entry:
    """A file of a :class:`PackedSnapshot`; ``offset`` in bytes, negative if it is not kept."""

    digest: bytes
    executable: bool
    link: str
    offset: int
    size: int


class PackedSnapshot:
    """A package's files in one file of contents, ``content``, and an index of them."""

    def __init__(
        self,
        version: str,
        included: frozenset[str],
        entries: dict[str, Entry],
        content: Path,
        checkout: Path | None,
    ) -> None:
        self._version, self._included = version, included
        self.checkout = checkout
        self._entries = entries
        self._content = content.open("rb", buffering=0)

    @property
    def version(self) -> str:
        """As the package says."""
        return self._version

    @property
    def included(self) -> frozenset[str]:
        """As found when it was packed."""
        return self._included

    def paths(self) -> Iterable[str]:
        """All files, also those whose content is not kept."""
        return self._entries.keys()

    def digest(self, path: str) -> bytes:
        """From the index."""
        entry = self._entries.get(path)
        return entry.digest if entry is not None else b""

    def has(self, path: str) -> bool:
        """Whether its content is kept."""
        entry = self._entries.get(path)
        return entry is not None and entry.offset >= 0

    def mentions(self, names: frozenset[str]) -> dict[str, frozenset[str]]:
        """By grep(1) over the contents, which lie one behind the other."""
        found: dict[str, set[str]] = {name: set() for name in names}
        kept = sorted((e.offset, path) for path, e in self._entries.items() if e.offset >= 0)
        offsets = [offset for offset, _ in kept]
        place = Path(str(self._content.name))
        for line in grep(names, ("-ob",), place) if names else ():
            offset, _, name = line.rstrip(b"\n").partition(b":")
            # An empty file has the offset of the one behind it, and sorts before it or not: the
            # last of them that begins here holds the byte unless it is the empty one.
            index = bisect_right(offsets, int(offset)) - 1
            while not self._entries[kept[index][1]].size:
                index -= 1
            found[name.decode()].add(kept[index][1])
        return {name: frozenset(paths) for name, paths in found.items()}

    def read(self, path: str) -> Member:
        """One file, verified against its digest."""
        entry = self._entries[path]
        data = os.pread(self._content.fileno(), entry.size, max(0, entry.offset))
        member = Member(path, data, entry.executable, entry.link)
        if entry.offset < 0 or member_digest(member) != entry.digest:
            name = self._content.name
            raise SourceError(
                Code.SOURCE_UNREADABLE,
                f"the cache {name} is damaged at {path}",
                f"remove {Path(str(name)).parent} and try again",
            )
        return member

    def close(self) -> None:
        """Let go of the file."""
        self._content.close()
