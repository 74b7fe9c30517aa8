# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes together, what needs what, and what a header's edit does."""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.plan.attribution import Attribution, Claim
from kspliced.plan.headers import HeaderChange, members
from tests.unit.plan.trees import HEADER, ONE, THREE, TWO, Trees, files, only


def test_files_that_share_nothing_are_apart(tmp_path: Path) -> None:
    trees = Trees(
        tmp_path,
        {
            "a.c": (ONE, ONE.replace("return n", "return n + 1")),
            "b.c": (TWO, TWO.replace("2;", "3;")),
            "c.c": (ONE, "/* why */\n" + ONE),
        },
    )
    found = trees.decompose()
    assert files(found) == [("a.c",), ("b.c",)]
    assert found.comments == ("c.c",)


def test_a_changed_function_and_a_changed_caller_go_together(tmp_path: Path) -> None:
    caller = "int call(void)\n{\n\treturn one(1);\n}\n"
    changed = {
        "a.c": (ONE, ONE.replace("int n)", "int n, int m)")),
        "b.c": (caller, caller.replace("one(1)", "one(1, 2)")),
        "c.c": (TWO, TWO.replace("2;", "3;")),
    }
    found = Trees(tmp_path, changed).decompose()
    assert sorted(sorted(group) for group in files(found)) == [["a.c", "b.c"], ["c.c"]]


def test_a_static_function_joins_nobody(tmp_path: Path) -> None:
    static = f"static {ONE}"
    changed = {
        "a.c": (static, static.replace("return n", "return n + 1")),
        "b.c": (TWO, TWO.replace("2;", "one(3);")),
    }
    assert files(Trees(tmp_path, changed).decompose()) == [("a.c",), ("b.c",)]


def test_a_new_name_in_a_header_goes_with_who_uses_it(tmp_path: Path) -> None:
    new = HEADER.replace("#define LIMIT 3", "#define LIMIT 3\n#define FRESH 4")
    trees = {
        "h.h": (HEADER, new),
        "a.c": (ONE, ONE.replace("return n", "return FRESH")),
        "b.c": (TWO, TWO.replace("2;", "3;")),
    }
    found = Trees(tmp_path, trees).decompose()
    user, other = found.components
    assert [h.change for h in user.headers] == [HeaderChange.ADDS]
    assert other.headers == () and not user.refused


def test_a_name_that_somebody_has_already_is_no_addition(tmp_path: Path) -> None:
    new = HEADER.replace("#define LIMIT 3", "#define LIMIT 3\n#define FRESH 4")
    trees = {
        "h.h": (HEADER, new),
        "a.c": (ONE, ONE.replace("return n", "return FRESH")),
        "own.c": ("#define FRESH 5\n", "#define FRESH 5\n"),
    }
    component = only(Trees(tmp_path, trees).decompose())
    assert sorted(component.files) == ["a.c", "own.c"]


@pytest.mark.parametrize(
    ("before", "after"),
    [("return s->a;", "return s->a + 1;"), ("LIMIT 3", "LIMIT 5")],
)
def test_a_changed_inline_function_brings_its_users(
    tmp_path: Path, before: str, after: str
) -> None:
    user = "int u(struct s *s)\n{\n\treturn pick(s) + LIMIT;\n}\n"
    trees = {
        "h.h": (HEADER, HEADER.replace(before, after)),
        "user.c": (user, user),
        "other.c": (TWO, TWO),
    }
    component = only(Trees(tmp_path, trees).decompose())
    assert component.files == ("user.c",)
    assert [h.change for h in component.headers] == [HeaderChange.CHANGES]


ENUM = "enum side {\n\tNONE,\n\tLEFT,\n};\n"
BITS = "struct kind {\n\tu32 on : 1,\n\t\tunused : 31;\n};\n"
NEW_BITS = BITS.replace("unused : 31", "off : 1,\n\t\tunused : 30")
ZEROED = "int u(struct kind *s)\n{\n\ts = kzalloc(sizeof(*s), 0);\n\treturn 0;\n}\n"


