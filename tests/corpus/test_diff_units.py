# SPDX-License-Identifier: GPL-2.0-or-later
"""Several units of one target, the layout of types, and why something changed."""

from __future__ import annotations

import pytest

from kspliced.build.emit import emit
from kspliced.build.groups import emit_parts
from kspliced.build.kbuild import Unit
from kspliced.build.late import strangers
from kspliced.build.strip import stripped
from kspliced.build.types import changed_types
from kspliced.build.unit import DiffedUnit, diff_unit, join_units
from kspliced.elf.module import ModuleWriter
from kspliced.elf.read import read_object
from kspliced.model import ImportKind
from kspliced.plan.components import Component
from tests.corpus.compiler import compile_file, compile_object

BTF = ("-g0", "-gbtf")
USER = "int use_it(int n) { return other(n); }"
OWNER = "static int hidden(int n) { return other(n) * 2; }\nint open(int n) { return hidden(n); }"


def unit(
    name: str,
    before: str,
    after: str,
    touched: tuple[str, ...] = (),
    headers: tuple[str, ...] = (),
    target: str = "vmlinux",
) -> DiffedUnit:
    objects = [compile_file(text, *BTF) for text in (before, after)]
    return diff_unit(Unit(f"{name}.o", "", target), objects[0], objects[1], touched, headers)


def codes(diffed: DiffedUnit) -> set[str]:
    return {refusal.code for refusal in diffed.refused}


def names(diffed: DiffedUnit) -> dict[str, str]:
    return {function.name: function.why for function in diffed.functions}


def test_a_new_function_for_another_unit_is_carried_there() -> None:
    owner = unit("owner", OWNER, OWNER + "\nint counter; int fresh(int n) { return counter += n; }")
    user = unit(
        "user",
        USER,
        "int fresh(int n); extern int counter;" + USER.replace("other(n)", "fresh(n) + counter"),
    )
    assert not owner.functions, "by itself the unit changes nothing that runs"
    assert not owner.live
    joined = join_units((user, owner))
    assert names(joined[1]) == {"fresh": "new, for another unit", "counter": "new, used by fresh"}
    assert all(diffed.live for diffed in joined)
    parts = tuple(diffed.part for diffed in joined if diffed.part is not None)
    emitted = emit(parts)
    assert {i.symbol for i in emitted.imports} == {"use_it", "__fentry__"}


def exported(name: str) -> str:
    """What EXPORT_SYMBOL() makes, as far as it matters here."""
    return f'asm(".globl __ksymtab_{name}\\n__ksymtab_{name} = 0");'


def test_a_module_sees_what_the_kernel_proper_newly_exports() -> None:
    before = OWNER.replace("static", "static noinline")
    after = f"{before}\nint fresh(int n) {{ return n; }} {exported('fresh')}"
    after = after.replace("static ", "") + exported("hidden")
    owner = unit("owner", before, after)
    call = USER.replace("other(n)", "fresh(n) + hidden(n)")
    use = f"int fresh(int n); int hidden(int n); {call}"
    user = unit("user", USER, use, target="module")
    joined = join_units((user, owner))
    assert [codes(diffed) for diffed in joined] == [set(), set()]
    assert joined[0].lenders == ("owner.o",)
    assert names(joined[1]) == {"fresh": "new, for another unit"}
    parts = tuple(diffed.part for diffed in joined if diffed.part is not None)
    # The kernel has what was static under no name that a module could link by.
    imports = {
        (i.kind, i.target, i.symbol) for i in emit(parts).imports if "fentry" not in i.symbol
    }
    assert imports == {
        (ImportKind.UNIT, "vmlinux", "hidden"),
        (ImportKind.UNIT, "module", "use_it"),
    }


