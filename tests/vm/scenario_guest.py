# SPDX-License-Identifier: GPL-2.0-or-later
"""A small guest that packs are applied in, matched and linked from outside by the product's code.

The guest has busybox and no Python. Its /proc and /sys come over a directory shared by 9p, its
memory through QEMU's monitor as a core file like /proc/kcore, so that kernel.live.LiveKernel
reads the guest as it would read the machine that it runs on.
"""

from __future__ import annotations

import json
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from kspliced.elf.read import read_object
from kspliced.kernel.core import SymbolCrc
from kspliced.kernel.live import LiveKernel
from kspliced.match import Matched, check_coherence, link, match
from kspliced.model import Linked
from kspliced.pack import Pack
from tests.vm import kmod_build, shipped
from tests.vm.errors import GuestLost
from tests.vm.guest import FAULT
from tests.vm.initramfs import Initramfs

CORE = "/sys/kernel/kspliced"
UPDATES = f"{CORE}/updates"
KERNEL = kmod_build.KERNELS[0]
# What the shared directory takes, as far as the kernel has it in modules.
_SHARE = ("virtio_pci", "9pnet_virtio", "9p")
_BUSY_TRIES = 40

# What LiveKernel reads; kcore is made from QEMU's memory.
_COPY = f"""
cd /mnt; rm -rf new; mkdir -p new/proc/sys/kernel new/sys/module new/sys/kernel/kspliced
cat /proc/modules > new/proc/modules
cat /proc/sys/kernel/osrelease > new/proc/sys/kernel/osrelease
for m in {{targets}}; do
    mkdir -p new/sys/module/$m/sections
    for s in /sys/module/$m/sections/* /sys/module/$m/sections/.[a-z]*; do
        [ -e $s ] && cat $s > new$s
    done
done
for u in {UPDATES}/*; do
    [ -e $u ] && mkdir -p new$u && cat $u/original > new$u/original
done
cat /proc/kallsyms > new/proc/kallsyms
"""
_ELF = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_RANGES = (
    *(("_text", "_etext"), ("__start_rodata", "__end_rodata")),
    *(("_sdata", "_edata"), ("__bss_start", "__bss_stop")),
)
_PAGE = 4096
# Sections of modules that are freed, or elsewhere.
_NOT_THERE = (".init.", ".data..percpu")