@pytest.mark.parametrize(
    ("header", "old", "new", "user", "refused"),
    [
        ("include/h.h", HEADER, HEADER.replace("return s->a;", "return 0;"), TWO, None),
        ("include/h.h", HEADER, HEADER.replace("one(int n)", "one(int n, int m)"), ONE, True),
        ("include/h.h", HEADER, HEADER.replace("LIMIT 3", "LIMIT 5"), "int u = LIMIT;\n", True),
        ("net/h.h", HEADER, HEADER.replace("LIMIT 3", "LIMIT 5"), "int u = LIMIT;\n", False),
        ("include/h.h", HEADER, HEADER.replace("#endif", "int two(void);\n#endif"), TWO, None),
        ("include/h.h", ENUM, ENUM.replace("NONE,", "NONE,\n\tTOP,"), TWO, True),
        ("net/h.h", ENUM, ENUM.replace("NONE,", "NONE,\n\tTOP,"), TWO, None),
        ("include/h.h", BITS, NEW_BITS, ZEROED, True),
    ],
)
def test_modules_of_which_there_is_no_source(
    tmp_path: Path, header: str, old: str, new: str, user: str, refused: bool | None
) -> None:
    """They may have been compiled with what public headers gave; None: nobody else is concerned."""
    trees = Trees(tmp_path, {header: (old, new), "user.c": (user, user)})
    for foreign in (frozenset[str](), frozenset({"zfs"})):
        (found,) = trees.decomposer((), foreign).decompose().headers
        wanted = bool(foreign and refused)
        assert (found.change is HeaderChange.REFUSED) is wanted
        if wanted and found.refusal is not None and found.refusal.code == "header_changed":
            assert found.refusal.evidence == "zfs"


def test_users_through_another_inline_function_are_found(tmp_path: Path) -> None:
    outer = "static inline int outer(struct s *s)\n{\n\treturn pick(s);\n}\n#endif"
    old = HEADER.replace("#endif", outer)
    user = "int u(struct s *s)\n{\n\treturn outer(s);\n}\n"
    trees = {"h.h": (old, old.replace("return s->a;", "return s->a + 1;")), "user.c": (user, user)}
    assert only(Trees(tmp_path, trees).decompose()).files == ("user.c",)


def test_what_another_header_makes_of_a_change_is_followed_one_step(tmp_path: Path) -> None:
    user = "int u(void)\n{\n\treturn MORE;\n}\n"
    further = "int v(void)\n{\n\treturn EVEN;\n}\n"
    passed = "#define MORE (LIMIT + 1)\n#define EVEN (2 * MORE)\nstruct t {\n\tint own;\n};\n"
    trees = {
        "h.h": (HEADER, HEADER.replace("LIMIT 3", "LIMIT 5")),
        "i.h": (passed, passed),
        "user.c": (user, user),
        "further.c": (further, further),
        "other.c": (TWO, TWO),
    }
    component = only(Trees(tmp_path, trees, frozenset({"h.h"})).decompose())
    assert sorted(component.files) == ["further.c", "user.c"]
    assert [h.change for h in component.headers] == [HeaderChange.CHANGES]


@pytest.mark.parametrize(
    ("user", "refused"),
    [
        (TWO, []),
        ("int u(void)\n{\n\treturn LEFT;\n}\n", ["type_changed"]),
        # Through what the header makes of it.
        ("int u(int n)\n{\n\treturn is_left(n);\n}\n", ["type_changed"]),
        # An object has a value without code that names it.
        ("int u(enum side n)\n{\n\treturn n;\n}\n", []),
    ],
)
def test_values_that_change_and_that_nobody_names(
    tmp_path: Path, user: str, refused: list[str]
) -> None:
    old = "enum side {\n\tNONE,\n\tLEFT,\n};\n"
    old += "static inline int is_left(int n)\n{\n\treturn n == LEFT;\n}\n"
    trees = {"h.h": (old, old.replace("NONE,", "NONE,\n\tTOP,")), "user.c": (user, user)}
    (found,) = Trees(tmp_path, trees).decompose().headers
    assert [found.refusal.code] * bool(refused) == refused if found.refusal else not refused


