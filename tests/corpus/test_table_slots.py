# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions in tables that small C initialises, read from the object."""

from __future__ import annotations

from kspliced.build.table_slots import table_slots
from kspliced.facts.model import AccessPath
from kspliced.facts.tables import Step, TableSlot
from tests.corpus.compiler import compile_object

PRELUDE = """
struct table { int count; struct { int flags; int (*open)(int); }; struct ops ops[2];
	union { int (*either)(int); long number; void (*or)(void); }; const char *name; int *data; };
static int first(int value) { return value; }
int second(int value) { return value + 1; }
extern int third(int value);
static int datum;
typedef struct { int (*run)(int value); } unnamed;
"""


def slots(source: str) -> set[TableSlot]:
    """What is stored in the variables of ``source``, which sees PRELUDE; BTF as the builder has."""
    return set(table_slots(compile_object(PRELUDE + source, "-g0", "-gbtf")))


def test_static_global_and_imported_functions_of_each_member() -> None:
    found = slots("""
    const struct table t = { .open = first, .ops = { { second }, { third } }, .name = "x",
        .data = &datum };
    """)
    assert found == {
        TableSlot("t", (Step("struct table", "open"),), "first"),
        TableSlot("t", (Step("struct table", "ops"), Step("struct ops", "run")), "second"),
        TableSlot("t", (Step("struct table", "ops"), Step("struct ops", "run")), "third"),
    }


def test_a_member_of_a_union_is_each_that_it_may_be() -> None:
    found = slots("static struct table t = { .either = first }; void *use_t(void) { return &t; }")
    assert {slot.steps for slot in found} == {
        (Step("struct table", "either"),),
        (Step("struct table", "number"),),
        (Step("struct table", "or"),),
    }


def test_pointers_arrays_and_types_without_a_tag() -> None:
    found = slots("""
    int (*alone)(int) = first;
    int (*several[3])(int) = { first, 0, second };
    unnamed u = { third };
    """)
    assert found == {
        TableSlot("alone", (), "first"),
        TableSlot("several", (), "first"),
        TableSlot("several", (), "second"),
        TableSlot("u", (Step("struct unnamed", "run"),), "third"),
    }


def test_a_static_variable_of_a_function_has_no_btf() -> None:
    found = slots("""
    int outer(int k) { static const struct ops ops[] = { { first }, { second } };
        use(ops); return ops[k].run(k); }
    """)
    assert {(slot.steps, slot.function) for slot in found} == {(None, "first"), (None, "second")}


def test_a_function_in_a_member_that_points_to_data_is_there() -> None:
    found = slots("struct odd { void *data; int (*run)(int); } odd = { .data = first };")
    assert found == {TableSlot("odd", (Step("struct odd", "data"),), "first")}


def test_without_btf_it_may_be_in_any_member() -> None:
    obj = compile_object(f"{PRELUDE} struct ops ops = {{ first }};", "-g0")
    (slot,) = table_slots(obj)
    assert slot == TableSlot("ops", None, "first")
    assert slot.may_be(AccessPath("ops", "", ("run",)))
    assert slot.may_be(AccessPath("", "struct ops", ("run",)))


def test_which_calls_may_take_it() -> None:
    steps = (Step("struct table", "ops"), Step("struct ops", "run"))
    slot = TableSlot("t", steps, "second")
    for path in (
        AccessPath("", "struct ops", ("run",)),
        AccessPath("", "struct table", ("ops", "run")),
        AccessPath("", "struct ops", ()),
        AccessPath("t", "", ("ops", "run")),
        AccessPath("", "", ("run",)),
    ):
        assert slot.may_be(path), path
    alone = TableSlot("alone", (), "first")
    assert alone.may_be(AccessPath("alone", ""))
    assert alone.may_be(AccessPath("", "int (*<T1>) (int)"))
    assert not alone.may_be(AccessPath("", "struct ops", ("run",)))
    nameless = TableSlot("t", (Step("", "run"),), "second")
    assert nameless.may_be(AccessPath("", "struct { int (*run) (int); }", ("run",)))
    for path in (
        AccessPath("", "struct other", ("run",)),
        AccessPath("", "struct table", ("open",)),
        AccessPath("u", "", ("ops", "run")),
        AccessPath("t", "", ("open",)),
    ):
        assert not slot.may_be(path), path
