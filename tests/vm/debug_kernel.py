# SPDX-License-Identifier: GPL-2.0-or-later
"""A small kernel out of Debian's source that watches what the core does with it.

Lock order, sleeping where that is not allowed, memory errors and leaks are reported, and any
allocation can be made to fail. tests/vm/debug.config says which options that takes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tests.corpus import kernels
from tests.vm import cache
from tests.vm.case import OLD_VERSION
from tests.vm.errors import HarnessError
from tests.vm.kmod_build import Tree

CONFIG = Path(__file__).with_name("debug.config")
COMPILER = "gcc-12"
# KASAN keeps track of every eight bytes in one of its own.
_ARGUMENTS = ("-m", "1G")
_IMAGE = "arch/x86/boot/bzImage"
# What building a module reads, besides the source.
_KEPT = (
    "Makefile", ".config", "Module.symvers", "include", "scripts", "arch/x86/include/generated",
    "tools/objtool/objtool", _IMAGE,
)  # fmt: skip


def tree() -> Tree:
    """The kernel, compiled where it is not in the cache yet: seven minutes of two cores."""
    key = cache.digest(CONFIG.read_bytes(), COMPILER, *_KEPT)
    folder = cache.made(f"debug-kernel-{OLD_VERSION}-{key}", _compile)
    release = (folder / "include/config/kernel.release").read_text().strip()
    return Tree(release, folder, folder / _IMAGE, _ARGUMENTS)


def _compile(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".debug-kernel.", dir=cache.root()) as place:
        objects = Path(place)
        make = ("make", "-s", "-C", kernels.source(OLD_VERSION), f"O={objects}", f"CC={COMPILER}")
        cache.command(*make, f"KCONFIG_ALLCONFIG={CONFIG}", "allnoconfig")
        _check(objects / ".config")
        cache.command(*make, f"-j{os.cpu_count()}", "bzImage", "modules")
        for name in _KEPT:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (objects / name).is_dir() else shutil.copy2
            copy(objects / name, folder / name)


def _check(config: Path) -> None:
    """Kconfig leaves an option out, without a word, where another one is missing."""
    lines = set(config.read_text().splitlines())
    wanted = [line for line in CONFIG.read_text().splitlines() if line.startswith("CONFIG_")]
    missing = [line for line in wanted if line not in lines]
    if missing:
        raise HarnessError(f"the source does not take {', '.join(missing)} of {CONFIG}")
