# SPDX-License-Identifier: GPL-2.0-or-later
"""C units against modules that were compiled without sections of their own."""

from __future__ import annotations

import dataclasses

import pytest

from kspliced.errors import Code, KsplicedError, MatchError, PackError
from kspliced.match import Cause, NoMatchError, explain, match
from tests.corpus.match.kit import (
    RELEASE,
    address_of,
    compiled,
    extern_import,
    linked,
    packed,
    running,
    span_of,
    unit_import,
)

UNIT = """
#define noinline __attribute__((noinline))
int printk(const char *format, ...);
int other(int);
static int total, calls = 3;
static const char *const words[] = { "one", "two", "three" };
struct ops { int (*run)(int); const char *name; };
static noinline int helper(int n) { total += n; return other(n) + calls++; }
static const struct ops table = { helper, "helper" };
int sink(const struct ops *);
static noinline int log_it(int n) { printk("%d: %s\\n", n, words[n % 3]); return n; }
noinline __attribute__((cold)) int rare(int n) { printk("rare\\n"); return helper(n) * 2; }
int entry(int n) {
    static int seen;
    if (__builtin_expect(n < 0, 0)) { rare(n); printk("negative %d\\n", n); }
    return log_it(n) + sink(&table) + seen++;
}
"""
OTHER = """
static int total, seen = 1;
static __attribute__((noinline)) int log_it(int n) { total += n; return n ^ 5; }
int other(int n) { return log_it(n) + seen; }
"""


def kernel_source() -> bytes:
    return linked(compiled(OTHER, split=False), compiled(UNIT, split=False))


def test_a_unit_matches_itself_compiled_without_sections() -> None:
    pre = compiled(UNIT)
    kernel = running(kernel_source())
    names = ("helper", "log_it", "rare", "entry")
    imports = tuple(unit_import(pre, name) for name in ("helper", "rare", "calls", "table"))
    matched = match(packed({"a.o": pre}, imports, tuple(span_of(pre, n) for n in names)), kernel)
    assert not matched.unmatched
    assert matched.counts.functions >= len(names)
    for resolved in matched.imports:
        assert resolved.address == address_of(kernel, resolved.name.split(":")[1])
    for span in matched.spans:
        assert span.expect == kernel.read(span.address, span.span.size)
        assert span.mask == b"\xff" * span.span.size


def test_one_of_two_symbols_of_a_name_is_settled_by_what_it_shows() -> None:
    pre = compiled(UNIT)
    kernel = running(kernel_source())
    imports = (unit_import(pre, "total"), unit_import(pre, "log_it"))
    matched = match(packed({"a.o": pre}, imports), kernel)
    totals = [s.address for s in kernel.symbols.named("total", "mod")]
    assert len(totals) == 2
    # helper() adds to its own unit's: the displacement in it says which.
    helper = kernel.read(address_of(kernel, "helper"), 64)
    shown = {
        address_of(kernel, "helper")
        + at
        + 4
        + int.from_bytes(helper[at : at + 4], "little", signed=True)
        for at in range(60)
    }
    assert [a for a in totals if a in shown] == [matched.imports[0].address]


TWIN = """
__attribute__((noinline)) static int twin(int n) { return n * 3 + 1; }
int %s(int n) { return twin(n) - %d; }
"""


def test_equal_functions_are_told_apart_by_their_callers() -> None:
    parts = [TWIN % ("first", 1), TWIN % ("second", 2), TWIN % ("third", 3)]
    kernel = running(linked(*(compiled(p, split=False) for p in parts)))
    pre = compiled(parts[1])
    matched = match(packed({"a.o": pre}, (unit_import(pre, "twin"),)), kernel)
    twins = [s.address for s in kernel.symbols.named("twin", "mod")]
    second = address_of(kernel, "second")
    assert matched.imports[0].address == max(t for t in twins if t < second)


LONE = """
static __attribute__((noinline, used)) int lone(int n) { return n * 7 + 1; }
"""


def test_equal_functions_that_nothing_tells_apart_are_refused() -> None:
    kernel = running(linked(compiled(LONE, split=False), compiled(LONE, split=False)))
    pre = compiled(LONE)
    with pytest.raises(MatchError) as caught:
        match(packed({"a.o": pre}, (unit_import(pre, "lone"),)), kernel)
    assert caught.value.code is Code.AMBIGUOUS
    for symbol in kernel.symbols.named("lone", "mod"):
        assert f"{symbol.address:#x}" in "\n".join(caught.value.evidence)


