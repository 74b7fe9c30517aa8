# SPDX-License-Identifier: GPL-2.0-or-later
"""Every pair of section classes: what the builder makes of a function or datum that goes from the
one to the other and is the same otherwise (the table of docs/differencing.md)."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from kspliced.build.closure import Closure
from kspliced.build.diff import diff_objects
from kspliced.build.rules import check
from kspliced.elf.section_class import Move, SectionClass, class_of_name, move, section_class
from tests.corpus.compiler import compile_object
from tests.corpus.test_diff import judge

DOCS = Path(__file__).parents[2] / "docs" / "differencing.md"
C = SectionClass

TEXTS = {
    C.TEXT: "",
    C.SPECIAL_TEXT: ".sched.text",
    C.INIT_TEXT: ".init.text",
    C.EXIT_TEXT: ".exit.text",
}
# By class: what stands before the type, and the section.
DATA = {
    C.READ_ONLY: ("const", ""),
    C.RO_AFTER_INIT: ("", ".data..ro_after_init"),
    C.WRITTEN: ("", ""),
    C.PER_CPU: ("", ".data..percpu"),
    C.INIT_CONST: ("const", ".init.rodata"),
    C.INIT_DATA: ("", ".init.data"),
    C.EXIT_DATA: ("", ".exit.data"),
    C.SPECIAL: ("", ".data..decrypted"),
}
PAIRS = [*itertools.product(TEXTS, TEXTS), *itertools.product(DATA, DATA)]
INIT = '__attribute__((section(".init.text")))'


def placed(section: str) -> str:
    return f'__attribute__((section("{section}")))' if section else ""


def function(section: str, body: str = "other(n) * 3", start: str = "f(n) + 2") -> str:
    """A function that runs later as well as at start-up."""
    return f"""
static noinline {placed(section)} int f(int n) {{ return {body}; }}
int g(int n) {{ return f(n) + 1; }}
{INIT} int start(int n) {{ return {start}; }}
"""


def table(
    qualifier: str, section: str, content: str = "1, 2, 3, 4", run: str = "tab[n & 3]"
) -> str:
    return f"""
