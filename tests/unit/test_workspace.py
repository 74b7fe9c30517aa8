# SPDX-License-Identifier: GPL-2.0-or-later
"""What a hot tree holds, and which of its files make has to look at again."""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.build.workspace import Workspace
from kspliced.source.package import TreeSource
from kspliced.source.snapshot import TreeSnapshot

OLD = "int one(void)\n{\n\treturn 1;\n}\n\nint two(void)\n{\n\treturn 2;\n}\n"
NEW = OLD.replace("1;", "11;").replace("2;", "22;")
PART = OLD.replace("2;", "22;").encode()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    source = tmp_path / "source"
    (source / "fs").mkdir(parents=True)
    for name in ("Makefile", "Kbuild"):
        (source / name).touch()
    for name in ("a.c", "b.c"):
        (source / "fs" / name).write_text(OLD)
    made = Workspace(tmp_path / "work", TreeSnapshot(TreeSource(source)))
    made.add_rest()
    made.make_hot()
    for name in ("a.c", "b.c"):
        place = made.changed.top / "fs" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(NEW)
    return made


def test_what_is_heated_is_hot_and_the_rest_is_old(workspace: Workspace) -> None:
    hot, old = workspace.hot / "fs/a.c", workspace.old.top / "fs/a.c"
    for files, content in (
        ({"fs/a.c": None}, NEW.encode()),
        ({"fs/a.c": PART}, PART),
        ({"fs/a.c": None}, NEW.encode()),
        ({}, OLD.encode()),
        ({"fs/a.c": PART}, PART),
    ):
        workspace.heat(files)
        assert hot.read_bytes() == content
        assert old.read_bytes() == OLD.encode()
        if files:
            assert workspace.made("fs/a.c").read_bytes() == content
        assert (workspace.hot / "fs/b.c").read_text() == OLD


@pytest.mark.parametrize("content", [None, PART], ids=["all", "part"])
def test_what_stays_is_not_made_again(workspace: Workspace, content: bytes | None) -> None:
    workspace.heat({"fs/a.c": content})
    before = (workspace.hot / "fs/a.c").stat()
    workspace.heat({"fs/a.c": content, "fs/b.c": None})
    after = (workspace.hot / "fs/a.c").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert (workspace.hot / "fs/b.c").read_text() == NEW
