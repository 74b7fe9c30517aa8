# SPDX-License-Identifier: GPL-2.0-or-later
"""The running kernel as files: kallsyms, kcore, modules, sysfs."""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

import pytest

from kspliced.elf.section_class import SectionClass, class_of_name
from kspliced.errors import Code, KernelError
from kspliced.kernel.image import AddressRange, KernelSymbol
from kspliced.kernel.kallsyms import Kallsyms
from kspliced.kernel.live import LiveKernel
from kspliced.kernel.offline import ModuleFile, OfflineKernel, read_module_file
from kspliced.kernel.overlay import Original, overlaid, parse_originals

KALLSYMS = """\
0000000000000000 A fixed_percpu_data
0000000000014000 A counter
ffffffff81000000 T _text
ffffffff81000000 T startup_64
ffffffff81000100 t show
ffffffff81000200 t show
ffffffff81000300 t work.isra.0
ffffffff81000400 t work.constprop.1
ffffffff81000500 T work
ffffffff81000600 T exported_one
ffffffff81000700 T _etext
ffffffff82000000 r __ksymtab_exported_one
ffffffff82000010 r __ksymtab_jiffies
ffffffff82000020 D __start___jump_table
ffffffff82000060 D __stop___jump_table
ffffffffc0000100 t show\t[ext4]
ffffffffc0000200 T given\t[jbd2]
ffffffffc0000210 t given\t[ext4]
ffffffffc0000220 t for_gpl\t[jbd2]
ffffffffc0000230 t for_gpl\t[ext4]
ffffffffc0000280 r __ksymtab_for_gpl\t[jbd2]
ffffffffc0000300 t work.part.0\t[ext4]
ffffffffc0000400 b show.12\t[ext4]
ffffffffc0100000 t ftrace_trampoline\t[__builtin__ftrace]
"""


@pytest.fixture
def table() -> Kallsyms:
    return Kallsyms(KALLSYMS.encode())


def addresses(symbols: tuple[KernelSymbol, ...]) -> list[int]:
    return [s.address for s in symbols]


def test_names_repeat_and_keep_to_their_target(table: Kallsyms) -> None:
    assert addresses(table.named("show", "vmlinux")) == [0xFFFFFFFF81000100, 0xFFFFFFFF81000200]
    assert addresses(table.named("show", "ext4")) == [0xFFFFFFFFC0000100]
    assert table.named("show", "jbd2") == ()
    assert table.named("sho", "vmlinux") == ()
    assert table.named("work", "vmlinux") == (
        KernelSymbol("work", 0xFFFFFFFF81000500, "T", "vmlinux"),
    )


def test_stems_take_in_what_the_compiler_numbered(table: Kallsyms) -> None:
    names = {s.name for s in table.stem("work", "vmlinux")}
    assert names == {"work", "work.isra.0", "work.constprop.1"}
    assert addresses(table.stem("work", "ext4")) == [0xFFFFFFFFC0000300]
    assert addresses(table.stem("show", "ext4")) == [0xFFFFFFFFC0000100, 0xFFFFFFFFC0000400]


def test_addresses(table: Kallsyms) -> None:
    assert {s.name for s in table.at(0xFFFFFFFF81000000, "vmlinux")} == {"_text", "startup_64"}
    assert table.at(0xFFFFFFFF81000001, "vmlinux") == ()
    assert [s.name for s in table.at(0x14000, "vmlinux")] == ["counter"]
    assert [s.name for s in table.at(0xFFFFFFFFC0000210, "ext4")] == ["given"]
    nearest = table.nearest(0xFFFFFFFF81000180)
    assert nearest is not None and nearest.address == 0xFFFFFFFF81000100
    nearest = table.nearest(0xFFFFFFFFC0100040)
    assert nearest is not None and nearest.target == "__builtin__ftrace"
    assert table.nearest(-5) is None


def test_exports_have_a_twin_or_in_modules_upper_case(table: Kallsyms) -> None:
    assert addresses(table.exported("exported_one")) == [0xFFFFFFFF81000600]
    assert table.exported("work") == ()
    assert addresses(table.exported("given")) == [0xFFFFFFFFC0000200]
    assert addresses(table.exported("for_gpl")) == [0xFFFFFFFFC0000220]


def test_hidden_addresses_are_one_clear_error() -> None:
    hidden = "".join(f"{0:016x} T name{n}\n" for n in range(100))
    with pytest.raises(KernelError) as caught:
        Kallsyms(hidden.encode())
    assert caught.value.code is Code.KERNEL_UNREADABLE
    assert "root" in caught.value.remedy


