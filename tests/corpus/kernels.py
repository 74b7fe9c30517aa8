# SPDX-License-Identifier: GPL-2.0-or-later
"""Unpacked sources and headers of the archive's kernels, by version."""

from __future__ import annotations

import subprocess
from pathlib import Path

from kspliced.build.kbuild import Headers, open_headers
from tests.vm import cache, kmod_build

RELEASES = {
    "6.1.187-1": "6.1.0-53-amd64",
    "6.1.190-1": "6.1.0-54-amd64",
    "6.1.192-1": "6.1.0-55-amd64",
    "6.1.192-2": "6.1.0-56-amd64",
}


def source(version: str) -> Path:
    """The whole source tree of ``version``."""

    def make(folder: Path) -> None:
        (deb,) = cache.debs(f"linux-source-6.1={version}")
        pipe = f"dpkg-deb --fsys-tarfile {deb} | tar -xO --wildcards './usr/src/*.tar.xz'"
        unpack = f"{pipe} | tar -xJ -C {folder} --strip-components=1"
        subprocess.run(["bash", "-o", "pipefail", "-c", unpack], check=True)

    return cache.made(f"source-{version}", make)


def headers(version: str) -> Headers:
    """Its headers packages."""
    kbuild = kmod_build.KERNELS[0].kbuild
    top = kmod_build.headers(kmod_build.Kernel(RELEASES[version], version, kbuild))
    return open_headers(top, top / ".config")
