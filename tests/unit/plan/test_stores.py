# SPDX-License-Identifier: GPL-2.0-or-later
"""What lines store in objects, and stores that change hands."""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.plan.stores import filled, kept, set_up
from tests.unit.plan.trees import Trees, files


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("f->state = 1;", (["state"], ["state"], {"state"})),
        ("f->a.state |= BIT(1);", (["state"], ["state"], {"state"})),
        ("f.state = 1;", (["state"], [], {"state"})),
        ("f->n++;", ([], ["n"], set())),
        ("--f->n;", ([], ["n"], set())),
        ("if (f->state == 1)", ([], [], set())),
        ("INIT_LIST_HEAD(&f->list);", (["list"], [], {"list"})),
        ("mutex_init(&f->lock);", (["lock"], [], {"lock"})),
        ("list_add_tail(&f->list, &g->all);", ([], [], {"list"})),
        ("hlist_add_head_rcu(&f->node, head);", ([], [], {"node"})),
        ("memcpy(&f->id, &g->id, sizeof(g->id));", ([], ["id"], {"id"})),
        ("memcpy(id, &f->id, sizeof(f->id));", ([], [], set())),
    ],
)
def test_what_a_line_stores(line: str, found: tuple[list[str], list[str], set[str]]) -> None:
    assert (set_up([line]), kept([line]), set(filled([line]))) == found


@pytest.mark.parametrize(
    ("elsewhere", "value", "joined"),
    [("d/b.c", "o->its_state", True), ("e/b.c", "o->its_state", False), ("d/b.c", "NEVER", False)],
)
def test_what_one_stores_in_place_of_the_other_joins_them(
    tmp_path: Path, elsewhere: str, value: str, joined: bool
) -> None:
    """An object that only one of the two saw would not have it, or have it twice."""
    stores = (
        "int one(struct foo *f)\n{\n\tf->a = 1;\n\tf->the_state = g->its_state;\n\treturn 0;\n}\n"
    )
    takes = "int two(struct foo *f)\n{\n\tf->b = 1;\n\treturn 0;\n}\n"
    copies = f"f->b = 1;\n\tmemcpy(&f->the_state, {value}, 4);"
    changed = {
        "d/a.c": (stores, stores.replace("\tf->the_state = g->its_state;\n", "")),
        elsewhere: (takes, takes.replace("f->b = 1;", copies)),
    }
    found = files(Trees(tmp_path, changed).decompose())
    assert (len(found) == 1) == joined