@pytest.mark.parametrize("padding", [(), ("-fpatchable-function-entry=16,16",)])
def test_equal_functions_are_told_apart_by_their_neighbours(padding: tuple[str, ...]) -> None:
    marked = LONE + "int marker(int n) { return n * 11; }\n"
    kernel = running(linked(*(compiled(u, *padding, split=False) for u in (LONE, marked))))
    pre = compiled(marked, *padding)
    matched = match(packed({"a.o": pre}, (unit_import(pre, "lone"),)), kernel)
    lones = [s.address for s in kernel.symbols.named("lone", "mod")]
    marker = address_of(kernel, "marker")
    assert matched.imports[0].address == min(lones, key=lambda a: abs(a - marker))


def mismatch_of(pre: bytes, module: bytes, name: str) -> NoMatchError:
    with pytest.raises(NoMatchError) as caught:
        match(packed({"a.o": pre}, (), (span_of(pre, name),)), running(module))
    assert caught.value.code is Code.NO_MATCH
    assert caught.value.remedy
    return caught.value


def test_other_source_of_one_function() -> None:
    changed = UNIT.replace("n < 0", "n < 5")
    pre = compiled(UNIT)
    error = mismatch_of(pre, linked(compiled(changed, split=False)), "entry")
    assert error.mismatches[0].function == "entry"
    assert error.mismatches[0].cause is Cause.OTHER_CODE
    kernel = running(linked(compiled(changed, split=False)))
    matched = match(packed({"a.o": pre}, (), (span_of(pre, "helper"),)), kernel)
    assert "entry" in {m.function for m in matched.unmatched}


def test_other_string() -> None:
    changed = UNIT.replace("%d: %s", "%d! %s")
    error = mismatch_of(compiled(UNIT), linked(compiled(changed, split=False)), "log_it")
    assert error.mismatches[0].cause is Cause.OTHER_REFERENCE
    assert "%d! %s" in "\n".join(error.evidence)


def test_other_constant_table() -> None:
    changed = UNIT.replace('{ helper, "helper" }', '{ log_it, "helper" }').replace(
        "static const struct ops table", "static int log_it(int);\nstatic const struct ops table"
    )
    error = mismatch_of(compiled(UNIT), linked(compiled(changed, split=False)), "entry")
    assert "table" in error.message


def test_other_compiler_options() -> None:
    error = mismatch_of(compiled(UNIT), linked(compiled(UNIT, "-Os", split=False)), "helper")
    assert {m.cause for m in error.mismatches} & {Cause.OTHER_COMPILER, Cause.OTHER_CODE}


def test_a_symbol_shown_at_two_places_is_no_match() -> None:
    source = "int other(int);\nint entry(int n) { return other(n) + other(n + 1); }\n"
    pre, kernel = compiled(source), running(linked(compiled(source, split=False)))
    entry = address_of(kernel, "entry")
    code = kernel.read(entry, span_of(pre, "entry").size)
    at = code.index(b"\xe8") + 1
    moved = int.from_bytes(code[at : at + 4], "little", signed=True) + 16
    kernel.write(entry + at, moved.to_bytes(4, "little", signed=True))
    with pytest.raises(NoMatchError) as caught:
        match(packed({"a.o": pre}, (), (span_of(pre, "entry"),)), kernel)
    assert "other" in caught.value.message


def test_a_breakpoint_is_a_kprobe() -> None:
    pre, kernel = compiled(UNIT), running(kernel_source())
    kernel.write(address_of(kernel, "entry") + 1, b"\xcc")
    pack = packed({"a.o": pre}, (), (span_of(pre, "entry"),))
    with pytest.raises(NoMatchError) as caught:
        match(pack, kernel)
    first = caught.value.mismatches[0]
    assert (first.function, first.offset, first.cause) == ("entry", 1, Cause.KPROBE)
    told = explain(pack, kernel, first)
    assert any(i.differs and "int3" in i.text for i in told.found)
    assert any(i.differs for i in told.expected)
    assert "\n".join(told.lines()).count("likely cause: kprobe") == 1


def test_a_jump_elsewhere_is_a_hot_patch() -> None:
    pre, kernel = compiled(UNIT), running(kernel_source())
    entry, to = address_of(kernel, "entry"), address_of(kernel, "other")
    kernel.write(entry, b"\xe9" + (to - entry - 5).to_bytes(4, "little", signed=True))
    with pytest.raises(NoMatchError) as caught:
        match(packed({"a.o": pre}, (), (span_of(pre, "entry"),)), kernel)
    assert caught.value.mismatches[0].cause is Cause.HOT_PATCH
    assert "other of mod" in caught.value.message


