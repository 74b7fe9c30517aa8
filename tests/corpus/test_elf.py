# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading and writing objects, against readelf and ld."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspliced.elf.disasm import is_branch, operand_distance
from kspliced.elf.module import DATA, RODATA, TEXT, ModuleWriter, Place, Reference
from kspliced.elf.read import read_object
from kspliced.elf.write import write_object
from kspliced.elf.x86 import R_X86_64_64, R_X86_64_PLT32
from kspliced.errors import Code, KsplicedError
from tests.corpus.compiler import compile_file

SOURCE = """
static const char *names[] = { "one", "two" };
int counter;
const char *name(int n) { counter++; printk("name %d\\n", n); return names[n & 1]; }
int caller(int n) { return name(n) ? other(n) : 0; }
"""


@pytest.fixture(scope="module")
def content() -> bytes:
    return compile_file(SOURCE)


def readelf(path: Path, *options: str) -> str:
    command = ["readelf", "-W", *options, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return done.stdout


def test_sections_symbols_and_relocations_are_readelf_s(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "unit.o"
    path.write_bytes(content)
    obj = read_object(content)
    symbols = re.findall(r"^ +(\d+): ([0-9a-f]+) +(\d+) (\w+) +(\w+)", readelf(path, "-s"), re.M)
    assert [(s.index, s.value, s.size, s.type.name, s.binding.name) for s in obj.symbols] == [
        (int(n), int(value, 16), int(size), kind, binding)
        for n, value, size, kind, binding in symbols
    ]
    relocations = re.findall(r"^([0-9a-f]{16}) +([0-9a-f]{16}) R_X86", readelf(path, "-r"), re.M)
    ours = [(r.offset, r.symbol << 32 | r.type) for s in obj.sections for r in s.relocations]
    assert sorted(ours) == sorted((int(o, 16), int(info, 16)) for o, info in relocations)


def test_a_written_module_is_what_was_asked_for(tmp_path: Path) -> None:
    writer = ModuleWriter()
    code = writer.append(".text", TEXT, 16, b"\xe8\0\0\0\0\xc3")
    text = writer.append(".rodata", RODATA, 8, b"hello\0")
    word = writer.append(".data", DATA, 8, bytes(8))
    writer.append(".bss", DATA, 32, bytes(100))
    writer.refer(Reference(Place(".text", code.offset + 1), R_X86_64_PLT32, "other", -4))
    writer.refer(Reference(word, R_X86_64_64, text, 1))
    writer.name_function("caller", code, 6)
    writer.export("word", word, 8)
    path = tmp_path / "module.o"
    path.write_bytes(write_object(writer.finish()))
    assert writer.imports == ("other",)
    assert re.search(r"\.bss +NOBITS .* 000064 00  WA", readelf(path, "-S"))
    assert re.search(r" 6 FUNC +LOCAL +DEFAULT +\d+ caller", readelf(path, "-s"))
    linked = tmp_path / "linked"
    command = ["ld", "-Ttext=0x1000", "-Tdata=0x3000", "--defsym=other=0x2000", "-e", "0"]
    subprocess.run([*command, "-o", str(linked), str(path)], check=True, capture_output=True)
    dump = subprocess.run(
        ["objdump", "-d", str(linked)], check=True, capture_output=True, text=True
    )
    assert re.search(r"1000:\te8 fb 0f 00 00 +\tcall +2000", dump.stdout)


def test_writing_what_was_read_keeps_everything() -> None:
    writer = ModuleWriter()
    code = writer.append(".text", TEXT, 16, b"\xe8\0\0\0\0\xc3")
    writer.refer(Reference(Place(".text", code.offset + 1), R_X86_64_PLT32, "other", -4))
    first = write_object(writer.finish())
    assert write_object(read_object(first)) == first


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_object_is_refused_or_read_never_a_traceback(data: st.DataObject) -> None:
    damaged = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] ^= data.draw(st.integers(1, 255))
    size = data.draw(st.integers(0, len(damaged)))
    cut = bytes(damaged[:size] if data.draw(st.booleans()) else damaged)
    try:
        read_object(cut)
    except KsplicedError as error:
        assert error.code is Code.OBJECT_MALFORMED
        assert error.remedy


GOOD = compile_file(SOURCE)


def test_branches_are_told_from_operands() -> None:
    assert is_branch(b"\xe8\0\0\0\0", 1)
    assert is_branch(b"\x0f\x84\0\0\0\0", 2)
    lea = b"\x48\x8d\x3d\0\0\0\0"  # lea 0(%rip),%rdi
    assert not is_branch(lea, 3)
    assert operand_distance(lea, 3) == 4
    compare = b"\x83\x3d\0\0\0\0\x05"  # cmpl $5,0(%rip)
    assert operand_distance(compare, 2) == 5
    store = b"\x90\xc7\x05\0\0\0\0\x01\0\0\0"  # movl $1,0(%rip)
    assert operand_distance(store, 3) == 8