@pytest.mark.parametrize("text", ["", "\n", "rubbish\n"])
def test_no_kallsyms(text: str) -> None:
    with pytest.raises(KernelError):
        Kallsyms(text.encode())


def kcore(segments: dict[int, bytes]) -> bytes:
    """A core file of ``segments`` by address."""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 0, 0, 64, 56,
        len(segments) + 1, 0, 0, 0,
    )  # fmt: skip
    at = 64 + 56 * (len(segments) + 1)
    programs = struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, 0, 0, 0)
    for address, data in segments.items():
        size = len(data)
        programs += struct.pack("<IIQQQQQQ", 1, 7, at, address, 0, size, size, 4096)
        at += size
    return header + programs + b"".join(segments.values())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    proc = tmp_path / "proc"
    (proc / "sys/kernel").mkdir(parents=True)
    (proc / "sys/kernel/osrelease").write_text("6.1.0-test\n")
    (proc / "kallsyms").write_text(KALLSYMS)
    (proc / "modules").write_text(
        "ext4 8192 1 - Live 0xffffffffc0000000\n"
        "late 4096 1 - Loading 0xffffffffc0004000 (OE+)\n"
        "jbd2 4096 1 ext4, Live 0xffffffffc0008000\n"
    )
    text = bytes(range(256)) * 8
    (proc / "kcore").write_bytes(kcore({0xFFFFFFFF81000000: text, 0xFFFFFFFFC0000000: bytes(8192)}))
    sections = tmp_path / "sys/module/ext4/sections"
    sections.mkdir(parents=True)
    (sections / ".text").write_text("0xffffffffc0000000\n")
    (sections / "__jump_table").write_text("0xffffffffc0001000\n")
    (sections / ".data").write_text("0xffffffffc0001200\n")
    return tmp_path


def live(root: Path) -> LiveKernel:
    return LiveKernel(root / "proc", root / "sys")


def test_live_kernel(root: Path) -> None:
    with live(root) as kernel:
        assert kernel.release == "6.1.0-test"
        assert kernel.loaded("vmlinux") and kernel.loaded("ext4")
        assert not kernel.loaded("late") and not kernel.loaded("xfs")
        assert kernel.read(0xFFFFFFFF81000010, 4) == bytes((16, 17, 18, 19))
        assert kernel.table("__jump_table", "ext4") == AddressRange(
            0xFFFFFFFFC0001000, 0xFFFFFFFFC0001200
        )
        assert kernel.table("__jump_table", "vmlinux") == AddressRange(
            0xFFFFFFFF82000020, 0xFFFFFFFF82000060
        )
        assert kernel.table(".static_call_sites", "ext4") is None
        for address in (0xFFFFFFFF81000000 + 2046, 0x1000, 0xFFFFFFFF90000000):
            with pytest.raises(KernelError) as caught:
                kernel.read(address, 4)
            assert caught.value.code is Code.KERNEL_UNREADABLE


SECTIONS = {
    ".text": 0xFFFFFFFFC0000000, ".exit.text": 0xFFFFFFFFC0000800, ".rodata": 0xFFFFFFFFC0001000,
    ".data..ro_after_init": 0xFFFFFFFFC0002000, "__jump_table": 0xFFFFFFFFC0002100,
    ".data": 0xFFFFFFFFC0003000, ".bss": 0xFFFFFFFFC0003800, ".init.text": 0xFFFFFFFFC0009000,
}  # fmt: skip
RANGES = {
    SectionClass.TEXT: ("_text", "_etext", 0xFFFFFFFF81000000),
    SectionClass.READ_ONLY: ("__start_rodata", "__end_rodata", 0xFFFFFFFF82000000),
    SectionClass.RO_AFTER_INIT: (
        "__start_ro_after_init", "__end_ro_after_init", 0xFFFFFFFF82000800
    ),
    SectionClass.WRITTEN: ("_sdata", "_edata", 0xFFFFFFFF83000000),
    SectionClass.INIT_TEXT: ("_sinittext", "_einittext", 0xFFFFFFFF84000000),
    SectionClass.INIT_DATA: ("__init_begin", "__init_end", 0xFFFFFFFF83FFF000),
}  # fmt: skip
SIZES = {SectionClass.READ_ONLY: 0x2000, SectionClass.INIT_DATA: 0x4000}


