# SPDX-License-Identifier: GPL-2.0-or-later
"""Two C sources in, a verdict out."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from kspliced.build.closure import Carried, Closure
from kspliced.build.constants import in_place, new_references
from kspliced.build.diff import UnitDiff, diff_objects
from kspliced.build.nmi import Exposed, entangled, interruptible
from kspliced.build.rules import check, jump_offset
from kspliced.model import Import, ImportKind
from tests.corpus.compiler import compile_object

BASE = """
static int total;
noinline int add(int n) { static int calls; total += n; calls++; return total + calls; }
noinline int log_it(int n) { printk("value %d\\n", n); return n; }
int entry(int n) { return add(n) + log_it(n); }
"""


@dataclass(frozen=True)
class Verdict:
    diff: UnitDiff
    closure: Closure

    @property
    def carried(self) -> Carried:
        return self.closure.carried

    @property
    def changed(self) -> list[str]:
        return [changed.pre.name for changed in self.diff.changed]

    @property
    def codes(self) -> list[str]:
        return [refusal.code for refusal in check(self.diff, self.carried, "unit.o")]


def judge(before: str, after: str, *flags: str) -> Verdict:
    diff = diff_objects(compile_object(before, *flags), compile_object(after, *flags))
    return Verdict(diff, Closure(diff, "vmlinux", "unit.o"))


def test_an_unchanged_source_has_no_difference() -> None:
    verdict = judge(BASE, BASE)
    assert not verdict.changed
    assert not verdict.codes
    assert not verdict.carried.code


def test_a_changed_body_is_one_function() -> None:
    verdict = judge(BASE, BASE.replace("total += n", "total -= n"))
    assert verdict.changed == ["add"]
    assert not verdict.codes
    names = [e.name for e in verdict.carried.code]
    assert names == ["add"]
    assert not verdict.carried.data, "its statics are the running kernel's"


def test_a_changed_string_is_a_change_and_is_carried() -> None:
    verdict = judge(BASE, BASE.replace("value %d", "VALUE %d"))
    assert verdict.changed == ["log_it"]
    contents = [verdict.diff.post.layout.content(e) for e in verdict.carried.data]
    assert contents == [b"VALUE %d\n\0"]


def test_a_comment_or_blank_line_is_no_change() -> None:
    assert not judge(BASE, "/* more */\n\n" + BASE.replace("noinline", "\nnoinline")).changed


def test_renumbered_statics_are_told_apart_by_their_users() -> None:
    one = "noinline int a(void) { static int n = 1; return n++; }\n"
    two = "noinline int b(void) { static int n = 2; return n++; }\n"
    three = "noinline int c(int x) { static int n = 7; other(x); return n += x; }\n"
    verdict = judge(one + two + three, three.replace("x);", "x + 1);") + two + one)
    assert verdict.changed == ["c"]
    assert not verdict.codes
    assert not verdict.carried.data


def test_an_inlined_callee_changes_its_callers() -> None:
    source = """
inline_always int helper(int n) { return other(n) + 1; }
int first(int n) { return helper(n); }
int second(int n) { return helper(n * 2); }
int third(int n) { return n; }
"""
    verdict = judge(source, source.replace("+ 1", "+ 2"))
    assert verdict.changed == ["first", "second"]


def test_a_new_function_and_its_data_are_carried() -> None:
    after = BASE.replace(
        "int entry(int n) {",
        "static int fresh = 3;\n"
        "noinline int extra(int n) { fresh += n; return other(fresh); }\n"
        "int entry(int n) { if (n > 9) return extra(n);",
    )
    verdict = judge(BASE, after)
    assert verdict.changed == ["entry"]
    assert [e.name for e in verdict.carried.new_functions] == ["extra"]
    assert [e.name for e in verdict.carried.new_data] == ["fresh"]
    assert not verdict.carried.pinned
    assert not verdict.codes


def test_a_new_function_whose_address_escapes_pins_the_update() -> None:
    after = BASE.replace(
        "int entry(int n) {",
        "noinline int callback(int n) { return other(n); }\nint entry(int n) { use(callback);",
    )
    verdict = judge(BASE, after)
    assert verdict.carried.pinned


@pytest.mark.parametrize(
    ("new", "use", "pinned"),
    [
        ("", 'use("kept");', True),
        ("static const int fresh[2] = {7, 8};", "use(fresh);", True),
        ("static int fresh = 3;", "use(&fresh);", True),
        ("static int fresh; static int *const keeper = &fresh;", "use(&keeper);", True),
        ("noinline int fresh(int n) { return other(n); }", "use(fresh);", True),
        ("static int fresh = 3;", "n += fresh++;", False),
        ("static const int fresh[3] = {7, 8, 5};", "n += fresh[n];", False),
        ("noinline int fresh(int n) { return other(n); }", "n += fresh(n);", False),
    ],
)
def test_an_update_is_pinned_by_any_address_inside_it(new: str, use: str, pinned: bool) -> None:
    verdict = judge(BASE, BASE.replace("int entry(int n) {", f"{new} int entry(int n) {{ {use}"))
    assert not verdict.codes
    assert verdict.carried.pinned is pinned


def test_the_address_of_a_changed_function_is_the_old_one() -> None:
    source = """
