# SPDX-License-Identifier: GPL-2.0-or-later
"""A pack of the real tree, fs/ext4/mballoc.o of 6.1.192-1 with one line changed, and its kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from kspliced.build.pipeline import build
from kspliced.build.request import BuildRequest
from kspliced.kernel.offline import ModuleFile, OfflineKernel
from kspliced.model import no_progress
from kspliced.pack import pack_bytes
from tests.vm import cache, real
from tests.vm.case import FAULTY_FUNCTION, OLD_RELEASE, OLD_VERSION


def content(folder: Path) -> bytes:
    """A pack that replaces one function; ``folder`` is empty, or not there yet."""
    shutil.copytree(real.tree(), folder, symlinks=True, copy_function=os.link, dirs_exist_ok=True)
    path = folder / "fs/ext4/mballoc.c"
    text = path.read_text()
    path.unlink()
    head, body = text.split(f"\n{FAULTY_FUNCTION}(", 1)
    changed = body.replace("might_sleep();", 'might_sleep();\n\tprintk("%p", sb);', 1)
    assert changed != body
    path.write_text(f"{head}\n{FAULTY_FUNCTION}({changed}")
    kernel = real.kernel()
    request = BuildRequest(
        from_source=real.tree(),
        to_source=folder,
        config=kernel / f"boot/config-{OLD_RELEASE}",
        headers=kernel,
        targets=("ext4",),
        only=(),
        jobs=2,
        workdir=None,
    )
    result = build(request, no_progress)
    assert result.manifest is not None, result.refused
    return pack_bytes(result.manifest, result.blobs)[0]


def shipped() -> bytes:
    """The ext4.ko that Debian shipped."""
    (deb,) = cache.debs(f"linux-image-{OLD_RELEASE}={OLD_VERSION}")
    name = f"./lib/modules/{OLD_RELEASE}/kernel/fs/ext4/ext4.ko"
    pipe = f"dpkg-deb --fsys-tarfile {deb} | tar -xO {name}"
    command = ["bash", "-o", "pipefail", "-c", pipe]
    return subprocess.run(command, check=True, capture_output=True).stdout


def laid_out(module: bytes) -> OfflineKernel:
    """A kernel with that module."""
    return OfflineKernel(OLD_RELEASE, [ModuleFile("ext4", module)])
