# SPDX-License-Identifier: GPL-2.0-or-later
"""A local repository of signed RPM packages, on a disk that a guest mounts read-only.

As tests.vm.repo's it has the states ``before`` and ``after`` the upgrade, and a guest sees one of
them at a time: the packages in repo.PLACE/kernel, their sources in repo.PLACE/kernel-source.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.vm import cache, repo

NAME = "kernel"
KEYFILE = "/etc/pki/rpm-gpg/RPM-GPG-KEY-harness"
_STANZA = """\
[{name}]
name=The harness's {name}
baseurl=file://{place}/{name}
enabled={enabled}
gpgcheck=1
gpgkey=file://{key}
metadata_expire=0

"""
SOURCES = "".join(
    _STANZA.format(name=name, place=repo.PLACE, key=KEYFILE, enabled=enabled)
    for name, enabled in ((NAME, 1), (f"{NAME}-source", 0))
)


def lay_out(folder: Path, binary: tuple[Path, ...], source: tuple[Path, ...]) -> None:
    """Make the repositories ``folder`` and ``folder``-source of these packages."""
    for place, packages in ((folder, binary), (Path(f"{folder}-source"), source)):
        place.mkdir(parents=True)
        for package in packages:
            _link(package, place / package.name)
        cache.command("createrepo_c", "--quiet", "--no-database", place)


def _link(package: Path, target: Path) -> None:
    # Hard links are on the disk once. Across file systems there have to be copies.
    try:
        os.link(package, target)
    except OSError:
        shutil.copy(package, target)


@contextmanager
def repository(before: tuple[Path, ...], after: tuple[Path, ...]) -> Iterator[Path]:
    """A disk with both states; ``after`` joins ``before``. Sources are told by their names."""
    with tempfile.TemporaryDirectory(prefix="ks-rpm-repo-", dir=cache.root()) as folder:
        tree = Path(folder, "tree")
        for state, packages in (("before", before), ("after", before + after)):
            source = tuple(path for path in packages if path.name.endswith(".src.rpm"))
            binary = tuple(path for path in packages if path not in source)
            lay_out(tree / state / NAME, binary, source)
        disk = Path(folder, "repository.ext4")
        repo.write_disk(tree, disk)
        yield disk