class _Monitor:
    """QEMU's machine protocol, as far as reading memory goes."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rw", encoding="utf-8")
        self._file.readline()
        self._ask("qmp_capabilities")

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def save(self, address: int, size: int, path: Path) -> None:
        """Write kernel memory to a file; the monitor takes signed addresses."""
        self._ask("memsave", val=address - (1 << 64), size=size, filename=str(path))

    def _ask(self, command: str, **arguments: int | str) -> None:
        request = {"execute": command, "arguments": arguments}
        self._file.write(json.dumps(request) + "\n")
        self._file.flush()
        while True:
            answer = json.loads(self._file.readline())
            if "error" in answer:
                raise GuestLost(f"{command} {arguments}: {answer['error']['desc']}")
            if "return" in answer:
                return


class ScenarioGuest:
    """The guest, with the kernel core and ``modules`` (paths below kernel/, no .ko) loaded; those
    of them in ``may_fail`` need hardware. ``further`` files go into its root."""

    def __init__(
        self,
        name: str,
        modules: tuple[str, ...],
        kernel: kmod_build.Kernel = KERNEL,
        may_fail: frozenset[str] = frozenset(),
        arguments: tuple[str, ...] = (),
        further: Mapping[str, Path] | None = None,
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ks-share-"))
        self.share = self._folder / "share"
        self.share.mkdir()
        self._names: dict[str, str] = {}
        top = shipped.modules(kernel)
        needs = shipped.dependencies(top)
        share = [p for m in _SHARE for p in needs.get(m, ())]
        paths = dict.fromkeys((*share, *(f"kernel/{m}.ko" for m in modules)))
        files = {Path(path).name: top / path for path in paths}
        self._modules = {shipped.target_of(path): top / path for path in paths}
        core = kmod_build.TREE / "build" / "vm" / name / "core"
        shutil.rmtree(core, ignore_errors=True)
        kmod_build.build_core(kmod_build.headers(kernel), core)
        files["kspliced.ko"] = core / "kspliced.ko"
        files.update(further or {})
        self._load = "\n".join(
            f"insmod /{Path(p).name} || {'true' if _name(p) in may_fail else 'exit 1'}"
            for p in paths
        )
        self.machine = Initramfs(
            name,
            kmod_build.image(kernel),
            files,
            arguments=(
                "-qmp", f"unix:{self._folder}/qmp,server=on,wait=off",
                "-fsdev", f"local,id=share,path={self.share},security_model=none",
                "-device", "virtio-9p-pci,fsdev=share,mount_tag=share",
                *arguments,
            ),
        )  # fmt: skip

    def __enter__(self) -> ScenarioGuest:
        try:
            self.machine.__enter__()
            self._monitor = _Monitor(self._folder / "qmp")
            self.machine.check(
                f"{self._load}\nmkdir /mnt; mount -t 9p "
                "-o trans=virtio,version=9p2000.L,msize=262144 share /mnt && insmod /kspliced.ko",
                300,
            )
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.machine.__exit__(kind, error, trace)
        shutil.rmtree(self._folder, ignore_errors=True)

    def check(self, script: str, timeout: float = 60.0) -> str:
        """Run a shell script that has to succeed; returns its output."""
        return self.machine.check(script, timeout)

    def faults(self) -> str:
        """Every line of the console that a sound kernel does not write."""
        lines = self.machine.console_path.read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if FAULT.search(line))

    def snapshot(self, targets: tuple[str, ...]) -> LiveKernel:
        """The guest's kernel as it is now; use it in a ``with`` statement."""
        loaded = {line.split()[0] for line in self.check("cat /proc/modules").splitlines()}
        names = [target for target in targets if target in loaded]
        self.check(_COPY.format(targets=" ".join(names)), 120)
        proc = self.share / "new/proc"
        self._write_core(proc / "kcore", self._ranges(proc, names))
        return LiveKernel(proc, self.share / "new/sys")

    def _ranges(self, proc: Path, modules: list[str]) -> list[tuple[int, int]]:
        marks = {name for pair in _RANGES for name in pair}
        places: dict[str, int] = {}
        with (proc / "kallsyms").open() as lines:
            for line in lines:
                address, _, name = line.split()[:3]
                if name in marks:
                    places.setdefault(name, int(address, 16))
        found = [(places[start], places[end]) for start, end in _RANGES]
        for module in modules:
            found += self._module_ranges(module)
        return found

    def _module_ranges(self, target: str) -> Iterator[tuple[int, int]]:
        """The pages of a module's sections, which need not lie together."""
        obj = read_object(self._modules[target].read_bytes(), target)
        for path in (self.share / f"new/sys/module/{target}/sections").iterdir():
            section = obj.section_named(path.name)
            start = int(path.read_text(), 16)
            if section is not None and not path.name.startswith(_NOT_THERE):
                yield start // _PAGE * _PAGE, -(-(start + section.size) // _PAGE) * _PAGE

    def _write_core(self, path: Path, ranges: list[tuple[int, int]]) -> None:
        offset = _ELF.size + _PROGRAM.size * len(ranges)
        head = bytearray(
            _ELF.pack(b"\x7fELF\x02\x01\x01" + bytes(9), 4, 62, 1, 0, _ELF.size, 0, 0,
                      _ELF.size, _PROGRAM.size, len(ranges), 0, 0, 0)
        )  # fmt: skip
        parts = []
        for start, end in ranges:
            part = self._folder / "memory"
            self._monitor.save(start, end - start, part)
            parts.append(part.read_bytes())
            head += _PROGRAM.pack(1, 7, offset, start, 0, end - start, end - start, 0)
            offset += end - start
        path.write_bytes(bytes(head) + b"".join(parts))

    def crcs(self) -> list[SymbolCrc]:
        """The core's checksums."""
        lines = self.check(f"cat {CORE}/register_crc").splitlines()
        return [SymbolCrc(line.split()[0], int(line.split()[1], 16)) for line in lines]

    def match(self, pack: Pack) -> Matched:
        """Match a pack against the guest."""
        check_coherence(pack)
        targets = tuple(dict.fromkeys(unit.target for unit in pack.manifest.units))
        with self.snapshot(targets) as kernel:
            return match(pack, kernel)

    def load(self, pack: Pack, matched: Matched | None = None) -> Linked:
        """Match, where that is not done yet, link and load a pack.

        One that was applied stays loaded, so it gets another name when it comes again.
        """
        matched = matched or self.match(pack)
        taken = frozenset(self.check(f"ls {UPDATES}").split())
        linked = link(pack, matched, self.crcs(), taken)
        self._names[pack.manifest.update] = linked.name
        (self.share / "update.ko").write_bytes(linked.content)
        self.check("insmod /mnt/update.ko", 120)
        return linked

    def switch(self, update: str, word: str) -> int:
        """Write ``apply`` or ``reverse``, again while code is busy; returns how many tries."""
        where = f"{UPDATES}/{update}"
        for attempt in range(1, _BUSY_TRIES):
            output = self.machine.run(f"echo {word} > {where}/control", 120)
            if output.status == 0:
                return attempt
            cause = self.check(f"cat {where}/abort_cause").strip()
            evidence = self.check(f"cat {where}/conflicts {where}/mismatch; dmesg | tail -5")
            assert cause == "code_busy", f"{cause}: {evidence}"
            time.sleep(0.1)
        raise AssertionError(f"{word} {update}: busy {_BUSY_TRIES} times: {evidence}")

    def apply(self, pack: Pack, matched: Matched | None = None) -> Linked:
        """Make a pack live, as far as its targets are loaded."""
        linked = self.load(pack, matched)
        self.switch(linked.name, "apply")
        return linked

    def undo(self, pack: Pack) -> None:
        """Take it back."""
        self.switch(self._names[pack.manifest.update], "reverse")

    def stage(self, pack: Pack) -> str:
        """The core's word for what has become of it."""
        return self.check(f"cat {UPDATES}/{self._names[pack.manifest.update]}/stage").strip()


def _name(path: str) -> str:
    """A module as callers call it."""
    return path.removeprefix("kernel/").removesuffix(".ko")
