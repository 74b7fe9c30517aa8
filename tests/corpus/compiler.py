# SPDX-License-Identifier: GPL-2.0-or-later
"""Small C to objects, with the flags that shape a kernel's code."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from kspliced.elf.object import Object
from kspliced.elf.read import read_object

FLAGS = (
    "-O2", "-std=gnu11", "-ffreestanding", "-fno-PIE", "-mcmodel=kernel", "-mno-red-zone",
    "-mno-sse", "-fno-asynchronous-unwind-tables", "-fno-stack-protector", "-fcf-protection=none",
    "-pg", "-mfentry", "-mrecord-mcount", "-ffunction-sections", "-fdata-sections",
    "-fno-strict-aliasing", "-w",
)  # fmt: skip

PRELUDE = """
#define noinline __attribute__((noinline))
#define inline_always static inline __attribute__((always_inline))
int printk(const char *format, ...);
int other(int value);
struct ops { int (*run)(int value); };
void use(const void *pointer);
"""


def compile_file(source: str, *flags: str) -> bytes:
    """The object file of ``source``, which sees PRELUDE."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "unit.c"
        path.write_text(f'{PRELUDE}\n#line 1 "unit.c"\n{source}')
        command = ["gcc", *FLAGS, *flags, "-c", "-o", f"{directory}/unit.o", str(path)]
        subprocess.run(command, check=True, capture_output=True, cwd=directory)
        return (Path(directory) / "unit.o").read_bytes()


def compile_object(source: str, *flags: str) -> Object:
    """The same, read."""
    return read_object(compile_file(source, *flags), "unit.o")
