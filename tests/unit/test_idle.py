# SPDX-License-Identifier: GPL-2.0-or-later
"""Which edits of Kbuild files change nothing of what is built: both versions in, yes or no."""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.build.idle import changes_nothing
from kspliced.plan.conditions import Configuration

SET = Configuration({"CONFIG_ON": "y", "CONFIG_MOD": "m"})
MAKEFILE = """\
obj-$(CONFIG_ON) += on.o
on-y := a.o \\
    b.o
"""
KCONFIG = """\
config ON
\tbool "on"
\thelp
\t  What it does.

\t  depends on its own words.

config OFF
\tbool "off"
\tdepends on ON

config FREE
\tint "free"
\tdepends on OFF && ON
\tdefault 16
"""


def idle(tmp_path: Path, name: str, old: str, new: str) -> bool:
    for folder, text in (("old", old), ("new", new)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    return changes_nothing(f"lib/{name}", tmp_path / "old" / name, tmp_path / "new" / name, SET)


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("# a comment\n", True),
        ("KCOV_INSTRUMENT_on.o := n\n", True),
        ("KASAN_SANITIZE := n\n", True),
        ("obj-$(CONFIG_OFF) += off.o\n", True),
        ("off-$(CONFIG_OFF) += one.o \\\n    two.o\n", True),
        ("obj-$(CONFIG_ON) += more.o\n", False),
        ("obj-$(CONFIG_MOD) += more.o\n", False),
        ("obj-y += more.o\n", False),
        ("on-objs := a.o c.o\n", False),
        ("CFLAGS_on.o := -O1\n", False),
        ("ifdef CONFIG_OFF\nendif\n", False),
    ],
)
def test_a_line_of_a_makefile_more(tmp_path: Path, line: str, verdict: bool) -> None:
    assert idle(tmp_path, "Makefile", MAKEFILE, MAKEFILE + line) is verdict


def test_a_line_that_goes_on_counts_as_a_whole(tmp_path: Path) -> None:
    assert not idle(tmp_path, "Kbuild", MAKEFILE, MAKEFILE.replace("b.o", "c.o"))


def test_the_option_that_watches_is_set(tmp_path: Path) -> None:
    (tmp_path / "old").write_text(MAKEFILE)
    (tmp_path / "new").write_text(f"{MAKEFILE}KCOV_INSTRUMENT := n\n")
    kcov = Configuration({"CONFIG_KCOV": "y"})
    assert not changes_nothing("lib/Makefile", tmp_path / "old", tmp_path / "new", kcov)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ("What it does.", "What it really does.", True),
        ("default 16", "default 32 if ON", True),  # depends on what is unset
        ('config OFF\n\tbool "off"\n\tdepends on ON\n', "", True),  # unset, and gone
        ('bool "off"', 'bool "off"\n\tdefault y', False),  # it may be set from now on
        ('bool "on"', 'bool "on"\n\tselect OFF', False),
        ("depends on OFF && ON", "depends on ON", False),
        ("config OFF", "if ON\nconfig OFF", False),
    ],
)
def test_an_edit_of_options(tmp_path: Path, before: str, after: str, verdict: bool) -> None:
    assert KCONFIG.count(before) == 1
    assert idle(tmp_path, "Kconfig.lib", KCONFIG, KCONFIG.replace(before, after)) is verdict


def test_a_new_file_may_change_something(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("# nothing\n")
    assert not changes_nothing("lib/Makefile", tmp_path / "old", tmp_path / "new", SET)
