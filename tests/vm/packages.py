# SPDX-License-Identifier: GPL-2.0-or-later
"""Our own .deb packages, built by dpkg-buildpackage from a copy of the working tree."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.vm import cache

TREE = Path(__file__).parents[2]
# What the packages are made of; a change elsewhere needs no new ones.
PARTS = ("debian", "kspliced", "kmod", "plugins", "data", "docs", "bin", "man")
FILES = ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "ARCHITECTURE.md", "COPYING")


def own_debs() -> tuple[Path, ...]:
    """The binary packages of the tree as it is, built anew only when a file of them has changed.

    Raises HarnessError with the end of the build's log where the build fails.
    """
    files = parts()
    key = digest(files)
    place = TREE / "build" / "deb" / key
    with cache.locked("own-debs"):
        if not any(place.glob("*.deb")):
            _build(place, files)
    return tuple(sorted(place.glob("*.deb")))


def _build(place: Path, files: list[str]) -> None:
    shutil.rmtree(place.parent, ignore_errors=True)
    source = place / "kspliced"
    for path in files:
        target = source / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TREE / path, target)
    # The copy has no tests.
    cache.command(
        "env", "DEB_BUILD_OPTIONS=nocheck", "dpkg-buildpackage", "-b", "-us", "-uc", cwd=source
    )
    shutil.rmtree(source)


def parts(*more: str) -> list[str]:
    """The files that packages are made of, git's and new ones, and those of ``more`` folders."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TREE,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    return sorted(
        path
        for path in listed
        if path
        and (path.split("/")[0] in (*PARTS, *more) or path in FILES)
        and (TREE / path).is_file()
    )


def digest(files: list[str]) -> str:
    """What stands for the names and contents of these files."""
    return cache.digest(*(part for path in files for part in (path, (TREE / path).read_bytes())))


if __name__ == "__main__":
    for deb in own_debs():
        sys.stdout.write(f"{deb}\n")