WEAK = """
__attribute__((weak, noinline)) int hook(int n) { return n + 1; }
int entry(int n) { return hook(n) * 2; }
"""


@pytest.mark.parametrize("split", [True, False])
def test_a_weak_function_that_another_unit_overrides(split: bool) -> None:
    pre = compiled(WEAK, split=split)
    strong = compiled("int hook(int n) { return n * n * n; }", split=False)
    kernel = running(linked(compiled(WEAK, split=False), strong))
    imports = (unit_import(pre, "hook"),)
    matched = match(packed({"a.o": pre}, imports, (span_of(pre, "entry"),)), kernel)
    assert matched.imports[0].address == address_of(kernel, "hook")
    assert [m.cause for m in matched.unmatched] == [Cause.OVERRIDDEN]
    with pytest.raises(NoMatchError):
        match(packed({"a.o": pre}, (), (span_of(pre, "hook"),)), kernel)


WEAK_DATUM = """
int before = 1;
__attribute__((weak)) int level = 2;
int entry(int n) { return before + level * n; }
"""


@pytest.mark.parametrize("split", [True, False])
def test_a_weak_variable_that_another_unit_overrides(split: bool) -> None:
    pre = compiled(WEAK_DATUM, split=split)
    strong = compiled("int first = 3, level = 4;", split=False)
    kernel = running(linked(compiled(WEAK_DATUM, split=False), strong))
    matched = match(packed({"a.o": pre}, (unit_import(pre, "level"),)), kernel)
    assert matched.imports[0].address == address_of(kernel, "level")
    assert matched.unmatched == ()


def test_externs_come_from_the_code_or_from_the_only_export() -> None:
    pre, kernel = compiled(UNIT), running(kernel_source())
    imports = (extern_import("printk"), extern_import("other"))
    matched = match(packed({"a.o": pre}, imports), kernel)
    assert matched.imports[0].address == address_of(kernel, "printk", "vmlinux")
    assert matched.imports[1].address == address_of(kernel, "other")


def test_an_extern_with_two_possible_definitions_is_refused() -> None:
    vmlinux = compiled("int both(int n) { return n; }", split=False)
    own = "static __attribute__((used, noinline)) int both(int n) { return n + 2; }\n"
    kernel = running(linked(compiled(own + UNIT, split=False)), vmlinux)
    pre = compiled(UNIT)
    with pytest.raises(MatchError) as caught:
        match(packed({"a.o": pre}, (extern_import("both"),)), kernel)
    assert caught.value.code is Code.AMBIGUOUS
    with pytest.raises(MatchError) as caught:
        match(packed({"a.o": pre}, (extern_import("nowhere"),)), kernel)
    assert caught.value.code is Code.UNRESOLVED
    assert caught.value.blamed == ("a.o",)


def test_what_new_code_of_a_module_may_use_is_not_exported_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vmlinux = compiled("int both(int n) { return n; }", split=False)
    kernel = running(linked(compiled(UNIT, split=False)), vmlinux)
    # Offline kernels do not tell what is exported.
    monkeypatch.setattr(type(kernel.symbols), "exported", lambda _, name: ())
    matched = match(packed({"a.o": compiled(UNIT)}, (extern_import("both"),)), kernel)
    assert matched.imports[0].address == address_of(kernel, "both", "vmlinux")


def test_data_that_no_code_shows_is_unresolved() -> None:
    source = "static __attribute__((used)) int hidden = 4;\nint entry(int n) { return n; }\n"
    pre, kernel = compiled(source), running(linked(compiled(source, split=False)))
    with pytest.raises(MatchError) as caught:
        match(packed({"a.o": pre}, (unit_import(pre, "hidden"),)), kernel)
    assert caught.value.code is Code.UNRESOLVED


def test_a_constant_that_no_code_shows_is_found_by_its_content() -> None:
    source = (
        "int entry(int n) { return n; }\n"
        "static __attribute__((used)) int (*const hidden[])(int) = { entry, 0, entry };\n"
    )
    twin = source.replace("entry", "entry2")
    pre = compiled(source)
    kernel = running(linked(compiled(twin, split=False), compiled(source, split=False)))
    matched = match(packed({"a.o": pre}, (unit_import(pre, "hidden"),)), kernel)
    entry = address_of(kernel, "entry")
    assert kernel.read(matched.imports[0].address, 8) == entry.to_bytes(8, "little")


