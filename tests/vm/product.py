# SPDX-License-Identifier: GPL-2.0-or-later
"""The product of this tree in a guest, in seconds: its files without dpkg, its core without DKMS.

The story installs the packages; tests that are about something else need not wait for them.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

from tests.vm import kmod_build
from tests.vm.guest import Guest

TREE = Path(__file__).parents[2]
KERNEL = kmod_build.KERNELS[0]
PYTHON = "/usr/lib/python3/dist-packages"
COMMAND = "usr/bin/kspliced"
_SCRIPT = "#!/usr/bin/python3 -P\nfrom kspliced.cli.main import console\nconsole()\n"


def place(guest: Guest) -> None:
    """Put the product where its package puts it; build the core and load it."""
    place_files(guest)
    with tempfile.TemporaryDirectory() as folder:
        core = Path(folder) / "core"
        kmod_build.build_core(kmod_build.headers(KERNEL), core)
        guest.put(core / "kspliced.ko", "/root/kspliced.ko")
    guest.run("insmod /root/kspliced.ko")


def place_files(guest: Guest) -> None:
    """Put the product's files where its package puts them, without a core."""
    guest.put(_archive(), "/root/product.tar")
    guest.run("tar -x -C / -f /root/product.tar")


def start_daemon(guest: Guest) -> None:
    """Make the bus and systemd know the product's files, and start the daemon."""
    guest.run(
        "systemctl daemon-reload; systemctl reload dbus; systemctl try-restart polkit; "
        "systemctl start kspliced.service",
        timeout=180,
    )


def _archive() -> bytes:
    """What the package holds: the modules, the command, and what debian/kspliced.install lists."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path in sorted((TREE / "kspliced").rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.add(path, f"{PYTHON.lstrip('/')}/{path.relative_to(TREE)}", filter=_owned)
        for line in (TREE / "debian/kspliced.install").read_text().splitlines():
            pattern, folder = line.split()
            for path in sorted(TREE.glob(pattern)):
                archive.add(path, f"{folder}/{path.name}", filter=_owned)
        command = tarfile.TarInfo(COMMAND)
        command.mode, command.size = 0o755, len(_SCRIPT)
        archive.addfile(command, io.BytesIO(_SCRIPT.encode()))
    return stream.getvalue()


def _owned(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member that belongs to root, whoever has the tree checked out."""
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info
