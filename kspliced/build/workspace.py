# SPDX-License-Identifier: GPL-2.0-or-later
"""The builder's working directory: the old tree, the new files, and the hot tree.

The hot tree is the old tree (hard links) plus the changed sources of the selected units, their
line numbers kept; everything else in it stays old.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from kspliced.build.kbuild import Unit
from kspliced.build.select import every_unit_reads
from kspliced.errors import BuildError, Code
from kspliced.source.compare import FileChange, Tree
from kspliced.source.lines import keep_line_numbers
from kspliced.source.snapshot import Snapshot


class Workspace:
    """Paths below ``top``, which the caller removes; ``old`` is elsewhere where it can be kept."""

    def __init__(self, top: Path, old: Snapshot) -> None:
        self.top = top
        self._snapshot = old
        self.old = Tree(old.checkout or top / "old")
        self.changed = Tree(top / "changed")
        self.hot = top / "hot"
        self._heated: set[str] = set()
        self._accepted: set[str] = set()

    def objtree(self, name: str) -> Path:
        """Where the object tree called ``name`` goes."""
        return self.top / "objects" / name

    def add_common(self, changes: Iterable[FileChange]) -> None:
        """Write what every unit reads and the old version of what changes."""
        changed = {change.path for change in changes}
        self.old.add(self._snapshot, lambda path: path in changed or every_unit_reads(path))

    def add_near(self, units: tuple[Unit, ...]) -> None:
        """Write the headers of the units' subsystems: all below their first two directories."""
        near = tuple({"/".join(unit.directory.split("/")[:2]) + "/" for unit in units})
        self.old.add(
            self._snapshot, lambda path: path.startswith(near) and path.endswith((".h", ".S"))
        )

    def add_rest(self) -> int:
        """Write all that is known of the old source; returns how many files were missing."""
        return self.old.add(self._snapshot, lambda path: True)

    def make_hot(self) -> None:
        """Make, or complete, the hot tree of what is laid out of the old one."""
        for directory, _, names in os.walk(self.old.top):
            into = self.hot / Path(directory).relative_to(self.old.top)
            into.mkdir(exist_ok=True)
            for name in names:
                if not os.path.lexists(into / name):
                    _link(Path(directory) / name, into / name)

    def heat(self, files: Mapping[str, bytes | None]) -> None:
        """Have exactly ``files`` of the hot tree differ from the old one.

        None stands for the content of the new source; line numbers are kept. A file that stays
        as it is is not touched, so that make does not compile what includes it again.
        """
        for path in self._heated - files.keys():
            (self.hot / path).unlink()
            if (self.old.top / path).exists():
                _link(self.old.top / path, self.hot / path)
                # The link has the old file's time, which make would take for unchanged.
                _copy(self.hot / path)
        for path, content in files.items():
            self._heat(path, content)
        self._heated = set(files)
        self._accepted = {path for path, content in files.items() if content is not None}

    def made(self, path: str) -> Path:
        """A heated file as it was asked for, before what keeps its line numbers."""
        return (self.top / "accepted" if path in self._accepted else self.changed.top) / path

    def _is_so(self, path: str, content: bytes | None) -> bool:
        """Whether a file has been heated with this content last."""
        if path not in self._heated or (path in self._accepted) != (content is not None):
            return False
        return content is None or self.made(path).read_bytes() == content

    def _heat(self, path: str, content: bytes | None) -> None:
        if self._is_so(path, content):
            return
        new = self.changed.top / path
        if content is not None:
            new = self.top / "accepted" / path
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(content)
        numbered = keep_line_numbers(self.old.top / path, new)
        place = self.hot / path
        if place.is_file() and place.read_bytes() == numbered:
            return
        # Never through the hard link: the old tree has the same inode.
        place.unlink(missing_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(numbered)


def check_exec(folder: Path) -> None:
    """Try to run a program in ``folder``: the kernel's build runs scripts of its source there, and
    programs that it makes.

    :raises BuildError: NO_EXEC.
    :raises OSError: no space left.
    """
    program = folder / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    try:
        subprocess.run([program], check=True, stdin=subprocess.DEVNULL)
    except PermissionError as error:
        noexec = os.statvfs(folder).f_flag & os.ST_NOEXEC
        why = "it is mounted noexec" if noexec else "a security module forbids it"
        raise BuildError(
            Code.NO_EXEC,
            f"no program can be run in {folder}: {why}",
            "mount it with exec, or name another place with --workdir",
        ) from error
    finally:
        program.unlink()


def source_of(unit: Unit) -> str:
    """The source file of a unit."""
    return f"{unit.path.rpartition('.')[0]}.c"


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copy2(old, new, follow_symlinks=False)


def _copy(path: Path) -> None:
    """Make a linked file one of its own, as new as now."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
