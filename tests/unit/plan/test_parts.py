# SPDX-License-Identifier: GPL-2.0-or-later
"""A file's edits in parts: what holds them together, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.plan.attribution import Attribution, Claim
from kspliced.plan.components import Texts
from kspliced.plan.edits import Edit, Spot
from kspliced.plan.makers import Makers
from kspliced.plan.parts import cut, divide, first_uses

OLD = """\
#include <linux/kernel.h>

struct kind {
	int left;
};

static int helper(struct s *s)
{
	return s->left;
}

int first(struct s *s)
{
	int err = 0;

	return err;
}

int second(struct s *s)
{
	int err = 0;

	return err;
}

int caller(struct s *s)
{
	return first(s);
}
"""
FIRST = (
    "int first(struct s *s)\n{\n\tint err = 0;\n",
    "int second(struct s *s)\n{\n\tint err = 0;\n",
)


def changed(first: str, second: str, *more: tuple[str, str]) -> str:
    """OLD with a line more in first(), one more in second(), and other replacements."""
    text = OLD
    pairs = zip(FIRST, (first, second), strict=True)
    for old, new in (*((head, f"{head}{line}") for head, line in pairs), *more):
        assert old in text
        text = text.replace(old, new)
    return text


def divided(tmp_path: Path, new: str, makers: Makers | None = None) -> list[list[str]]:
    """The names that each part declares."""
    texts, edits = read(tmp_path, new)
    found = divide(edits, texts.old("a.c"), texts.new("a.c"), makers or Makers())
    return [sorted({name for edit in part for name in edit.names}) for part in found]


def read(tmp_path: Path, new: str) -> tuple[Texts, tuple[Edit, ...]]:
    for name, text in (("old", OLD), ("new", new)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "a.c").write_text(text)
    texts = Texts(tmp_path / "old", tmp_path / "new", ["a.c"])
    return texts, texts.edits("a.c")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("\tcheck_one(s);\n", "\tcheck_two(s);\n"),
        # Every function has these.
        ("\terr = -EINVAL;\n", "\terr = -EINVAL;\n"),
        ('\tpr_warn("one");\n', '\tpr_warn("two");\n'),
        ("\tif (unlikely(err)) reset_one();\n", "\tif (unlikely(err)) reset_two();\n"),
        # A variable that has a type's name.
        ("\tcheck_one(s, kind);\n", "\tcheck_two(s, kind);\n"),
    ],
)
def test_edits_that_share_nothing_are_apart(tmp_path: Path, first: str, second: str) -> None:
    assert divided(tmp_path, changed(first, second)) == [["first"], ["second"]]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("\tspin_lock(&s->one);\n", "\tspin_lock(&s->two);\n"),
        ("\ts->users++;\n", "\tWARN_ON(s->users);\n"),
        ("\tset_one(s, FLAG_DEAD);\n", "\ttest_two(s, FLAG_DEAD);\n"),
        ("\tcheck_one((struct kind *)s);\n", "\tcheck_two((struct kind *)s);\n"),
        # One calls what the other changes.
        ("\tcheck_one(s);\n", "\tfirst(s);\n"),
    ],
)
def test_edits_that_change_one_thing_stay_together(tmp_path: Path, first: str, second: str) -> None:
    assert divided(tmp_path, changed(first, second)) == [["first", "second"]]


def test_a_caller_stays_with_what_it_calls(tmp_path: Path) -> None:
    new = changed("\tcheck(s);\n", "", ("\treturn first(s);\n", "\treturn first(s) ?: 1;\n"))
    assert divided(tmp_path, new) == [["caller", "first"]]


def test_new_code_stays_with_its_user(tmp_path: Path) -> None:
    more = ("int first(", "static int fresh(void)\n{\n\treturn 1;\n}\n\nint first(")
    new = changed("\terr = fresh();\n", "\tcheck_two(s);\n", more)
    assert divided(tmp_path, new) == [["first", "fresh"], ["second"]]


def test_what_includes_headers_goes_with_each(tmp_path: Path) -> None:
    more = ("#include <linux/kernel.h>\n", "#include <linux/kernel.h>\n#include <linux/more.h>\n")
    texts, edits = read(tmp_path, changed("\tcheck_one(s);\n", "\tcheck_two(s);\n", more))
    parts = divide(edits, texts.old("a.c"), texts.new("a.c"), Makers())
    assert len(parts) == 2
    assert all(part[0].new_lines == ("#include <linux/more.h>",) for part in parts)


def test_what_stands_outside_of_declarations_may_concern_all(tmp_path: Path) -> None:
    more = ("int caller(", "#undef DEBUG\n\nint caller(")
    new = changed("\tcheck_one(s);\n", "\tcheck_two(s);\n", more)
    assert len(divided(tmp_path, new)) == 1


@pytest.mark.parametrize(
    "line",
    [
        'MODULE_ALIAS("platform:a;b");',
        'MODULE_FIRMWARE("a/" NAME(1) ".bin");\nMODULE_SOFTDEP("pre: \\"b\\"");',
        'MODULE_ALIAS_FS("a");',
    ],
)
def test_what_a_module_says_of_itself_concerns_no_code(tmp_path: Path, line: str) -> None:
    more = ("int caller(", f"{line}\n\nint caller(")
    new = changed("\tcheck_one(s);\n", "\tcheck_two(s);\n", more)
    parts = divided(tmp_path, new)
    assert len(parts) == 3 and ["first"] in parts and ["second"] in parts


@pytest.mark.parametrize(
    ("line", "share", "parts"),
    [
        # What the kernel has for everybody, and what is this file's, or an object's.
        ("spin_lock(lock);", 0.95, 2),
        ("spin_lock(lock);", 0.85, 1),
        ("helper(s);", 0.95, 1),
        ("s->left++;", 0.95, 1),
        ("s->spin_lock(lock);", 0.95, 1),
    ],
)
def test_edits_of_different_entries(tmp_path: Path, line: str, share: float, parts: int) -> None:
    new = changed(f"\t{line}\n", f"\t{line}\n")
    spots = [spot for edit in read(tmp_path, new)[1] for spot in edit.spots]
    told = tuple(Attribution(claims=(Claim(spot, share),)) for spot in spots)
    assert len(divided(tmp_path, new, Makers(told))) == parts


def test_functions_that_macros_define(tmp_path: Path) -> None:
    """Those of one macro are not one function."""
    texts = {}
    for name, value in (("old", 0), ("new", 1)):
        calls = ("SYSCALL_DEFINE1(open, int, a)", "SYSCALL_DEFINE1(close, int, a)")
        more = ("COMPAT_SYSCALL_DEFINE1(open, int, a)", "BPF_CALL_1(bpf_get, int, a)")
        texts[name] = "".join(f"{c}\n{{\n\treturn {value};\n}}\n\n" for c in calls + more)
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.c").write_text(texts[name])
    found = Texts(tmp_path / "old", tmp_path / "new", ["a.c"]).edits("a.c")
    names = ["__do_sys_open", "__do_sys_close", "__do_compat_sys_open", "bpf_get"]
    assert [edit.names for edit in found] == [{name} for name in names]


@pytest.mark.parametrize(("share", "parts"), [(0.04, 2), (0.06, 1)])
def test_one_entry_may_have_made_both(tmp_path: Path, share: float, parts: int) -> None:
    new = changed("\tcheck_one(s);\n", "\tcheck_two(s);\n")
    spots = [spot for edit in read(tmp_path, new)[1] for spot in edit.spots]
    one = Attribution(claims=(Claim(spots[0], 0.9), Claim(spots[1], share)))
    other = Attribution(claims=(Claim(spots[1], 0.9),))
    assert len(divided(tmp_path, new, Makers((one, other)))) == parts


@pytest.mark.parametrize(
    ("use", "tied"),
    [
        ("\terr = fresh();\n", True),
        ("\terr = fresh();\n\terr++;\n", False),
        ("\terr = other();\n", False),
    ],
)
def test_who_alone_uses_what_is_new_is_of_its_commit(tmp_path: Path, use: str, tied: bool) -> None:
    more = ("int first(", "static int fresh(void)\n{\n\treturn 1;\n}\n\nint first(")
    texts, edits = read(tmp_path, changed("\tcheck_two(s);\n", use, more))
    made, _, used = (edit.spots[0] for edit in edits)
    pairs = tuple(first_uses(edits, {one.name for one in texts.old("a.c").declarations}))
    assert pairs == (((used, made),) if tied else ())
    makers = Makers(
        (Attribution(claims=(Claim(made, 0.9),)), Attribution(claims=(Claim(used, 0.9),)))
    )
    makers.tie(used, made)
    assert makers.of(used) == makers.of(made) == {0}
    assert makers.commit(made) == {made, used}


def test_makers_are_known_by_their_claims(tmp_path: Path) -> None:
    new = changed("\tcheck_one(s);\n", "\tcheck_two(s);\n")
    one, two = (spot for edit in read(tmp_path, new)[1] for spot in edit.spots)
    elsewhere = Spot("b.c", one.hunk)
    makers = Makers(
        (
            Attribution(claims=(Claim(one, 0.9), Claim(elsewhere, 0.6))),
            Attribution(claims=(Claim(two, 0.7), Claim(elsewhere, 0.3))),
            Attribution(claims=(Claim(two, 0.04), Claim(one, 0.05))),
        )
    )
    assert makers.known(one) and not makers.known(two) and makers.known(elsewhere)
    assert makers.commit(one) == {one, elsewhere}
    assert makers.commit(two) == {two}


LONG = OLD.replace("\treturn first(s);\n", "".join(f"\tstep_{n}(s);\n" for n in range(9)))


def severed(
    tmp_path: Path, new: str, told: tuple[dict[int, float], ...]
) -> list[list[tuple[str, ...]]]:
    """The new lines of each part between commits; of each hunk, the shares of entries."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "old/a.c").write_text(LONG)
    (tmp_path / "new/a.c").write_text(new)
    texts = Texts(tmp_path / "old", tmp_path / "new", ["a.c"])
    edits = texts.edits("a.c")
    spots = sorted(spot for edit in edits for spot in edit.spots)
    claims: dict[int, list[Claim]] = {n: [] for shares in told for n in shares}
    for spot, shares in zip(spots, told, strict=True):
        for entry, share in shares.items():
            claims[entry].append(Claim(spot, share))
    makers = Makers(Attribution(claims=tuple(some)) for _, some in sorted(claims.items()))
    parts = cut(edits, texts.old("a.c"), texts.new("a.c"), makers)
    return [[edit.new_lines for edit in part] for part in parts]


