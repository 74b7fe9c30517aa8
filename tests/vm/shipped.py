# SPDX-License-Identifier: GPL-2.0-or-later
"""The modules that a kernel's image package ships."""

from __future__ import annotations

import lzma
import subprocess
from pathlib import Path

from tests.vm import cache, kmod_build


def modules(kernel: kmod_build.Kernel) -> Path:
    """The image package's modules, uncompressed, with ``modules.dep``: /lib/modules/RELEASE."""

    def make(folder: Path) -> None:
        (deb,) = cache.debs(f"linux-image-{kernel.release}={kernel.version}")
        pipe = f"dpkg-deb --fsys-tarfile {deb} | tar -x -C {folder} --wildcards"
        unpack = f"{pipe} './*lib/modules/*'"
        subprocess.run(["bash", "-o", "pipefail", "-c", unpack], check=True)
        if not (folder / "lib").is_dir():
            (folder / "usr/lib").rename(folder / "lib")
        for packed in (folder / "lib").rglob("*.ko.xz"):
            packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
            packed.unlink()
        cache.command("depmod", "-b", folder, kernel.release)

    return cache.made(f"lib-modules-{kernel.version}", make) / "lib/modules" / kernel.release


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
