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

static void foo_quiet(struct foo *f)
{
	list_add(&f->list, &foos);
	f->quiet = 1;
}

void foo_remove(struct foo *f)
{
	foo_quiet(f);
	bar_put(f->bar);
}

void foo_swap(struct foo *f)
{
	list_del(&f->list);
	f->buf = kmalloc(9, GFP_KERNEL);
}
"""
GET_AND_PUT = (("f->b++;", "f->b++;\n\tfoo_get(f);"), ("kfree(f);", "foo_put(f);\n\tkfree(f);"))
FLAG = (("f->a = 1;", "f->a = 1;\n\tf->fresh = true;"), ("return f->a;", "return f->fresh;"))
PUT = ("\tbar_put(f->bar);\n", "")
LISTED = (("\tlist_add(&f->list, &foos);\n", ""), ("\tlist_del(&f->list);\n", ""))
QUIET = ("f->quiet = 1;", "foo_log(f);")
LARGE = ("= kmalloc(", "= kvmalloc(")
FLUSH = ("return f->a;", "set_bit(FOO_FLUSH, &f->flags);\n\treturn f->a;")
OBEYED = ("kfree(f);", "if (test_bit(FOO_FLUSH, &f->flags))\n\t\tkfree(f);")
NEW_FLAG = ("int foo_probe", "enum { FOO_FLUSH = 3 };\nint foo_probe")
BALANCED = "foo_get(f);\n\tfoo_put(f);\n\t"


def codes(folder: Path, *changes: tuple[str, str], begin: str = OLD) -> list[str]:
    new = begin
    for before, after in changes:
        assert before in new
        new = new.replace(before, after)
    for name, text in (("old", begin), ("new", new)):
        (folder / name).mkdir()
        (folder / name / "a.c").write_text(text)
    texts = Texts(folder / "old", folder / "new", ["a.c"])
    return [doubt.refusal.code for doubt in doubts(texts.edits("a.c"), texts)]


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
        ((("return 0;", "guard(mutex)(&f->m);\n\treturn 0;"),), ["lock_order"]),
        ((("spin_lock(&f->lock);", "guard(spinlock)(&f->lock);"),), []),
        # Both functions do and undo it themselves.
        ((("return 0;", BALANCED + "return 0;"), ("kfree(f);", BALANCED + "kfree(f);")), []),
        # Nobody but the component takes a lock that comes with it.
        (
            (
                ("int foo_probe", "static DEFINE_MUTEX(m);\nint foo_probe"),
                ("return 0;", "mutex_lock(&m);\n\treturn 0;"),
            ),
            [],
        ),
        ((("spin_lock(&f->lock);", "spin_lock(&all);"),), ["lock_changed"]),
        (LISTED, ["invariant"]),
        (LISTED[:1], []),
        ((PUT, ("kfree(f);", "bar_put(f->bar);\n\tkfree(f);")), ["moved"]),
        # What is queued before an undo, or the switch, is freed twice, or never.
        ((("kfree(f);", "f->a = 0;"), ("f->b++;", "f->b++;\n\tkfree(f);")), ["moved"]),
        # foo_remove calls foo_quiet: the same act.
        ((PUT, ("f->quiet = 1;", "f->quiet = 1;\n\tbar_put(f->bar);")), []),
        ((QUIET,), ["no_longer_stored"]),
        ((QUIET, ("kfree(f);", "f->quiet = 1;\n\tkfree(f);")), []),
        ((("f->quiet = 1;", "WRITE_ONCE(f->quiet, 1);"),), []),
        ((LARGE,), ["allocator"]),
        ((LARGE, ("kfree(f);", "kvfree(f->buf);\n\tkfree(f);")), []),
        # What obeys a flag that was there before is there as well.
        ((FLUSH,), []),
        ((NEW_FLAG, FLUSH), ["flag_unread"]),
        (
            (NEW_FLAG, FLUSH, ("kfree(f);", "if (test_bit(FOO_FLUSH, &f->flags))\n\t\tkfree(f);")),
            [],
        ),
        # What was put on a list, or copied to, has what it hangs by, or what was copied.
        (
            (
                ("f->a = 1;", "INIT_LIST_HEAD(&f->list);\n\tf->a = 1;"),
                ("list_add(&f->list, &foos);", "list_move(&f->list, &foos);"),
            ),
            [],
        ),
        (
            (
                ("f->a = 1;", "INIT_LIST_HEAD(&f->list);\n\tf->a = 1;"),
                ("f->quiet = 1;", "f->quiet = list_empty(&f->list);"),
            ),
            ["existing_objects"],
        ),
        # Who allocates makes objects, whatever it is called.
        (
            (
                ("= kmalloc(9, GFP_KERNEL);", "= kmalloc(9, GFP_KERNEL);\n\tf->fresh = 1;"),
                ("return f->a;", "return f->fresh;"),
            ),
            ["existing_objects"],
        ),
        (
            (("return 0;", "dump_setup(f);\n\treturn 0;"), ("kfree(f);", "dump_reset(f);")),
            ["existing_objects"],
        ),
    ],
)
def test_rules(tmp_path: Path, changes: tuple[tuple[str, str], ...], expected: list[str]) -> None:
    assert codes(tmp_path, *changes) == expected


HEADER = "struct foo {\n\tunsigned int a : 1,\n\t\tunused : 31;\n};\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("f->dead = 1;\n\tif (f->dead)\n\t\treturn 0;", []),
        ("f->dead = true;\n\tif (f->dead) {\n\t\tgoto out;\n\t}", []),
        # What is done only where the bit is set, or not done there.
        ("if (f->dead)\n\t\tkfree(f->b);", ["existing_objects"]),
        ("if (!f->dead)\n\t\treturn 0;", ["existing_objects"]),
        ("if (f->a && f->dead)\n\t\treturn 0;", ["existing_objects"]),
        ("f->a = f->dead;", ["existing_objects"]),
    ],
)
def test_a_bit_that_no_object_has_set(tmp_path: Path, lines: str, expected: list[str]) -> None:
    for name, text, head in (
        ("old", OLD, HEADER),
        (
            "new",
            OLD.replace("f->b++;", f"f->b++;\n\t{lines}"),
            HEADER.replace("unused : 31", "dead : 1,\n\t\tunused : 30"),
        ),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.c").write_text(text)
        (tmp_path / name / "a.h").write_text(head)
    texts = Texts(tmp_path / "old", tmp_path / "new", ["a.c", "a.h"])
    found = doubts((*texts.edits("a.c"), *texts.edits("a.h")), texts)
    assert [(doubt.refusal.code, doubt.strong) for doubt in found] == [(c, False) for c in expected]


NEW = "int foo_new(struct foo *f)\n{\n\tmutex_lock(&f->m);\n\treturn 1;\n}\n\nint foo_probe("


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("f->a = 1;", "f->a = 1;\n\tf->call = foo_new;"), []),
        (("f->b++;", "f->b++;\n\tfoo_new(f);"), ["lock_order"]),
        (("\tkfree(f);\n}\n", "\tkfree(f);\n}\nstruct ops o = { foo_new };\n"), ["lock_order"]),
    ],
)
def test_a_new_function_that_takes_a_lock(
    tmp_path: Path, more: tuple[str, str], expected: list[str]
) -> None:
    """It is called by nobody but for objects that are made from now on, or by what there is."""
    assert codes(tmp_path, ("int foo_probe(", NEW), more) == expected


TYPE = 'static struct key_type foo_type = {\n\t.name = "foo",\n\t.destroy = foo_quiet,\n};\n'


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (TYPE, TYPE.replace("};", "\t.vet = foo_vet,\n};"), [("existing_objects", False)]),
        (TYPE, TYPE.replace("};", "\t.open = foo_vet,\n};"), [("existing_objects", True)]),
        (TYPE, TYPE.replace("};", "\t.destroy_rcu = foo_vet,\n};"), [("existing_objects", False)]),
        # Another one than before; a constant; a variable that is new.
        (TYPE, TYPE.replace("foo_quiet", "foo_vet"), []),
        (f"const {TYPE}", f"const {TYPE}".replace("};", "\t.vet = v,\n};"), []),
        ("", TYPE, []),
    ],
)  # fmt: skip
def test_a_callback_of_what_is_registered(
    tmp_path: Path, old: str, new: str, expected: list[tuple[str, bool]]
) -> None:
    """What exists was set up without it; the more so if it is what sets things up."""
    for name, text in (("old", OLD + old), ("new", OLD + new)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.c").write_text(text)
    texts = Texts(tmp_path / "old", tmp_path / "new", ["a.c"])
    found = doubts(texts.edits("a.c"), texts)
    assert [(doubt.refusal.code, doubt.strong) for doubt in found] == expected


def test_policies(tmp_path: Path) -> None:
    for name, text in (("old", OLD), ("new", OLD.replace("f->b++", "mutex_lock(&m); f->b++"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.c").write_text(text)
    texts = Texts(tmp_path / "old", tmp_path / "new", ["a.c"])
    weak = doubts(texts.edits("a.c"), texts)
    assert [doubt.strong for doubt in weak] == [False]
    assert [passes(policy, weak) for policy in Policy] == [False, True, False]
    assert [passes(policy, ()) for policy in Policy] == [True, True, False]


def test_a_kernel_thread_never_leaves_its_loop() -> None:
    assert never_leaves(["while (!kthread_should_stop()) {", "schedule();"])
    assert not never_leaves(["while (more) {", "schedule();"])


COUNTED = OLD.replace("int foo_probe", "static int users;\n\nint foo_probe").replace(
    "\tf->b++;", "\tf->b++;\n\tusers++;"
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # The old code would go on from a count that nobody kept.
        ((("static int users;\n", ""), ("\tusers++;\n", "")), ["not_undone"]),
        # It stays, and is counted elsewhere or not at all.
        ((("\tusers++;\n", ""), ("f->a = 1;", "f->a = 1;\n\tusers++;")), []),
        # It goes by another name.
        ((("static int users;\n", "static int callers;\n"),), []),
    ],
)
def test_what_an_undo_finds(
    tmp_path: Path, changes: tuple[tuple[str, str], ...], expected: list[str]
) -> None:
    assert codes(tmp_path, *changes, begin=COUNTED) == expected
