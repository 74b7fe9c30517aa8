# SPDX-License-Identifier: GPL-2.0-or-later
"""Hunks become edits of declarations, and edits become files again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspliced.plan.components import Texts
from kspliced.plan.declarations import DeclarationKind
from kspliced.plan.edits import Edit, apply_edits
from kspliced.plan.text import code_lines, identifiers

OLD = """\
/* a file */
#include <linux/one.h>

struct thing {
	int a;
	int b;
};

static int helper(int n)
{
	return n;
}

int
wide(struct thing *t,
     int n)
{
	return helper(n) + t->a;
}

#define TWICE(x) \\
	((x) + \\
	(x))
"""


def texts(folder: Path, old: str, new: str) -> Texts:
    for name, text in (("old", old), ("new", new)):
        (folder / name / "d").mkdir(parents=True, exist_ok=True)
        (folder / name / "d/a.c").write_text(text)
    return Texts(folder / "old", folder / "new", ["d/a.c"])


def edits(folder: Path, new: str) -> tuple[Edit, ...]:
    return texts(folder, OLD, new).edits("d/a.c")


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        ("return n;", "return n + 1;", {"helper"}),
        ("int\nwide", "long\nwide", {"wide"}),
        ("     int n)", "     long n)", {"wide"}),
        ("int b;", "long b;", {"thing"}),
        ("(x))", "(x) + 1)", {"TWICE"}),
        ("one.h>", "one.h>\n#include <linux/two.h>", set()),
        ("static int helper", "int fresh(void)\n{\n\treturn 1;\n}\n\nstatic int helper", {"fresh"}),
    ],
)
def test_an_edit_belongs_to_its_declaration(
    tmp_path: Path, before: str, after: str, names: set[str]
) -> None:
    (edit,) = edits(tmp_path, OLD.replace(before, after))
    assert edit.names == names


def test_comments_and_blanks_are_no_edit(tmp_path: Path) -> None:
    assert edits(tmp_path, OLD.replace("return n;", "return n; /* why */")) == ()
    assert edits(tmp_path, "\n" + OLD.replace("a file", "the file")) == ()
    assert len(edits(tmp_path, OLD.replace("return n;", 'return n + sizeof("/* no */");'))) == 1


def test_two_hunks_of_one_function_are_one_edit(tmp_path: Path) -> None:
    new = OLD.replace("int\nwide", "long\nwide").replace("helper(n) +", "helper(n) -")
    (edit,) = edits(tmp_path, new)
    assert len(edit.hunks) == 2
    assert {d.kind for d in edit.added} == {DeclarationKind.FUNCTION}
    assert edit.old_lines == ("int", "return helper(n) + t->a;")


def test_edits_can_be_applied_one_by_one(tmp_path: Path) -> None:
    new = OLD.replace("return n;", "n++;\n\treturn n;").replace("(x))", "(x) + 1)")
    both = texts(tmp_path, OLD, new)
    one, other = both.edits("d/a.c")
    old, fresh = both.old("d/a.c"), both.new("d/a.c")
    assert apply_edits(old, fresh, ()).decode() == OLD
    assert apply_edits(old, fresh, [one]).decode() == OLD.replace("return n;", "n++;\n\treturn n;")
    assert apply_edits(old, fresh, [other]).decode() == OLD.replace("(x))", "(x) + 1)")
    assert apply_edits(old, fresh, [other, one]).decode() == new


@given(
    st.lists(st.sampled_from(["int a;", "int b;", "", "{", "}", "x = y;"]), max_size=12),
    st.lists(st.sampled_from(["int a;", "int b;", "int c;", "", "}", "x = z;"]), max_size=12),
)
def test_all_edits_make_the_new_code(old: list[str], new: list[str]) -> None:
    before, after = ("".join(f"{line}\n" for line in lines) for lines in (old, new))
    with tempfile.TemporaryDirectory() as directory:
        both = texts(Path(directory), before, after)
        made = apply_edits(both.old("d/a.c"), both.new("d/a.c"), both.edits("d/a.c")).decode()
    # Hunks of blank lines only are no edits.
    assert [line for line in code_lines(made) if line] == [
        line for line in code_lines(after) if line
    ]


def test_code_lines_keep_their_numbers() -> None:
    text = 'a; /* b\n c */ d; // e\n"/* f" g\n\'"\' /* h */ i\n'
    assert code_lines(text) == ["a;", " d;".strip(), '"/* f" g', "'\"'   i", ""]


def test_identifiers() -> None:
    lines = ['if (foo_bar(x) == sizeof(u32)) pr("some words");', "#define Y z"]
    assert identifiers(lines) == {"foo_bar", "x", "pr", "Y", "z"}