noinline int callback(int n) { return other(n); }
int entry(int n) { use(callback); return callback(n); }
"""
    after = source.replace("other(n);", "other(n + 1);").replace(
        "use(callback);", "use(callback); n++;"
    )
    verdict = judge(source, after)
    assert verdict.changed == ["callback", "entry"]
    post = verdict.diff.post
    entry = next(e for e in verdict.carried.code if e.name == "entry")
    found = [verdict.closure.resolve(t) for _, t in post.references(entry) if t.name == "callback"]
    kinds = [getattr(f, "kind", None) for f in found]
    assert ImportKind.UNIT in kinds, "use() gets the running kernel's address"
    assert any(getattr(f, "name", "") == "callback" for f in found), "the call goes straight"


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ("static int x = 1; int f(void) { return x++; }",
         "static int x = 2; int f(void) { return x++; }", "writable_data_changed"),
        ("const int o[] = {1}; int f(void) { use(o); return 1; }",
         "const int o[] = {1, 2}; int f(void) { use(o); return 1; }", "const_data_changed"),
        ("__attribute__((weak)) const int o[] = {1}; int f(void) { use(o); return 1; }",
         "__attribute__((weak)) const int o[] = {2}; int f(void) { use(o); return 1; }",
         "const_data_changed"),
        ("static const int o[] = {1, 2};"
         "__attribute__((section(\".init.text\"))) int f(int n) { return o[n]; }",
         "static const int o[] = {1, 3};"
         "__attribute__((section(\".init.text\"))) int f(int n) { return o[n]; }",
         "const_data_changed"),
        ("int f(int n) { return n; } asm(\".section .rodata.q; .globl q; .type q,@object;"
         ".size q,4; q: .long other - .; .text\");",
         "int f(int n) { return n; } asm(\".section .rodata.q; .globl q; .type q,@object;"
         ".size q,4; q: .long another - .; .text\");",
         "const_data_changed"),
        ("__attribute__((section(\".init.text\"))) int f(int n) { return other(n); }",
         "__attribute__((section(\".init.text\"))) int f(int n) { return other(n) + 1; }",
         "init_only"),
        ("__attribute__((section(\".noinstr.text\"))) int f(int n) { return other(n); }",
         "__attribute__((section(\".noinstr.text\"))) int f(int n) { return other(n) + 1; }",
         "noinstr"),
        ("int f(int n) { return other(n); }",
         "__attribute__((section(\".data..percpu\"))) int p[999];"
         "int f(int n) { return other(p[n]); }",
         "new_percpu"),
        ("int f(int n) { return other(n); }",
         "__attribute__((section(\"__param\"))) int p = 1; int f(int n) { return other(p); }",
         "special_data"),
        ("int f(int n) { return n; }\n"
         "__attribute__((section(\".initcall6.init\"))) void *const i = 0;",
         "int f(int n) { return n; }\n"
         "__attribute__((section(\".initcall6.init\"))) void *const i = (void *)f;",
         "const_data_changed"),
        ("static int s; int f(int n) { static int s = 5; return s++; } int g(void){ return s++; }",
         "static int s; int f(int n) { static int s = 6; return s++; } int g(void){ return s++; }",
         "static_ambiguous"),
        ("int f(int n) { return n; } asm(\".globl __ksymtab_a\\n__ksymtab_a = 0\");",
         "int f(int n) { return n; } asm(\".globl __ksymtab_b\\n__ksymtab_b = 0\");",
         "export_changed"),
    ],
)  # fmt: skip
def test_refused(before: str, after: str, code: str) -> None:
    assert code in judge(before, after).codes


def test_a_constant_changes_in_place() -> None:
    """Its value refers to the kernel's own function, though that changes as well."""
    source = """
extern int printk(const char *, ...);
static int g(int n) { return other(n); }
static int h(int n) { return other(n) * 3; }
static const struct ops o = { g };
static const char *const names[] = { "one", "two" };
int f(int n) { use(&o); use(h); return printk("%s", names[n]); }
"""
    verdict = judge(source, source.replace("{ g }", "{ h }").replace("* 3", "* 5"))
    assert not verdict.codes and verdict.changed == ["h"]
    (value,) = verdict.carried.values
    assert value.name == "o" and not verdict.carried.pinned
    (target,) = [t for _, t in verdict.diff.post.references(value)]
    found = verdict.closure.resolve(target)
    assert isinstance(found, Import) and found.symbol == "h"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"two"', '"three"'),
        ("struct ops o = { g }", "struct ops o = { k }"),
    ],
)
def test_a_constant_that_leads_into_the_update_pins_it(before: str, after: str) -> None:
    source = """
static int g(int n) { return other(n); }
static const struct ops o = { g };
static const char *const names[] = { "one", "two" };
int f(int n) { use(&o); use(names[n]); return 1; }
"""
    new = "static int k(int n) { return other(n) + 7; }\n" if after.endswith("{ k }") else ""
    verdict = judge(source, new + source.replace(before, after))
    assert not verdict.codes and not verdict.changed
    assert verdict.carried.pinned
    assert verdict.carried.code if new else verdict.carried.data