static {qualifier} int tab[4] __attribute__((used)) {placed(section)} = {{ {content} }};
int g(int n) {{ return {run}; }}
{INIT} int start(int n) {{ return tab[n] + 1; }}
"""


def source(kind: SectionClass) -> str:
    return function(TEXTS[kind]) if kind in TEXTS else table(*DATA[kind])


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_every_pair_of_classes(before: SectionClass, after: SectionClass) -> None:
    verdict = judge(source(before), source(after))
    name = "f" if before in TEXTS else "tab"
    post = verdict.diff.post.layout
    (entity,) = [e for e in post.entities() if e.name == name]
    assert section_class(post.section(entity.section)) is after
    if before is after:
        assert not verdict.codes and not verdict.changed and not verdict.diff.moved
        return
    (change,) = verdict.diff.moved
    assert (change.before[0], change.after[0]) == (before, after)
    refused = check(verdict.diff, verdict.carried, "unit.o")
    if says(before, after) == "carried":
        # Its users have other code now, if only for where they jump.
        assert not refused and verdict.changed == ["g"]
        new = verdict.carried.new_functions + verdict.carried.new_data
        assert [e.name for e in new] == [name]
    else:
        assert [(r.code, r.symbol) for r in refused] == [("section_class_changed", name)]
        assert before.value in refused[0].evidence and after.value in refused[0].evidence
        assert refused[0].reason


def says(before: SectionClass, after: SectionClass) -> str:
    """What the table of the documentation says of a pair."""
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| **")]
    heads = [line for line in DOCS.read_text().splitlines() if line.startswith("| from \\ to")]
    for head in heads:
        columns = [cell.strip(" *") for cell in head.split("|")[2:-1]]
        if after.value in columns and before.value in columns:
            (row,) = [r for r in rows if r.split("|")[1].strip(" *") == before.value]
            return row.split("|")[2 + columns.index(after.value)].strip()
    raise AssertionError(f"no table for {before.value} and {after.value}")


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_the_table_of_the_documentation_is_what_is_done(
    before: SectionClass, after: SectionClass
) -> None:
    names = {Move.CARRIED: "carried", Move.REFUSED: "refused"}
    done = "-" if before is after else names[move((before, ""), (after, ""))]
    assert says(before, after) == done


@pytest.mark.parametrize(
    ("before", "after"),
    [
        *itertools.permutations(
            (".sched.text", ".noinstr.text", ".kprobes.text", ".cpuidle.text", ".spinlock.text"), 2
        ),
        (".init.text", ".meminit.text"),
        (".exit.text", ".memexit.text"),
    ],
)
def test_sections_of_code_with_a_meaning_are_not_each_other(before: str, after: str) -> None:
    assert judge(function(before), function(after)).codes == ["section_class_changed"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (".data..percpu", ".data..percpu..decrypted"),
        (".data..percpu..page_aligned", ".data..percpu"),
        (".data..percpu..first", ".data..percpu..read_mostly"),
        (".data", ".data..decrypted"),
        (".data", ".data.once"),
        (".data.rel.ro", ".data"),
        ("__tracepoints", ".data"),
        (".init.data", ".meminit.data"),
    ],
)
def test_sections_of_data_with_a_meaning_are_not_each_other(before: str, after: str) -> None:
    codes = judge(table("", before), table("", after)).codes
    # Messages that are printed once have no state that matters; a variable of that name has.
    assert codes == ["section_class_changed"]


@pytest.mark.parametrize("sections", [("", ".ref.text"), ("", ".text.unlikely")])
def test_one_class_of_code(sections: tuple[str, str]) -> None:
    for before, after in itertools.permutations(sections):
        verdict = judge(function(before), function(after))
        assert not verdict.codes and not verdict.changed and not verdict.diff.moved


@pytest.mark.parametrize(
    "section", [".data", ".ref.data", ".data..read_mostly", ".data..cacheline_aligned"]
)
@pytest.mark.parametrize("content", ["1, 2, 3, 4", "0"])
def test_one_class_of_variables(section: str, content: str) -> None:
    """Where it begins as zeroes, the variable is in .bss on one side."""
    for before, after in itertools.permutations(("", section)):
        verdict = judge(table("", before, content), table("", after, content))
        assert not verdict.codes and not verdict.changed and not verdict.diff.moved


@pytest.mark.parametrize("kind", ["", "const"])
def test_a_datum_that_has_to_be_aligned_to_more(kind: str) -> None:
    plain, aligned = (
        f"static {kind} int t[4] __attribute__((used, aligned({n}))) = {{1, 2, 3, 4}};"
        "int g(int n) { return t[n]; }"
        for n in (16, 64)
    )
    assert judge(plain, aligned).codes == ["alignment_changed"]
    assert not judge(aligned, plain).codes and not judge(aligned, aligned).codes


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (".rodata.str1.8", C.READ_ONLY), (".rodata.cst16", C.READ_ONLY),
        (".rodata.f.c", C.READ_ONLY), (".data.x.3", C.WRITTEN), (".bss.x", C.WRITTEN),
        (".data..Lubsan_data3", C.WRITTEN), (".text.hot.f", C.TEXT),
        (".text..refcount", C.SPECIAL_TEXT), (".head.text", C.SPECIAL_TEXT),
        (".init.setup", C.SPECIAL), (".initcall6.init", C.SPECIAL), ("__param", C.SPECIAL),
        ("__ksymtab_gpl", C.SPECIAL), (".meminit.rodata", C.INIT_CONST),
        (".data..once", C.SPECIAL), (".data..ro_after_init", C.RO_AFTER_INIT),
    ],
)  # fmt: skip
def test_the_class_of_a_section_of_which_the_name_is_known(name: str, kind: SectionClass) -> None:
    assert class_of_name(name) is kind


@pytest.mark.parametrize(
    ("after", "words"),
    [
        # Other units call it, and what they call is gone.
        (function("").replace("static noinline", "noinline"), "other units"),
        # What runs now does not use it.
        (function("").replace("return f(n) + 1", "return n + 1"), "nothing that runs now"),
        # Start-up ran it as it was.
        (function("", "other(n) * 5"), "start-up made of it"),
    ],
)
def test_a_function_that_cannot_be_carried(after: str, words: str) -> None:
    before = function(".init.text")
    if "static noinline" not in after:
        before = before.replace("static noinline", "noinline")
    verdict = judge(before, after)
    (refusal,) = check(verdict.diff, verdict.carried, "unit.o")
    assert (refusal.code, refusal.symbol) == ("section_class_changed", "f")
    assert words in refusal.reason


@pytest.mark.parametrize(
    "keeps",
    [
        f"{INIT} int keep(void) {{ use(f); return 1; }}",
        "int keep(void) { use(f); return 1; }",
        'static void *const kept __attribute__((used, section(".init.data"))) = f;',
        "static void *const kept __attribute__((used)) = f;",
        "void *kept = f;",
    ],
)
def test_a_function_of_which_the_address_was_kept(keeps: str) -> None:
    verdict = judge(function(".init.text") + keeps, function("") + keeps)
    refused = check(verdict.diff, verdict.carried, "unit.o")
    assert "section_class_changed" in {r.code for r in refused}
    assert any("address" in r.reason for r in refused)


def test_a_table_of_initcalls_keeps_no_address() -> None:
    call = 'static void *const call __attribute__((used, section(".initcall6.init"))) = f;'
    verdict = judge(function(".init.text") + call, function("") + call)
    assert not verdict.codes and verdict.changed == ["g"]


def test_a_function_that_start_up_never_called_may_change() -> None:
    before, after = function(".init.text", start="n"), function("", "other(n) * 5", start="n")
    verdict = judge(before, after)
    assert not verdict.codes and verdict.changed == ["g"]


def test_code_that_is_cold_no_more_does_the_same() -> None:
    """What the compiler makes of __init alone is no change, if the text says so."""
    cold = '__attribute__((cold, section(".init.text")))'
    body = "int i, r = n; for (i = 0; i < 8; i++) r = r * 13 + other(i); return r;"
    plain = f"static noinline %s int f(int n) {{ {body} }} int g(int n) {{ return f(n) + 1; }}"
    start = f"{INIT} int start(int n) {{ if (n > 3) return f(n); return other(n); }}"
    before, after = (compile_object(plain % how + start) for how in (cold, ""))
    guarded = diff_objects(before, after)
    assert {r.code for r in check(guarded, Closure(guarded, "v", "u").carried, "unit.o")}
    diff = diff_objects(before, after, lambda name: name in ("f", "start"))
    closure = Closure(diff, "vmlinux", "unit.o")
    assert not check(diff, closure.carried, "unit.o")
    assert [changed.pre.name for changed in diff.changed] == ["g"]
    assert [entity.name for entity in closure.carried.new_functions] == ["f"]


@pytest.mark.parametrize(
    ("content", "run", "start"),
    [
        # Start-up read another value of it.
        ("1, 2, 3, 5", "tab[n]", "tab[n] + 1"),
        # Somebody may have kept where it is.
        ("1, 2, 3, 4", "tab[n]", "(use(tab), 1)"),
        ("1, 2, 3, 4", "(use(tab), 1)", "tab[n] + 1"),
    ],
)
def test_a_table_that_cannot_be_carried(content: str, run: str, start: str) -> None:
    def source(qualifier: str, section: str, content: str) -> str:
        return table(qualifier, section, content, run).replace("tab[n] + 1", start)

    before, after = source("", ".init.data", "1, 2, 3, 4"), source("const", "", content)
    assert judge(before, after).codes == ["section_class_changed"]


def test_a_carried_function_that_uses_what_is_gone() -> None:
    gone = 'static int gone __attribute__((used, section(".init.data"))) = 3;'
    codes = judge(
        gone + function(".init.text", "other(n) * gone"), gone + function("", "other(n) * gone")
    ).codes
    assert codes == ["gone_after_init"]


def test_new_code_that_calls_what_is_gone() -> None:
    before = function(".init.text").replace("return f(n) + 1", "return other(n)")
    assert judge(before, function(".init.text")).codes == ["gone_after_init"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("static const int t[4] = {1, 2, 3, 4}; return t[n];",
         "static int t[4] = {1, 2, 3, 4}; return t[n]++;"),
        ('static int t __attribute__((section(".data..ro_after_init"))) = 3; return t++;',
         "static int t = 3; return t++;"),
    ],
)  # fmt: skip
def test_a_static_of_a_function_is_told_as_well(before: str, after: str) -> None:
    verdict = judge(f"int f(int n) {{ {before} }}", f"int f(int n) {{ {after} }}")
    assert "section_class_changed" in verdict.codes


@pytest.mark.parametrize("symbols", itertools.permutations(("f", "f.constprop.0", "f.isra.3"), 2))
def test_a_clone_is_what_the_function_was(symbols: tuple[str, str]) -> None:
    """Where nothing that runs calls it, nothing else differs."""
    sources = (
        f'static int f(int n) asm("{symbol}"); {function(section, start="n")}'
        f"{INIT} int more(int n) {{ return f(n); }}".replace("return f(n) + 1", "return other(n)")
        for symbol, section in zip(symbols, (".init.text", ""), strict=True)
    )
    assert "section_class_changed" in judge(*sources).codes


def test_a_table_that_is_written_from_now_on() -> None:
    """kpatch#1194: the new code would write into the running kernel's .rodata."""
    source = "static const int tab[4] = {1, 2, 3, 4}; int g(int i) { return %s; }"
    verdict = judge(source % "tab[i & 3]", source.replace("const ", "") % "tab[i & 3]++")
    assert verdict.codes == ["section_class_changed"]


