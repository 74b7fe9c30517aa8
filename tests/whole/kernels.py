# SPDX-License-Identifier: GPL-2.0-or-later
"""The upgrades whose every unit is matched, and what their packages hold, unpacked."""

from __future__ import annotations

import lzma
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.vm import cache, kmod_build


@dataclass(frozen=True)
class Upgrade:
    """From a kernel that runs to one that was installed; ``source`` is the source package's name,
    ``new_source`` its ``name=version`` for the new one."""

    kernel: kmod_build.Kernel
    source: str
    new_version: str

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
        ),
    )
}


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