def stepped(*changes: tuple[int, str]) -> str:
    """LONG with other lines in place of some of the steps of caller()."""
    text = LONG
    for step, line in changes:
        text = text.replace(f"\tstep_{step}(s);\n", f"\t{line}\n")
    return text


ONE, OTHER = {0: 0.95}, {1: 0.95}


@pytest.mark.parametrize(
    ("changes", "told", "parts"),
    [
        # Two commits in one function, far enough apart.
        (((1, "one(s);"), (7, "other(s);")), (ONE, OTHER), 2),
        (((1, "one(s);"), (4, "other(s);")), (ONE, OTHER), 1),
        (((1, "one(s);"), (5, "other(s);")), (ONE, OTHER), 2),
        # One commit.
        (((1, "one(s);"), (7, "other(s);")), (ONE, ONE), 1),
        # It is not beyond doubt that these are two.
        (((1, "one(s);"), (7, "other(s);")), (ONE, {1: 0.85}), 1),
        (((1, "one(s);"), (7, "other(s);")), ({0: 0.9, 1: 0.06}, OTHER), 1),
        (((1, "one(s);"), (7, "other(s);")), ({0: 0.5, 2: 0.45}, OTHER), 2),
        (((1, "one(s);"), (7, "other(s);")), (ONE, {1: 0.02}), 1),
        # Both use what the upgrade brings.
        (((1, "s->fresh = 1;"), (7, "use(s->fresh);")), (ONE, OTHER), 1),
        # What both sides of the file have ties nothing.
        (((1, "s->left = 1;"), (7, "use(s->left);")), (ONE, OTHER), 2),
    ],
)
def test_commits_are_cut_apart_where_they_are_told_beyond_doubt(
    tmp_path: Path,
    changes: tuple[tuple[int, str], ...],
    told: tuple[dict[int, float], ...],
    parts: int,
) -> None:
    found = severed(tmp_path, stepped(*changes), told)
    assert len(found) == parts
    lines = [line for part in found for edit in part for line in edit]
    assert sorted(lines) == sorted(line for _, line in changes)


def test_hunks_of_one_commit_in_a_function_are_one_edit(tmp_path: Path) -> None:
    new = stepped((0, "one(s);"), (4, "other(s);"), (8, "three(s);"))
    found = severed(tmp_path, new, (ONE, OTHER, ONE))
    assert sorted(found) == [[("one(s);", "three(s);")], [("other(s);",)]]
