# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel core and the modules that test it, built against Debian's own headers packages."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.vm import cache, case
from tests.vm.errors import HarnessError

TREE = Path(__file__).parents[2]
PLACE = TREE / "build" / "vm" / "kmod"

ARCH_HEADERS = f"linux-headers-{case.OLD_RELEASE}"
COMMON_HEADERS = f"linux-headers-{case.OLD_RELEASE.removesuffix('-amd64')}-common"


@dataclass(frozen=True)
class Modules:
    """A stock kernel, and for it the core and the test's modules by file name.

    ``symvers`` is the text of the core's Module.symvers, ``log`` what the build of the core said.
    """

    kernel: Path
    files: dict[str, Path]
    symvers: str
    log: str


def headers() -> Path:
    """The unpacked headers of the old kernel: what KDIR is to be."""

    def make(folder: Path) -> None:
        for deb in cache.debs(
            f"{ARCH_HEADERS}={case.OLD_VERSION}",
            f"{COMMON_HEADERS}={case.OLD_VERSION}",
            # The archive keeps one version of this for all of 6.1.
            f"linux-kbuild-6.1={case.NEW_VERSION}",
        ):
            cache.command("dpkg-deb", "-x", deb, folder)
        # Its one line names the place where the package would be installed.
        makefile = folder / "usr/src" / ARCH_HEADERS / "Makefile"
        makefile.write_text(
            f"include $(dir $(lastword $(MAKEFILE_LIST)))../{COMMON_HEADERS}/Makefile\n"
        )

    return cache.made(f"headers-{case.OLD_VERSION}", make) / "usr/src" / ARCH_HEADERS


def kernel() -> Path:
    """The stock kernel, out of the image package."""
    name = f"vmlinuz-{case.OLD_RELEASE}"

    def make(folder: Path) -> None:
        (deb,) = cache.debs(f"linux-image-{case.OLD_RELEASE}={case.OLD_VERSION}")
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE
        ) as reader:
            done = subprocess.run(
                ["tar", "x", "-C", str(folder), "--strip-components=2", f"./boot/{name}"],
                stdin=reader.stdout,
            )
        if done.returncode != 0 or reader.returncode != 0:
            raise HarnessError(f"{deb} holds no /boot/{name}")

    return cache.made(f"kernel-{case.OLD_VERSION}", make) / name


def build() -> Modules:
    """Build the core as anybody would (make -C kmod KDIR=...), and the test's modules against it.

    Raises HarnessError with the compiler's words where that fails.
    """
    shutil.rmtree(PLACE, ignore_errors=True)
    core, tests = PLACE / "core", PLACE / "tests"
    for source, target in ((TREE / "kmod", core), (Path(__file__).parent / "kmod", tests)):
        target.mkdir(parents=True)
        for path in source.iterdir():
            if path.suffix in (".c", ".h") or path.name in ("Kbuild", "Makefile"):
                shutil.copy(path, target)
    kdir = headers()
    log = cache.command("make", "-C", core, f"KDIR={kdir}", "W=1")
    cache.command(
        "make", "-C", kdir, f"M={tests}", f"KMOD={core}",
        f"KBUILD_EXTRA_SYMBOLS={core}/Module.symvers", "modules",
    )  # fmt: skip
    files = {path.name: path for folder in (core, tests) for path in folder.glob("*.ko")}
    return Modules(kernel(), files, (core / "Module.symvers").read_text(), log)
