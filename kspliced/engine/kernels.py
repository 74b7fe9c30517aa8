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
from kspliced.engine.versions import compare_versions, flavour, of_rpm, series
from kspliced.errors import Code, KernelError
from kspliced.kernel.modules import Modules, read_modules
from kspliced.model import KernelId

# "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-11-14)"
_BUILD = re.compile(r"#\d.* Debian (?P<version>[0-9][0-9A-Za-z.+~:-]*)")
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
    same flavour whose series differs, which only a reboot can bring, or None.
    """

    newest: KernelId
    other_series: KernelId | None


def running_kernel(paths: Paths) -> KernelId:
    """The identity of the running kernel: Debian's says it itself (uname), of others rpm knows it.

    :raises KernelError: KERNEL_UNREADABLE without procfs or for a kernel of no package.
    """
    try:
        release = (paths.proc / "sys/kernel/osrelease").read_text("ascii").strip()
        build = (paths.proc / "sys/kernel/version").read_text("ascii").strip()
    except (OSError, ValueError) as error:
        raise KernelError(
            Code.KERNEL_UNREADABLE, f"cannot read the running kernel's name: {error}"
        ) from error
    match = _BUILD.search(build)
    version = match["version"] if match else dict(rpmdb.kernels(paths)).get(release)
    if version is None:
        raise KernelError(
            Code.KERNEL_UNREADABLE,
            f"no installed package has the running kernel {release}, nor does it name its source",
            "install its package again, or boot a kernel of the distribution",
        )
    return KernelId(release, version, os.uname().machine)


def installed_kernels(paths: Paths, running: KernelId) -> Installed:
    """The newest installed kernels of the running one's flavour; at least the running one."""
    newest, other = running, None
    for kernel in _kernels(paths, running):
        if flavour(kernel.release) != flavour(running.release):
            continue
        if series(kernel.release) == series(running.release):
            if compare_versions(kernel.version, newest.version, running) > 0:
                newest = kernel
        elif compare_versions(kernel.version, (other or newest).version, running) > 0:
            other = kernel
    if other is not None and compare_versions(other.version, newest.version, running) < 0:
        other = None
    return Installed(newest, other)


def installed_version(paths: Paths, package: str) -> str | None:
    """The version of a package whose files are on the disk, or None."""
    for fields in _packages(paths.dpkg, f"Package: {package}\n".encode()):
        if fields.get("Package") == package:
            return fields.get("Version")
    return None


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


def _kernels(paths: Paths, running: KernelId) -> Iterator[KernelId]:
    if of_rpm(running):
        for release, version in rpmdb.kernels(paths):
            yield KernelId(release, version, running.arch)
    else:
        yield from _images(paths.dpkg, running.arch)


def _images(dpkg: Path, arch: str) -> Iterator[KernelId]:
    for fields in _packages(dpkg, b"Package: linux-image-"):
        match = _IMAGE.fullmatch(fields.get("Package", ""))
        if match and not match["release"].endswith("-dbg"):
            version = source_version(fields.get("Source", ""), fields.get("Version", ""))
            yield KernelId(match["release"], version, arch)


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
    pairs = (line.partition(": ") for line in stanza.splitlines() if not line.startswith(" "))
    return {name: value for name, _, value in pairs}