ATTRIBUTE = """
int other(int n);
static __attribute__((noinline)) int store(int n) { return other(n) + 1; }
struct attribute { const char *name; int mode; int (*store)(int); };
static __attribute__((used)) struct attribute hidden = { "new_device", 0200, store };
int entry(int n) { return store(n) + store(n + 1); }
"""
FORWARD = "int entry(int n);\n"


def test_what_may_be_written_is_found_if_it_leads_to_matched_code() -> None:
    """Two of one name and, but for where they lead, one content; the pre object's is meant, also if
    what it begins as has been written since."""
    pre = compiled(ATTRIBUTE)
    twin = ATTRIBUTE.replace("entry", "entry2").replace("store", "store2")
    lived = ATTRIBUTE.replace("0200", "0600")
    kernel = running(linked(compiled(twin, split=False), compiled(lived, split=False)))
    matched = match(packed({"a.o": pre}, (unit_import(pre, "hidden"),)), kernel)
    store = address_of(kernel, "store")
    assert kernel.read(matched.imports[0].address + 16, 8) == store.to_bytes(8, "little")


@pytest.mark.parametrize(
    ("compiled_as", "runs_as"),
    [
        # It leads elsewhere now.
        (ATTRIBUTE, FORWARD + ATTRIBUTE.replace("0200, store", "0200, entry")),
        # It leads to nothing that matching shows: others may be like it.
        (ATTRIBUTE.replace("0200, store", "0200, 0"), ATTRIBUTE.replace("0200, store", "0200, 0")),
    ],
    ids=["leads-elsewhere", "leads-nowhere"],
)
def test_what_may_be_written_is_not_guessed(compiled_as: str, runs_as: str) -> None:
    pre, kernel = compiled(compiled_as), running(linked(compiled(runs_as, split=False)))
    with pytest.raises(MatchError) as caught:
        match(packed({"a.o": pre}, (unit_import(pre, "hidden"),)), kernel)
    assert caught.value.code is Code.UNRESOLVED


def test_per_cpu_data_is_an_offset() -> None:
    source = """
    __attribute__((section(".data..percpu"))) static int pad, count;
    int entry(void) { int n; asm("movl %%gs:%1, %0" : "=r"(n) : "m"(count)); return n; }
    """
    pre, kernel = compiled(source), running(linked(compiled(source, split=False)))
    matched = match(packed({"a.o": pre}, (unit_import(pre, "count"),)), kernel)
    assert matched.imports[0].address == address_of(kernel, "count")
    assert matched.imports[0].address < 1 << 32


@pytest.mark.parametrize(("release", "code"), [("6.1.0-more", Code.PACK_OTHER_KERNEL)])
def test_the_pack_of_another_kernel(release: str, code: Code) -> None:
    pre = compiled(UNIT)
    kernel = running(kernel_source())
    kernel._release = release
    with pytest.raises(PackError) as caught:
        match(packed({"a.o": pre}), kernel)
    assert caught.value.code is code
    assert release in str(caught.value) and RELEASE in str(caught.value)


def test_a_target_that_is_not_loaded() -> None:
    pre = compiled(UNIT)
    pack = packed({"a.o": pre})
    with pytest.raises(KsplicedError) as caught:
        match(pack, type(running(kernel_source()))(RELEASE, []))
    assert caught.value.code is Code.TARGET_NOT_LOADED


def test_every_byte_counts() -> None:
    pre, module = compiled(UNIT), kernel_source()
    pack = packed({"a.o": pre}, (), (span_of(pre, "entry"),))
    start = address_of(running(module), "entry")
    for at in range(start, start + span_of(pre, "entry").size):
        for bit in (0x01, 0x10, 0x80):
            kernel = running(module)
            kernel.write(at, bytes([kernel.read(at, 1)[0] ^ bit]))
            with pytest.raises(NoMatchError):
                match(pack, kernel)


def test_a_unit_that_is_there_twice() -> None:
    pack = packed({"a.o": compiled(UNIT)})
    twice = dataclasses.replace(pack.manifest, units=pack.manifest.units * 2)
    with pytest.raises(PackError) as caught:
        match(dataclasses.replace(pack, manifest=twice), running(kernel_source()))
    assert caught.value.code is Code.PACK_MALFORMED