@pytest.mark.parametrize(
    "others",
    [
        {"i.h": "struct t {\n\tint all[LIMIT];\n};\n"},
        {"i.h": "static inline int inlined(void)\n{\n\treturn LIMIT;\n}\nDEFINE_LIMIT(LIMIT);\n"},
        {"i.h": "#define MORE (LIMIT + 1)\n", "j.h": "#define EVEN (2 * MORE)\n"},
        {"i.S": "\tmov $LIMIT, %eax\n"},
        {f"i{n}.h": f"#define MORE{n} LIMIT\n" for n in range(9)},
    ],
)
def test_what_other_headers_use_in_other_ways_is_refused(
    tmp_path: Path, others: dict[str, str]
) -> None:
    trees = {
        "h.h": (HEADER, HEADER.replace("LIMIT 3", "LIMIT 5")),
        "a.c": (ONE, ONE.replace("return n", "return LIMIT")),
        **{path: (text, text) for path, text in others.items()},
    }
    found = Trees(tmp_path, trees).decompose()
    assert [r.code for r in only(found).refused] == ["header_changed"]


def test_a_changed_type_is_refused_with_who_uses_the_member(tmp_path: Path) -> None:
    trees = {
        "h.h": (HEADER, HEADER.replace("\tint a;", "\tlong a;\n\tint fresh;")),
        "a.c": (ONE, ONE.replace("return n", "return s->a")),
        "b.c": (TWO, TWO.replace("2;", "s->next;")),
        "c.c": (THREE, THREE.replace("3;", "s->fresh;")),
    }
    found = Trees(tmp_path, trees).decompose()
    user, other, fresh = found.components
    assert [(r.code, r.symbol) for r in user.refused] == [("type_changed", "s")]
    assert other.refused == ()
    # What means this type's does not compile without it, and another type may have one, too.
    assert fresh.refused == ()


def test_a_callback_of_more_parameters_brings_who_may_call_or_provide_it(tmp_path: Path) -> None:
    old = HEADER.replace("\tint a;", "\tint a;\n\tint (*call)(struct s *s);")
    trees = {
        "h.h": (old, old.replace("(struct s *s);", "(struct s *s, int how);")),
        "a.c": (ONE, ONE.replace("return n", "return s->call(s, 0)")),
        "b.c": (TWO + "call", TWO + "call"),
        "placed.c": ("struct s placed = { 0, provided };\n",) * 2,
        "c.c": (THREE, THREE.replace("3", "4")),
    }
    user, other = Trees(tmp_path, trees).decompose().components
    assert (other.files, other.headers) == (("c.c",), ())
    assert (set(user.files), user.refused) == ({"a.c", "b.c", "placed.c"}, ())


def test_a_member_that_goes_holds_only_its_header(tmp_path: Path) -> None:
    trees = {
        "h.h": (HEADER, HEADER.replace("\tint a;\n", "")),
        "a.c": (ONE.replace("return n", "return s->a"), ONE),
    }
    found = Trees(tmp_path, trees).decompose()
    assert (only(found).headers, only(found).refused) == ((), ())
    (header,) = found.headers
    assert header.refusal is not None and header.refusal.code == "type_changed"


def test_an_inline_function_that_uses_a_new_member_needs_it(tmp_path: Path) -> None:
    """Every unit that reads the header would fail without; a source only fails itself."""
    fresh = "static inline int peek(struct s *s)\n{\n\treturn s->fresh;\n}\n#endif"
    new = HEADER.replace("\tint a;", "\tint a;\n\tint fresh;").replace("#endif", fresh)
    trees = {
        "h.h": (HEADER, new),
        "a.c": (ONE, ONE.replace("return n", "return peek(0)")),
        "b.c": (TWO, TWO.replace("2;", "s->fresh;")),
    }
    through, itself = Trees(tmp_path, trees).decompose().components
    assert [refusal.code for refusal in through.refused] == ["type_changed"]
    assert itself.refused == ()


def test_a_member_that_only_moved_is_not_changed(tmp_path: Path) -> None:
    moved = HEADER.replace(
        "\tint a;\n\tstruct s *next;", "\tstruct s *next;\n\tunion {\n\t\tint a;\n\t};"
    )
    trees = {
        "h.h": (HEADER, moved),
        "a.c": (ONE, ONE.replace("return n", "return s->next")),
    }
    assert only(Trees(tmp_path, trees).decompose()).refused == ()


