# SPDX-License-Identifier: GPL-2.0-or-later
"""The running kernel: /proc/kallsyms, /proc/kcore, /proc/modules, /sys."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from kspliced.elf.section_class import SectionClass
from kspliced.errors import Code, KernelError
from kspliced.kernel.core import Core, Held
from kspliced.kernel.image import AddressRange
from kspliced.kernel.kallsyms import Kallsyms
from kspliced.kernel.kcore import Kcore
from kspliced.kernel.memory import ModuleMemory, VmlinuxMemory
from kspliced.kernel.overlay import overlaid, read_originals
from kspliced.lines import split_lines
from kspliced.model import VMLINUX

_LARGEST_TABLE = 1 << 20


class LiveKernel:
    """A KernelImage of the kernel that runs; use it in a ``with`` statement.

    :param proc: where procfs is.
    :param sys: where sysfs is.
    :raises KernelError: KERNEL_UNREADABLE when this process may not read the kernel.
    """

    def __init__(self, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> None:
        self._proc = proc
        self._sys = sys
        self._kcore = Kcore(proc / "kcore")
        self._originals = read_originals(sys / "kernel" / "kspliced")
        self._memory: dict[str, VmlinuxMemory | ModuleMemory] = {}

    def __enter__(self) -> LiveKernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open."""
        self._kcore.close()

    @cached_property
    def release(self) -> str:
        """``uname -r``."""
        return self._text("sys/kernel/osrelease").strip()

    @cached_property
    def symbols(self) -> Kallsyms:
        """The symbol table, as it is at the first use."""
        try:
            text = (self._proc / "kallsyms").read_bytes()
        except OSError as error:
            raise self._unreadable("kallsyms", error) from error
        return Kallsyms(text)

    def loaded(self, target: str) -> bool:
        """Whether ``target`` is vmlinux, a module in state Live, or one that the core holds."""
        return target == VMLINUX or target in self._modules

    def table(self, section: str, target: str) -> AddressRange | None:
        """vmlinux marks its tables with symbols; a module's are in /sys/module/NAME/sections."""
        if target == VMLINUX:
            plain = section.lstrip(".")
            start = self.symbols.named(f"__start_{plain}", VMLINUX)
            end = self.symbols.named(f"__stop_{plain}", VMLINUX)
            if not start or not end:
                return None
            return AddressRange(start[0].address, end[0].address)
        if target not in self._modules:
            return None
        if target in self._held:
            # Its directory in /sys/module is made later.
            tables = {t.section: t for t in self._held[target].tables if t.size}
            table = tables.get(section)
            return AddressRange(table.address, table.address + table.size) if table else None
        places = self._sections(target)
        start_address = places.get(section)
        if start_address is None:
            return None
        # The end is not told: the next section, or what no table reaches. Since Linux 6.4 the last
        # section of a module's read-only memory may be followed by nothing, or by another module.
        ends = [a for a in places.values() if a > start_address]
        return AddressRange(start_address, min([*ends, start_address + _LARGEST_TABLE]))

    def memory(self, address: int, target: str) -> SectionClass | None:
        """By symbols of the linker's, or a module's directory in /sys; not of a held module."""
        if target not in self._memory:
            if target == VMLINUX:
                self._memory[target] = VmlinuxMemory(self.symbols)
            else:
                known = target in self._modules and target not in self._held
                self._memory[target] = ModuleMemory(self._sections(target) if known else {})
        return self._memory[target].at(address)

    def _sections(self, target: str) -> dict[str, int]:
        """Where each section of a module begins."""
        try:
            paths = list((self._sys / "module" / target / "sections").iterdir())
            return {path.name: int(path.read_text(encoding="ascii"), 16) for path in paths}
        except (OSError, ValueError) as error:
            raise KernelError(
                Code.KERNEL_UNREADABLE,
                f"cannot read where the sections of {target} are",
                "run as root with sysfs mounted",
                evidence=(str(error),),
            ) from error

    def read(self, address: int, size: int) -> bytes:
        """Kernel memory, with what our own applied update replaced put back."""
        return overlaid(self._kcore.read(address, size), address, self._originals)

    def redirected(self, name: str, target: str) -> str:
        """The livepatch that replaces function ``name`` of ``target``.

        Source: Documentation/ABI/testing/sysfs-kernel-livepatch.
        """
        for patch in sorted((self._sys / "kernel" / "livepatch").glob("*")):
            try:
                enabled = (patch / "enabled").read_text(encoding="ascii").strip() != "0"
            except OSError:
                continue  # it went away meanwhile
            if enabled and any(patch.glob(f"{target}/{name},[0-9]*")):
                return f"livepatch {patch.name}"
        return ""

    @cached_property
    def _held(self) -> dict[str, Held]:
        core = Core(self._sys / "kernel" / "kspliced")
        return {held.module: held for held in core.held()} if core.present else {}

    @cached_property
    def _modules(self) -> frozenset[str]:
        """Live modules and held ones, from ``NAME SIZE REFS USERS STATE ADDRESS [TAINT]``."""
        found = set()
        for line in split_lines(self._text("modules")):
            words = line.split()
            if len(words) < 6:
                raise KernelError(
                    Code.KERNEL_UNREADABLE,
                    "/proc/modules has a malformed line",
                    evidence=(f"/proc/modules: {line[:200]!r}",),
                )
            if words[4] == "Live" or (words[4] == "Loading" and words[0] in self._held):
                found.add(words[0])
        return frozenset(found)

    def _text(self, name: str) -> str:
        try:
            return (self._proc / name).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name: str, error: OSError) -> KernelError:
        return KernelError(
            Code.KERNEL_UNREADABLE,
            f"cannot read {self._proc / name}: {os.strerror(error.errno or 0)}",
            "run as root with procfs mounted",
        )
