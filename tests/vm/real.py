# SPDX-License-Identifier: GPL-2.0-or-later
"""The first upgrade's real headers, configuration and source tree, unpacked without a guest."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.vm import cache
from tests.vm.case import NEW_VERSION, OLD_RELEASE, OLD_VERSION

SOURCES = (f"linux-source-6.1={OLD_VERSION}", f"linux-source-6.1={NEW_VERSION}")
_COMMON = OLD_RELEASE.replace("amd64", "common")
_HEADERS = (
    f"linux-kbuild-6.1={NEW_VERSION}",
    f"linux-compiler-gcc-12-x86={NEW_VERSION}",
    f"linux-headers-{OLD_RELEASE}={OLD_VERSION}",
    f"linux-headers-{_COMMON}={OLD_VERSION}",
)
# What compiling a unit of ext4 reads of a tree.
_WANTED = (
    "include", "arch/x86", "arch/Kconfig", "scripts", "fs/ext4", "fs/Makefile", "fs/Kconfig",
    "Makefile", "Kbuild", "Kconfig",
)  # fmt: skip


def kernel() -> Path:
    """A root with the old kernel's headers packages and its /boot/config."""
    return cache.made(f"headers-{OLD_RELEASE}", _unpack_headers)


def tree() -> Path:
    """The part of the old source that ext4 needs, with the changelog that tells its version."""
    return cache.made(f"tree-{OLD_VERSION}", _unpack_tree)


def _unpack_headers(folder: Path) -> None:
    for deb in cache.debs(*_HEADERS):
        subprocess.run(["dpkg-deb", "-x", str(deb), str(folder)], check=True)
    (image,) = cache.debs(f"linux-image-{OLD_RELEASE}={OLD_VERSION}")
    pipe = f"dpkg-deb --fsys-tarfile {image} | tar -x -C {folder} ./boot/config-{OLD_RELEASE}"
    subprocess.run(["bash", "-o", "pipefail", "-c", pipe], check=True)


def _unpack_tree(folder: Path) -> None:
    (deb,) = cache.debs(SOURCES[0])
    pipe = f"dpkg-deb --fsys-tarfile {deb} | tar -xO --wildcards './usr/src/*.tar.xz'"
    wanted = " ".join(f"'*/{name}'" for name in _WANTED)
    unpack = f"tar -xJ -C {folder} --strip-components=1 --wildcards --no-wildcards-match-slash"
    subprocess.run(["bash", "-o", "pipefail", "-c", f"{pipe} | {unpack} {wanted}"], check=True)
    (folder / "debian").mkdir()
    (folder / "debian/changelog").write_text(f"linux ({OLD_VERSION}) bookworm; urgency=high\n")