HOOKS = """
static int old(int n) { return other(n); }
static int twin(int n) { return other(n) + 9; }
static int word = 3;
struct hooks { const char *name; int (*before)(int); int (*after)(int); int *at; int mode; };
struct hooks hooks = { .name = "hooks", .before = old, .mode = 4 };
int f(int n) { hooks.mode++; use(&word); use(twin); return hooks.before(n) + word++; }
"""


@pytest.mark.parametrize("how", ["", '__attribute__((section(".data..read_mostly"))) '])
def test_a_callback_is_set_in_place(how: str) -> None:
    """The pointer by itself: what else the variable holds has lived since."""
    source = HOOKS.replace("struct hooks hooks", f"{how}struct hooks hooks")
    new = "static int fresh(int n) { return other(n) + 7; }\n"
    after = source.replace("struct hooks {", f"{new}struct hooks {{")
    verdict = judge(source, after.replace(".mode = 4", ".after = fresh, .mode = 4"))
    assert not verdict.codes and not verdict.changed
    (written,) = in_place(verdict.diff)
    assert (written.offset, written.size, written.value) == (16, 8, bytes(8))
    ((relocation, target),) = new_references(verdict.diff, written)
    assert (relocation.offset, target.name) == (16, "fresh")
    assert verdict.carried.pinned
    assert [function.name for function in verdict.carried.new_functions] == ["fresh"]


@pytest.mark.parametrize(
    "new",
    [
        # One that was another; two; one and a number; an address within; data; a number.
        ".before = twin, .mode = 4",
        ".before = old, .after = twin, .at = &word, .mode = 4",
        ".before = old, .after = twin, .mode = 5",
        ".before = old, .after = (int (*)(int))((char *)twin + 1), .mode = 4",
        ".before = old, .at = &word, .mode = 4",
        ".before = old, .after = (int (*)(int))64, .mode = 4",
    ],
)
def test_a_variable_begins_as_something_else(new: str) -> None:
    verdict = judge(HOOKS, HOOKS.replace(".before = old, .mode = 4", new))
    assert verdict.codes == ["writable_data_changed"] and not in_place(verdict.diff)


@pytest.mark.parametrize("section", [".data..percpu", ".data..init", ".data..special"])
def test_a_callback_where_data_are_special(section: str) -> None:
    hooks = f'__attribute__((section("{section}"))) struct hooks hooks'
    before = HOOKS.replace("struct hooks hooks", hooks)
    verdict = judge(before, before.replace(".mode = 4", ".after = twin, .mode = 4"))
    assert "writable_data_changed" in verdict.codes


def test_untraced_code_of_the_architecture_is_refused() -> None:
    source = "__attribute__((no_instrument_function)) int f(int n) { return other(n); }"
    verdict = judge(source, source.replace("other(n)", "other(n) + 1"))
    refused = check(verdict.diff, verdict.carried, "arch/x86/mm/pti.o")
    assert [(refusal.code, refusal.symbol) for refusal in refused] == [("notrace", "f")]
    # Elsewhere the jump stands where the fentry slot would be.
    assert not verdict.codes
    assert jump_offset(verdict.diff.pre, verdict.diff.changed[0].pre) == 0
    branch = judge(source, source.replace("other(n)", "other(n) + 1"), "-fcf-protection=branch")
    assert jump_offset(branch.diff.pre, branch.diff.changed[0].pre) == 4


def test_code_that_handles_breakpoints_is_refused() -> None:
    verdict = judge(BASE, BASE.replace("total += n", "total -= n"))
    refused = check(verdict.diff, verdict.carried, "arch/x86/kernel/traps.o")
    assert [(refusal.code, refusal.symbol) for refusal in refused] == [("breakpoint", "add")]
    assert not check(verdict.diff, verdict.carried, "fs/ext4/mballoc.o")