def test_a_new_header_goes_with_who_includes_it(tmp_path: Path) -> None:
    trees = {
        "inc/new.h": ("", "struct fresh {\n\tint a;\n};\nint helper(void);\n"),
        "a.c": (ONE, '#include "inc/new.h"\n' + ONE),
    }
    component = only(Trees(tmp_path, trees).decompose())
    assert [h.edit.path for h in component.headers] == ["inc/new.h"]
    assert not component.refused


def test_a_caller_needs_the_file_that_adds_the_function(tmp_path: Path) -> None:
    trees = {
        "a.c": ("", ONE),
        "b.c": (TWO, TWO.replace("2;", "one(2);")),
    }
    assert sorted(only(Trees(tmp_path, trees).decompose()).files) == ["a.c", "b.c"]


def test_who_uses_a_changed_function_gets_it_with_all_others(tmp_path: Path) -> None:
    user = "int u(struct s *s)\n{\n\treturn pick(s);\n}\n"
    trees = {
        "h.h": (HEADER, HEADER.replace("return s->a;", "return s->a + 1;")),
        "user.c": (user, user),
        "a.c": (ONE, ONE.replace("return n", "return pick(0)")),
    }
    assert sorted(only(Trees(tmp_path, trees).decompose()).files) == ["a.c", "user.c"]


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_what_a_header_concerns_is_apart_from_other_edits(tmp_path: Path, share: float) -> None:
    """But for those that it was made with."""
    user = "int u(struct s *s)\n{\n\treturn pick(s);\n}\n"
    trees = {
        "h.h": (HEADER, HEADER.replace("return s->a;", "return s->a + 1;")),
        "a.c": (user + ONE, user + ONE.replace("return n", "return n + 1")),
        "b.c": (user + TWO, user + TWO.replace("2;", "3;")),
    }
    plain = Trees(tmp_path, trees).decomposer()
    assert files(plain.decompose()) == [("a.c", "b.c")]
    assert plain.divisible("a.c") and plain.divisible("b.c")
    assert not plain.divisible("h.h")
    (spot,) = (spot for node in plain.parts("a.c") for edit in node.edits for spot in edit.spots)
    (header,) = (spot for h in plain.decompose().headers for spot in h.edit.spots)
    told = Attribution(claims=(Claim(spot, 0.9), Claim(header, share)))
    found = Trees(tmp_path, trees).decomposer((told,)).decompose(frozenset({"a.c", "b.c"}))
    parts = {tuple(node.id for node in c.nodes): len(c.headers) for c in found.components}
    if share < 0.5:
        assert parts == {("a.c:one",): 0, ("b.c:two",): 0, ("a.c:pick", "b.c:pick"): 1}
    else:
        assert parts == {("b.c:two",): 0, ("a.c:one", "a.c:pick", "b.c:pick"): 1}


def test_edits_of_headers_that_one_file_uses_are_apart(tmp_path: Path) -> None:
    other = HEADER.replace("H", "O").replace("pick", "take").replace("struct s", "struct o")
    user = "int u(void)\n{\n\treturn pick(0) + take(0);\n}\n"
    trees = {
        "h.h": (HEADER, HEADER.replace("return s->a;", "return s->a + 1;")),
        "o.h": (other, other.replace("return s->a;", "return s->a + 1;")),
        "user.c": (user, user),
        "a.c": (ONE + user, ONE.replace("return n", "return pick(0)") + user),
    }
    decomposer = Trees(tmp_path, trees).decomposer()
    assert [set(c) for c in files(decomposer.decompose())] == [{"a.c", "user.c"}]
    components = decomposer.decompose(frozenset({"a.c"})).components
    one, take, pick = components
    parts = [tuple(node.id for node in component.nodes) for component in components]
    assert parts == [("a.c:one",), ("a.c:take", "user.c:take"), ("a.c:pick", "user.c:pick")]
    assert (one.needs, pick.needs, take.needs) == ((pick.id,), (), ())
    headers = {c.nodes[0].id: {h.edit.path for h in c.headers} for c in components}
    assert headers == {"a.c:one": {"h.h"}, "a.c:pick": {"h.h"}, "a.c:take": {"o.h"}}


