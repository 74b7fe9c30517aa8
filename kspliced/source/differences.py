# SPDX-License-Identifier: GPL-2.0-or-later
"""What changed in a file, for people: the unified difference that diff(1) makes."""

from __future__ import annotations

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

    :raises SourceError: TOOL_MISSING, SOURCE_UNREADABLE.
    """
    for path in paths:
        labels = ("--label", f"a/{path}", "--label", f"b/{path}")
        command = ("diff", "-uN", *labels, "--", str(old / path), str(new / path))
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
