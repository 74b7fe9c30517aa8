# SPDX-License-Identifier: GPL-2.0-or-later
"""What changed in a file, for people: the unified difference that diff(1) makes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kspliced.errors import Code, SourceError


@dataclass(frozen=True)
class FileDiff:
    """The unified difference of one file, which may have come or gone."""

    path: str
    text: str


def differences(old: Path, new: Path, paths: Iterable[str]) -> Iterator[FileDiff]:
    """The differences of ``paths`` below two trees; files that are the same are left out.

    So is what neither tree has: documentation and other files that nothing is built of are not kept
    (source/snapshot.py), and one that is removed has no new text either.

    :raises SourceError: TOOL_MISSING, SOURCE_UNREADABLE.
    """
    for path in paths:
        if not any(map(_is_entry, (old / path, new / path))):
            continue
        labels = ("--label", f"a/{path}", "--label", f"b/{path}")
        # A directory in its place is nothing that could be compared.
        files = [str(t / path) if _is_entry(t / path) else os.devnull for t in (old, new)]
        command = ("diff", "-uN", "--no-dereference", *labels, "--", *files)
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except OSError as error:
            raise SourceError(
                Code.TOOL_MISSING, "diff cannot be run", "install diffutils"
            ) from error
        if done.returncode > 1:
            words = done.stderr.decode("utf-8", "replace").strip()
            raise SourceError(Code.SOURCE_UNREADABLE, f"cannot compare {path}: {words:.200}")
        if done.returncode == 1:
            yield FileDiff(path, done.stdout.decode("utf-8", "replace"))


def _is_entry(path: Path) -> bool:
    """Whether there is a file or a link, wherever that leads."""
    return path.is_symlink() or path.is_file()
