# SPDX-License-Identifier: GPL-2.0-or-later
"""Enumerators of any width and place: what the compilers' own description of types has of them, and
that a value which changes in any bit is seen."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from kspliced.build.btf import ENUMS, Types
from kspliced.build.enumerators import changed_enumerators
from kspliced.build.pipeline import build
from kspliced.build.request import BuildRequest
from kspliced.build.types import changed_types, enumerators_told
from kspliced.elf.read import read_object
from kspliced.model import no_progress
from tests.corpus.compiler import FLAGS, PRELUDE, compile_file
from tests.vm import real, trixie
from tests.vm.case import FAULTY_FUNCTION, OLD_RELEASE

Compiler = Callable[[str], tuple[bytes, str]]
BTF = ("-g0", "-gbtf")
BASE = """\
#define WIDE(n) (1ULL << (n))
enum wide { WIDE_A = WIDE(40), WIDE_B, WIDE_C = 7 };
enum below { BELOW_A = -5, BELOW_B = 3 };
enum far_below { FAR_A = -(1LL << 40), FAR_B = 2 };
enum word { WORD_A = 0xffffffff, WORD_B = 1 };
enum { FLAG = 1 << 3, HIGH = WIDE(35) };
enum { PART = 1, WHOLE = (long long)PART << 33 };
enum kinds { KIND_A, KIND_B, NR_KINDS };
enum { LETTER = 'a', BRACE = '{', COMMA = ',' };
enum __attribute__((packed, aligned(2))) small { SMALL_A = 3 };
enum { SIZED = sizeof(struct { int a, b; }), BEHIND_SIZED };
struct s {
	enum { INNER_A = 4, INNER_B } inner; enum wide wide; enum below below; enum word word;
	enum far_below far_below; enum kinds kinds; enum small small;
};
enum kinds kind_of(struct s *p)
{
	enum { LOCAL_A = 12, LOCAL_B = WIDE(50) } local = p->inner;
	return local + LOCAL_A + (LOCAL_B >> 40);
}
long long f(struct s *p)
{
	switch (p->wide) { case WIDE_A: case WIDE_B: case WIDE_C: return 1; }
	return other(BELOW_A + FAR_B + WORD_A + FLAG + SMALL_A + LETTER + BRACE + COMMA + INNER_B)
		+ FAR_A + HIGH + WHOLE + NR_KINDS + KIND_B + PART + SIZED + BEHIND_SIZED;
}
"""
CHANGES = [
    ("enum wide { WIDE_A = WIDE(40)", "enum wide { WIDE_A = WIDE(41)", {"WIDE_A", "WIDE_B"}),
    ("WIDE_B,", "WIDE_B = WIDE(42),", {"WIDE_B"}),
    ("WIDE_C = 7", "WIDE_C = 8", {"WIDE_C"}),
    ("WIDE_C = 7", "WIDE_C = WIDE(32) + 7", {"WIDE_C"}),
    ("1ULL <<", "2ULL <<", {"WIDE_A", "WIDE_B", "HIGH", "LOCAL_B"}),
    ("BELOW_A = -5", "BELOW_A = -6", {"BELOW_A"}),
    ("BELOW_A = -5", "BELOW_A = 0xfffffffb", {"BELOW_A"}),
    ("FAR_A = -(1LL", "FAR_A = -(3LL", {"FAR_A"}),
    ("FAR_A = -(1LL", "FAR_A = (1LL", {"FAR_A"}),
    ("WORD_A = 0xffffffff", "WORD_A = 0xfffffffe", {"WORD_A"}),
    ("WORD_A = 0xffffffff", "WORD_A = -1", {"WORD_A"}),
    ("FLAG = 1 << 3", "FLAG = 1 << 4", {"FLAG"}),
    ("HIGH = WIDE(35)", "HIGH = WIDE(36)", {"HIGH"}),
    ("{ PART = 1", "{ PART = 2", {"PART", "WHOLE"}),
    ("LETTER = 'a'", "LETTER = 'b'", {"LETTER"}),
    ("BRACE = '{'", "BRACE = '}'", {"BRACE"}),
    ("COMMA = ','", "COMMA = ';'", {"COMMA"}),
    ("SMALL_A = 3", "SMALL_A = 4", {"SMALL_A"}),
    ("int a, b;", "int a, b, c;", {"SIZED", "BEHIND_SIZED"}),
    ("INNER_A = 4", "INNER_A = 6", {"INNER_A", "INNER_B"}),
    ("LOCAL_A = 12", "LOCAL_A = 13", {"LOCAL_A"}),
    ("LOCAL_B = WIDE(50)", "LOCAL_B = WIDE(51)", {"LOCAL_B"}),
    ("KIND_A, KIND_B,", "KIND_B, KIND_A,", {"KIND_A", "KIND_B"}),
]
STAYS = [
    ("KIND_B, NR", "KIND_B, KIND_C, NR"),  # a counter, and what is compared is what it sizes
    ("WIDE_C = 7 }", "WIDE_C = 7, WIDE_D = WIDE(60) }"),
    ("enum { FLAG", "enum flags { FLAG"),
    ("struct s {", "enum later { LATER = WIDE(44) };\nstruct s {"),
    ("WIDE_B, ", "WIDE_B,\n\t\t"),
    ("other(BELOW_A", "other(1 + BELOW_A"),
]


@cache
def debian_12(text: str) -> tuple[bytes, str]:
    source = PRELUDE + text
    command = ["gcc-12", *FLAGS, "-E", "-x", "c", "-"]
    done = subprocess.run(command, input=source, check=True, capture_output=True, text=True)
    return compile_file(text, *BTF), done.stdout


@cache
def debian_13(text: str) -> tuple[bytes, str]:
    root = trixie.root() / "root"
    folder = root / "tmp/enumerators"
    folder.mkdir(exist_ok=True)
    (folder / "a.c").write_text(PRELUDE + text)
    gcc = ["chroot", str(root), "gcc-14", *FLAGS, "/tmp/enumerators/a.c", "-o"]
    subprocess.run([*gcc, "/tmp/enumerators/a.o", *BTF, "-c"], check=True, capture_output=True)
    subprocess.run([*gcc, "/tmp/enumerators/a.i", "-E"], check=True, capture_output=True)
    made = (folder / "a.o").read_bytes(), (folder / "a.i").read_text()
    shutil.rmtree(folder)
    return made


@pytest.fixture(params=[debian_12, debian_13], ids=["gcc-12", "gcc-14"])
def compiler(request: pytest.FixtureRequest) -> Compiler:
    made: Compiler = request.param
    return made


def changed(compiler: Compiler, old: str, new: str) -> set[str]:
    """The enumerators that change, by the compiler and by the text where that says nothing."""
    (before, text), (after, other) = compiler(old), compiler(new)
    objects = read_object(before, "a.o"), read_object(after, "a.o")
    found = [
        *changed_types(*objects),
        *changed_enumerators(text, other, lambda: enumerators_told(*objects)),
    ]
    names = [c.name.partition(" ")[2] for c in found if c.name.startswith("enumerator ")]
    assert len(names) == len(set(names)), "seen once"
    return set(names)


@pytest.mark.parametrize(("old", "new", "names"), CHANGES)
def test_a_value_that_changes_in_any_bit(
    compiler: Compiler, old: str, new: str, names: set[str]
) -> None:
    assert BASE.count(old) == 1
    assert changed(compiler, BASE, BASE.replace(old, new)) == names
    assert changed(compiler, BASE.replace(old, new), BASE) == names


@pytest.mark.parametrize(("old", "new"), STAYS)
def test_values_that_stay(compiler: Compiler, old: str, new: str) -> None:
    assert BASE.count(old) == 1
    assert changed(compiler, BASE, BASE.replace(old, new)) == set()


def test_what_no_code_names(compiler: Compiler) -> None:
    """Of an enumeration that nothing in the unit names, or whose enumerators nothing names."""
    more = f"enum {{ UNNAMED = WIDE(41) }}; enum idle {{ IDLE_A = 3 }};\n{BASE}"
    more = more.replace("enum { UNNAMED", f"{BASE.splitlines()[0]}\nenum {{ UNNAMED")
    other = more.replace("WIDE(41)", "WIDE(42)").replace("IDLE_A = 3", "IDLE_A = 4")
    assert changed(compiler, more, other) == set()


def test_what_the_description_of_types_has() -> None:
    """GCC 12 leaves out what is no int, and no sign; neither has what is local."""
    told = []
    for made in (debian_12, debian_13):
        section = read_object(made(BASE)[0], "a.o").section_named(".BTF")
        assert section is not None
        types = Types(section.data)
        enums = [n for n, one in enumerate(types.all) if one.kind in ENUMS]
        told.append({name: value for n in enums for name, value in types.values(n)})
    older, newer = told
    large = {"WIDE_A", "WIDE_B", "FAR_A", "WORD_A", "HIGH", "WHOLE"}
    assert newer.keys() - older.keys() == large
    assert older.items() <= newer.items()
    assert {"LOCAL_A", "LOCAL_B"} & newer.keys() == set()
    values = {"WIDE_A": 1 << 40, "FAR_A": -(1 << 40), "WORD_A": (1 << 32) - 1, "BELOW_A": -5}
    assert values.items() <= newer.items()


def test_an_upgrade_that_changes_one_in_a_source(tmp_path: Path) -> None:
    """A macro is another, so that the enumeration is spelt as before, above what is an int."""
    trees = (tmp_path / "old", tmp_path / "new")
    for tree, bit in zip(trees, (40, 41), strict=True):
        shutil.copytree(real.tree(), tree, symlinks=True, copy_function=os.link)
        path = tree / "fs/ext4/mballoc.c"
        head, body = path.read_text().split(f"\n{FAULTY_FUNCTION}(", 1)
        lines = head.split("\n")
        lines[-1:-1] = [f"#define BUDDY_BIT {bit}", "enum { BUDDY_OLD = 1ULL << BUDDY_BIT };"]
        body = body.replace("might_sleep();", 'might_sleep();\n\tprintk("%lu", BUDDY_OLD);', 1)
        path.unlink()
        path.write_text("\n".join(lines) + f"\n{FAULTY_FUNCTION}({body}")
    kernel = real.kernel()
    config = kernel / f"boot/config-{OLD_RELEASE}"
    request = BuildRequest(trees[0], trees[1], config, kernel, ("ext4",), (), 2, None)
    result = build(request, no_progress)
    assert result.manifest is None
    (refusal,) = result.refused
    assert (refusal.code, refusal.symbol) == ("layout_changed", "enumerator BUDDY_OLD")
    assert ("<< 40" in refusal.evidence, "<< 41" in refusal.evidence) == (True, True)