def test_what_kind_of_memory_an_address_is_in(root: Path) -> None:
    lines = "".join(
        f"{start:016x} D {first}\n{start + SIZES.get(kind, 0x800):016x} D {last}\n"
        for kind, (first, last, start) in RANGES.items()
    )
    order = "".join(sorted(lines.splitlines(keepends=True)))
    (root / "proc/kallsyms").write_text(order)
    for name, address in SECTIONS.items():
        (root / "sys/module/ext4/sections" / name).write_text(f"{address:#x}\n")
    with live(root) as kernel:
        for kind, (_, _, start) in RANGES.items():
            assert kernel.memory(start, "vmlinux") is kind
            assert kernel.memory(start + 0x7FF, "vmlinux") is kind
        assert kernel.memory(0xFFFFFFFF82001000, "vmlinux") is SectionClass.READ_ONLY
        assert kernel.memory(0xFFFFFFFF83000800, "vmlinux") is None
        assert kernel.memory(0x14000, "vmlinux") is None, "a per-CPU variable is no address"
        for name, address in SECTIONS.items():
            assert kernel.memory(address + 8, "ext4") is class_of_name(name)
        assert kernel.memory(0xFFFFFFFFBFFFFFFF, "ext4") is None
        assert kernel.memory(0xFFFFFFFFC0004000, "late") is None


def test_memory_of_which_kallsyms_says_half(root: Path) -> None:
    (root / "proc/kallsyms").write_text("ffffffff82000000 D __start_rodata\n")
    with live(root) as kernel:
        assert kernel.memory(0xFFFFFFFF82000000, "vmlinux") is None


def test_what_our_update_replaced_is_put_back(root: Path) -> None:
    update = root / "sys/kernel/kspliced/updates/ks_1"
    update.mkdir(parents=True)
    (update / "original").write_text("0xffffffff81000005\te900112233\n")
    with live(root) as kernel:
        assert kernel.read(0xFFFFFFFF81000004, 8) == bytes.fromhex("04e9001122330a0b")
        assert kernel.read(0xFFFFFFFF81000007, 2) == bytes.fromhex("1122")
    (update / "original").write_text("what\n")
    with pytest.raises(KernelError) as caught:
        live(root)
    assert caught.value.code is Code.KERNEL_UNREADABLE


def test_overlay_touches_only_its_range() -> None:
    (original,) = parse_originals("0x10\t0a0b0c0d0e\n")
    assert original == Original(16, bytes((10, 11, 12, 13, 14)))
    for start in range(8, 24):
        data = bytes(6)
        shown = overlaid(data, start, (original,))
        for at, byte in enumerate(shown, start):
            assert byte == (at - 6 if 16 <= at < 21 else 0)


def test_livepatched_functions_are_known(root: Path) -> None:
    patch = root / "sys/kernel/livepatch/fix_it"
    (patch / "ext4/ext4_read,1").mkdir(parents=True)
    (patch / "enabled").write_text("1\n")
    with live(root) as kernel:
        assert kernel.redirected("ext4_read", "ext4") == "livepatch fix_it"
        assert kernel.redirected("ext4_read", "vmlinux") == ""
        assert kernel.redirected("ext4_rea", "ext4") == ""
        (patch / "enabled").write_text("0\n")
        assert kernel.redirected("ext4_read", "ext4") == ""


@pytest.mark.parametrize("content", [b"", b"\x7fELF", bytes(64), b"x" * 200])
def test_no_kcore(root: Path, content: bytes) -> None:
    (root / "proc/kcore").write_bytes(content)
    with pytest.raises(KernelError) as caught:
        live(root)
    assert caught.value.code is Code.KERNEL_UNREADABLE
    (root / "proc/kcore").unlink()
    with pytest.raises(KernelError):
        live(root)


def test_kcore_is_closed(root: Path) -> None:
    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = files()
    with live(root):
        assert files() == before + 1
    assert files() == before


def test_module_files(tmp_path: Path) -> None:
    content = b"\x7fELF" + bytes(100)
    (tmp_path / "snd-hda.ko").write_bytes(content)
    (tmp_path / "snd-hda.ko.xz").write_bytes(lzma.compress(content))
    for name in ("snd-hda.ko", "snd-hda.ko.xz"):
        assert read_module_file(tmp_path / name) == ModuleFile("snd_hda", content)
    damaged = lzma.compress(content)[:20] + b"damage" * 9
    (tmp_path / "bad.ko.xz").write_bytes(damaged)
    for name in ("bad.ko.xz", "none.ko"):
        with pytest.raises(KernelError) as caught:
            OfflineKernel("6.1", [read_module_file(tmp_path / name)])
        assert caught.value.code in (Code.KERNEL_UNREADABLE, Code.IO)
