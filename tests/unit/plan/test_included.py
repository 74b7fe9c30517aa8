# SPDX-License-Identifier: GPL-2.0-or-later
"""Sources that other sources include."""

from __future__ import annotations

from pathlib import Path

from tests.unit.plan.trees import ONE, THREE, TWO, Trees, only


def test_a_source_that_another_one_includes_is_part_of_that(tmp_path: Path) -> None:
    part = f"static {TWO}"
    trees = Trees(
        tmp_path,
        {
            "part.c": (part + ONE, part.replace("2;", "one(2);") + ONE.replace("n;", "n + 1;")),
            "host.c": ('#include "part.c"\n', '#include "part.c"\n'),
            "other.c": (part, part),
        },
        included=(("part.c", "host.c"),),
    )
    component = only(trees.decompose())
    assert component.files == ("host.c",), "whoever else mentions a static name is not concerned"
    assert [header.edit.path for header in component.headers] == ["part.c", "part.c"]
    assert not component.refused


def test_it_joins_what_its_functions_are_changed_with(tmp_path: Path) -> None:
    part = "static int two(void)\n{\n\treturn one(2);\n}\n"
    host = f'{THREE}#include "part.c"\n'
    changed = {
        "a.c": (ONE, ONE.replace("int n)", "int n, int m)")),
        "part.c": (part, part.replace("one(2)", "one(2, 3)")),
        "host.c": (host, host.replace("3;", "4;")),
    }
    trees = Trees(tmp_path, changed, included=(("part.c", "host.c"),))
    assert set(only(trees.decompose()).files) == {"a.c", "host.c"}
    divided = trees.decomposer().decompose(frozenset({"host.c"}))
    (mine,) = (c for c in divided.components if "a.c" in c.files)
    assert {node.id for node in mine.nodes} == {"a.c", "host.c:part.c"}


def test_what_it_defines_is_refused_if_it_is_more_than_code(tmp_path: Path) -> None:
    part = "static int limit = 3;\n" + ONE
    trees = Trees(
        tmp_path,
        {"part.c": (part, part.replace("3;", "4;")), "host.c": (THREE, THREE)},
        included=(("part.c", "host.c"),),
    )
    assert only(trees.decompose()).refused[0].code == "header_changed"
