# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian root for a guest, with a workload in it (files/workload)."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.vm import cache, image

FILES = Path(__file__).with_name("files")
_PACKAGES = (
    "btrfs-progs cifs-utils e2fsprogs fio iproute2 iptables iputils-ping kmod mount netbase",
    "nfs-common nfs-kernel-server nftables procps python3 rpcbind samba stress-ng systemd",
    "util-linux xfsprogs",
)
# Where each file goes.
_PLACES = {
    "workload": "usr/local/bin",
    "smb.conf": "usr/local/share",
    "traffic.py": "usr/local/share",
}
# Lays the root out, where it is not yet, and works; busybox reads it.
_SCRIPT = """
set -e
if [ ! -d /debian/proc/1 ]; then
    mkdir -p /debian && mount -t ext4 /dev/vda /debian
    for place in proc sys dev; do mount -o bind /$place /debian/$place; done
    mount -t tmpfs none /debian/run && mount -t tmpfs none /debian/tmp
fi
chroot /debian /usr/local/bin/workload {seconds}
"""


def disk() -> Path:
    """The disk with the root; made once, in two minutes, and never written."""
    texts = (path.read_bytes() for path in sorted(FILES.iterdir()))
    name = f"workload-{cache.digest(repr((_PACKAGES, _PLACES)), *texts)}"
    return cache.made(name, _make) / "root.ext4"


def _make(folder: Path) -> None:
    root = folder / "root"
    image.bootstrap(root, _PACKAGES)
    for name, place in _PLACES.items():
        shutil.copy(FILES / name, root / place)
    (root / "usr/local/bin/workload").chmod(0o755)
    image.write_disk(root, folder / "root.ext4")


def arguments() -> tuple[str, ...]:
    """What makes the disk the guest's first; what is written to it is gone with the guest."""
    return ("-drive", f"file={disk()},format=raw,if=virtio,snapshot=on")


def script(seconds: int = 0) -> str:
    """The workload; with stress-ng, so many seconds for each of its stressors, if not 0."""
    return _SCRIPT.format(seconds=seconds or "")
