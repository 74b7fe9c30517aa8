# SPDX-License-Identifier: GPL-2.0-or-later
"""What is doubtful about existing objects, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.plan.components import Texts
from kspliced.plan.safety import Policy, doubts, never_leaves, passes

OLD = """\
int foo_probe(struct foo *f)
{
	f->a = 1;
	return 0;
}

int foo_use(struct foo *f)
{
	spin_lock(&f->lock);
	f->b++;
	spin_unlock(&f->lock);
	return f->a;
}

void foo_close(struct foo *f)
{
	kfree(f);
}
"""
GET_AND_PUT = (("f->b++;", "f->b++;\n\tfoo_get(f);"), ("kfree(f);", "foo_put(f);\n\tkfree(f);"))
FLAG = (("f->a = 1;", "f->a = 1;\n\tf->fresh = true;"), ("return f->a;", "return f->fresh;"))


def codes(folder: Path, *changes: tuple[str, str]) -> list[str]:
    new = OLD
    for before, after in changes:
        assert before in new
        new = new.replace(before, after)
    for name, text in (("old", OLD), ("new", new)):
        (folder / name).mkdir()
        (folder / name / "a.c").write_text(text)
    texts = Texts(folder / "old", folder / "new", ["a.c"])
    return [doubt.refusal.code for doubt in doubts(texts.edits("a.c"))]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((("return f->a;", "return f->a & 7;"),), []),
        ((("f->b++;", "if (f->b < 9)\n\t\tf->b++;"),), []),
        # A leak mended within one function concerns what that call got itself.
        ((("return 0;", "foo_get(f);\n\tfoo_put(f);\n\treturn 0;"),), []),
        (GET_AND_PUT, ["invariant"]),
        (GET_AND_PUT[:1], []),
        (FLAG, ["existing_objects"]),
        (FLAG[:1], []),
        (
            (("return 0;", "mutex_lock(&f->m);\n\tf->a = 2;\n\tmutex_unlock(&f->m);"),),
            ["lock_order"],
        ),
        ((("spin_lock(&f->lock);", "spin_lock_bh(&f->lock);"),), ["lock_order"]),
    ],
)
def test_rules(tmp_path: Path, changes: tuple[tuple[str, str], ...], expected: list[str]) -> None:
    assert codes(tmp_path, *changes) == expected


def test_policies(tmp_path: Path) -> None:
    for name, text in (("old", OLD), ("new", OLD.replace("f->b++", "mutex_lock(&m); f->b++"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.c").write_text(text)
    weak = doubts(Texts(tmp_path / "old", tmp_path / "new", ["a.c"]).edits("a.c"))
    assert [doubt.strong for doubt in weak] == [False]
    assert [passes(policy, weak) for policy in Policy] == [False, True, False]
    assert [passes(policy, ()) for policy in Policy] == [True, True, False]


def test_a_kernel_thread_never_leaves_its_loop() -> None:
    assert never_leaves(["while (!kthread_should_stop()) {", "schedule();"])
    assert not never_leaves(["while (more) {", "schedule();"])
