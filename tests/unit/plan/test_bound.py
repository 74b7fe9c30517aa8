# SPDX-License-Identifier: GPL-2.0-or-later
"""Hunks that one commit must have made, whatever the changelog says."""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.plan.bound import groups
from kspliced.plan.passages import ChangedFile, read_changes
from kspliced.source.compare import ChangeType, FileChange

HEADER = """\
struct ops {
	int (*send)(struct dev *dev,
				int count);
};
int dev_send(struct dev *dev, int count);
"""
SOURCE = """\
static int helper(struct dev *dev)
{
	dev->last = 1;
	return dev->count;
}

int dev_send(struct dev *dev, int count)
{
	return helper(dev);
}

int first(struct dev *dev)
{
	dev_warn(dev, "first");
	return dev->ops->send(dev,
				1);
}

int second(struct dev *dev)
{
	dev_warn(dev, "second");
	return dev->ops->send(dev, 2) + other(dev);
}
"""


def found(folder: Path, *edits: tuple[str, str, str]) -> list[set[str]]:
    """The functions whose hunks were made together, for each group."""
    texts = {"h.h": HEADER, "a.c": SOURCE, "b.c": SOURCE.replace("dev_send", "my_send")}
    new = dict(texts)
    for path, old, to in edits:
        assert new[path].count(old) == 1, old
        new[path] = new[path].replace(old, to)
    for name, some in (("old", texts), ("new", new)):
        (folder / name).mkdir()
        for path, text in some.items():
            (folder / name / path).write_text(text)
    changes = [FileChange(path, ChangeType.MODIFIED) for path in texts if new[path] != texts[path]]
    files = read_changes(folder / "old", folder / "new", changes)
    passages = [(number, one) for number, file in enumerate(files) for one in file.passages]
    every = groups((file, n, one.recalled) for n, (file, one) in enumerate(passages))
    return [
        {f"{files[file].path}:{min(one.owners)}" for file, one in (passages[n] for n in group)}
        for group in every
    ] + [moved(file) for file in files if file.moved]


def moved(file: ChangedFile) -> set[str]:
    return {f"{file.path}:{min(file.passages[n].owners)}" for pair in file.moved for n in pair}


HELPER = (
    ("a.c", "helper(struct dev *dev)", "helper(struct dev *dev, int mode)"),
    ("a.c", "return helper(dev);", "return helper(dev, 1);"),
)


def test_a_function_and_its_calls(tmp_path: Path) -> None:
    more = ("a.c", 'dev_warn(dev, "first");', "dev_warn(dev);")
    assert found(tmp_path, *HELPER, more) == [{"a.c:dev_send", "a.c:helper"}]


def test_where_a_new_parameter_is_used(tmp_path: Path) -> None:
    more = ("a.c", "return dev->count;", "return dev->count + mode;")
    assert found(tmp_path, *HELPER, more) == [{"a.c:dev_send", "a.c:helper"}]
    text = (tmp_path / "new" / "a.c").read_text()
    assert text.count("mode") == 2


def test_a_static_function_is_its_files(tmp_path: Path) -> None:
    other = [("b.c", old, new) for _, old, new in HELPER]
    assert found(tmp_path, *HELPER, *other) == [
        {"a.c:dev_send", "a.c:helper"},
        {"b.c:my_send", "b.c:helper"},
    ]


def test_a_member_its_calls_and_who_provides_it(tmp_path: Path) -> None:
    """Also where only one line of a call or a declaration changes."""
    (group,) = found(
        tmp_path,
        ("h.h", "\t\t\t\tint count);", "\t\t\t\tint count, int mode);"),
        (
            "h.h",
            "dev_send(struct dev *dev, int count);",
            "dev_send(struct dev *dev, int n, int m);",
        ),
        ("a.c", "dev_send(struct dev *dev, int count)", "dev_send(struct dev *dev, int n, int m)"),
        ("a.c", "\t\t\t\t1);", "\t\t\t\t1, 0);"),
        ("b.c", "->send(dev, 2)", "->send(dev, 2, 0)"),
        ("b.c", "my_send(struct dev *dev, int count)", "my_send(struct dev *dev, int n, int m)"),
    )
    assert group == {
        *("h.h:ops", "h.h:dev_send", "a.c:dev_send", "a.c:first", "b.c:second", "b.c:my_send")
    }


@pytest.mark.parametrize(
    "edits",
    [
        # Nothing declares it, and it may take any number.
        (
            ("a.c", 'dev_warn(dev, "first");', "dev_warn(dev);"),
            ("a.c", 'dev_warn(dev, "second");', "dev_warn(dev);"),
        ),
        # As many as before.
        (
            ("a.c", "helper(struct dev *dev)", "helper(const struct dev *dev)"),
            ("a.c", "return helper(dev);", "return helper(dev) + 1;"),
        ),
        # More to one, fewer to another.
        (HELPER[0], ("a.c", "return helper(dev);", "return helper();")),
    ],
)
def test_what_binds_nothing(tmp_path: Path, edits: tuple[tuple[str, str, str], ...]) -> None:
    assert found(tmp_path, *edits) == []


def test_a_line_that_moves(tmp_path: Path) -> None:
    line = '\tdev_warn(dev, "second");\n'
    edits = (
        ("a.c", f"second(struct dev *dev)\n{{\n{line}", "second(struct dev *dev)\n{\n"),
        ("a.c", "\tdev->last = 1;\n", f"\tdev->last = 1;\n{line}"),
    )
    assert found(tmp_path, *edits) == [{"a.c:helper", "a.c:second"}]


@pytest.mark.parametrize(
    ("gone", "come"),
    [
        # It comes twice, is short, or calls nothing.
        ('\tdev_warn(dev, "second");\n', '\tdev_warn(dev, "second");\n' * 2),
        ("\treturn helper(dev);\n", "\treturn helper(dev);\n"),
        ("\treturn dev->count;\n", "\treturn dev->count;\n"),
    ],
)
def test_a_line_that_does_not(tmp_path: Path, gone: str, come: str) -> None:
    edits = (
        ("a.c", gone, ""),
        ("a.c", '\tdev_warn(dev, "first");\n', f'\tdev_warn(dev, "first");\n{come}'),
    )
    assert found(tmp_path, *edits) == []
