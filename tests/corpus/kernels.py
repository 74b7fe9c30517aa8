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
    "6.12.111-1~deb12u1": "6.12.111+deb12-amd64",
}


def source(version: str) -> Path:
    """The whole source tree of ``version``."""

    def make(folder: Path) -> None:
        series = ".".join(version.split(".")[:2])
        (deb,) = cache.debs(f"linux-source-{series}={version}")
        pipe = f"dpkg-deb --fsys-tarfile {deb} | tar -xO --wildcards './usr/src/*.tar.xz'"
        unpack = f"{pipe} | tar -xJ -C {folder} --strip-components=1"
        subprocess.run(["bash", "-o", "pipefail", "-c", unpack], check=True)

    return cache.made(f"source-{version}", make)


def kernel(version: str) -> kmod_build.Kernel:
    """The kernel of ``version``, which has its series' kbuild."""
    if version == kmod_build.TRIXIE.version:
        return kmod_build.TRIXIE
    release = RELEASES[version]
    near = next(k for k in kmod_build.KERNELS if k.release.split(".")[1] == release.split(".")[1])
    return kmod_build.Kernel(release, version, near.kbuild)


def headers(version: str) -> Headers:
    """Its headers packages."""
    top = kmod_build.headers(kernel(version))
    return open_headers(top, top / ".config")