def test_a_module_that_comes_later_uses_what_is_new_where_the_rest_is() -> None:
    """Its part is another object, which the module writer joins with that of the kernel proper."""
    after = f"{OWNER}\nint fresh(int n) {{ return n; }} {exported('fresh')}"
    owner = unit("owner", OWNER, after)
    use = "int fresh(int n);" + USER.replace("other(n)", "fresh(n)")
    user = unit("user", USER, use, target="module")
    joined = join_units((user, owner))
    assert list(strangers(joined, {"module"})) == []
    together = (Component("owner.c", ("owner.c", "user.c"), (), (), ()),)
    glue = compile_object("int glue(void) { return 0; }")
    parts = emit_parts(joined, together, glue, frozenset({"vmlinux"}))
    assert [(g.units, g.required) for g in parts.groups] == [
        (("user.o",), ("module",)),
        (("owner.o",), ()),
    ]
    imports = {i.symbol for group in parts.groups for i in group.imports}
    assert imports == {"use_it", "__fentry__"}
    writer = ModuleWriter()
    for blob in parts.blobs[1:]:
        writer.merge(read_object(blob.data, blob.name))
    assert {name.rpartition(":")[2] for name in writer.imports} == imports
    made = writer.finish()
    (fresh,) = (s for s in made.symbols if s.name == "vmlinux:owner.o:new:fresh")
    (call,) = (r for s in made.sections for r in s.relocations if made.symbols[r.symbol] is fresh)
    assert made.section(fresh.section).name == ".text" and call.addend == -4


def test_what_runs_does_not_use_what_a_module_adds_that_comes_later() -> None:
    owner = unit("owner", OWNER, f"{OWNER} int fresh(int n) {{ return n; }}", target="module")
    use = "int fresh(int n);" + USER.replace("other(n)", "fresh(n)")
    user = unit("user", USER, use)
    found = list(strangers(join_units((user, owner)), {"module"}))
    assert [(one.code, one.unit, one.symbol) for one in found] == [
        ("module_not_loaded", "user.c", "fresh")
    ]


def test_an_export_that_nothing_of_the_update_uses_is_refused() -> None:
    after = OWNER + exported("open")
    owner = unit("owner", OWNER, after)
    within = unit("within", USER, "int open(int n); " + USER.replace("other", "open"))
    assert [codes(diffed) for diffed in join_units((owner, within))] == [{"export_changed"}, set()]


@pytest.mark.parametrize(("known", "refused"), [("other", {"export_changed"}), ("old", set())])
def test_a_module_lends_to_one_that_needs_it_already(known: str, refused: set[str]) -> None:
    """Another may be in use when the module is gone."""
    before = f"int old(int n) {{ return other(n); }} {exported('old')} {OWNER}"
    owner = unit("owner", before, before + exported("open"), target="module")
    uses = USER.replace("other", known)
    use = "int open(int n);" + uses.replace("(n);", "(n) + open(n);")
    declared = "int old(int n);"
    user = unit("user", declared + uses, declared + use, target="second")
    joined = join_units((owner, user))
    assert codes(joined[0]) == refused
    if not refused:
        parts = tuple(diffed.part for diffed in joined if diffed.part is not None)
        found = {i.symbol: i.kind for i in emit(parts).imports}
        assert found["open"] is ImportKind.UNIT


def test_another_target_does_not_see_it() -> None:
    owner = unit("owner", OWNER, OWNER + "\nint fresh(int n) { return n; }", target="module")
    user = unit("user", USER, "int fresh(int n);" + USER.replace("other", "fresh"))
    joined = join_units((user, owner))
    assert not joined[1].live
    assert joined[0].part is not None
    assert joined[0].part.closure.externs == {"fresh", "__fentry__"}


def test_a_function_that_was_static_is_found_through_its_unit() -> None:
    noinline = OWNER.replace("static", "static noinline")
    owner = unit("owner", noinline, noinline.replace("static ", ""))
    user = unit("user", USER, "int hidden(int n);" + USER.replace("other", "hidden"))
    joined = join_units((user, owner))
    assert not joined[1].functions
    assert joined[1].live, "its pre object is needed to find the function"
    parts = tuple(diffed.part for diffed in joined if diffed.part is not None)
    found = {i.symbol: i for i in emit(parts).imports}
    assert (found["hidden"].kind, found["hidden"].unit) == (ImportKind.UNIT, "owner.o")


