# SPDX-License-Identifier: GPL-2.0-or-later
"""The glue of an update module: build/glue.c, compiled for one kernel under one name."""

from __future__ import annotations

import re
from pathlib import Path

from kspliced.build.kbuild import Headers, Unit
from kspliced.errors import Code, SourceError

_DIRECTORY = "kspliced_glue"
_SOURCE = Path(__file__).resolve().parent / "glue.c"


def place_glue(tree: Path, headers: Headers, update: str) -> Unit:
    """Put the glue of the module called ``update`` into a source tree, as a unit to compile.

    :raises SourceError: HEADERS_MISSING when Module.symvers lacks what MODVERSIONS needs.
    """
    directory = tree / _DIRECTORY
    directory.mkdir()
    define = f"#define KSPLICED_LAYOUT_CRC {_layout_crc(headers)}\n"
    (directory / f"{update}.c").write_text(define + _SOURCE.read_text("utf-8"), "utf-8")
    (directory / "Makefile").write_text(f"obj-m := {update}.o\n", "utf-8")
    return Unit(f"{_DIRECTORY}/{update}.o", _DIRECTORY, update)


def _layout_crc(headers: Headers) -> str:
    if "CONFIG_MODVERSIONS=y" not in (headers.top / ".config").read_text("utf-8"):
        return "0"
    path = headers.top / "Module.symvers"
    text = path.read_text("utf-8") if path.is_file() else ""
    match = re.search(r"^(0x[0-9a-f]+)\tmodule_layout\t", text, re.MULTILINE)
    if match is None:
        raise SourceError(
            Code.HEADERS_MISSING,
            f"{path} has no CRC of module_layout",
            "install linux-headers of the running kernel again",
        )
    return match.group(1)
