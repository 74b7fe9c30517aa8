# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernel runs and which are installed, from procfs and the database of dpkg or rpm. Cheap to
import."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kspliced.engine import rpmdb
from kspliced.engine.paths import Paths
from kspliced.engine.versions import (
    compare_versions,
    flavour,
    is_rpm_release,
    of_rpm,
    series,
)
from kspliced.errors import Code, KernelError
from kspliced.kernel.modules import Modules, read_modules
from kspliced.lines import split_lines
from kspliced.model import KernelId

# "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-11-14)"
_BUILD = re.compile(r"#\d.* Debian (?P<version>[0-9][0-9A-Za-z.+~:-]*)")
# Versions of Debian's own archive: 6.1.192-1, 6.1.52-1+deb12u1, 6.5.10-1~bpo12+1, 6.5~rc7-1~exp1.
# Others that say "Debian", too, have an epoch or a word of their own (1:6.1.63-1+rpt1).
_ARCHIVE = re.compile(
    r"\d+(\.\d+)+(~rc\d+)?-\d+(\.\d+)*([+~](deb|bpo|exp|b)\d+(\.\d+)*([u+]\d+)?)*"
)
# Source packages that Debian's images are of; that of a self-built one is linux-upstream, or none.
_SOURCE = re.compile(r"linux(-\d+\.\d+)?( \(.*\))?|linux-signed(-\d+\.\d+)?-[a-z0-9]+( \(.*\))?")
_IMAGE = re.compile(r"linux-image-(?P<release>\d.*?)(?:-unsigned)?")
_SIGNED = re.compile(r"linux-signed-\S+ \((?P<version>[^)]+)\)")
_LINUX = re.compile(r"linux \((?P<version>[^)]+)\)")
_BINNMU = re.compile(r"\+b\d+$")
# dpkg's third status word for packages whose files are on the disk.
_UNPACKED = {"installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending"}


@dataclass(frozen=True)
class Installed:
    """The kernels that the running one could be upgraded to.

    ``newest`` is of the same flavour and series (6.1); ``other_series`` is a newer one of the
    same flavour whose series differs, which only a reboot can bring, or None. ``ignored`` are
    packages of a newer image of the same flavour that are not the distribution's.
    """

    newest: KernelId
    other_series: KernelId | None
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Image:
    """A kernel that dpkg or rpm knows, and whether it is of the distribution's own source.

    ``name`` and ``version`` are its package's; for rpm, which finds kernels by what they provide,
    they are the kernel's.
    """

    kernel: KernelId
    name: str
    version: str
    distribution: bool


def running_kernel(paths: Paths) -> KernelId:
    """The identity of the running kernel: Debian's says it itself (uname), of others rpm knows it.

    :raises KernelError: FOREIGN_KERNEL for one that is not the distribution's; KERNEL_UNREADABLE
        without procfs, or where rpm does not answer.
    """
    try:
        release = (paths.proc / "sys/kernel/osrelease").read_text("ascii").strip()
        build = (paths.proc / "sys/kernel/version").read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise KernelError(
            Code.KERNEL_UNREADABLE, f"cannot read the running kernel's name: {error}"
        ) from error
    match = _BUILD.search(build)
    version = match["version"] if match and _ARCHIVE.fullmatch(match["version"]) else None
    if match is None and is_rpm_release(release):
        version = dict(rpmdb.kernels(paths)).get(release)
    if version is None:
        again = "install its package again, or " if is_rpm_release(release) else ""
        name = _printable(release)
        raise KernelError(
            Code.FOREIGN_KERNEL,
            f"the running kernel {name} is not the distribution's, and is left alone",
            f"{again}boot a kernel of the distribution",
        )
    return KernelId(release, version, os.uname().machine)


def installed_kernels(paths: Paths, running: KernelId) -> Installed:
    """The newest installed kernels of the running one's flavour; at least the running one."""
    newest, other = running, None
    ignored: list[str] = []
    for image in _kernels(paths, running):
        kernel = image.kernel
        if flavour(kernel.release) != flavour(running.release):
            continue
        if not image.distribution:
            if compare_versions(kernel.version, running.version, running) > 0:
                ignored.append(_printable(f"{image.name} {image.version}"))
        elif series(kernel.release) == series(running.release):
            if compare_versions(kernel.version, newest.version, running) > 0:
                newest = kernel
        elif compare_versions(kernel.version, (other or newest).version, running) > 0:
            other = kernel
    if other is not None and compare_versions(other.version, newest.version, running) < 0:
        other = None
    return Installed(newest, other, tuple(sorted(ignored)))


