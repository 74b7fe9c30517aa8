# SPDX-License-Identifier: GPL-2.0-or-later
"""Walk two sources side by side once: lay the old one out, keep what the new one changes.

A kernel tree is 80,000 files, of which one unit reads some 1,500. What every unit reads is
written at once; a subsystem's own headers go into one spool file and are written when a unit of
that subsystem is compiled; sources that do not change are not kept at all, nor are the largest
headers (register lists: 400 of 480 MB). Where a unit turns out to need such a file after all,
:func:`complete` walks the old source once more.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest
from pathlib import Path

from kspliced.source.members import Member
from kspliced.source.package import Source

_INCLUDE = re.compile(rb'^\s*#\s*include\s+"([^"]+\.c)"', re.MULTILINE)


class ChangeType(str, Enum):
    """How a file differs between the two sources."""

    MODIFIED = "modified"
    ADDED = "added"
    REMOVED = "removed"


@dataclass(frozen=True)
class FileChange:
    """A file that differs; ``path`` relative to the tree."""

    path: str
    type: ChangeType


@dataclass(frozen=True)
class Comparison:
    """``included`` holds the base names of .c files that some source of the old tree includes."""

    changes: tuple[FileChange, ...]
    included: frozenset[str]


class Keep(Enum):
    """What becomes of an unchanged file of the old source."""

    WRITE = "write"
    SPOOL = "spool"
    DROP = "drop"


@dataclass(frozen=True)
class _Spooled:
    member: Member
    offset: int
    size: int


# Bytes above which a subsystem's own header is not kept; fs/ext4/ext4.h has 130 KiB, a register
# list has megabytes.
_LARGE = 256 << 10


class Tree:
    """The old source on disk, with a spool of headers that are written when they are wanted."""

    def __init__(self, top: Path, spool: Path) -> None:
        self.top = top
        self._spool = spool.open("w+b")
        self._spooled: dict[str, _Spooled] = {}
        self._folders: set[Path] = set()
        self._resolved = top.resolve()
        top.mkdir(parents=True, exist_ok=True)

    def spool(self, member: Member) -> None:
        """Keep a file for :meth:`write_spooled`."""
        empty = Member(member.path, b"", member.executable, member.link)
        offset = self._spool.seek(0, 2)
        self._spool.write(member.data)
        self._spooled[member.path] = _Spooled(empty, offset, len(member.data))

    def write_spooled(self, wanted: Callable[[str], bool]) -> int:
        """Write the spooled files whose path is ``wanted``; returns how many."""
        paths = [path for path in self._spooled if wanted(path)]
        for path in paths:
            spooled = self._spooled.pop(path)
            self._spool.seek(spooled.offset)
            data = self._spool.read(spooled.size)
            member = spooled.member
            self.write(Member(path, data, member.executable, member.link))
        return len(paths)

    def write(self, member: Member) -> None:
        """Write one file below the top."""
        path = self.top / member.path
        if path.parent not in self._folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(path.parent)
        if member.link:
            self._link(path, member.link)
            return
        with path.open("wb", buffering=0) as file:
            file.write(member.data)
        if member.executable:
            path.chmod(0o755)

    def _link(self, path: Path, link: str) -> None:
        # A link that leads out of the tree could make a later write go anywhere.
        resolved = (path.parent / link).resolve()
        if not link.startswith("/") and resolved.is_relative_to(self._resolved):
            path.symlink_to(link)

    def close(self) -> None:
        """Let go of the spool file."""
        self._spool.close()


def lay_out(
    old: Source,
    new: Source,
    tree: Tree,
    changed: Tree,
    keep: Callable[[str], Keep],
    seen: Callable[[int], None],
) -> Comparison:
    """Lay ``old`` out in ``tree`` as ``keep`` says, and return what differs in ``new``.

    A file that differs is always written: its old version to ``tree``, its new one to
    ``changed``. ``seen`` is told the number of files walked so far, and may raise to cancel.

    :raises SourceError: a source is damaged.
    """
    walk = _Walk(tree, changed, keep)
    # The decompressors are processes of their own and run ahead as far as their pipes hold.
    for count, (one, other) in enumerate(zip_longest(old.members(), new.members())):
        walk.step(one, other)
        if count % 1000 == 0:
            seen(count)
    return walk.result()


def complete(old: Source, tree: Tree, wanted: Callable[[str], bool]) -> int:
    """Write every ``wanted`` file of ``old`` that is not in ``tree`` yet; returns how many.

    :raises SourceError: the source is damaged.
    """
    written = 0
    for member in old.members():
        if wanted(member.path) and not (tree.top / member.path).exists():
            tree.write(member)
            written += 1
    return written


class _Walk:
    """Compares members that arrive in about the same order; stragglers by digest."""

    def __init__(self, tree: Tree, changed: Tree, keep: Callable[[str], Keep]) -> None:
        self._tree, self._changed, self._keep = tree, changed, keep
        self._old: dict[str, bytes] = {}
        self._new: dict[str, bytes] = {}
        self._changes: list[FileChange] = []
        self._included: set[str] = set()

    def step(self, old: Member | None, new: Member | None) -> None:
        if old is not None:
            self._note_includes(old)
        if old is not None and new is not None and old.path == new.path:
            if old == new:
                self._unchanged(old)
            else:
                self._tree.write(old)
                self._changed.write(new)
                self._changes.append(FileChange(new.path, ChangeType.MODIFIED))
            return
        # Out of step, or one-sided: which of them differ is known at the end.
        if old is not None:
            self._tree.write(old)
            self._straggler(old, self._old, self._new)
        if new is not None:
            self._changed.write(new)
            self._straggler(new, self._new, self._old)

    def _unchanged(self, member: Member) -> None:
        match self._keep(member.path):
            case Keep.WRITE:
                self._tree.write(member)
            case Keep.SPOOL if len(member.data) <= _LARGE:
                self._tree.spool(member)
            case Keep.SPOOL:
                pass
            case Keep.DROP:
                pass

    def _straggler(self, member: Member, mine: dict[str, bytes], others: dict[str, bytes]) -> None:
        digest = _digest(member)
        other = others.pop(member.path, None)
        if other is None:
            mine[member.path] = digest
        elif other != digest:
            self._changes.append(FileChange(member.path, ChangeType.MODIFIED))
        else:
            (self._changed.top / member.path).unlink()

    def _note_includes(self, member: Member) -> None:
        if b'.c"' in member.data and member.path.endswith((".c", ".h", ".S")):
            for path in _INCLUDE.findall(member.data):
                self._included.add(path.rpartition(b"/")[2].decode("utf-8", "replace"))

    def result(self) -> Comparison:
        changes = list(self._changes)
        changes += (FileChange(path, ChangeType.REMOVED) for path in self._old)
        changes += (FileChange(path, ChangeType.ADDED) for path in self._new)
        ordered = tuple(sorted(changes, key=lambda change: change.path))
        return Comparison(ordered, frozenset(self._included))


def _digest(member: Member) -> bytes:
    head = f"{member.executable}\0{member.link}\0".encode()
    return hashlib.blake2b(head + member.data, digest_size=20).digest()