LOCAL = """\
static int count(void)
{
	static const char *text = "struct s { int n; };";
	struct s {
		int a;
		union { int b; long c; } u;
	} one = { 1 };
	static struct {
		int seen;
	} kept, *other;
	int list[] = { 1 };

	return one.a + kept.seen;
}
"""


@pytest.mark.parametrize(
    ("old", "new", "evidence"),
    [
        ("int a;", "long a;", "struct s was {int a;"),
        ("long c;", "long long c;", "struct s was"),
        ("int seen;", "int seen; int more;", "struct kept was {int seen;}, is {int seen; int more"),
    ],
)
def test_a_type_inside_a_function_may_not_change(
    tmp_path: Path, old: str, new: str, evidence: str
) -> None:
    for path in ("a.c", "inc.h"):
        files = {path: (LOCAL, LOCAL.replace(old, new))}
        if path == "inc.h":
            user = "int use(void)\n{\n\treturn count();\n}\n"
            files["b.c"] = (user, user.replace("count()", "count() + 1"))
        refusals = only(Trees(tmp_path / path, files).decompose()).refused
        assert refusals[0].code == "layout_changed"
        assert (refusals[0].symbol, refusals[0].unit) == ("count", path)
        assert evidence in refusals[0].evidence


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return one.a", "return 2 * one.a"),
        ("{ 1 };", "{ 2 };"),
        ("int n;", "int m;"),
        ("int list[]", "struct t { int z; } t;\n\tint list[]"),
        ("\t\tint a;", "int  a; /* first */"),
    ],
)
def test_other_changes_beside_a_type_inside_a_function(tmp_path: Path, old: str, new: str) -> None:
    found = Trees(tmp_path, {"a.c": (LOCAL, LOCAL.replace(old, new))}).decompose()
    assert [component.refused for component in found.components] in ([()], [])


def test_a_header_that_changes_how_it_is_inlined_only(tmp_path: Path) -> None:
    """Who mentions the function is not held by that."""
    user = "int use(struct s *s)\n{\n\treturn pick(s);\n}\n"
    inlined = HEADER.replace(
        "static inline int pick(struct s", "static __always_inline int\npick(struct s"
    )
    files = {"h.h": (HEADER, inlined), "a.c": (user, user.replace("pick(s)", "pick(s) + 1"))}
    found = Trees(tmp_path, files).decompose()
    assert (found.headers, found.comments) == ((), ("h.h",))
    assert (only(found).headers, only(found).refused) == ((), ())


def test_a_new_header_concerns_who_includes_it(tmp_path: Path) -> None:
    """Directly or through a header that changes; not whoever uses one of its names."""
    new = "#ifndef N\n#define N\n#define SIZE 4\n#endif\n"
    user = "int use(void)\n{\n\treturn 1;\n}\n"
    changed = user.replace("1", "SIZE")
    through = HEADER.replace("#define H\n", "#define H\n#include <linux/n.h>\n")
    for headers, includes, needed in (
        ({"include/linux/n.h": ("", new)}, "", ()),
        ({"include/linux/n.h": ("", new)}, "#include <linux/n.h>\n", ("include/linux/n.h",)),
        ({"include/linux/n.h": ("", new), "h.h": (HEADER, through)}, "", ("include/linux/n.h",)),
    ):
        files = {**headers, "a.c": (user, includes + changed)}
        folder = tmp_path / f"{len(headers)}{len(includes)}"
        reads = frozenset(path for path, (old, _) in headers.items() if old)
        found = only(Trees(folder, files, reads).decompose())
        assert {header.edit.path for header in found.headers} == set(needed)


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("\tu32 stale : 1,", {"stale"}),
        ("\t\t__unused : 9;", {"__unused"}),
        ("\tint a, *b[3], c;", {"a", "b", "c"}),
        ("\tu8 x:4, y:4;", {"x", "y"}),
        ("\tint (*open)(struct sock *sk, int how);", {"open"}),
        ("\t\t\tconst struct sock *sk,", set()),
    ],
)
def test_members_are_all_that_a_line_declares(line: str, names: set[str]) -> None:
    assert set(members((line,))) == names