ENTRIES = {
    # NOKPROBE_SYMBOL(), module_param(): nothing refers to what they define.
    "_kprobe_blacklist": ("unsigned long", "(unsigned long)g"),
    "__param": ("const void *const", "&word"),
}


@pytest.mark.parametrize("section", ENTRIES)
def test_an_entry_of_a_table_comes_or_goes(section: str) -> None:
    kind, value = ENTRIES[section]
    base = "static int word; int g(int n) { return other(n) + word++; }"
    place = f'__attribute__((used, section("{section}")))'
    entry = f"static {kind} entry {place} = {value};"
    for before, after in itertools.permutations((base, base + entry)):
        refused = check((verdict := judge(before, after)).diff, verdict.carried, "unit.o")
        assert [(r.code, r.evidence) for r in refused] == [("section_changed", section)]
        assert refused[0].symbol == ("g" if "blacklist" in section else "word")
    assert not judge(base + entry, base + entry).codes


@pytest.mark.parametrize(
    ("section", "codes"),
    [
        ("", []),
        (".data..read_mostly", []),
        (".data..ro_after_init", []),
        (".data..percpu", []),
        (".data..decrypted", ["special_data"]),
        (".data..percpu..decrypted", ["special_data"]),
        (".init.data", ["special_data"]),
        ("__tracepoints", ["special_data"]),
    ],
)
def test_new_data_of_a_class_that_modules_have(section: str, codes: list[str]) -> None:
    base = "int g(int n) { return other(n); }"
    fresh = f"static int fresh {placed(section)} = 3; int g(int n) {{ return other(n) + fresh++; }}"
    assert judge(base, fresh).codes == codes


def test_code_that_kprobes_keep_off_by_its_section() -> None:
    base = f"{placed('.kprobes.text')} int f(int n) {{ return other(n); }}"
    assert judge(base, base.replace("other(n)", "other(n) + 1")).codes == ["breakpoint"]
