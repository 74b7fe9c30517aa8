# SPDX-License-Identifier: GPL-2.0-or-later
"""What was compiled before: ccache between make and the compiler, where it is installed.

A search compiles the same text again when a header's edit is dropped, and a plan that is repeated
all of it. ccache compares the compiler, its arguments and every file that the compiler read, by
content; what the assembler reads it misses (build/assembler_reads.py).
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

_LIMIT = "1G"
# Of the environment: the cache neither gives nor keeps anything.
FRESH = {"CCACHE_DISABLE": "1"}


@dataclass(frozen=True)
class CompilerCache:
    """Compiled objects in ``folder``, which ccache keeps below a size of its own (1 GB)."""

    folder: Path

    def command(self, compiler: str) -> str:
        """The compiler as make has to call it."""
        return f"ccache {compiler}"

    def environment(self, srctree: Path) -> dict[str, str]:
        """What ccache has to know (ccache(1), "Configuration options"); nobody's own settings."""
        return {
            "CCACHE_CONFIGPATH": os.devnull,
            "CCACHE_DIR": str(self.folder),
            "CCACHE_MAXSIZE": _LIMIT,
            "CCACHE_COMPILERCHECK": "content",
            # Kbuild has a list of what was read made in any case.
            "CCACHE_DEPEND": "1",
            "CCACHE_NAMESPACE": _header_names(srctree),
        }


def compiler_cache(folder: Path | None) -> CompilerCache | None:
    """A cache in ``folder``; None where there is no folder or no ccache."""
    return CompilerCache(folder) if folder is not None and shutil.which("ccache") else None


def _header_names(tree: Path) -> str:
    """A digest of which headers there are. ccache looks at what a compilation has read: it would
    miss a header that is new, and is found before one of the same name that was."""
    digest = hashlib.sha256()
    for directory, folders, files in os.walk(tree):
        folders.sort()
        for name in sorted(files):
            if name.endswith(".h"):
                digest.update(f"{directory[len(str(tree)) :]}/{name}\0".encode())
    return digest.hexdigest()[:32]
