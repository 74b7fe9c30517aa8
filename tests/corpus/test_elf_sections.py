# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects with more sections than an ELF header and a symbol can number."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from kspliced.elf.module import DATA, ModuleWriter
from kspliced.elf.read import read_object
from kspliced.elf.write import write_object
from kspliced.errors import BuildError, Code
from tests.corpus.compiler import compile_file

_SHNUM, _SHSTRNDX = 60, 62


def refusal(content: bytes) -> BuildError:
    with pytest.raises(BuildError) as caught:
        read_object(content, "unit.o")
    assert caught.value.code is Code.OBJECT_MALFORMED
    assert caught.value.remedy
    return caught.value


def test_more_sections_than_can_be_numbered(tmp_path: Path) -> None:
    """As the assembler writes it, with symbols in sections whose numbers are in another table."""
    source = "".join(f'.section .d{n},"aw"\nv{n}: .byte 1\n' for n in range(65400))
    path = tmp_path / "unit.o"
    command = ["as", "-o", str(path), "-"]
    subprocess.run(command, input=source, text=True, check=True)
    content = path.read_bytes()
    assert struct.unpack_from("<HH", content, _SHNUM) == (0, 0xFFFF)
    assert "65280 sections or more" in str(refusal(content))


@pytest.mark.parametrize(("place", "value"), [(_SHNUM, 0), (_SHSTRNDX, 0xFFFF), (_SHNUM, 0xFF00)])
def test_a_header_that_refers_to_the_first_section(place: int, value: int) -> None:
    content = bytearray(compile_file("int number = 1;"))
    struct.pack_into("<H", content, place, value)
    assert "65280 sections or more" in str(refusal(bytes(content)))


@pytest.mark.parametrize("section", [0xFF00, 0xFF02, 0xFFFF])
def test_a_symbol_in_a_reserved_section(section: int) -> None:
    writer = ModuleWriter()
    writer.export("number", writer.append(".data", DATA, 8, b"\1"), 1)
    content = bytearray(write_object(writer.finish()))
    entry = struct.pack("<BBHQQ", 0x10, 0, 1, 0, 1)
    assert content.count(entry) == 1
    struct.pack_into("<H", content, content.index(entry) + 2, section)
    assert "reserved" in str(refusal(bytes(content)))


def test_more_sections_than_can_be_written() -> None:
    writer = ModuleWriter()
    # With the null section and three tables: the most there may be.
    for number in range(0xFEFF - 4):
        writer.append(f".d{number}", DATA, 1, b"\1")
    assert len(read_object(write_object(writer.finish())).sections) == 0xFEFF - 4
    writer.append(".last", DATA, 1, b"\1")
    with pytest.raises(BuildError) as caught:
        write_object(writer.finish())
    assert caught.value.code is Code.OBJECT_MALFORMED
    assert caught.value.remedy
