# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernel runs and which are installed, from procfs and the database of dpkg or rpm. Cheap to
import."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cmp_to_key
from pathlib import Path

from kspliced.engine import rpmdb
from kspliced.engine.paths import Paths
from kspliced.errors import Code, KernelError
from kspliced.model import KernelId

# 6.1.0-55-amd64, 6.1.0-55-cloud-amd64, 6.1.0-0.deb11.55-amd64, 6.12.94+deb13-amd64
_RELEASE = re.compile(r"(?P<series>\d+\.\d+)[^-]*-(?:\d[^-]*-)?(?P<flavour>[a-z].*)")
# 6.1.192-2.fc40.x86_64, 6.1.192-2.fc40.x86_64+debug
_RPM_RELEASE = re.compile(r"(?P<series>\d+\.\d+)[^-]*-\d[^-]*\.(?P<flavour>[a-z][^.-]*)")
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


def flavour(release: str) -> str:
    """The flavour in a release name: ``cloud-amd64`` of ``6.1.0-55-cloud-amd64``, or ""."""
    match = _RELEASE.fullmatch(release) or _RPM_RELEASE.fullmatch(release)
    return match["flavour"] if match else ""


def series(release: str) -> str:
    """The upstream series in a release name: ``6.1`` of ``6.1.0-55-amd64``, or ""."""
    match = _RELEASE.fullmatch(release) or _RPM_RELEASE.fullmatch(release)
    return match["series"] if match else ""


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


def of_rpm(running: KernelId) -> bool:
    """Whether a running kernel is of an RPM package."""
    return _RPM_RELEASE.fullmatch(running.release) is not None


def installed_kernels(paths: Paths, running: KernelId) -> Installed:
    """The newest installed kernels of the running one's flavour; at least the running one."""
    newest, other = running, None
    for kernel in _kernels(paths, running):
        if flavour(kernel.release) != flavour(running.release):
            continue
        if series(kernel.release) == series(running.release):
            if compare_versions(kernel.version, newest.version) > 0:
                newest = kernel
        elif compare_versions(kernel.version, (other or newest).version) > 0:
            other = kernel
    if other is not None and compare_versions(other.version, newest.version) < 0:
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


def loaded_modules(paths: Paths) -> tuple[str, ...]:
    """Names of the loaded modules, our own left out.

    :raises KernelError: KERNEL_UNREADABLE without procfs.
    """
    try:
        lines = (paths.proc / "modules").read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise KernelError(Code.KERNEL_UNREADABLE, f"cannot read /proc/modules: {error}") from error
    names = (line.split(" ", 1)[0] for line in lines if line)
    return tuple(name for name in names if name != "kspliced" and not name.startswith("ks_"))


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


def compare_versions(left: str, right: str) -> int:
    """Order of two Debian versions: -1, 0 or 1 (deb-version(7))."""
    left_epoch, left_upstream, left_revision = _split(left)
    right_epoch, right_upstream, right_revision = _split(right)
    if left_epoch != right_epoch:
        return 1 if left_epoch > right_epoch else -1
    return _compare_part(left_upstream, right_upstream) or _compare_part(
        left_revision, right_revision
    )


version_key = cmp_to_key(compare_versions)


def _split(version: str) -> tuple[int, str, str]:
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, dash, revision = rest.rpartition("-")
    if not dash:
        upstream, revision = rest, ""
    return int(epoch) if epoch.isdigit() else 0, upstream, revision


def _compare_part(left: str, right: str) -> int:
    for ours, theirs in _chunks(left, right):
        if ours != theirs:
            return 1 if ours > theirs else -1
    return 0


def _chunks(left: str, right: str) -> Iterator[tuple[list[int], list[int]]]:
    """Alternating non-digit and digit parts, as sort keys, of both, in step."""
    pattern = re.compile(r"(\D*)(\d*)")
    i = j = 0
    while i < len(left) or j < len(right):
        ours, theirs = pattern.match(left, i), pattern.match(right, j)
        assert ours is not None and theirs is not None  # both groups may be empty
        yield _weights(ours[1]), _weights(theirs[1])
        yield [int(ours[2] or 0)], [int(theirs[2] or 0)]
        i, j = ours.end(), theirs.end()


def _weights(text: str) -> list[int]:
    """Sort keys of dpkg's order: "~" before the end of the part, before letters, before others."""
    keys = [-1 if c == "~" else ord(c) if c.isalpha() else ord(c) + 256 for c in text]
    return [*keys, 0]
