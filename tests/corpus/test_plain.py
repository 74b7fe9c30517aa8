# SPDX-License-Identifier: GPL-2.0-or-later
"""The proof that a unit compiled as the kernel was is the unit compiled in sections."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kspliced.build.plain import Unlike, needs_plain, prove_alike
from kspliced.elf.disasm import direct_branch, instructions, is_nop
from kspliced.elf.object import Object, Symbol, SymbolType
from kspliced.elf.read import read_object
from kspliced.elf.x86 import KINDS
from kspliced.match import match
from tests.corpus.match.kit import compiled, linked, packed, running

# As gcc 14 aligns tight loops, whatever it is told; and the padding before functions of 6.12.
FLAGS = ("-falign-loops=32", "-falign-jumps=1", "-fpatchable-function-entry=16,16")
UNIT = r"""
#define noinline __attribute__((noinline))
struct entry { long code, target; unsigned short old; char size, length; } __attribute__((packed));
int printk(const char *, ...);
extern int far(int), farther(int);
static volatile int counter = 5, other_counter = 6;
static const char *const words[] = { "one", "two" };
static int (*const calls[])(int) = { far, farther, far };
static noinline int near(int n) { return n * 3 + counter; }
static noinline int nearer(int n) { return n * 5 - counter; }
int first(int n) { return far(n) + 1; }
int loops(int *a, int n)
{
    int i, sum = 0;
    asm volatile("1: .byte 0x0f, 0x1f, 0x44, 0, 0\n"
                 ".pushsection __jump_table, \"a\"\n.balign 8\n"
                 ".long 1b - ., 2f - .\n.quad key - .\n.popsection\n2:");
    for (i = 0; i < n; i++) {
        asm volatile("3: nop; nop; nop\n.pushsection .altinstructions, \"a\"\n"
                     ".long 3b - ., 4f - .\n.short 7\n.byte 3, 2\n.popsection\n"
                     ".pushsection .altinstr_replacement, \"ax\"\n4: xor %%eax, %%eax\n"
                     ".popsection" ::: "eax");
        sum += a[i] * near(i);
    }
    for (i = 0; i < n; i++)
        a[i] = sum + (i & 1 ? far(i) : nearer(i));
    asm volatile(".reloc ., R_X86_64_NONE, far");
    asm goto("jbe,pn %l[out]" :::: out);
    printk("%s: %d\n", words[n & 1], sum);
out:
    return near(sum);
}
int picks(int n, int *a)
{
    while (*a++ != n)
        counter++;
    switch (n) {
    case 0: return far(7);
    case 1: return calls[*a & 1](2) + 9;
    case 2: return counter++;
    case 3: return nearer(n);
    case 4: printk("four\n"); return 4;
    case 5: return loops(a, 3);
    }
    return n;
}
int last(int n)
{
    printk("far\n");
    return n > other_counter ? picks(n, 0) : near(n);
}
"""
SPLIT = compiled(UNIT, *FLAGS)
PLAIN = compiled(UNIT, *FLAGS, split=False)
SIZES = {s.name: s.size for s in read_object(SPLIT).symbols if s.type is SymbolType.FUNC}


def function(obj: Object, name: str) -> Symbol:
    return next(s for s in obj.symbols if s.name == name)


def test_every_symbol_is_found_again_though_padding_differs() -> None:
    plain = read_object(PLAIN)
    symbols = prove_alike(read_object(SPLIT), plain)
    named = {s.index: s.name for s in read_object(SPLIT).symbols}
    assert {named[index] for index in symbols} >= {"loops", "near", "counter", "words", "calls"}
    assert all(named[index] == symbol.name for index, symbol in symbols.items())
    differ = {name for name, size in SIZES.items() if function(plain, name).size != size}
    assert differ == {"loops", "picks"}, "the corpus has to have both kinds"


def test_only_the_plain_object_matches_what_runs() -> None:
    kernel = running(linked(compiled("int x(void) { return 4; }", split=False), PLAIN))
    assert match(packed({"a.o": PLAIN}), kernel).unmatched == ()
    unmatched = {m.function for m in match(packed({"a.o": SPLIT}), kernel).unmatched}
    assert {"loops", "picks"} <= unmatched


def test_it_is_needed_where_code_is_aligned_to_more_than_functions_are() -> None:
    assert needs_plain(read_object(SPLIT))
    assert not needs_plain(read_object(compiled(UNIT, *FLAGS[1:])))
    started = 'int loop(int *a) __attribute__((section(".init.text")));'
    started += "int loop(int *a) { while (*a++); return 0; }"
    assert not needs_plain(read_object(compiled(started, FLAGS[0])))


# (what the plain object has instead, what is said to differ)
OTHER = (
    ("n * 3 + counter", "n * 3 + other_counter", "near"),
    ("n * 5 - counter", "n * 7 - counter", "nearer"),
    ("sum += a[i] * near(i)", "sum += a[i] * nearer(i)", "loops"),
    ("sum += a[i] * near(i)", "sum += a[i] + near(i)", "loops"),
    ("(i & 1 ? far(i) : nearer(i))", "(i & 1 ? farther(i) : nearer(i))", "loops"),
    ("i < n; i++)\n        a[i]", "i <= n; i++)\n        a[i]", "loops"),
    ("return near(sum)", "return nearer(sum)", "loops"),
    ('"%s: %d\\n"', '"%s; %d\\n"', "loops"),
    ('"one", "two"', '"two", "one"', "words"),
    ('"far\\n"', '"fat\\n"', "last"),
    ("far, farther, far", "farther, far, far", "calls"),
    ("counter = 5", "counter = 4", "counter"),
    ("static volatile int counter", "volatile int counter", "counter"),
    ("int first", "static noinline __attribute__((used)) int first", "first"),
    ("case 3: return nearer(n);\n    case 4", "case 4: return nearer(n);\n    case 3", ""),
    ("jbe,pn", "jbe,pt", "loops"),
    ("jbe,pn", "jb,pn", "loops"),
    (".short 7", ".short 8", "loops"),
    (".byte 3, 2", ".byte 2, 2", "loops"),
    ("xor %%eax, %%eax", "xor %%ecx, %%ecx", ".altinstr_replacement"),
    (".quad key - .", ".quad other_key - .", "loops"),
    ("2f - .", "2f + 7 - .", "loops"),
    ("3: nop; nop; nop", "nop; nop; nop; 3:", "loops"),
    ("int last(", "int added(void) { return 1; }\nint last(", "added"),
)


@pytest.mark.parametrize(("old", "new", "symbol"), OTHER, ids=[new for _, new, _ in OTHER])
def test_other_code_is_no_plain_object_of_it(old: str, new: str, symbol: str) -> None:
    assert UNIT.count(old) == 1, old
    plain = compiled(UNIT.replace(old, new), *FLAGS, split=False)
    with pytest.raises(Unlike) as caught:
        prove_alike(read_object(SPLIT), read_object(plain))
    assert caught.value.symbol == symbol or not symbol, str(caught.value)


def real(code: bytes) -> dict[int, bytes]:
    """The instructions that are no padding."""
    return {at: one for at, one in instructions(code) if not is_nop(one)}


def test_no_bit_of_a_function_with_other_padding_may_differ() -> None:
    """But for padding's, those that the linker writes, and how far into padding a jump goes."""
    split, plain = read_object(SPLIT), read_object(PLAIN)
    for name in ("loops", "picks"):
        symbol = function(plain, name)
        section = plain.section(symbol.section)
        start = symbol.value
        code = real(section.data[start : start + symbol.size])
        inside = {n for at, one in code.items() for n in range(at, at + len(one))}
        padding = set(range(symbol.size)) - inside
        fields = [
            (r.offset - symbol.value, KINDS[r.type].size)
            for r in section.relocations
            if r.type in KINDS
        ]
        linked_in = {n for at, size in fields for n in range(at, at + size)}
        missed = []
        for at in sorted(inside - linked_in):
            for bit in (0, 3, 6):
                damaged = bytearray(section.data)
                damaged[start + at] ^= 1 << bit
                other = replace(section, data=bytes(damaged))
                sections = tuple(other if s is section else s for s in plain.sections)
                try:
                    prove_alike(split, replace(plain, sections=sections))
                except Unlike:
                    continue
                begin = max(n for n in code if n <= at)
                one = bytes(damaged[start + begin : start + begin + len(code[begin])])
                branch = direct_branch(one)
                if branch is None or begin + len(one) + branch.distance not in padding:
                    missed.append((name, at, bit))
        assert missed == []
