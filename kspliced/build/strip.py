# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects without what tells about the source: a pack must not depend on where it was built."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from kspliced.errors import BuildError, Code

_COMMAND = ("objcopy", "--strip-debug", "--remove-section=.BTF")


def stripped(data: bytes) -> bytes:
    """An object file without its types, the line table that GCC writes with them, and its name.

    They name directories. The order of sections and symbols stays, their numbers change.

    :raises BuildError: TOOL_MISSING; OBJECT_MALFORMED.
    """
    with tempfile.TemporaryDirectory(prefix="kspliced.strip.") as directory:
        before, after = Path(directory) / "before.o", Path(directory) / "after.o"
        before.write_bytes(data)
        try:
            done = subprocess.run(
                [*_COMMAND, str(before), str(after)], capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            raise BuildError(
                Code.TOOL_MISSING, "objcopy is not installed", "install binutils"
            ) from error
        if done.returncode:
            raise BuildError(
                Code.OBJECT_MALFORMED, f"objcopy cannot read an object: {done.stderr.strip():.200}"
            )
        return after.read_bytes()
