# SPDX-License-Identifier: GPL-2.0-or-later
"""What is told of ``struct s`` in a tree of a few files."""

from __future__ import annotations

from pathlib import Path

from kspliced.plan.components import Texts
from kspliced.plan.told_types import ToldTypes


def told(kind: type[ToldTypes], folder: Path, files: dict[str, str]) -> bool:
    """Whether it is so, with ``files`` (path: text) written to a folder."""
    for path, text in files.items():
        (folder / path).write_text(text)
    texts = Texts(folder, folder / "new", [])

    def mentions(names: frozenset[str]) -> dict[str, frozenset[str]]:
        return {n: frozenset(p for p, text in files.items() if n in text) for n in names}

    return kind(mentions, texts.around)("s")
