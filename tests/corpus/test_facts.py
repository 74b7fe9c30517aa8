# SPDX-License-Identifier: GPL-2.0-or-later
"""Small C, compiled by the compiler that is here, and the facts that are read of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kspliced.facts.declared import read_declared
from kspliced.facts.model import (
    AccessKind,
    AccessPath,
    Bits,
    Function,
    UnreadKind,
    UseKind,
    ValueKind,
)
from kspliced.facts.read import options, read_facts
from tests.corpus.compiler import FLAGS
from tests.vm import trixie

PRELUDE = """
typedef struct { int raw; } spinlock_t;
extern void _raw_spin_lock(spinlock_t *lock);
static inline void spin_lock(spinlock_t *lock) { _raw_spin_lock(lock); }
#define with_lock(object) spin_lock(&(object)->lock)
#define IS_ERR(pointer) ((unsigned long)(pointer) >= (unsigned long)-4095)
#define unlikely(condition) __builtin_expect(!!(condition), 0)
struct ops { int (*open)(struct foo_s *foo, int how); void (*close)(struct foo_s *foo); };
struct foo_s {
	spinlock_t lock;
	unsigned flag : 1, kind : 3;
	struct foo_s *next;
	int refs;
	const struct ops *ops;
	struct { int inner; };
	struct { int deep; union { int word; char bytes[4]; }; } part;
	int array[4];
};
extern struct foo_s *get(int key), shared, *head;
extern int check(int value), counter, crc_32;
extern void put(struct foo_s *foo), reg(int (*callback)(struct foo_s *, int));
extern int state_32(void);
"""


def facts(source: str, folder: Path, *flags: str) -> dict[str, Function]:
    """The functions of ``source``, which sees PRELUDE and begins in line 1, by name."""
    path = folder / "unit.c"
    path.write_text(f'struct foo_s;{PRELUDE}\n#line 1 "unit.c"\n{source}')
    dump, declared = folder / "unit.ssa", folder / "unit.aux"
    command = ["gcc", *FLAGS, *flags, *options(dump, declared), "-c", "-o", "unit.o", str(path)]
    subprocess.run(command, check=True, cwd=folder)
    known = read_declared(declared.read_text(), str(folder))
    read = read_facts(dump.read_text(), known, str(folder))
    assert not read.unread
    return {function.name: function for function in read.functions}


def one(source: str, folder: Path) -> Function:
    """The function ``f`` of ``source``, all of which has to be read."""
    found = facts(source, folder)["f"]
    assert not found.unread
    return found


def paths(function: Function, kind: AccessKind) -> set[tuple[str, str, str]]:
    """Variable, type and members of what is accessed."""
    accesses = (a for a in function.accesses if a.kind is kind)
    return {(a.path.variable, a.path.type, ".".join(a.path.members)) for a in accesses}


def test_where_a_function_is_and_whether_it_is_static(tmp_path: Path) -> None:
    source = "int g(int a)\n{\n\treturn a;\n}\nstatic int h(void)\n{\n\treturn\n\t\tcheck(1);\n}\n"
    found = facts(f"{source}int f(void) {{ return h(); }}", tmp_path)
    assert (found["g"].static, found["g"].place.line, found["g"].lines) == (False, 1, (3, 3))
    assert (found["h"].static, found["h"].place.line, found["h"].lines) == (True, 5, (8, 8))
    assert found["g"].parameters == ("a",)
    assert found["h"].place.file == "unit.c"


def test_locks_are_calls_that_name_the_lock_also_through_macros(tmp_path: Path) -> None:
    found = one("void f(struct foo_s *a) {\n\twith_lock(a->next);\n}", tmp_path)
    (call,) = found.calls
    assert (call.callee, call.place.file, call.place.line) == ("spin_lock", "unit.c", 2)
    assert call.arguments[0].text == "&a->next->lock"
    assert call.arguments[0].path == AccessPath("", "struct foo_s", ("lock",))
    assert facts("void f(struct foo_s *a) { with_lock(a); }", tmp_path)["spin_lock"].static


def test_members_are_named_by_the_type_that_the_pointer_points_to(tmp_path: Path) -> None:
    text = (
        "a->next->refs += 2; a->inner = 3; a->part.word = 1; a->array[k] = 4; return a->part.deep;"
    )
    found = one(f"int f(struct foo_s *a, int k) {{ {text} }}", tmp_path)
    assert paths(found, AccessKind.WRITE) == {
        ("", "struct foo_s", "refs"),
        ("", "struct foo_s", "inner"),
        ("", "struct foo_s", "part.word"),
        ("", "struct foo_s", "array"),
    }
    assert ("", "struct foo_s", "next") in paths(found, AccessKind.READ)
    assert ("", "struct foo_s", "part.deep") in paths(found, AccessKind.READ)


def test_what_is_written_through_the_address_of_a_member_is_that_member(tmp_path: Path) -> None:
    found = one("void f(struct foo_s *a) { int *p = &a->refs; *p = 7; }", tmp_path)
    assert paths(found, AccessKind.WRITE) == {("", "struct foo_s", "refs")}


def test_variables_and_their_members(tmp_path: Path) -> None:
    text = "static int once; once++; counter = shared.refs; head->refs = 1; local.refs = 2;"
    found = one(f"void f(void) {{ struct foo_s local; {text} put(&local); }}", tmp_path)
    assert paths(found, AccessKind.WRITE) == {
        ("f.once", "int", ""),
        ("counter", "", ""),
        ("", "struct foo_s", "refs"),
    }
    assert ("shared", "", "refs") in paths(found, AccessKind.READ)


def test_a_variable_whose_name_looks_like_a_value(tmp_path: Path) -> None:
    found = one("int f(void) { crc_32 = 1; return state_32(); }", tmp_path)
    assert paths(found, AccessKind.WRITE) == {("crc_32", "", "")}
    assert [call.callee for call in found.calls] == ["state_32"]


def test_bit_fields_are_named_or_their_bits_are(tmp_path: Path) -> None:
    found = one("int f(struct foo_s *a) { a->flag = 1; return a->kind == 2; }", tmp_path)
    assert ("", "struct foo_s", "flag") in paths(found, AccessKind.WRITE)
    (read,) = [a for a in found.accesses if a.kind is AccessKind.READ]
    # GCC compares in place: the member has no name any more, its bits are known.
    assert read.path == AccessPath("", "struct foo_s", (), Bits(32, 8))


def test_values_returned(tmp_path: Path) -> None:
    text = "if (!k) return -22; if (k == 1) return check(k); if (k == 2) return a->refs; return k;"
    found = one(f"int f(int k, struct foo_s *a) {{ {text} }}", tmp_path)
    assert {(v.kind, v.text) for v in found.returns} == {
        (ValueKind.CONSTANT, "-22"),
        (ValueKind.CALL, "check(k)"),
        (ValueKind.MEMORY, "a->refs"),
        (ValueKind.PARAMETER, "k"),
    }


def test_a_structure_returned_and_passed_by_value(tmp_path: Path) -> None:
    source = (
        "struct foo_s f(struct foo_s a) { struct foo_s r = a; r.refs = shared.refs; return r; }"
    )
    found = one(source, tmp_path)
    assert paths(found, AccessKind.WRITE) == set()
    assert paths(found, AccessKind.READ) == {("shared", "", "refs")}
    assert [v.kind for v in found.returns] == [ValueKind.LOCAL]


def test_a_narrower_result_is_told_from_the_whole(tmp_path: Path) -> None:
    found = one("unsigned char f(void) { return check(1); }", tmp_path)
    assert [v.text for v in found.returns] == ["(unsigned char)check(1)"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("check(1);", [(UseKind.IGNORED, "", "")]),
        ("(void)check(1);", [(UseKind.IGNORED, "", "")]),
        ("int r = check(1); if (r < 0) return r;", "compared < 0, returned"),
        ("if (unlikely(check(1) < 0)) return 1;", "compared < 0"),
        ("if (check(1)) return 1;", "compared != 0"),
        ("if (5 > check(1)) return 1;", "compared <= 4"),
        ("a->refs = check(1);", "stored a->refs"),
        ("check(check(1));", "passed check"),
        ("switch (check(1)) { case 3: case 7 ... 9: put(a); }", "compared switch"),
        ("return check(1) + 1;", "computed plus"),
    ],
)
def test_what_is_done_with_a_result(
    text: str, expected: str | list[tuple[UseKind, str, str]], tmp_path: Path
) -> None:
    found = one(f"int f(struct foo_s *a) {{ {text} return 0; }}", tmp_path)
    call = next(c for c in found.calls if c.arguments[0].text == "1")
    if isinstance(expected, list):
        assert [(u.kind, u.operator, u.operand) for u in call.uses] == expected
        return
    said = [" ".join(w for w in (u.kind.value, u.operator, u.operand) if w) for u in call.uses]
    for want in expected.split(", "):
        assert any(word.startswith(want) for word in said), said


def test_conditions_on_results(tmp_path: Path) -> None:
    text = "struct foo_s *a = get(1);\nif (IS_ERR(a))\nreturn 1;\nif (unlikely(!a))\nreturn 2;"
    found = one(f"int f(void) {{\n{text}\nreturn 0; }}", tmp_path)
    said = {(c.left.name, c.operator, c.right.text, c.place.line) for c in found.conditions}
    assert said == {("get", ">", "18446744073709547520", 3), ("get", "==", "0B", 5)}


def test_calls_through_slots(tmp_path: Path) -> None:
    text = "int (*c)(struct foo_s *, int) = k ? a->ops->open : g; c(a, 2); a->ops->close(a);"
    source = "int g(struct foo_s *a, int k) { return 0; }\n"
    found = facts(f"{source}void f(struct foo_s *a, int k) {{ {text} }}", tmp_path)["f"]
    either, close = found.calls
    assert {(t.kind, t.name) for t in either.targets} == {
        (ValueKind.FUNCTION, "g"),
        (ValueKind.MEMORY, ""),
    }
    assert either.slots == (AccessPath("", "struct ops", ("open",)),)
    assert close.slots == (AccessPath("", "struct ops", ("close",)),)
    assert not close.callee


def test_functions_whose_address_is_taken(tmp_path: Path) -> None:
    source = "static int g(struct foo_s *a, int k) { return 0; }\n"
    text = "struct ops o = { .open = g }; reg(g); *p = o; p->open = g; k ? reg(0) : reg(g);"
    found = facts(f"{source}void f(struct ops *p, int k) {{ {text} }}", tmp_path)["f"]
    said = {(a.function, a.stored, a.passed) for a in found.addresses}
    assert said == {
        ("g", AccessPath("", "struct ops", ("open",)), ""),
        ("g", None, "reg"),
    }


def test_assembly_is_unread_and_its_operands_are_read(tmp_path: Path) -> None:
    text = 'int r; asm volatile("incl %1\\n\\tmov %1, %0" : "=r" (r), "+m" (a->refs)); return r;'
    found = facts(f"int f(struct foo_s *a) {{ {text} }}", tmp_path)["f"]
    assert [u.kind for u in found.unread] == [UnreadKind.ASSEMBLY]
    assert ("", "struct foo_s", "refs") in paths(found, AccessKind.WRITE)
    assert [v.kind for v in found.returns] == [ValueKind.UNKNOWN]


def test_constructs_that_the_kernel_uses(tmp_path: Path) -> None:
    text = """
    void *labels[] = { &&x, &&y };
    struct { int t; } unnamed = { k };
    int least = ({ int b = check(k); b < 3 ? b : 3; });
    if (__builtin_add_overflow(k, 3, &k)) return 1;
    __builtin_memcpy(a->array, "ab,\\"c\\n[a.c:3:4] ", 8);
    put((void *)&unnamed);
    k += *(volatile int *)0x123 + ((unsigned char *)a)[k] + crc_32;
    goto *labels[k & 1];
    x: return least;
    y: return asm_goto(a);
    """
    before = """
    static int asm_goto(struct foo_s *a) {
        asm goto("# %l1" : : "r" (a->next) : : away); return 1; away: return 2; }
    """
    found = facts(f"{before} int f(struct foo_s *a, int k) {{ {text} }}", tmp_path)
    assert {u.kind for u in found["f"].unread} == {UnreadKind.COMPUTED_GOTO}
    assert {u.kind for u in found["asm_goto"].unread} == {UnreadKind.ASSEMBLY}
    assert {v.text for v in found["asm_goto"].returns} == {"1", "2"}


def test_the_compiler_of_debian_13_tells_the_same(tmp_path: Path) -> None:
    source = """
    int f(struct foo_s *a, int k)
    {
        static int once;
        struct foo_s *b = get(k);
        if (IS_ERR(b) || unlikely(check(k) < 0))
            return -22;
        with_lock(b);
        a->next->part.word = once++;
        a->flag = b->kind == 3;
        switch (b->ops->open(b, crc_32)) {
        case 1: shared = *b; break;
        case 4 ... 6: return state_32();
        }
        asm volatile("incl %0" : "+m" (a->refs));
        return k ? a->refs : counter;
    }
    """
    mine = facts(source, tmp_path)
    compiler = " ".join(["gcc-14", *FLAGS, *options(Path("ssa"), Path("aux"))])
    script = (
        'd=$(mktemp -d); trap "rm -r $d" EXIT; cd $d; printf %s "$0" >unit.c;'
        f" {compiler} -S -o /dev/null unit.c; cat ssa; echo ++++; cat aux"
    )
    said = trixie.run(["sh", "-ec", script, (tmp_path / "unit.c").read_text()])
    dump, _, declared = said.partition("++++\n")
    read = read_facts(dump, read_declared(declared))
    theirs = {function.name: function for function in read.functions}
    assert theirs == mine


def test_the_object_is_the_same(tmp_path: Path) -> None:
    source = "int f(struct foo_s *a) { static int n; return a->ops->open(a, n++); }"
    facts(source, tmp_path)
    with_facts = (tmp_path / "unit.o").read_bytes()
    command = ["gcc", *FLAGS, "-c", "-o", "unit.o", str(tmp_path / "unit.c")]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert (tmp_path / "unit.o").read_bytes() == with_facts
