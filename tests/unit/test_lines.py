# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines end at newlines only, and what stands in them is told of the function that it is in."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspliced.lines import split_lines
from kspliced.plan.declarations import declarations
from kspliced.plan.edits import read_text
from kspliced.source.functions import function_lines, touched_functions
from kspliced.source.lines import keep_line_numbers

TOP = Path(__file__).parents[2]
BREAKS = ("\f", "\v", "\r", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
PROBE = "static int st_probe(int n)\n{\n\treturn n;\n}\n"
REMOVE = "static int st_remove(int n)\n{\n\treturn n + 1;\n}\n"

# Before a function: what a macro without a semicolon declares.
MACROS = (
    "DEFINE_FREE(kfree, void *, if (_T) kfree(_T))\n",
    "ACPI_EXPORT_SYMBOL(st_probe)\n\n",
    "TRACE_EVENT(st,\n\n\tTP_PROTO(int n),\n\tTP_fast_assign(\n\t\tn = 2;\n\t),\n"
    '\tTP_printk("x)")\n)\n',
    "EXPORT_SYMBOL(st_probe)\nDEFINE_GUARD(st, int *, lock(_T), unlock(_T))\n/* why { not */\n",
    "static DEF_SCSI_QCMD(st_queue)\n\n",
    "static ssize_t st_show(int n) { return n; }\n",
    "#define ST(n) \\\n\tcall(n\n",
)
# How a function's own head may look, with its name.
HEADS = (
    ("int f(int n)\n{", "f"),
    ("static int\nf(struct x *p, int (*g)(int))\n{", "f"),
    ("static void __printf(1, 2) f(const char *s) __acquires(s)\n{", "f"),
    ("struct x __init *f(void)\n{", "f"),
    ("static bool f(int n) {", "f"),
    ("static void (*f(int n))(int)\n{", "f"),
    ("static int f(int n\n#ifdef A\n\t)\n#else\n\t, int m)\n#endif\n{", "f"),
    ("SYSCALL_DEFINE3(f, int, n)\n{", "__do_sys_f"),
    ("COMPAT_SYSCALL_DEFINE3(f, int, n)\n{", "__do_compat_sys_f"),
    ("BPF_CALL_1(f, int, n)\n{", "f"),
    ("DEFINE_IDTENTRY(f)\n{", "f"),
)
BODY = "\n#if A\n\tif (n) {\n#else\n\t{\n#endif\n\t}\n}\n"


@pytest.mark.parametrize("macro", ("", *MACROS))
@pytest.mark.parametrize(("head", "name"), HEADS)
def test_a_function_behind_a_macro_has_its_own_name(macro: str, head: str, name: str) -> None:
    text = f"{PROBE}{macro}{head}{BODY}{REMOVE}"
    end = f"{PROBE}{macro}{head}{BODY}".count("\n")
    start = f"{PROBE}{macro}".count("\n") + 1
    found = {tuple(one) for one in function_lines(text)}
    assert {("st_probe", 1, 4), (name, start, end), ("st_remove", end + 1, end + 4)} <= found
    assert {one[0] for one in found} <= {name, "st_probe", "st_remove", "st_show"}


@pytest.mark.parametrize("macro", MACROS)
def test_the_plan_names_it_as_well(tmp_path: Path, macro: str) -> None:
    (tmp_path / "st.c").write_text(f"{PROBE}{macro}{REMOVE}")
    found = {one.name: one for one in declarations(tmp_path, ["st.c"]) if one.kind == "function"}
    assert set(found) - {"st_show"} == {"st_probe", "st_remove"}
    first = f"{PROBE}{macro}".count("\n") + 1
    assert (found["st_remove"].start, found["st_remove"].end) == (first, first + 3)
    assert found["st_remove"].local


@pytest.mark.parametrize("macro", MACROS)
@pytest.mark.parametrize("static", ["", "static "])
def test_the_plan_knows_whose_it_is(tmp_path: Path, macro: str, static: str) -> None:
    (tmp_path / "st.c").write_text(f"{macro}{static}int f(int n)\n{{\n\treturn n;\n}}\n")
    local = [one.local for one in declarations(tmp_path, ["st.c"]) if one.name == "f"]
    assert local == [bool(static)]


@pytest.mark.parametrize("macro", ("", *MACROS))
@pytest.mark.parametrize(
    "head",
    ["struct x\n{", "struct x {", "union x {", "enum __packed x {", "struct __aligned(8) x {"],
)
def test_a_type_behind_a_macro_is_no_function(macro: str, head: str) -> None:
    text = f"{macro}{head}\n\tA\n}};\n{REMOVE}"
    assert {one[0] for one in function_lines(text)} - {"st_show"} == {"st_remove"}


@pytest.mark.parametrize(
    "text",
    [
        "static const struct x y __aligned(8) =\n{\n\t.a = F(b),\n};\n",
        "struct __attribute__((packed)) x {\n\tint (*f)(int n);\n};\n",
        "#define F(n) \\\n{ \\\n}\nint a = F(b);\n",
    ],
)
def test_what_is_no_function(text: str) -> None:
    assert function_lines(text) == []


@pytest.mark.parametrize("mark", BREAKS)
def test_a_change_is_told_of_its_function_whatever_stands_before(tmp_path: Path, mark: str) -> None:
    old, new = tmp_path / "old.c", tmp_path / "new.c"
    text = f"/* {mark * 5} */\n{PROBE}/* {mark} */\n{REMOVE}"
    old.write_bytes(text.encode())
    new.write_bytes(text.replace("n + 1", "n + 2").encode())
    assert touched_functions(old, new) == ("st_remove",)
    assert len(read_text(tmp_path, "old.c", ()).raw) == text.count("\n")


@pytest.mark.parametrize("mark", BREAKS)
def test_unchanged_lines_keep_their_numbers(tmp_path: Path, mark: str) -> None:
    old, new = tmp_path / "old.c", tmp_path / "new.c"
    text = f"/* {mark * 3} */\n{PROBE}int line = __LINE__;\n"
    old.write_bytes(text.encode())
    new.write_bytes(text.replace("\treturn", "\tn++;\n\treturn").encode())
    new.write_bytes(keep_line_numbers(old, new))
    lines = []
    for path in (old, new):
        command = ["gcc", "-E", "-P", str(path)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        lines.append(said.split("int line = ")[1])
    assert lines[0] == lines[1]


@given(st.text("a\n\r\f\x85\u2028"))
def test_lines_are_those_of_wc(text: str) -> None:
    kept = split_lines(text, keepends=True)
    assert "".join(kept) == text
    assert [line.removesuffix("\n") for line in kept] == split_lines(text)
    assert all("\n" not in line for line in split_lines(text))
    assert len(kept) == text.count("\n") + (bool(text) and not text.endswith("\n"))
    assert [line.encode() for line in kept] == split_lines(text.encode(), keepends=True)


@pytest.mark.parametrize("path", sorted((TOP / "kspliced").rglob("*.py")), ids=lambda p: p.name)
def test_nobody_counts_lines_otherwise(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            assert node.attr != "splitlines", f"{path}:{node.lineno}: see kspliced/lines.py"
