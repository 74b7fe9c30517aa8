# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions that are shorter in the kernel, as jumps to neighbours need only 8 bits there."""

from __future__ import annotations

import pytest

from kspliced.elf.read import read_object
from kspliced.match import NoMatchError, match
from tests.corpus.match.kit import (
    address_of,
    compiled,
    linked,
    packed,
    running,
    span_of,
    unit_import,
)

# As the kernel's, so nothing in a function is aligned (arch/x86/Makefile).
ALIGN = ("-falign-jumps=1", "-falign-loops=1")
UNIT = """
#define noinline __attribute__((noinline))
int other(int);
int printk(const char *, ...);
static noinline int near(int n) { return n * 3; }
static noinline int nearer(int n) { return n * 5; }
int many(int n, int m)
{
    if (__builtin_expect(n > 5, 1)) {
        if (m == 7)
            return near(n);
        if (m == 9)
            return nearer(n + 1);
        other(m);
    }
    while (m--)
        n += other(m);
    if (__builtin_expect(n == 77, 0)) {
        printk("rare %d\\n", n);
        goto again;
    }
    return n;
again:
    for (m = 3; m; m--)
        other(n);
    return near(m);
}
int after(int n) { return many(n, 1) + 1; }
"""


def sizes(content: bytes) -> dict[str, int]:
    return {s.name: s.size for s in read_object(content).symbols if s.name and s.size}


def test_functions_with_short_jumps_match() -> None:
    pre, run = compiled(UNIT, *ALIGN), compiled(UNIT, *ALIGN, split=False)
    lost = sizes(pre)["many"] - sizes(run)["many"]
    assert lost > 3, "the corpus has to have several short jumps"
    kernel = running(linked(run))
    imports = tuple(unit_import(pre, name) for name in ("near", "nearer", "after"))
    matched = match(packed({"a.o": pre}, imports, (span_of(pre, "many"),)), kernel)
    assert not matched.unmatched
    for found in matched.imports:
        assert found.address == address_of(kernel, found.name.split(":")[1])
    (span,) = matched.spans
    assert len(span.expect) == len(span.mask) == span.span.size
    assert span.mask == b"\xff" * (span.span.size - lost) + bytes(lost)
    kept = span.span.size - lost
    assert span.expect[:kept] == kernel.read(span.address, kept)


def test_every_byte_still_counts() -> None:
    pre, run = compiled(UNIT, *ALIGN), linked(compiled(UNIT, *ALIGN, split=False))
    pack = packed({"a.o": pre}, (), (span_of(pre, "many"),))
    kernel = running(run)
    start, size = address_of(kernel, "many"), sizes(run)["many"]
    for at in range(start, start + size):
        changed = running(run)
        changed.write(at, bytes([changed.read(at, 1)[0] ^ 0x10]))
        with pytest.raises(NoMatchError):
            match(pack, changed)


def test_code_that_only_looks_shortened_is_no_match() -> None:
    body = "if (m) { if (n) return near(n); } " + "n += other(m); " * 40 + "return n;"
    source = UNIT.split("int many")[0] + f"int many(int n, int m) {{ {body} }}\n"
    pre, run = compiled(source, *ALIGN), linked(compiled(source, *ALIGN))
    code = read_object(pre).section_named(".text.many")
    assert code is not None
    kernel = running(run)
    # Each byte of the function in turn as the opcode of a short jump.
    pack = packed({"a.o": pre}, (), (span_of(pre, "many"),))
    start = address_of(kernel, "many")
    for at in (n for n, byte in enumerate(code.data) if byte in (0xE9, 0x0F)):
        changed = running(run)
        changed.write(
            start + at, b"\xeb" if code.data[at] == 0xE9 else bytes([code.data[at + 1] - 16])
        )
        with pytest.raises(NoMatchError):
            match(pack, changed)
