# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine fixture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dbus.harness import Machine, private_bus

_STATUS = """Package: linux-image-6.1.0-55-amd64
Status: install ok installed
Architecture: amd64
Source: linux-signed-amd64 (6.1.192+1)
Version: 6.1.192-1

Package: linux-image-6.1.0-56-amd64
Status: install ok installed
Architecture: amd64
Source: linux-signed-amd64 (6.1.192+2)
Version: 6.1.192-2
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine that runs 6.1.192-1, has 6.1.192-2 and its own source; no daemon runs yet."""
    root = tmp_path / "root"
    files = {
        "proc/sys/kernel/osrelease": "6.1.0-55-amd64\n",
        "proc/sys/kernel/version": "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-11-14)\n",
        "proc/sys/kernel/random/boot_id": "3c1b3b0e-6f53-4f0c-a3ab-5e3fb3a4f2b1\n",
        "proc/cmdline": "quiet\n",
        "proc/modules": "ext4 1069056 1 - Live 0x0000000000000000\n",
        "lib/modules/6.1.0-55-amd64/modules.dep": "updates/dkms/kspliced.ko:\n",
        "var/lib/dpkg/status": _STATUS,
        "var/lib/kspliced/sources/source-6.1.192-1/linux-source.deb": "",
        "worker/calls": "",
        "polkit/allowed": "",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, "utf-8")
    with private_bus(tmp_path) as address:
        found = Machine(root, address)
        try:
            yield found
        finally:
            found.clean_up()