def test_code_that_kprobes_keep_off_is_refused() -> None:
    source = """
int f(int n);
int plain(int n) { return f(n) + f(n + 1); }
int listed(int n) { return f(n) + f(n + 1); }
static unsigned long entry __attribute__((used, section("_kprobe_blacklist"))) =
    (unsigned long)listed;
"""
    verdict = judge(source, source.replace("n + 1", "n + 2"))
    refused = check(verdict.diff, verdict.carried, "kernel/notifier.o")
    assert [(refusal.code, refusal.symbol) for refusal in refused] == [("breakpoint", "listed")]


SLEEPING = """
void mutex_lock(void *lock);
extern int __preempt_count;
static noinline int inner(int n) { return n + 1; }
static noinline int taken(int n) { return 3 * (n + 1); }
static noinline int shared(int n) { return 5 * (n + 1); }
int (*table[])(int) = { taken };
int plain(int n) { return shared(n) + 1; }
int outer(int n) { mutex_lock(0); return inner(n) + taken(n) + shared(n) + 1; }
int asking(int n) { if (!__preempt_count) mutex_lock(0); return n + 1; }
"""


@pytest.mark.parametrize(
    ("unit", "exposed"),
    [
        ("fs/ext4/mballoc.o", set()),
        # What may sleep is run by no interrupt, nor what only such functions call.
        ("kernel/bpf/core.o", {"taken", "shared", "plain", "asking"}),
        # printk sleeps sometimes.
        ("kernel/printk/printk.o", {"inner", "taken", "shared", "plain", "outer", "asking"}),
    ],
)
def test_what_a_non_maskable_interrupt_may_run(unit: str, exposed: set[str]) -> None:
    diff = judge(SLEEPING, SLEEPING.replace("n + 1", "n + 2").replace(") + 1;", ") + 2;")).diff
    assert {one.name for one in interruptible(diff, unit)} == exposed


MEETING = """
int mutex_trylock(void);
int (*pointer)(int);
static noinline int leaf(int n) { return n + 1; }
int first(int n) { return leaf(n) * 3; }
int second(int n) { return 5 * (n + 1); }
int out(int n) { return mutex_trylock() + n + 1; }
int indirect(int n) { return pointer(n) + n + 1; }
"""


@pytest.mark.parametrize(
    ("changed", "met"),
    [
        # An interrupt is in one of them, or in the other.
        ({"first", "second"}, set()),
        ({"leaf", "second"}, set()),
        # An old first() would call a new leaf().
        ({"leaf", "first", "second"}, {"leaf", "first"}),
        # Where that leads is not known.
        ({"out", "second"}, {"out", "second"}),
        ({"indirect", "leaf"}, {"indirect", "leaf"}),
        ({"out"}, set()),
    ],
)
def test_an_interrupt_may_come_from_one_changed_function_to_another(
    changed: set[str], met: set[str]
) -> None:
    lines = MEETING.splitlines()
    after = (
        line.replace("n + 1", "n + 2").replace("* 3", "* 7") if name in changed else line
        for line in lines
        for name in [line.partition("(int n)")[0].rpartition(" ")[2]]
    )
    found = interruptible(judge(MEETING, "\n".join(after)).diff, "kernel/bpf/core.o")
    assert {one.name for one in found} == changed
    assert {one.name for one in entangled(found)} == met
    elsewhere = Exposed("kernel/bpf/other.o", "second", frozenset({"second"}))
    assert elsewhere not in entangled((elsewhere, *(o for o in found if o.calls is not None)))


def test_a_patched_site_where_the_jump_goes_is_refused() -> None:
    source = """
int f(int n) {
    asm volatile("1: .byte 0x0f,0x1f,0x44,0,0\\n.pushsection __jump_table,\\"aw\\"\\n"
                 ".long 1b - ., 1b - .\\n.quad key - .\\n.popsection");
    return other(n);
}
asm(".pushsection .data.key,\\"aw\\"\\nkey: .quad 0\\n.popsection");
"""
    verdict = judge(source, source.replace("other(n)", "other(n + 1)"))
    assert verdict.changed == ["f"]
    assert verdict.codes == ["patched_entry"]


def test_a_cold_part_belongs_to_its_function() -> None:
    source = """
__attribute__((cold)) void die(int n);
int f(int n) { if (__builtin_expect(n == 77, 0)) { die(n); die(n + 1); } return other(n); }
"""
    verdict = judge(source, source.replace("n + 1", "n + 2"))
    assert verdict.changed == ["f"]
    assert {e.name for e in verdict.carried.code} == {"f", "f.cold"}
