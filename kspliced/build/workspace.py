# SPDX-License-Identifier: GPL-2.0-or-later
"""The builder's working directory: the old tree, the new files, and the hot tree.

The hot tree is the old tree (hard links) plus the changed sources of the selected units, their
line numbers kept; everything else in it stays old.
"""

from __future__ import annotations

import os
from pathlib import Path

from kspliced.build.kbuild import Unit
from kspliced.source.compare import Tree
from kspliced.source.lines import keep_line_numbers


class Workspace:
    """Paths below ``top``, which the caller removes."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.old = Tree(top / "old", top / "old.spool")
        self.changed = Tree(top / "changed", top / "changed.spool")
        self.hot = top / "hot"

    def objtree(self, name: str) -> Path:
        """Where the object tree called ``name`` goes."""
        return self.top / "objects" / name

    def write_headers(self, units: tuple[Unit, ...]) -> None:
        """Write the headers of the units' subsystems: all below their first two directories."""
        near = tuple({"/".join(unit.directory.split("/")[:2]) + "/" for unit in units})
        self.old.write_spooled(lambda path: path.startswith(near))

    def make_hot(self, units: tuple[Unit, ...]) -> None:
        """Make, or complete, the hot tree."""
        for directory, _, names in os.walk(self.old.top):
            into = self.hot / Path(directory).relative_to(self.old.top)
            into.mkdir(exist_ok=True)
            for name in names:
                if not os.path.lexists(into / name):
                    os.link(Path(directory) / name, into / name, follow_symlinks=False)
        for unit in units:
            self._heat(source_of(unit))

    def _heat(self, source: str) -> None:
        content = keep_line_numbers(self.old.top / source, self.changed.top / source)
        path = self.hot / source
        # Never through the hard link: the old tree has the same inode.
        path.unlink()
        path.write_bytes(content)

    def close(self) -> None:
        """Let go of the spool files."""
        self.old.close()
        self.changed.close()


def source_of(unit: Unit) -> str:
    """The source file of a unit."""
    return f"{unit.path.rpartition('.')[0]}.c"
