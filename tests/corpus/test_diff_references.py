# SPDX-License-Identifier: GPL-2.0-or-later
"""What code refers to counts, not how the compiler numbered it or the assembler wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.build.emit import UnitPart, emit
from kspliced.elf.object import Object
from kspliced.elf.read import read_object
from kspliced.source.lines import keep_line_numbers
from tests.corpus.test_diff import Verdict, judge

SECTION = """
#define sched __attribute__((section(".sched.text"))) noinline
static sched int inner(int n) { return other(n) + 3; }
sched int outer(int n) { return inner(n) + inner(n + 1); }
"""

# include/linux/dynamic_debug.h, the part that matters.
DYNDBG = """
struct ddebug { const char *module, *function, *format; unsigned line; long key; };
#define debug(text) do { \
    static struct ddebug __attribute__((section("__dyndbg"), used, aligned(8))) descriptor = \
        { "unit", __func__, text, __LINE__, 1 }; \
    if (descriptor.key) use(&descriptor); } while (0)
"""

ONCE = """
#define warn_once(n) do { \
    static _Bool __attribute__((section(".data.once"))) __already_done; \
    if ((n) && !__already_done) { __already_done = 1; printk("once\\n"); } } while (0)
"""


def module_of(verdict: Verdict) -> Object:
    part = UnitPart("vmlinux", "unit.o", verdict.diff, verdict.closure)
    return read_object(emit((part,)).content, "module")


def test_calls_that_the_assembler_resolved_are_references() -> None:
    """Functions that share a section call each other without a relocation."""
    verdict = judge(SECTION, SECTION.replace("other(n) + 3", "other(n) * 7 + other(3)"))
    assert verdict.changed == ["inner"], "outer only has another displacement"
    verdict = judge(SECTION, SECTION.replace("n + 1", "n + 2"))
    assert verdict.changed == ["outer"]
    module = module_of(verdict)
    text = module.section_named(".text")
    assert text is not None
    names = [module.symbols[r.symbol].name for r in text.relocations]
    assert sum(name.endswith(":inner") for name in names) == 2, "both calls go to the kernel's"


def test_a_short_jump_to_a_neighbour_is_refused() -> None:
    source = SECTION + "sched int tail(int n) { return inner(n * 3); }\n"
    verdict = judge(source, source.replace("n * 3", "n * 5"))
    assert verdict.changed == ["tail"]
    assert verdict.codes == ["short_jump"]


def test_strings_that_move_are_the_same() -> None:
    source = """
