# SPDX-License-Identifier: GPL-2.0-or-later
"""Types whose objects are all constants, and all that keeps one from being told."""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.plan.constant_types import Constant
from tests.unit.plan.told import told

FILES = {
    "s.h": """\
struct s;
struct s {
	int (*func)(int);
	bool one;
	int kind;
};
extern const struct s shared;
const struct s *s_of(int number);
""",
    "s.c": """\
const struct s shared = { .one = true };
static const struct s mine = {
	.kind = 3,
};
static const struct s table[] = { { .kind = 1 }, { .kind = 2 } };
const struct s weaker __weak;
#define OPEN {
const struct s *s_of(int number)
{
	static const struct s last = { .kind = 9 };
	const struct s *found = number ? &shared : number < 0 ? &last : &mine;

	return number > 2 ? &table[1] : found;
}
""",
}


def test_objects_that_are_constants(tmp_path: Path) -> None:
    assert told(Constant, tmp_path, FILES)


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        # Objects that are written, or on a stack, or wherever one makes them.
        ("s.c", "static const struct s mine", "static struct s mine"),
        ("s.c", "\tconst struct s *found", "\tconst struct s local = {};\n\tconst struct s *found"),
        ("s.c", "\tconst struct s *found", "\tstruct s copy = shared;\n\tconst struct s *found"),
        ("s.c", "return number > 2", "memset(p, 0, sizeof(struct s));\n\treturn number > 2"),
        ("s.c", "return number > 2", "*(struct s *)p = shared;\n\treturn number > 2"),
        ("s.h", "struct s *s_of(", "struct t {\n\tconst struct s part;\n};\nstruct s *s_of("),
        ("s.h", "\tint kind;\n};", "\tint kind;\n} every;"),
        (
            "s.c",
            "\tconst struct s *found",
            "\tconst struct s shared = {};\n\tconst struct s *found",
        ),
        (
            "s.c",
            "static const struct s mine",
            "static const struct s make(void);\nconst struct s mine",
        ),
        (
            "s.c",
            "#define OPEN {\n",
            "CALL_2(s_last, int, a, int, b)\n{\n\tconst struct s here = {};\n}\n",
        ),
        # What nobody can tell.
        ("s.h", "struct s;\n", "struct s;\n#define S(name) \\\n\tconst struct s name\n"),
        ("s.h", "struct s;\n", "struct s;\ntypedef struct s s_t;\n"),
        ("s.h", "struct s;\n", "struct s;\n#define S(name) struct s name\n"),
        ("s.h", "const struct s *s_of(int number);", "struct s *s_of(int number);"),
    ],
)
def test_an_object_that_may_be_something_else(
    tmp_path: Path, path: str, old: str, new: str
) -> None:
    assert FILES[path].count(old) == 1
    assert not told(Constant, tmp_path, {**FILES, path: FILES[path].replace(old, new)})
