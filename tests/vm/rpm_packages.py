# SPDX-License-Identifier: GPL-2.0-or-later
"""Our own RPM packages, built by rpmbuild from a copy of the working tree."""

from __future__ import annotations

import re
import shutil
import tarfile
from pathlib import Path

from tests.vm import cache, packages, rpm_kernel
from tests.vm.errors import HarnessError

SPEC = packages.TREE / "rpm" / "kspliced.spec"


def own_rpms() -> tuple[Path, ...]:
    """The signed packages of the tree as it is, built anew only when a file of them has changed.

    Raises HarnessError with the end of the build's log where the build fails.
    """
    files = packages.parts("rpm")
    place = packages.TREE / "build" / "rpm" / packages.digest(files)
    if not place.is_dir():
        shutil.rmtree(place.parent, ignore_errors=True)
        work = place.with_suffix(".work")
        _build(files, work)
        work.rename(place)
    return tuple(sorted((place / "RPMS").glob("*/*.rpm")))


def _build(files: list[str], work: Path) -> None:
    version = re.search(r"^Version:\s*(\S+)$", SPEC.read_text(), re.MULTILINE)
    if version is None:
        raise HarnessError(f"{SPEC} has no version")
    top = f"kspliced-{version[1]}"
    (work / "SOURCES").mkdir(parents=True)
    with tarfile.open(work / "SOURCES" / f"{top}.tar.gz", "w:gz") as archive:
        for path in files:
            archive.add(packages.TREE / path, f"{top}/{path}")
    # What the build needs is here as packages of Debian, of which RPM knows nothing.
    cache.command("rpmbuild", "-bb", "--nodeps", "--nocheck", "--define", f"_topdir {work}", SPEC)
    rpm_kernel.key().sign(*(work / "RPMS").glob("*/*.rpm"))