void a(void) { printk("first\\n"); }
void b(void) { printk("second\\n"); }
"""
    after = 'void zero(void) { printk("zeroth, and longer\\n"); }\n' + source
    assert not judge(source, after).changed


POOL = """
typedef long long pair __attribute__((vector_size(16)));
int a(pair *p) { *p = (pair){ 0x1111222233334444, 5 }; return other(1); }
int b(pair *p) { *p = (pair){ 0x5555666677778888, 6 }; return other(2); }
"""


def test_merged_constants_are_told_apart() -> None:
    flags = ("-msse2", "-msse")
    assert any(
        s.entsize == 16 for s in judge(POOL, POOL, *flags).diff.pre.layout.object.sections
    ), "the compiler makes a pool"
    verdict = judge(POOL, POOL.replace("3333", "9999"), *flags)
    assert verdict.changed == ["a"]
    contents = [verdict.diff.post.layout.content(e) for e in verdict.carried.data]
    assert [len(content) for content in contents] == [16]


def test_a_variable_that_becomes_global_is_the_same() -> None:
    """The reference turns from section-relative into symbol-relative."""
    source = "static int count; static int gap[9]; int f(int n) { gap[n]++; return ++count; }"
    verdict = judge(source, source.replace("static int count", "int count"))
    assert not verdict.changed
    assert not verdict.codes


CLONES = """
static noinline int scale(int n, int by, int unused) { return other(n * by) + by; }
static noinline int shift(int n, int by, int unused) { return other(n << by) - by; }
int one(int n) { return scale(n, 3, n) + scale(n + 1, 3, 7); }
int two(int n) { return shift(n, 2, n) + shift(n + 1, 2, 7); }
"""


def test_clones_that_change_places_are_the_same() -> None:
    lines = CLONES.strip().splitlines()
    names = {e.name for e in judge(CLONES, CLONES).diff.pre.layout.functions()}
    assert any("." in name for name in names), names
    after = "\n".join([lines[1], lines[0], lines[3], lines[2]])
    assert not judge(CLONES, after).changed
    verdict = judge(CLONES, after.replace("n << by", "n >> by"))
    assert [name.partition(".")[0] for name in verdict.changed] == ["shift"]
    assert not verdict.codes


SWITCH = """
int pick(int n) {
    switch (n) {
    case 0: return other(1); case 1: return other(20); case 2: printk("x"); return 3;
    case 3: return other(44); case 4: return other(5); case 5: return n * 3;
    case 6: return other(n); default: return other(-1);
    }
}
"""


def test_jump_tables_are_compared_by_where_they_lead() -> None:
    verdict = judge(SWITCH, "int before(int n) { return other(n); }" + SWITCH)
    assert not verdict.changed
    verdict = judge(SWITCH, SWITCH.replace("other(44)", "other(45)"))
    assert verdict.changed == ["pick"]
    tables = [e for e in verdict.carried.data if not e.name]
    assert tables, "its jump table is a copy"


def test_unchanged_lines_keep_their_number(tmp_path: Path) -> None:
    before = "int a(int n) { return n; }\nint b(int n) {\n  return other(__LINE__);\n}\n"
    after = before.replace("return n;", "\n  n++;\n  return n;")
    for name, text in (("old.c", before), ("new.c", after)):
        (tmp_path / name).write_text(text)
    kept = keep_line_numbers(tmp_path / "old.c", tmp_path / "new.c").decode()
    assert judge(before, after).changed == ["a", "b"]
    assert judge(before, kept).changed == ["a"]


WARN = """
#define WARN(flags) asm volatile("1: ud2\\n.pushsection __bug_table,\\"aw\\"\\n" \
    ".long 1b - ., 0\\n.long " #flags "\\n.popsection" ::: "memory")
asm(".pushsection .rodata.str1.1,\\"aMS\\",@progbits,1\\nfile: .asciz \\"unit.c\\"\\n.popsection");
"""


def test_bug_tables_belong_to_their_function() -> None:
    source = WARN.replace("1b - ., 0", "1b - ., file - .") + (
        "int a(int n) { if (n > 5) WARN(7); return other(n); }\n"
        "int b(int n) { if (n > 6) WARN(8); return other(n + 1); }\n"
    )
    assert judge(source, source.replace("WARN(8)", "WARN(9)")).changed == ["b"]
    swapped = "\n".join([*source.splitlines()[:-2], *reversed(source.splitlines()[-2:])])
    assert not judge(source, swapped).changed


def test_func_strings_are_told_by_content() -> None:
    source = (
        'void a(int n) { printk("%s", __func__); }\nvoid b(int n) { printk("%s", __func__); }\n'
    )
    after = 'void zero(int n) { printk("%s", __func__); }\n' + source
    assert not judge(source, after).changed
    renamed = judge(source, source.replace("void b", "void c"))
    assert not renamed.changed, "nothing here calls it; its name is its own"


def test_once_flags_do_not_stand_in_the_way() -> None:
    source = ONCE + "int a(int n) { warn_once(n > 4); return other(n); }\n"
    after = source.replace("return other", "warn_once(n > 9); return other")
    verdict = judge(source, after)
    assert verdict.changed == ["a"]
    assert not verdict.codes
    assert {e.stem for e in verdict.carried.new_data} == {"__already_done"}


def test_ratelimit_states_that_differ_are_new_ones() -> None:
    source = "void f(int n) { static struct { int interval, n; } _rs = { 5, 0 }; use(&_rs); }"
    verdict = judge(source, source.replace("{ 5, 0 }", "{ 9, 0 }"))
    assert verdict.changed == ["f"]
    assert not verdict.codes
    assert [e.stem for e in verdict.carried.new_data] == ["_rs"]


def test_a_variable_that_is_only_called_descriptor_has_state() -> None:
    source = "int f(int n) { static int descriptor = 5; return descriptor += n; }"
    verdict = judge(source, source.replace("= 5", "= 6").replace("+= n", "-= n"))
    assert verdict.codes == ["static_ambiguous"]


def test_lock_class_keys_without_lockdep() -> None:
    """Of no size: many share one address, and a new one is carried as nothing."""
    source = """
