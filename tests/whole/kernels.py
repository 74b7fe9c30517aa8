# SPDX-License-Identifier: GPL-2.0-or-later
"""The upgrades whose every unit is matched, and what their packages hold, unpacked."""

from __future__ import annotations

import lzma
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.vm import cache, kmod_build
from tests.whole import trixie


@dataclass(frozen=True)
class Upgrade:
    """From a kernel that runs to ``new_version``; ``source`` is the source package's name.

    ``directories``: every unit in them is taken too, changed or not. ``compiler``: where this
    machine lacks it, the units are compiled in a Debian 13 beside it. ``split``: with a section
    for each function, as the builder does; docs/coverage.md says where that does not do.
    """

    kernel: kmod_build.Kernel
    source: str
    new_version: str
    compiler: str
    directories: tuple[str, ...] = ()
    split: bool = True

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
            kmod_build.Kernel(
                "6.12.115+deb13-amd64", "6.12.115-1", "linux-kbuild-6.12.115+deb13=6.12.115-1"
            ),
            "linux-source-6.12",
            "6.12.116-1",
            "gcc-14",
            # The upgrade changes four units.
            (
                *("kernel/sched", "kernel/time", "mm", "fs", "block", "io_uring", "net/core"),
                *("net/ipv4", "fs/ext4", "net/bridge", "arch/x86/kernel", "arch/x86/kvm"),
            ),
            split=False,
        ),
    )
}


def fetched(upgrade: Upgrade) -> None:
    """Have the packages of an upgrade that this machine's own apt does not offer."""
    if shutil.which(upgrade.compiler) is None:
        kernel, source_ = upgrade.kernel, upgrade.source
        names = (kernel.headers, kernel.common, f"linux-image-{kernel.release}", source_)
        versions = [f"{name}={kernel.version}" for name in names]
        trixie.fetch(*versions, kernel.kbuild, f"{source_}={upgrade.new_version}")


def source(upgrade: Upgrade, version: str) -> Path:
    """The whole source tree of ``version``."""

    def make(folder: Path) -> None:
        (deb,) = cache.debs(f"{upgrade.source}={version}")
        pipe = f"dpkg-deb --fsys-tarfile {deb} | tar -xO --wildcards './usr/src/*.tar.xz'"
        unpack = f"{pipe} | tar -xJ -C {folder} --strip-components=1"
        subprocess.run(["bash", "-o", "pipefail", "-c", unpack], check=True)

    return cache.made(f"source-{version}", make)


def modules(upgrade: Upgrade) -> Path:
    """The image package's modules, uncompressed, with ``modules.dep``: /lib/modules/RELEASE."""
    release = upgrade.kernel.release

    def make(folder: Path) -> None:
        (deb,) = cache.debs(f"linux-image-{release}={upgrade.kernel.version}")
        pipe = f"dpkg-deb --fsys-tarfile {deb} | tar -x -C {folder} --wildcards"
        unpack = f"{pipe} './*lib/modules/*'"
        subprocess.run(["bash", "-o", "pipefail", "-c", unpack], check=True)
        if not (folder / "lib").is_dir():
            (folder / "usr/lib").rename(folder / "lib")
        for packed in (folder / "lib").rglob("*.ko.xz"):
            packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
            packed.unlink()
        cache.command("depmod", "-b", folder, release)

    return cache.made(f"lib-modules-{upgrade.kernel.version}", make) / "lib/modules" / release


def target_of(path: str) -> str:
    """A module file's name as /proc/modules has it."""
    return Path(path).name.split(".", 1)[0].replace("-", "_")


def dependencies(modules_dir: Path) -> dict[str, tuple[str, ...]]:
    """By module, its file and those it needs, in the order to load them (modules.dep)."""
    found = {}
    for line in (modules_dir / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        found[target_of(path)] = (*reversed(needs.split()), path)
    return found
