# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps that are cut, mutated or made up: what is not understood is said, and nothing is raised."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspliced.facts.declared import read_declared
from kspliced.facts.dump import bodies
from kspliced.facts.model import UnitFacts, UnreadKind, ValueKind
from kspliced.facts.operand import Opaque, Part, Ssa, read_operand, split_operands
from kspliced.facts.read import read_facts
from kspliced.lines import split_lines
from kspliced.record import dumps, loads

HERE = Path(__file__).parent
# What GCC 12.2 writes of unit.c.
DUMP = (HERE / "unit.ssa").read_text()
DECLARED = read_declared((HERE / "unit.aux").read_text())
FRAGMENTS = (
    *(
        "gimple_assign <",
        "gimple_call <",
        ">",
        "[u.c:3:4] ",
        "(",
        "MEM[(",
        "MEM <",
        '"',
        "\\",
        "\n",
    ),
    *(
        "NULL",
        "_1",
        "->",
        "&",
        "*",
        "{",
        "};",
        "# gimple_phi <",
        "<<< error >>>",
        "BIT_FIELD_REF <",
    ),
    *(";; Function x (x, funcdef_no=1)\n", "  <bb 2> :\n", "gimple_asm <\n    STRING <\n", "\n}\n"),
)


def read(text: str) -> UnitFacts:
    """The facts of a dump, which have a record that can be read again."""
    facts = read_facts(text, DECLARED)
    assert loads(UnitFacts, dumps(facts)) == facts
    return facts


def statements() -> list[str]:
    """The lines of DUMP that are statements of one line."""
    lines = [line for line in split_lines(DUMP) if "gimple_" in line and line.endswith(">")]
    return [line for line in lines if "gimple_label" not in line]


def test_all_of_it_is_read() -> None:
    facts = read(DUMP)
    assert [function.name for function in facts.functions] == ["g", "f"]
    assert {u.kind for f in facts.functions for u in f.unread} == {UnreadKind.ASSEMBLY}
    _, f = facts.functions
    assert {(v.kind, v.text) for v in f.returns} == {
        (ValueKind.CALL, "check(k)"),
        (ValueKind.CONSTANT, "-22"),
        (ValueKind.CALL, "g(a)"),
        (ValueKind.MEMORY, "a->refs"),
    }
    assert [call.callee for call in f.calls] == ["check", "", "g"]
    assert f.static is False and f.place.line == 6


@pytest.mark.parametrize("line", statements())
def test_a_statement_of_another_kind_is_unread(line: str) -> None:
    other = line.replace("gimple_", "gimple_x", 1)
    said = [u for f in read(DUMP.replace(line, other, 1)).functions for u in f.unread]
    assert UnreadKind.STATEMENT in {u.kind for u in said}


@pytest.mark.parametrize("line", [line for line in statements() if "<NULL>" not in line])
def test_an_operand_that_is_not_understood_is_unread(line: str) -> None:
    kind, _, rest = line.partition("<")
    first, comma, others = rest.rpartition(", ") if "phi" in kind else rest.partition(", ")
    strange = "SOME_EXPR <1>"
    other = f"{kind}<{first}{comma}{strange}, {others}" if comma else f"{kind}<{strange}>"
    said = [u for f in read(DUMP.replace(line, other, 1)).functions for u in f.unread]
    assert {u.kind for u in said} & {UnreadKind.STATEMENT, UnreadKind.OPERAND}


@given(st.integers(0, len(DUMP)))
def test_a_dump_that_is_cut_off_inside_of_a_function_says_so(end: int) -> None:
    facts = read(DUMP[:end])
    whole = DUMP[:end].count("\n}")
    begun = DUMP[:end].count("funcdef_no=")
    assert len(facts.functions) == begun
    if begun > whole:
        kinds = {u.kind for f in facts.functions[-1:] for u in f.unread}
        assert kinds & {UnreadKind.STATEMENT, UnreadKind.HEADER}


@given(
    st.lists(
        st.tuples(
            st.integers(0, len(DUMP)),
            st.integers(0, 60),
            st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=10)),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_mutated_dumps_raise_nothing(edits: list[tuple[int, int, str]]) -> None:
    text = DUMP
    for at, length, fragment in edits:
        text = text[:at] + fragment + text[at + length :]
    read(text)


@given(st.lists(st.sampled_from(statements()), max_size=60))
def test_statements_in_any_order_raise_nothing(lines: list[str]) -> None:
    head, _, _ = DUMP.partition("  <bb 2> :\n")
    read(f"{head}  <bb 2> :\n" + "\n".join(lines) + "\n}\n")


@given(st.one_of(st.text(), st.lists(st.sampled_from(FRAGMENTS)).map("".join)))
def test_any_text_raises_nothing(text: str) -> None:
    read(text)
    read_operand(text)
    split_operands(text)
    list(bodies(f";; Function x (x, funcdef_no=1)\n{text}"))


def test_a_function_that_is_opened_behind_its_first_block() -> None:
    (function,) = read(";; Function x (x, funcdef_no=1)\n  <bb 2> :\n{\n").functions
    assert [unread.kind for unread in function.unread] == [UnreadKind.HEADER]


def test_numbers_that_are_none_or_too_long() -> None:
    long = "1" * 5000
    parts = (f"BIT_FIELD_REF <a_1, {width}, 0>" for width in ("", "²", long))
    for text in (*parts, f"a_{long}"):
        assert not isinstance(read_operand(text), Part | Ssa)
    read(DUMP.replace("unit.c:6:", f"unit.c:{long}:"))
    assert read_declared(f"/* a.c:{long}:NF */ int f (void);").definitions == ()


def test_an_operand_without_end_of_nesting_is_opaque() -> None:
    long = ("*" * 5000 + "p_1", "MEM[" * 5000, "&" * 5000 + "x", "x[" * 5000, "a" + "->b" * 5000)
    for text in long:
        assert isinstance(read_operand(text), Opaque)
    assert not isinstance(read_operand("a_1" + "->b" * 30), Opaque)


def test_only_what_is_wanted_is_read() -> None:
    assert [f.name for f in read_facts(DUMP, wanted="g".__eq__).functions] == ["g"]


def test_without_declarations_less_is_known() -> None:
    _, f = read_facts(DUMP).functions
    assert f.static is None and f.place.line == 0
    assert [call.callee for call in f.calls] == ["check", "", "g"]