def distribution_images(paths: Paths, running: KernelId) -> frozenset[str]:
    """The packages of the distribution's installed images of the running one's flavour and series:
    what an update can bring to it."""
    return frozenset(
        image.name
        for image in _distribution(paths, running)
        if series(image.kernel.release) == series(running.release)
    )


def installed_version(paths: Paths, package: str) -> str | None:
    """The version of a package whose files are on the disk, or None."""
    for fields in _packages(paths.dpkg, f"Package: {package}\n".encode()):
        if fields.get("Package") == package:
            return fields.get("Version")
    return None


def installed_images(paths: Paths, running: KernelId) -> tuple[tuple[str, str], ...]:
    """Name and version of the distribution's installed packages of kernels of the running one's
    flavour."""
    return tuple((image.name, image.version) for image in _distribution(paths, running))


def boot_id(paths: Paths) -> str:
    """The kernel's random identity of this boot.

    :raises KernelError: KERNEL_UNREADABLE without procfs.
    """
    try:
        return (paths.proc / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise KernelError(Code.KERNEL_UNREADABLE, f"cannot read the boot id: {error}") from error


def switched_off(paths: Paths) -> bool:
    """Whether ``kspliced=off`` is on the kernel command line."""
    try:
        return "kspliced=off" in (paths.proc / "cmdline").read_text("utf-8", "replace").split()
    except OSError:
        return False


def loaded_modules(paths: Paths) -> Modules:
    """The loaded modules, our own left out.

    :raises KernelError: KERNEL_UNREADABLE without procfs.
    """
    try:
        return read_modules((paths.proc / "modules").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise KernelError(Code.KERNEL_UNREADABLE, f"cannot read /proc/modules: {error}") from error


def source_version(source: str, version: str) -> str:
    """The version of the ``linux`` source package behind a binary package.

    ``source`` is its Source field ("linux-signed-amd64 (6.1.192+2)", "linux", ""), ``version``
    its Version. A signed image's source replaces the first "-" of the real version by "+".
    """
    if match := _SIGNED.fullmatch(source):
        return match["version"].replace("+", "-", 1)
    if match := _LINUX.fullmatch(source):
        return match["version"]
    return _BINNMU.sub("", version)


def _distribution(paths: Paths, running: KernelId) -> Iterator[_Image]:
    """The distribution's installed kernels of the running one's flavour, of any series."""
    for image in _kernels(paths, running):
        if image.distribution and flavour(image.kernel.release) == flavour(running.release):
            yield image


def _kernels(paths: Paths, running: KernelId) -> Iterator[_Image]:
    if of_rpm(running):
        for release, version in rpmdb.kernels(paths):
            yield _Image(KernelId(release, version, running.arch), release, version, True)
    else:
        yield from _images(paths.dpkg, running.arch)


def _images(dpkg: Path, arch: str) -> Iterator[_Image]:
    for fields in _packages(dpkg, b"Package: linux-image-"):
        package, version = fields.get("Package", ""), fields.get("Version", "")
        match = _IMAGE.fullmatch(package)
        if match and not match["release"].endswith("-dbg"):
            source = fields.get("Source", "")
            kernel = KernelId(match["release"], source_version(source, version), arch)
            ours = _SOURCE.fullmatch(source) and _ARCHIVE.fullmatch(kernel.version)
            yield _Image(kernel, package, version, ours is not None)


def _packages(dpkg: Path, start: bytes) -> Iterator[dict[str, str]]:
    """Stanzas of unpacked packages, dpkg's unmerged updates (updates/NNNN) taking precedence."""
    latest: dict[str, dict[str, str]] = {}
    try:
        journal = [file for file in sorted((dpkg / "updates").iterdir()) if file.name.isdigit()]
    except OSError:
        journal = []
    for file in (dpkg / "status", *journal):
        try:
            content = b"\n" + file.read_bytes()
        except OSError:
            continue  # no dpkg here, or it merged that file meanwhile: nothing more is installed
        for stanza in content.split(b"\n\n"):
            text = stanza.lstrip(b"\n") + b"\n"
            if text.startswith(start):
                fields = _fields(text.decode("utf-8", "replace"))
                latest[fields["Package"] + ":" + fields.get("Architecture", "")] = fields
    for fields in latest.values():
        if fields.get("Status", "").split(" ")[-1] in _UNPACKED:
            yield fields


def _fields(stanza: str) -> dict[str, str]:
    pairs = (line.partition(": ") for line in split_lines(stanza) if not line.startswith(" "))
    return {name: value for name, _, value in pairs}


def _printable(text: str) -> str:
    """A name that others gave, for a message."""
    return "".join(c for c in text[:200] if c.isprintable())
