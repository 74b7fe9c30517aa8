# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a source says nothing else of a function than where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.plan.components import Texts
from kspliced.plan.placement import only_placed

SOURCE = """\
#include <linux/init.h>
#define TWICE(n) ((n) * 2)
static int __initdata words[] = { 1, 2, 3 };
static const int weights[] = { 7, 8 };
static int late(int n)
{
	return n + 9;
}
static int (*const table[])(int) = { late };
static int __init helper(int n)
{
	return TWICE(n) + words[n];
}
static int __init early(int n)
{
	table[0](n);
	return helper(n) + weights[0];
}
int elsewhere(int n)
{
	return n + 4;
}
"""
DROPPED = (("int __init helper", "int helper"), ("int __init early", "int early"))


def judged(tmp_path: Path, *edits: tuple[str, str]) -> tuple[bool, bool]:
    """What is said of helper() and of early()."""
    after = SOURCE
    for old, new in edits:
        assert after.count(old) == 1
        after = after.replace(old, new)
    for side, text in (("old", SOURCE), ("new", after)):
        (tmp_path / side).mkdir()
        (tmp_path / side / "unit.c").write_text(text)
    texts = Texts(tmp_path / "old", tmp_path / "new", ("unit.c",))
    return only_placed(texts, "unit.c", "helper"), only_placed(texts, "unit.c", "early.isra.0")


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        (DROPPED, (True, True)),
        ((*DROPPED, ("int __initdata words", "const int words")), (True, True)),
        ((*DROPPED, ("static int __init helper", "static noinline int helper"))[1:], (True, True)),
        # What is no part of either.
        ((*DROPPED, ("n + 4", "n + 5")), (True, True)),
        ((*DROPPED, ("n + 9", "n + 8")), (True, True)),
        ((*DROPPED, ("int __init early(int n)\n{", "int early(int n)\n{\n\t/* why */"))[::2],
         (True, True)),
        # What is part of one of them, and of both.
        ((*DROPPED, ("{ 7, 8 }", "{ 7, 9 }")), (True, False)),
        ((*DROPPED, ("table[0](n)", "table[0](n + 1)")), (True, False)),
        ((*DROPPED, ("(n) * 2", "(n) * 3")), (False, False)),
        ((*DROPPED, ("+ words[n]", "- words[n]")), (False, False)),
        ((*DROPPED, ("{ 1, 2, 3 }", "{ 1, 2, 4 }")), (False, False)),
        ((*DROPPED, ("int __initdata words", "long words")), (False, False)),
        ((*DROPPED, ("init.h>", "init.h>\n#include <linux/math.h>")), (False, False)),
        ((*DROPPED, ("int elsewhere", "#undef TWICE\nint elsewhere")), (False, False)),
    ],
)  # fmt: skip
def test_what_else_a_source_says(
    tmp_path: Path, edits: tuple[tuple[str, str], ...], said: tuple[bool, bool]
) -> None:
    assert judged(tmp_path, *edits) == said


def test_what_is_not_there_is_not_the_same(tmp_path: Path) -> None:
    judged(tmp_path)
    texts = Texts(tmp_path / "old", tmp_path / "new", ("unit.c",))
    assert not only_placed(texts, "unit.c", "unknown")
    assert not only_placed(texts, "other.c", "helper")
