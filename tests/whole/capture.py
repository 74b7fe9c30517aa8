# SPDX-License-Identifier: GPL-2.0-or-later
"""A running kernel's memory, taken out of a guest: what matching reads, and no more.

    python3 -m tests.whole.capture VERSION

boots the image package's kernel, loads every module that the upgrade changes and that will load,
and copies vmlinux and the modules' space out of /proc/kcore. The image is a directory with
``proc/{kallsyms,modules,kcore,sys/kernel/osrelease}`` and ``sys/module/NAME/sections/*``, as the
files of those names are in the guest, so kspliced.kernel.live.LiveKernel reads it as it reads a
running kernel; ``proc/kcore`` has only the ranges that matter.
"""

from __future__ import annotations

import base64
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kspliced.build.kbuild import Unit
from kspliced.kernel.kallsyms import Kallsyms
from kspliced.model import VMLINUX
from tests.vm import cache, kmod_build
from tests.vm.errors import HarnessError
from tests.vm.initramfs import Initramfs
from tests.whole.kernels import UPGRADES, Upgrade, dependencies, modules
from tests.whole.units import changed

PAGE = 4096
# Beyond the last section whose address is known, which may be a large one.
_BEHIND = 4 << 20
_DISK = 1 << 30
_DRIVERS = ("virtio_pci", "virtio_blk")
_SKIPPED = frozenset(
    # Take over the console, reboot the guest, or wait for what is not there.
    {"softdog", "hangcheck_timer"}
)
# Loading waits for hardware at times: no module gets more than this.
_LOAD = """\
insmod "$1" > /dev/null 2>&1 &
n=0
while kill -0 $! 2> /dev/null && [ $n -lt 200 ]; do usleep 50000; n=$((n + 1)); done
"""


@dataclass(frozen=True)
class _Range:
    """Memory from ``start`` to ``end``, at ``offset`` of the guest's /proc/kcore."""

    start: int
    end: int
    offset: int


def captured(upgrade: Upgrade, units: Iterable[Unit]) -> Path:
    """The image of the kernel that ``upgrade`` begins with, the units' modules loaded."""
    targets = sorted({unit.target for unit in units} - {VMLINUX})
    key = cache.digest(Path(__file__).read_bytes(), *targets)
    return cache.made(
        f"memory-{upgrade.name}-{key}", lambda folder: _capture(upgrade, targets, folder)
    )


def _capture(upgrade: Upgrade, targets: list[str], folder: Path) -> None:
    top = modules(upgrade)
    needs = dependencies(top)
    files = _in_order(needs, [name for name in (*_DRIVERS, *targets) if name in needs])
    disk = folder / "disk"
    with disk.open("wb") as handle:
        handle.truncate(_DISK)
    guest = Initramfs(
        f"capture-{upgrade.name}",
        kmod_build.image(upgrade.kernel),
        {f"{number}.ko": top / path for number, path in enumerate(files)},
        arguments=("-m", "6G", "-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"),
        # What a machine's own processor makes of the kernel's code is what has to be matched.
        cpu="max",
    )
    with guest:
        guest.check(f"cat > /load <<'END'\n{_LOAD}END\n")
        for number in range(len(files)):
            guest.run(f"sh /load /{number}.ko", 60.0)
        _write(folder / "proc/modules", guest.check("cat /proc/modules"))
        _write(folder / "proc/kallsyms", guest.check("cat /proc/kallsyms", 300.0))
        _write(folder / "proc/sys/kernel/osrelease", guest.check("uname -r"))
        _sections(guest, folder / "sys")
        ranges = _ranges(guest, folder)
        at = 0
        for item in ranges:
            _copy(guest, item, at)
            at += item.end - item.start
        guest.check("sync", 120.0)
    _core(disk, ranges, folder / "proc/kcore")
    disk.unlink()


def _in_order(needs: dict[str, tuple[str, ...]], targets: Iterable[str]) -> list[str]:
    """The files to load, each behind what it needs."""
    wanted = [needs[target] for target in targets if target not in _SKIPPED]
    return list(dict.fromkeys(path for paths in wanted for path in paths))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _sections(guest: Initramfs, sys_folder: Path) -> None:
    script = "cd /sys/module; for d in */sections; do grep -r '' $d; done"
    for line in guest.check(script, 300.0).splitlines():
        name, _, address = line.partition(":0x")
        _write(sys_folder / "module" / name, f"0x{address}\n")


def _ranges(guest: Initramfs, folder: Path) -> list[_Range]:
    """vmlinux, and the space from the first to the last module section."""
    text = (folder / "proc/kallsyms").read_bytes()
    symbols = Kallsyms(text)
    first, last = (symbols.named(name, VMLINUX)[0].address for name in ("_text", "_end"))
    found = [int(p.read_text(), 16) for p in (folder / "sys/module").glob("*/sections/*")]
    # Per-CPU sections lie elsewhere, and freed ones are shown as 0.
    places = [address for address in found if address > last]
    header = base64.b64decode(guest.check("dd if=/proc/kcore bs=64k count=1 2> /dev/null | base64"))
    wanted = ((first, last), (min(places), max(places) + _BEHIND))
    return [_found(header, start // PAGE * PAGE, -(-end // PAGE) * PAGE) for start, end in wanted]


def _found(header: bytes, start: int, end: int) -> _Range:
    """Where the guest's core file has the range (ELF-64, program headers)."""
    at, count = struct.unpack_from("<Q", header, 32)[0], struct.unpack_from("<H", header, 56)[0]
    for number in range(count):
        _, _, offset, address, _, size, _, _ = struct.unpack_from(
            "<IIQQQQQQ", header, at + 56 * number
        )
        if address <= start < address + size:
            return _Range(start, min(end, address + size), offset + start - address)
    raise HarnessError(f"the guest's /proc/kcore has no {start:#x}")


def _copy(guest: Initramfs, item: _Range, at: int) -> None:
    assert item.offset % PAGE == 0
    pages = (item.end - item.start) // PAGE
    guest.check(
        f"dd if=/proc/kcore of=/dev/vda bs={PAGE} skip={item.offset // PAGE} "
        f"seek={at // PAGE} count={pages} conv=notrunc 2> /dev/null",
        900.0,
    )


def _core(disk: Path, ranges: list[_Range], path: Path) -> None:
    """An ELF core file of the ranges, with holes where memory is zero."""
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 4, 62, 1, 0, 64, 0, 0, 64, 56, len(ranges), 0, 0, 0
    )
    offset = PAGE
    for item in ranges:
        size = item.end - item.start
        header += struct.pack("<IIQQQQQQ", 1, 7, offset, item.start, 0, size, size, PAGE)
        offset += size
    with disk.open("rb") as source, path.open("wb") as target:
        target.write(header)
        target.seek(PAGE)
        for _ in range((offset - PAGE) // PAGE):
            page = source.read(PAGE)
            if page.count(0) == PAGE:
                target.seek(PAGE, 1)
            else:
                target.write(page)
        target.truncate(offset)


if __name__ == "__main__":
    upgrade = UPGRADES[sys.argv[1]]
    print(captured(upgrade, changed(upgrade)))
