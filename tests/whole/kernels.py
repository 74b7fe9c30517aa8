# SPDX-License-Identifier: GPL-2.0-or-later
"""The upgrades whose every unit is matched, and what their packages hold, unpacked."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.vm import cache, kmod_build, shipped, trixie
from tests.vm.shipped import dependencies

__all__ = ["UPGRADES", "Upgrade", "dependencies", "fetched", "modules", "source"]


@dataclass(frozen=True)
class Upgrade:
    """From a kernel that runs to ``new_version``; ``source`` is the source package's name.

    ``directories``: every unit in them is taken too, changed or not. ``compiler``: where this
    machine lacks it, the units are compiled in a Debian 13 beside it.
    """

    kernel: kmod_build.Kernel
    source: str
    new_version: str
    compiler: str
    directories: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The running kernel's version, by which commands name the upgrade."""
        return self.kernel.version


UPGRADES = {
    upgrade.name: upgrade
    for upgrade in (
        Upgrade(
            kmod_build.Kernel("6.1.0-53-amd64", "6.1.187-1", "linux-kbuild-6.1=6.1.192-2"),
            "linux-source-6.1",
            "6.1.190-1",
            "gcc-12",
        ),
        Upgrade(
            kmod_build.TRIXIE,
            "linux-source-6.12",
            "6.12.116-1",
            "gcc-14",
            # The upgrade changes four units.
            (
                *("kernel/sched", "kernel/time", "mm", "fs", "block", "io_uring", "net/core"),
                *("net/ipv4", "fs/ext4", "net/bridge", "arch/x86/kernel", "arch/x86/kvm"),
            ),
        ),
    )
}


def fetched(upgrade: Upgrade) -> None:
    """Have the packages of an upgrade that this machine's own apt does not offer."""
    kmod_build.fetch(upgrade.kernel)
    if shutil.which(upgrade.compiler) is None:
        trixie.fetch(f"{upgrade.source}={upgrade.new_version}")


def source(upgrade: Upgrade, version: str) -> Path:
    """The whole source tree of ``version``."""

    def make(folder: Path) -> None:
        (deb,) = cache.debs(f"{upgrade.source}={version}")
        pipe = f"dpkg-deb --fsys-tarfile {deb} | tar -xO --wildcards './usr/src/*.tar.xz'"
        unpack = f"{pipe} | tar -xJ -C {folder} --strip-components=1"
        subprocess.run(["bash", "-o", "pipefail", "-c", unpack], check=True)

    return cache.made(f"source-{version}", make)


def modules(upgrade: Upgrade) -> Path:
    """The modules of the kernel that ``upgrade`` begins with."""
    return shipped.modules(upgrade.kernel)
