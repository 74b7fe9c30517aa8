# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of the components of a unit an error is due to."""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.build.blame import INLINED, of_change, of_symbol, of_words, reached
from kspliced.plan.components import Component, SourceNode, Texts
from kspliced.plan.declarations import Declaration, DeclarationKind
from kspliced.plan.edits import Edit, SourceText
from kspliced.plan.headers import HeaderChange, HeaderEdit
from kspliced.source.lines import Hunk

NONE: frozenset[str] = frozenset()


def part(name: str, line: int) -> Component:
    """One that changes a line of a.c."""
    edit = Edit("a.c", (Hunk(line, 1, line, 1),), (), (), ("old",), ("new",))
    node = SourceNode(name, "a.c", (edit,), (), NONE, NONE, NONE)
    return Component(name, ("a.c",), (), (), (), (node,), ("a.c",))


def user(name: str) -> Component:
    """One that is there for what a header's edit changes."""
    edit = Edit("h.h", (Hunk(1, 1, 1, 1),), (), (), ("old",), ("new",))
    names = frozenset({name})
    header = HeaderEdit(edit, HeaderChange.CHANGES, names, names, None, False)
    node = SourceNode(f"a.c:{name}", "a.c", (), (), NONE, NONE, NONE)
    return Component(node.id, ("a.c",), (header,), (), (), (node,), ("a.c",))


ALL = (part("one", 10), part("two", 20), user("recv_sock"), user("dst_dev"))


@pytest.mark.parametrize(
    ("words", "guilty"),
    [
        ("hot/a.c:20:3: error: too few arguments to function 'f->recv_sock'", ["two"]),
        ("hot/a.c:30:3: error: too few arguments to function 'f->recv_sock'", ["a.c:recv_sock"]),
        ("hot/h.h:7:1: error: conflicting types for 'dst_dev'", ["a.c:dst_dev"]),
        ("hot/a.c:30:3: error: expected ';'", [component.id for component in ALL]),
        ("hot/a.c:31:15: error: incompatible pointer", ["a.c:recv_sock"]),
        ("gcc: fatal error: cannot execute", [component.id for component in ALL]),
    ],
)
def test_the_line_tells_or_what_a_header_declares(words: str, guilty: list[str]) -> None:
    code = [""] * 30 + [".recv_sock = own_recv,"]
    text = SourceText([line.encode() for line in code], code, ())
    assert [component.id for component in of_words(words, "a.c", ALL, text)] == guilty


def test_what_an_export_is_due_to() -> None:
    edit = Edit("a.c", (Hunk(9, 0, 9, 1),), (), (), (), ("EXPORT_SYMBOL(recv_sock);",))
    node = SourceNode("export", "a.c", (edit,), (), NONE, NONE, NONE)
    export = Component("export", ("a.c",), (), (), (), (node,), ("a.c",))
    assert of_symbol("recv_sock", "a.c", (*ALL, export)) == (export,)
    assert of_symbol("other", "a.c", (*ALL, export)) == (*ALL, export)


def maker(name: str) -> Component:
    """One that changes the function ``name`` of a.c."""
    function = Declaration("a.c", name, DeclarationKind.FUNCTION, 1, 1, True)
    edit = Edit("a.c", (Hunk(1, 1, 1, 1),), (function,), (function,), ("old",), ("new",))
    node = SourceNode(name, "a.c", (edit,), (), NONE, NONE, NONE)
    return Component(name, ("a.c",), (), (), (), (node,), ("a.c",))


@pytest.mark.parametrize(
    ("name", "guilty"),
    [
        ("inner", ["inner"]),
        ("outer.part.0", ["inner"]),  # has it inlined, through another one
        ("table", ["inner", "other"]),
        ("alone", []),  # the compiler did it
        ("elsewhere", ["inner", "other"]),  # from a header, say
    ],
)
def test_a_function_changes_by_what_it_mentions(
    tmp_path: Path, name: str, guilty: list[str]
) -> None:
    text = """\
static int inner(void) { return 1; }
static int middle(void) { return inner(); }
int outer(void) { return middle(); }
int other(void) { return 2; }
int (*ops[])(void) = { inner, other };
int table(void) { return ops[0](); }
int alone(void) { return 3; }
"""
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.c").write_text(text)
    texts = Texts(tmp_path / "old", tmp_path / "new", ["a.c"])
    some, more = (maker("inner"), maker("other")), user("recv_sock")
    mentioned = reached(texts, "a.c", name)
    assert [component.id for component in of_change(name, "a.c", some, mentioned)] == guilty
    if name != "inner":
        assert more in of_change(name, "a.c", (*some, more), mentioned), "a header is in any"


MODULE = """\
static int register_one(void)
{
	return 0;
}

static int runs(void)
{
	return gives();
}

static const struct ops ops = { .runs = runs };

static int __init start(void)
{
	use(&ops);
	return register_one();
}

module_init(start);
"""


def test_a_refused_function_is_due_to_what_is_inlined_into_it(tmp_path: Path) -> None:
    """Not to what it merely has the address of."""
    for name, text in (("old", MODULE), ("new", MODULE.replace("return 0", "return 1"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.c").write_text(text)
    texts = Texts(tmp_path / "old", tmp_path / "new", ["a.c"])
    (edit,) = texts.edits("a.c")
    node = SourceNode("mine", "a.c", (edit,), (), NONE, NONE, NONE)
    mine = Component("mine", ("a.c",), (), (), (), (node,), ("a.c",))
    both = (mine, user("gives"))
    for symbol, guilty in (("init_module", (mine,)), ("runs", both[1:]), ("unheard_of", both)):
        found = reached(texts, "a.c", symbol, INLINED)
        assert of_symbol(symbol, "a.c", both, found) == guilty, symbol
    assert "gives" in reached(texts, "a.c", "init_module")


@pytest.mark.parametrize(
    ("line", "symbol", "guilty"),
    [
        ('MODULE_ALIAS_FS("a");', "MODULE_ALIAS", "mine"),
        ("MODULE_VERSION(OTHERS);", "MODULE_VERSION", "mine"),
        ('MODULE_VERSION("0:"\n\t       OWN);', "MODULE_VERSION", "a.c:OWN"),
    ],
)
def test_who_changes_what_a_module_says(
    tmp_path: Path, line: str, symbol: str, guilty: str
) -> None:
    """The line itself, or the header that its argument is of."""
    # In the last case the line is as before, and the header's edit is all that can be why.
    other = line if "OWN" in line else "int other;"
    for name, text in (("old", f"{other}\nint a;\n"), ("new", f"{line}\nlong a;\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.c").write_text(text)
    texts = Texts(tmp_path / "old", tmp_path / "new", ["a.c"])
    nodes = SourceNode("mine", "a.c", texts.edits("a.c"), (), NONE, NONE, NONE)
    both = (Component("mine", ("a.c",), (), (), (), (nodes,), ("a.c",)), user("OWN"))
    found = reached(texts, "a.c", symbol, INLINED)
    assert [one.id for one in of_symbol(symbol, "a.c", both, found)] == [guilty]