def test_a_symbol_that_moves_is_refused() -> None:
    moved = "int open(int n) { return other(n) * 2; }"
    owner = unit("owner", OWNER + USER.replace("use_it", "stays"), USER.replace("use_it", "stays"))
    user = unit("user", USER, moved + USER.replace("other(n)", "open(n) + 1"))
    joined = join_units((user, owner))
    assert codes(joined[0]) == {"symbol_moved"}
    assert not joined[0].live


def test_a_new_weak_symbol_is_refused() -> None:
    after = "__attribute__((weak)) noinline int maybe(int n) { return n; }"
    (diffed,) = join_units((unit("user", USER, after + USER.replace("other", "maybe")),))
    assert codes(diffed) == {"weak_symbol"}


TYPES = """
struct inner { int a; };
enum state { IDLE = 1, BUSY, NR_STATES };
typedef struct { long owner; } guard_t;
struct live {
    long x; struct inner in; struct live *next; int (*fn)(struct live *); unsigned f : 3;
    enum state state; guard_t guard; union { int u; char c[4]; };
};
int f(struct live *p) { return p->in.a + p->state + (int)p->guard.owner + p->f; }
"""


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("long x;", "long x; int y;", "struct live"),
        ("int a;", "long a;", "struct inner"),
        ("f : 3", "f : 4", "struct live"),
        ("char c[4]", "char c[8]", "struct live"),
        ("(struct live *);", "(struct inner *);", "struct live"),
        ("struct live *next", "struct inner *next", "struct live"),
        ("long owner", "int owner", "guard_t"),
        ("IDLE = 1", "IDLE = 2", "enumerator IDLE"),
    ],
)
def test_a_layout_that_changes_is_refused(old: str, new: str, name: str) -> None:
    before, after = (compile_object(text, *BTF) for text in (TYPES, TYPES.replace(old, new, 1)))
    assert name in [change.name for change in changed_types(before, after)]
    body = TYPES.replace(old, new, 1).replace("+ p->f;", "+ p->f + 1;")
    assert codes(unit("types", TYPES, body)) == {"layout_changed"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("int f(", "struct fresh { int b; }; int f("),
        ("BUSY,", "BUSY, MORE,"),
        ("long x;", "long  x; /* said better */"),
    ],
)
def test_a_layout_that_stays(old: str, new: str) -> None:
    before, after = (compile_object(text, *BTF) for text in (TYPES, TYPES.replace(old, new, 1)))
    assert not changed_types(before, after)


def test_without_types_nothing_is_proved() -> None:
    before, after = (compile_file(text) for text in (USER, USER.replace("(n)", "(n + 1)")))
    assert codes(diff_unit(Unit("user.o", "", "vmlinux"), before, after, ())) == {"object_unknown"}


def test_the_pack_s_object_is_without_types() -> None:
    content = compile_file(TYPES, *BTF)
    bare = stripped(content)
    whole, obj = read_object(content), read_object(bare)
    assert whole.section_named(".BTF") is not None
    assert obj.section_named(".BTF") is None
    assert not any(section.name.startswith(".debug") for section in obj.sections)
    # The file's own name goes, too.
    named = [[s.name for s in o.symbols if s.name and s.section] for o in (obj, whole)]
    assert named[0] == [name for name in named[1] if name != "unit.c"]
    assert stripped(bare) == bare


INLINE = """
inline_always int helper(int n) { return other(n) + LIMIT; }
int first(int n) { return helper(n); }
int second(int n) { return other(n * LIMIT); }
"""


def test_each_changed_function_says_why() -> None:
    before, after = (f"#define LIMIT {n}\n{INLINE}" for n in (5, 6))
    assert names(unit("u", before, after, ("second",))) == {
        "first": "what the compiler knows of second",
        "second": "own source",
    }
    assert (
        names(unit("u", before, after, ("helper", "second")))["first"] == "inlined callee: helper"
    )
    assert names(unit("u", before, after, (), ("include/limit.h",))) == {
        "first": "header: include/limit.h",
        "second": "header: include/limit.h",
    }
    assert set(names(unit("u", before, after)).values()) == {
        "constant, macro or type outside functions"
    }