def test_what_a_header_says_brings_only_headers_that_the_source_reads(tmp_path: Path) -> None:
    other = "struct far {\n\tint number;\n};\n"
    trees = {
        "h.h": (HEADER, HEADER.replace("LIMIT 3", "LIMIT 3\n#define PICK(s) ((s)->number)")),
        "far.h": (other, other.replace("int number", "long number")),
        "a.c": (ONE, ONE.replace("return n", "return PICK(n)")),
    }
    for reads, codes in (({"h.h"}, []), ({"h.h", "far.h"}, ["type_changed"])):
        folder = tmp_path / str(len(reads))
        found = only(Trees(folder, trees, frozenset(reads)).decompose())
        assert [refusal.code for refusal in found.refused] == codes
        assert [header.edit.path for header in found.headers] == ["h.h"]


def test_a_member_under_a_second_name_comes_with_who_uses_that(tmp_path: Path) -> None:
    union = "\tunion {\n\t\tstruct s *next;\n\t\tstruct s __rcu *next_rcu;\n\t};"
    trees = {
        "h.h": (HEADER, HEADER.replace("\tstruct s *next;", union)),
        "a.c": (ONE, ONE.replace("return n", "return s->next_rcu")),
        "b.c": (TWO, TWO.replace("2;", "s->next;")),
        "c.c": (THREE, THREE),
    }
    user, other = Trees(tmp_path, trees).decompose().components
    assert [h.change for h in user.headers] == [HeaderChange.NEUTRAL]
    assert (user.files, user.refused) == (("a.c",), ())
    assert (other.files, other.headers, other.refused) == (("b.c",), (), ())


def test_a_type_that_moves_into_another_header_concerns_nobody(tmp_path: Path) -> None:
    kept = "#include <linux/kept.h>\n"
    moved = (
        "struct table {\n\tint ver;\n\tint num;\n} __packed;\nenum kind { ONE_KIND, TWO_KINDS };\n"
    )
    user = "int u(struct table *t)\n{\n\treturn t->ver;\n}\n"
    trees = {
        "h.h": (HEADER + moved, HEADER + kept),
        "include/linux/kept.h": ("", moved),
        "a.c": (ONE, ONE.replace("return n", "return ver + num")),
        "user.c": (user, user),
        "b.c": (user, user.replace("return t->ver", "return sizeof(struct table)")),
    }
    found = Trees(tmp_path / "same", trees, frozenset({"h.h"})).decompose()
    assert [(c.files, c.refused) for c in found.components] == [(("a.c",), ()), (("b.c",), ())]
    assert {h.edit.path for h in found.components[1].headers} == {"h.h", "include/linux/kept.h"}
    trees["include/linux/kept.h"] = ("", moved.replace("int num", "long num"))
    found = Trees(tmp_path / "other", trees, frozenset({"h.h"})).decompose()
    refused = {header.edit.path for header in found.headers if header.refusal is not None}
    assert "h.h" in refused


def test_what_a_header_includes_comes_with_what_it_adds(tmp_path: Path) -> None:
    new = HEADER.replace("struct s {", "#include <far.h>\nstruct near;\nstruct s {")
    new = new.replace("int one(int n);", "int one(int n);\nint fresh(struct far *f);")
    trees = {
        "h.h": (HEADER, new),
        "a.c": (ONE, ONE.replace("return n", "return fresh(0)")),
        "b.c": (TWO, TWO.replace("2;", "3;")),
    }
    user, other = Trees(tmp_path, trees).decompose().components
    lines = {line for header in user.headers for line in header.edit.new_lines}
    assert lines == {"#include <far.h>", "struct near;", "int fresh(struct far *f);"}
    assert other.headers == ()


def test_a_prototype_with_other_names_of_parameters_concerns_nobody(tmp_path: Path) -> None:
    user = "int u(void)\n{\n\treturn one(1);\n}\n"
    for new, concerned in (("extern int one(int count);", 0), ("int one(long n);", 1)):
        trees = {"h.h": (HEADER, HEADER.replace("int one(int n);", new)), "user.c": (user, user)}
        found = Trees(tmp_path / str(concerned), trees).decompose()
        assert len(found.components) == concerned
