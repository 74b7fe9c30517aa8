# SPDX-License-Identifier: GPL-2.0-or-later
"""Compile small units twice, as the builder does and as a kernel is, and make packs of them."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from kspliced.elf.read import read_object
from kspliced.kernel.offline import ModuleFile, OfflineKernel
from kspliced.model import Group, Import, ImportKind, KernelId, Manifest, PreUnit, Span
from kspliced.pack import Blob, Pack

RELEASE = "6.1.0-test"
TARGET = "mod"

_FLAGS = (
    "-O2", "-std=gnu11", "-ffreestanding", "-fno-PIE", "-mcmodel=kernel", "-mno-red-zone",
    "-mno-sse", "-fno-asynchronous-unwind-tables", "-fno-stack-protector", "-fcf-protection=none",
    "-fno-strict-aliasing", "-w",
)  # fmt: skip
_SPLIT = ("-ffunction-sections", "-fdata-sections")


def compiled(source: str, *flags: str, split: bool = True, language: str = "c") -> bytes:
    """The object of ``source``; ``split``: with a section for each function and datum."""
    with tempfile.TemporaryDirectory() as directory:
        options = [*_FLAGS, *(_SPLIT if split else ()), *flags]
        command = ["gcc", *options, "-x", language, "-c", "-o", "unit.o", "-"]
        subprocess.run(
            command, check=True, capture_output=True, cwd=directory, input=source.encode()
        )
        return (Path(directory) / "unit.o").read_bytes()


def linked(*objects: bytes) -> bytes:
    """A module of ``objects``, as ``ld -r`` makes it."""
    with tempfile.TemporaryDirectory() as directory:
        names = [f"{number}.o" for number in range(len(objects))]
        for name, content in zip(names, objects, strict=True):
            (Path(directory) / name).write_bytes(content)
        command = ["ld", "-r", "-o", "all.o", *names]
        subprocess.run(command, check=True, capture_output=True, cwd=directory)
        return (Path(directory) / "all.o").read_bytes()


def running(module: bytes, vmlinux: bytes | None = None) -> OfflineKernel:
    """A kernel with ``module`` loaded."""
    files = [ModuleFile(TARGET, module)]
    if vmlinux is not None:
        files.append(ModuleFile("vmlinux", vmlinux))
    return OfflineKernel(RELEASE, files)


def index_of(content: bytes, name: str) -> int:
    """The symbol table index of ``name``."""
    return next(s.index for s in read_object(content).symbols if s.name == name)


def unit_import(content: bytes, name: str, unit: str = "a.o") -> Import:
    """An import of a symbol of a pre object."""
    index = index_of(content, name)
    return Import(f"{unit}:{name}", ImportKind.UNIT, TARGET, unit, name, index)


def extern_import(name: str) -> Import:
    """An import by linkage."""
    return Import(f"::{name}", ImportKind.EXTERN, TARGET, "", name, -1)


def span_of(content: bytes, name: str, unit: str = "a.o", jump: int = 0) -> Span:
    """A span for a function of a pre object."""
    index = index_of(content, name)
    size = read_object(content).symbols[index].size
    return Span(TARGET, unit, name, index, size, jump, f"{unit}:{name}", 0)


# The glue of packs whose part brings everything itself.
EMPTY = compiled("int __this_module;")


def packed(
    units: dict[str, bytes],
    imports: tuple[Import, ...] = (),
    spans: tuple[Span, ...] = (),
    module: bytes = b"",
) -> Pack:
    """A pack of pre objects by unit."""
    manifest = Manifest(
        update="ks_test",
        kernel=KernelId(RELEASE, "1", "x86_64"),
        to_version="2",
        compiler="gcc",
        core_abi=1,
        units=tuple(PreUnit(TARGET, name, name) for name in units),
        functions=(),
        refused=(),
        entries=(),
        glue=Group("part/glue", (), (), (), (), (), (), False),
        groups=(Group("part/all", (TARGET,), tuple(units), imports, spans, (), (), False),),
    )
    blobs = [Blob(name, content) for name, content in units.items()]
    return Pack("0" * 64, manifest, (*blobs, Blob("part/glue", EMPTY), Blob("part/all", module)))


def address_of(kernel: OfflineKernel, name: str, target: str = TARGET) -> int:
    """The one address of ``name``."""
    (symbol,) = kernel.symbols.named(name, target)
    return symbol.address
