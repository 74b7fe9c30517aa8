# SPDX-License-Identifier: GPL-2.0-or-later
"""Which edits can give an enumerator another value."""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.plan.components import Texts
from kspliced.plan.enumerators import may_change_one

OLD = """#include <linux/a.h>
#define BIT 40
enum side {
\tLEFT = 1ULL << BIT,
};
#define LIST(x) \\
\tx(A) \\
\tx(B)
static int n = 1;
struct with {
\tint first;
\tenum { WITHIN = 2 } second;
};
struct plain {
\tenum side where;
\tint number;
};
DECLARE_SIDES(many, A, B);
int one(enum side some)
{
\treturn some == LEFT; /* which */
}
int two(void)
{
\tenum {
\t\tINSIDE = 3,
\t};
\treturn INSIDE;
}
int packed(void)
{
\tenum __attribute__((packed)) {
\t\tSMALL = 3,
\t};
\treturn SMALL;
}
"""
AWAY = (
    ("return some == LEFT", "return some != LEFT"),
    ("/* which */", "/* enum { */"),
    ("int one(enum side some)", "long one(enum side some)"),
    ("n = 1", "n = 2"),
    ("int number", "long number"),
    ("DECLARE_SIDES", "long fresh(enum side);\nDECLARE_SIDES"),
)
NEAR = (
    ("BIT 40", "BIT 41"),
    ("<< BIT", "<< 3"),
    ("x(A)", "x(C)"),
    ("linux/a.h", "linux/b.h"),
    ("WITHIN = 2", "WITHIN = 3"),
    ("int first", "long first"),
    ("A, B", "B, A"),
    ("INSIDE = 3", "INSIDE = 4"),
    ("SMALL = 3", "SMALL = 4"),
    ("return some == LEFT", "#define HERE 1\n\treturn some != LEFT"),
    ("return some == LEFT", "enum { NEW }; return some != LEFT"),
    ("int two(void)", "enum more { MORE };\nint two(void)"),
)


def _may(tmp_path: Path, old: str, new: str) -> bool:
    trees = (tmp_path / "old", tmp_path / "new")
    for tree, text in zip(trees, (OLD, OLD.replace(old, new)), strict=True):
        tree.mkdir()
        (tree / "a.c").write_text(text)
    texts = Texts(*trees, ("a.c",))
    before, after = texts.old("a.c"), texts.new("a.c")
    return any(may_change_one(edit, before, after) for edit in texts.edits("a.c"))


@pytest.mark.parametrize(("old", "new"), AWAY)
def test_what_is_no_part_of_an_enumeration(tmp_path: Path, old: str, new: str) -> None:
    assert not _may(tmp_path, old, new)


@pytest.mark.parametrize(("old", "new"), NEAR)
def test_what_may_be_part_of_an_enumeration(tmp_path: Path, old: str, new: str) -> None:
    assert _may(tmp_path, old, new)