struct key { };
void a(void) { static struct key __key; use(&__key); }
void b(void) { static struct key __key; use(&__key); }
"""
    assert not judge(
        source, source.replace("void a", "void b2").replace("void b(", "void a(")
    ).codes
    verdict = judge(
        source, source.replace("use(&__key); }\nvoid b", "use(&__key); other(1); }\nvoid b")
    )
    assert verdict.changed == ["a"]
    assert not verdict.codes


def test_dynamic_debug_entries_are_told_apart() -> None:
    source = DYNDBG + (
        'void a(int n) { debug("one"); other(n); }\n'
        'void b(int n) { debug("two"); other(n); debug("three"); }\n'
        'void c(int n) { debug("four"); }\n'
    )
    after = source.replace("other(n); debug", 'debug("and a half"); other(n); debug')
    verdict = judge(source, after)
    assert verdict.changed == ["b"]
    assert not verdict.codes
    (new,) = (e for e in verdict.carried.new_data if e.stem == "descriptor")
    texts = [
        verdict.diff.post.layout.content(target.entity)
        for _, target in verdict.diff.post.references(new)
        if target.entity is not None
    ]
    assert b"and a half\0" in texts
    assert module_of(verdict).section_named("__dyndbg") is not None


def test_two_static_locals_of_one_name_in_one_function() -> None:
    source = """
int f(int n) { { static int s; s += n; other(s); } { static int s; s -= n; return other(s); } }
"""
    # The code is the same but for its references: place by place.
    verdict = judge(
        "static int s; int g(void) { return s++; }" + source, source.replace("f(", "f(")
    )
    assert not verdict.changed
    # It is not, and nothing says which is which.
    verdict = judge(source, source.replace("s += n;", "s += n * 3;"))
    assert "static_ambiguous" in verdict.codes


def test_a_static_local_that_another_function_takes_over_is_ambiguous() -> None:
    source = "int f(int n) { static int s; return s += n; }\nint g(int n) { return other(n); }\n"
    after = "int f(int n) { return other(n); }\nint g(int n) { static int s; return s += n; }\n"
    assert "static_ambiguous" in judge(source, after).codes


def test_a_renamed_variable_is_ambiguous() -> None:
    source = "static int count; int f(int n) { return count += n; }"
    assert "static_ambiguous" in judge(source, source.replace("count", "total")).codes


def test_a_new_percpu_variable_is_the_module_loader_s() -> None:
    percpu = '__attribute__((section(".data..percpu")))'
    source = "int f(int n) { return other(n); }"
    after = f"static {percpu} int hits = 5;\n"
    after += 'int f(int n) { asm("incl %%gs:%0" : "+m"(hits)); return other(n); }'
    verdict = judge(source, after)
    assert not verdict.codes
    section = module_of(verdict).section_named(".data..percpu")
    assert section is not None
    assert section.data[:4] == b"\5\0\0\0"


@pytest.mark.parametrize("name", [".comment.more", ".discard.addressable"])
def test_what_the_kernel_does_not_keep_is_not_compared(name: str) -> None:
    attribute = f'__attribute__((section("{name}"), used))'
    source = "int f(int n) { return other(n); }\n"
    before = f'static const char {attribute} __UNIQUE_ID_a1[] = "x=1";' + source
    assert not judge(before, before.replace("x=1", "x=22")).codes
