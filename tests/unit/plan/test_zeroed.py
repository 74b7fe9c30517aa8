# SPDX-License-Identifier: GPL-2.0-or-later
"""Types whose objects all begin as zeroes, and all that keeps one from being told."""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.plan.zeroed import Zeroed
from tests.unit.plan.told import told

FILES = {
    "s.h": """\
struct s;
struct s {
	struct list_head node;
	u32 on : 1,
		__unused : 31;
};
struct owner {
	struct s __rcu *one, *other;
	int count;
};
static inline struct s *s_of(struct list_head *node)
{
	return container_of(node, struct s, node);
}
""",
    "s.c": """\
static struct s *s_new(struct owner *owner)
{
	struct s *fresh, *tmp;

	fresh = kzalloc(sizeof(*fresh), GFP_KERNEL);
	list_for_each_entry(tmp, &owner->all, node)
		WARN_ON(tmp == (struct s *)owner);
	memset(fresh, 0, sizeof(struct s));
	return fresh;
}
""",
    "owner.c": """\
int fill(struct owner *owner)
{
	owner->one = kzalloc(sizeof *owner->one, GFP_KERNEL);
	owner->other = kcalloc(2, sizeof(owner->other[0]), GFP_KERNEL);
	owner->count = kmalloc(sizeof(*owner), GFP_KERNEL);
	return !owner->one;
}
""",
}


def test_objects_that_begin_as_zeroes(tmp_path: Path) -> None:
    assert told(Zeroed, tmp_path, FILES)


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        # Memory as it comes, or of another object.
        ("s.c", "kzalloc(", "kmalloc("),
        ("s.c", "kzalloc(sizeof(*fresh)", "kmemdup(tmp, sizeof(*fresh)"),
        ("s.c", "memset(fresh, 0,", "memset(fresh, 0xff,"),
        ("s.c", "memset(fresh, 0,", "memcpy(fresh, tmp,"),
        ("s.c", "= kzalloc(sizeof(*fresh), GFP_KERNEL)", "= kmem_cache_alloc(KMEM_CACHE(s, 0))"),
        ("s.c", "kzalloc(sizeof(*fresh)", "kmalloc(struct_size(fresh, more, 2)"),
        ("s.c", "kzalloc(sizeof(*fresh)", "cache_of(sizeof(*fresh)"),
        ("s.c", "kzalloc(sizeof(*fresh)", "kzalloc(size"),
        # In a file that does not name the type.
        ("owner.c", "kzalloc(sizeof *owner->one", "kmalloc(sizeof *owner->one"),
        ("owner.c", "kcalloc(2, sizeof(owner->other[0])", "kmalloc(2 * sizeof(owner->other[0])"),
        # Objects that are no memory of their own.
        ("s.h", "int count;", "struct s first;"),
        ("s.c", "struct s *fresh, *tmp;", "struct s first;\n\tstruct s *fresh, *tmp;"),
        ("s.c", "return fresh;", "*fresh = (struct s){ .on = 1 };\n\treturn fresh;"),
        ("s.h", "struct owner {", "typedef struct s s_t;\nstruct owner {"),
        ("s.h", "\t\t__unused : 31;\n}", "\t\t__unused : 31;\n} first, *second"),
        ("s.c", "memset(fresh, 0,", "fresh = first(struct s);\n\tmemset(fresh, 0,"),
        ("s.c", "return fresh;", "return make(s);"),
        # Bits that are not unused.
        ("s.c", "return fresh;", "fresh->__unused = 1;\n\treturn fresh;"),
    ],
)
def test_what_keeps_them_from_being_told(tmp_path: Path, path: str, old: str, new: str) -> None:
    assert FILES[path].count(old) == 1
    files = {**FILES, path: FILES[path].replace(old, new)}
    if new == "kzalloc(size":
        # Nothing says how one is made.
        files = {"s.h": files["s.h"], "s.c": "struct s *s_new(void)\n{\n\treturn make();\n}\n"}
    assert not told(Zeroed, tmp_path, files)
