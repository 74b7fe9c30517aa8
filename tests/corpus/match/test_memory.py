# SPDX-License-Identifier: GPL-2.0-or-later
"""A datum is where the kernel has memory of the class that it was compiled to."""

from __future__ import annotations

import itertools

import pytest

from kspliced.build.closure import Closure
from kspliced.build.diff import diff_objects
from kspliced.build.emit import UnitPart, emit
from kspliced.build.rules import check
from kspliced.elf.read import read_object
from kspliced.errors import Code, MatchError
from kspliced.match import match
from tests.corpus.match.kit import (
    TARGET,
    address_of,
    compiled,
    extern_import,
    linked,
    packed,
    running,
    span_of,
    unit_import,
)

PLACES = {
    "read-only": "static const int tab[4]",
    "read-only after init": (
        'static int tab[4] __attribute__((used, section(".data..ro_after_init")))'
    ),
    "written": "static int tab[4] __attribute__((used))",
    "init data": 'static int tab[4] __attribute__((used, section(".init.data")))',
}
CODE = " = { 1, 2, 3, 4 }; int get(int n) { return tab[n & 3]; }"


# Nothing is compared with what start-up has freed; the builder refuses to use it.
BUILT = [place for place in PLACES if place != "init data"]


@pytest.mark.parametrize(
    ("built", "runs"), [pair for pair in itertools.product(BUILT, PLACES) if pair[0] != pair[1]]
)
def test_what_runs_has_it_in_other_memory(built: str, runs: str) -> None:
    """The code is byte for byte the same, and so is the content."""
    pre = compiled(PLACES[built] + CODE)
    pack = packed({"a.o": pre}, (unit_import(pre, "tab"),), (span_of(pre, "get"),))
    kernel = running(linked(compiled(PLACES[runs] + CODE, split=False)))
    with pytest.raises(MatchError) as caught:
        match(pack, kernel)
    assert caught.value.code is Code.NO_MATCH
    assert f"{built} memory" in str(caught.value) and f"{runs} memory" in str(caught.value)


@pytest.mark.parametrize("built", BUILT)
def test_what_runs_has_it_where_it_was_compiled_to(built: str) -> None:
    pre = compiled(PLACES[built] + CODE)
    pack = packed({"a.o": pre}, (unit_import(pre, "tab"),), (span_of(pre, "get"),))
    kernel = running(linked(compiled(PLACES[built] + CODE, split=False)))
    (resolved,) = match(pack, kernel).imports
    assert resolved.address == address_of(kernel, "tab")


@pytest.mark.parametrize(
    "gone",
    [
        '__attribute__((section(".init.text"))) int gone(int n) { return n; }',
        'int gone __attribute__((section(".init.data"))) = 3;',
    ],
)
def test_an_import_of_what_start_up_has_freed(gone: str) -> None:
    """kallsyms still has the name."""
    pre = compiled("int get(int n) { return n * 3; }")
    kernel = running(linked(compiled("int get(int n) { return n * 3; }")), linked(compiled(gone)))
    with pytest.raises(MatchError) as caught:
        match(packed({"a.o": pre}, (extern_import("gone"),)), kernel)
    assert caught.value.code is Code.UNRESOLVED
    assert "gone" in str(caught.value) and "freed" in str(caught.value)


UNIT = """
int other(int);
static __attribute__((noinline)) %s int early(int n) { return other(n) * 3; }
__attribute__((noinline)) int get(int n) { return early(n) + 1; }
__attribute__((section(".init.text"))) int start(int n) { return early(n) + 2; }
"""
TABLE = """
static %s int tab[4] __attribute__((used)) %s = { 1, 2, 3, 4 };
__attribute__((noinline)) int get(int n) { return tab[n & 3]; }
__attribute__((section(".init.text"))) int start(int n) { return tab[n & 3]; }
"""
INIT = '__attribute__((section(".init.%s")))'
LEAVES = {
    "early": (UNIT % (INIT % "text"), UNIT % ""),
    "tab": (TABLE % ("", INIT % "data"), TABLE % ("const", "")),
}


@pytest.mark.parametrize("name", LEAVES)
def test_what_leaves_start_up_matches_and_is_the_updates(name: str) -> None:
    """From the two sources to what is linked: the caller is replaced, though its bytes are the
    same, and refers to what came with the update."""
    before, after = LEAVES[name]
    pre = compiled(before)
    diff = diff_objects(read_object(pre, "pre"), read_object(compiled(after), "post"))
    closure = Closure(diff, TARGET, "a.o")
    assert not check(diff, closure.carried, "a.o")
    emitted = emit((UnitPart(TARGET, "a.o", diff, closure),))
    assert [span.symbol for span in emitted.spans] == ["get"]
    assert not any(name == wanted.symbol for wanted in emitted.imports)
    kernel = running(
        linked(compiled(before, split=False), compiled("int other(int n) { return n; }"))
    )
    pack = packed({"a.o": pre}, emitted.imports, emitted.spans, emitted.content)
    (span,) = match(pack, kernel).spans
    assert span.address == address_of(kernel, "get")
