# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel core and the modules that test it, built against Debian's own headers packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.vm import cache, case, trixie
from tests.vm.errors import HarnessError

TREE = Path(__file__).parents[2]
SOURCES = TREE / "tests" / "vm" / "kmod"


@dataclass(frozen=True)
class Kernel:
    """A kernel of the archive: its uname -r, its version, and ``name=version`` of its kbuild."""

    release: str
    version: str
    kbuild: str

    @property
    def headers(self) -> str:
        """The package of the headers for one architecture, and its directory in /usr/src."""
        return f"linux-headers-{self.release}"

    @property
    def common(self) -> str:
        """The same for the headers that all architectures share."""
        return f"linux-headers-{self.release.removesuffix('-amd64')}-common"


KERNELS = (
    # The archive keeps one version of kbuild for all of 6.1.
    Kernel(case.OLD_RELEASE, case.OLD_VERSION, f"linux-kbuild-6.1={case.NEW_VERSION}"),
    # IBT, call padding and the changes of 6.12, compiled by this release's compiler.
    Kernel(
        "6.12.111+deb12-amd64",
        "6.12.111-1~deb12u1",
        "linux-kbuild-6.12.111+deb12=6.12.111-1~deb12u1",
    ),
)
# The same, compiled by the next release's.
TRIXIE = Kernel("6.12.115+deb13-amd64", "6.12.115-1", "linux-kbuild-6.12.115+deb13=6.12.115-1")


@dataclass(frozen=True)
class Tree:
    """A kernel to build modules for and to boot: its uname -r, what KDIR is to be, its image.

    ``arguments`` are the words of QEMU's command line that it needs.
    """

    release: str
    kdir: Path
    image: Path
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Modules:
    """For a kernel, the core and other modules by file name, and the core's Module.symvers."""

    tree: Tree
    files: dict[str, Path]
    symvers: str


def newest() -> Kernel:
    """The newest kernel that the archive has for this release or the next: of its backports."""
    package, version = trixie.newest_backport("linux-headers-amd64")
    release = package.removeprefix("linux-headers-")
    kbuild = f"linux-kbuild-{release.removesuffix('-amd64')}={version}"
    kernel = Kernel(release, version, kbuild)
    trixie.fetch(f"{kernel.headers}={version}", f"{kernel.common}={version}", kbuild)
    return kernel


def fetch(kernel: Kernel) -> None:
    """Have the packages of a kernel that this machine's own apt does not offer."""
    if kernel == TRIXIE:
        names = (
            kernel.headers,
            kernel.common,
            f"linux-image-{kernel.release}",
            "linux-source-6.12",
        )
        trixie.fetch(*(f"{name}={kernel.version}" for name in names), kernel.kbuild)


def headers(kernel: Kernel) -> Path:
    """Its unpacked headers: what KDIR is to be."""

    def make(folder: Path) -> None:
        for deb in cache.debs(
            f"{kernel.headers}={kernel.version}",
            f"{kernel.common}={kernel.version}",
            kernel.kbuild,
        ):
            cache.command("dpkg-deb", "-x", deb, folder)
        # Its lines name the places where the packages would be installed.
        makefile = folder / "usr/src" / kernel.headers / "Makefile"
        here = "$(dir $(abspath $(lastword $(MAKEFILE_LIST))))"
        output = f"KBUILD_OUTPUT := {here}\n" if "KBUILD_OUTPUT" in makefile.read_text() else ""
        makefile.write_text(f"{output}include {here}../{kernel.common}/Makefile\n")

    return cache.made(f"headers-{kernel.version}", make) / "usr/src" / kernel.headers


def image(kernel: Kernel) -> Path:
    """The stock kernel, out of the image package."""
    name = f"vmlinuz-{kernel.release}"

    def make(folder: Path) -> None:
        (deb,) = cache.debs(f"linux-image-{kernel.release}={kernel.version}")
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE
        ) as reader:
            done = subprocess.run(
                ["tar", "x", "-C", str(folder), "--strip-components=2", f"./boot/{name}"],
                stdin=reader.stdout,
            )
        if done.returncode != 0 or reader.returncode != 0:
            raise HarnessError(f"{deb} holds no /boot/{name}")

    return cache.made(f"kernel-{kernel.version}", make) / name


def tree(kernel: Kernel) -> Tree:
    """A kernel of the archive, to build modules for and to boot."""
    return Tree(kernel.release, headers(kernel), image(kernel))


def build(tree: Tree, sources: Path = SOURCES) -> Modules:
    """The core and the modules of a folder of this tree, built for a kernel.

    Raises HarnessError with the compiler's words where that fails.
    """
    # Test runs beside one another (pytest-xdist) do not take it from each other.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    place = TREE / "build" / sources.relative_to(TREE) / worker / tree.release
    shutil.rmtree(place, ignore_errors=True)
    core, others = place / "core", place / "others"
    build_core(tree.kdir, core)
    _copy(sources, others)
    cache.command(
        "make", "-C", tree.kdir, f"M={others}", f"KMOD={core}",
        f"KBUILD_EXTRA_SYMBOLS={core}/Module.symvers", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules",
    )  # fmt: skip
    files = {path.name: path for folder in (core, others) for path in folder.glob("*.ko")}
    return Modules(tree, files, (core / "Module.symvers").read_text())


def build_core(kdir: Path, folder: Path, *words: str) -> str:
    """Build the core in ``folder`` as anybody would (make -C kmod KDIR=...), with more ``words``.

    For a kernel of Debian 13 the folder has to lie in this tree. Returns all that make and what it
    ran said. Raises HarnessError with it where make fails.
    """
    _copy(TREE / "kmod", folder)
    command = ["make", "-C", str(folder), f"KDIR={kdir}", *words]
    if shutil.which(compiler(kdir)) is None:
        return trixie.run(command)
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode != 0:
        raise HarnessError(f"the core does not build for {kdir}:\n{done.stdout}")
    return done.stdout


def compiler(kdir: Path) -> str:
    """The compiler that a kernel was built by."""
    text = (kdir / ".config").read_text()
    return text.partition('CONFIG_CC_VERSION_TEXT="')[2].split()[0]


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix in (".c", ".h") or path.name in ("Kbuild", "Makefile"):
            shutil.copy(path, target)
