# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel's release says, and the order of versions: dpkg's, or rpm's for an RPM package."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kspliced.model import KernelId

# 6.1.0-55-amd64, 6.1.0-55-cloud-amd64, 6.1.0-0.deb11.55-amd64, 6.12.94+deb13-amd64
_RELEASE = re.compile(r"(?P<series>\d+\.\d+)[^-]*-(?:\d[^-]*-)?(?P<flavour>[a-z].*)")
# 6.1.192-2.fc40.x86_64, 6.1.192-2.fc40.x86_64+debug
_RPM_RELEASE = re.compile(r"(?P<series>\d+\.\d+)[^-]*-\d[^-]*\.(?P<flavour>[a-z][^.-]*)")


def flavour(release: str) -> str:
    """The flavour in a release name: ``cloud-amd64`` of ``6.1.0-55-cloud-amd64``, or ""."""
    match = _RELEASE.fullmatch(release) or _RPM_RELEASE.fullmatch(release)
    return match["flavour"] if match else ""


def series(release: str) -> str:
    """The upstream series in a release name: ``6.1`` of ``6.1.0-55-amd64``, or ""."""
    match = _RELEASE.fullmatch(release) or _RPM_RELEASE.fullmatch(release)
    return match["series"] if match else ""


def is_rpm_release(release: str) -> bool:
    """Whether a release is named as kernels of RPM packages are."""
    return _RPM_RELEASE.fullmatch(release) is not None


def of_rpm(running: KernelId) -> bool:
    """Whether a running kernel is of an RPM package."""
    return is_rpm_release(running.release)


def compare_versions(left: str, right: str, kernel: KernelId) -> int:
    """Order of two versions of a package like that of ``kernel``: -1, 0 or 1."""
    return _compare_rpm(left, right) if of_rpm(kernel) else _compare_debian(left, right)


def _compare_rpm(left: str, right: str) -> int:
    """As rpm itself does: RHEL's 362.el9 comes before 362.8.1.el9_3."""
    # Not for the daemon of a machine without RPM packages.
    import rpm

    (one, other) = (text.rpartition("-") for text in (left, right))
    order: int = rpm.labelCompare(("0", one[0], one[2]), ("0", other[0], other[2]))
    return order


def _compare_debian(left: str, right: str) -> int:
    """As dpkg does (deb-version(7))."""
    left_epoch, left_upstream, left_revision = _split(left)
    right_epoch, right_upstream, right_revision = _split(right)
    if left_epoch != right_epoch:
        return 1 if left_epoch > right_epoch else -1
    return _compare_part(left_upstream, right_upstream) or _compare_part(
        left_revision, right_revision
    )


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
