# SPDX-License-Identifier: GPL-2.0-or-later
"""What is tried first, and what headers have in them meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kspliced.build.hot import HotTree, around_headers
from kspliced.plan.components import Component, Texts
from tests.unit.plan.trees import HEADER, ONE, TWO, Trees

NEW_HEADER = HEADER.replace("#endif", "#define FRESH 3\n#endif")
CHANGED = {
    "include/foo.h": (HEADER, NEW_HEADER),
    "a.c": (
        f'#include "foo.h"\n{ONE}',
        f'#include "foo.h"\n{ONE.replace("return n", "return FRESH")}',
    ),
    "b.c": (TWO, TWO.replace("2;", "3;")),
}


def components(trees: Trees) -> list[Component]:
    return list(trees.decompose().components)


def test_what_changes_headers_comes_with_what_shares_its_files(tmp_path: Path) -> None:
    user, apart = components(Trees(tmp_path, CHANGED))
    beside = Component("c", ("a.c", "d.c"), (), (), ())
    further = Component("d", ("d.c",), (), (), ())
    assert user.headers and not apart.headers
    assert around_headers([further, apart, user, beside]) == [user, beside, further]
    assert around_headers([apart, further]) == []


def test_headers_keep_what_was_dropped_until_they_forget(tmp_path: Path) -> None:
    trees = Trees(tmp_path, CHANGED)
    user, apart = components(trees)
    written: list[Mapping[str, bytes | None]] = []
    texts = Texts(tmp_path / "old", tmp_path / "new", sorted(CHANGED))
    hot = HotTree(texts, written.append)
    hot.heat([user, apart])
    hot.heat([apart])
    assert not hot.cool([apart], {"include/other.h"})
    hot.heat([apart])
    assert hot.cool([apart], {"include/foo.h"})
    hot.heat([apart])
    hot.heat([user, apart])
    hot.forget()
    hot.heat([apart])
    headers = [some.get("include/foo.h", b"") for some in written]
    new = NEW_HEADER.encode()
    assert headers == [new, new, new, b"", new, b""]
    assert all(some["b.c"] is None for some in written)
