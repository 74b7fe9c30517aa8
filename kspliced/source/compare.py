# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between two sources, and writing files of a source to disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from kspliced.source.members import Member, tree_member
from kspliced.source.package import Source, TreeSource
from kspliced.source.snapshot import Snapshot, TreeSnapshot, member_digest


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


class Tree:
    """Files of a source below ``top``, which may hold some already."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self._folders: set[Path] = set()
        self._resolved = top.resolve()
        top.mkdir(parents=True, exist_ok=True)

    def write(self, member: Member) -> None:
        """Write one file that is not there below the top."""
        path = self._place(member.path)
        if member.link:
            self._link(path, member.link)
            return
        with path.open("xb", buffering=0) as file:
            file.write(member.data)
        if member.executable:
            path.chmod(0o755)

    def _place(self, path: str) -> Path:
        place = self.top / path
        if place.parent not in self._folders:
            place.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(place.parent)
        return place

    def _link(self, path: Path, link: str) -> None:
        # A link that leads out of the tree could make a later write go anywhere.
        resolved = (path.parent / link).resolve()
        if not link.startswith("/") and resolved.is_relative_to(self._resolved):
            path.symlink_to(link)

    def add(self, snapshot: Snapshot, wanted: Callable[[str], bool]) -> int:
        """Have the ``wanted`` files of ``snapshot`` here; returns how many were missing.

        What is here already is compared: a power cut may have left files without their content.
        """
        missing = 0
        for path in snapshot.paths():
            if not wanted(path) or not snapshot.has(path) or self._holds(snapshot, path):
                continue
            missing += 1
            if not (isinstance(snapshot, TreeSnapshot) and self._share(snapshot.top, path)):
                self.write(snapshot.read(path))
        return missing

    def _holds(self, snapshot: Snapshot, path: str) -> bool:
        place = self.top / path
        if not os.path.lexists(place):
            return False
        if isinstance(snapshot, TreeSnapshot) or place.is_symlink():
            return True
        if member_digest(tree_member(self.top, path)) == snapshot.digest(path):
            return True
        place.unlink()
        return False

    def _share(self, top: Path, path: str) -> bool:
        """Make a hard link of an unpacked tree's file, which nobody writes through."""
        source = top / path
        if source.is_symlink():
            return False
        try:
            os.link(source, self._place(path))
        except OSError:
            # Another file system, or not our file (fs.protected_hardlinks).
            return False
        return True


def compare(
    old: Snapshot, new: Source, changed: Tree, seen: Callable[[int], None]
) -> tuple[FileChange, ...]:
    """What differs in ``new``, by path; the new version of each such file goes to ``changed``.

    ``seen`` is told the number of files walked so far, and may raise to cancel.

    :raises SourceError: a source is damaged.
    """
    changes: list[FileChange] = []
    missing = set(old.paths())
    for count, (path, member) in enumerate(_differing(old, new)):
        known = path in missing
        missing.discard(path)
        if member is not None:
            changed.write(member)
            changes.append(FileChange(path, ChangeType.MODIFIED if known else ChangeType.ADDED))
        if count % 1000 == 0:
            seen(count)
    changes += (FileChange(path, ChangeType.REMOVED) for path in missing)
    return tuple(sorted(changes, key=lambda change: change.path))


def _differing(old: Snapshot, new: Source) -> Iterator[tuple[str, Member | None]]:
    """Every file of ``new``, with its content where it differs."""
    if isinstance(old, TreeSnapshot) and isinstance(new, TreeSource):
        yield from _differing_trees(old.top, new.top, new.paths())
        return
    for member in new.members():
        same = old.digest(member.path) == member_digest(member)
        yield member.path, None if same else member


def _differing_trees(
    old: Path, new: Path, paths: Iterable[str]
) -> Iterator[tuple[str, Member | None]]:
    """As :func:`_differing`; a file that is a hard link of the old one is not even read."""
    for path in paths:
        try:
            one, other = os.lstat(old / path), os.lstat(new / path)
        except FileNotFoundError:
            yield path, tree_member(new, path)
            continue
        if os.path.samestat(one, other):
            yield path, None
            continue
        member = tree_member(new, path)
        yield path, None if member == tree_member(old, path) else member
