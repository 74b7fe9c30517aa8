# SPDX-License-Identifier: GPL-2.0-or-later
"""Edits of types in headers: what their text is taken for, and what the compiler says of them.

Each case is an old and a new header. What the text lets through must be the same type to the
compiler; what the compiler can tell apart must be refused by it, whatever the text says.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kspliced.build.types import Room, changed_types
from kspliced.plan.components import Texts
from kspliced.plan.conditions import Configuration
from kspliced.plan.headers import HeaderChange, HeaderEdit, classify
from kspliced.plan.neutral import ADDED, ATTRIBUTES, GONE, OTHER, REMOVED, VALUES
from kspliced.plan.touched import Headers
from tests.corpus.compiler import compile_object

NONE = Room()
CONFIGURATION = Configuration({"CONFIG_ON": "y"})
BTF = ("-g0", "-gbtf")
HEADER = """\
struct net;
struct dev { int index; };
enum { FRESH, READY = 4, DEAD };
enum attr { ATTR_A, ATTR_B, __ATTR_END, ATTR_MAX = __ATTR_END - 1 };
enum mode { SLOW, FAST, NR_MODES };
typedef unsigned int handle_t;
struct live {
	struct dev *dev;
	struct net *net;
	int (*send)(struct dev *dev, const unsigned char *data, int count);
	unsigned long flags;
	enum { IDLE, BUSY } state:8;
	bool gone;
	unsigned short port;
	unsigned int a:3, b:5;
	u8 pad:8;
	u8 more:8;
	be16 order;
	enum mode mode;
	handle_t handle;
	u32 left;
	u32 right;
	union { u32 one; char two[4]; };
	char name[8];
};
"""
# What the kernel's own headers make of these words, and what keeps each type in the object.
WORDS = """\
typedef _Bool bool; typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32;
typedef unsigned long long u64; typedef long long s64; typedef u16 be16;
#define CONFIG_ON 1
#define IS_ENABLED(option) 0
#define __rcu
#define __user
#define __percpu
#define __counted_by(member)
#define __packed __attribute__((packed))
#define __aligned(n) __attribute__((aligned(n)))
#define ____cacheline_aligned __attribute__((aligned(64)))
#define struct_group(name, members...) union { struct { members }; struct { members } name; }
"""
USER = """
enum attr attr; enum mode modes;
int f(struct live *p) { return p->gone + ATTR_MAX + DEAD + NR_MODES + p->handle + attr + modes; }
"""


def verdict(folder: Path, old: str, new: str, room: Room = NONE) -> list[HeaderEdit]:
    for name, text in (("old", old), ("new", new)):
        (folder / name).mkdir()
        (folder / name / "h.h").write_text(text)
    texts = Texts(folder / "old", folder / "new", ["h.h"], CONFIGURATION)
    has_room = room.bits.__contains__, room.padding.__contains__
    headers = Headers(["h.h"], texts.old, texts.new, *has_room)
    return [classify(edit, False, headers) for edit in texts.edits("h.h")]


def different(old: str, new: str, room: Room = NONE) -> list[str]:
    before, after = (compile_object(WORDS + text + USER, *BTF) for text in (old, new))
    return [change.name for change in changed_types(before, after, room)]


def changed(old: str, new: str) -> str:
    assert HEADER.count(old) == 1
    return HEADER.replace(old, new)


NEUTRAL = [
    ("dev *dev;\n", "dev __rcu *dev;\n"),
    ("net *net;", "net __user * const net;"),
    ("char name[8];", "char name[8] __counted_by(left);"),
    (
        "\tstruct dev *dev;\n",
        "\tunion {\n\t\tstruct dev *dev;\n\t\tstruct dev __rcu *dev_rcu;\n\t};\n",
    ),
    ("\tu32 left;\n", "\tunion {\n\t\tu32 left;\n\t\tu32 start;\n\t};\n"),
    ("struct dev *dev, const unsigned char *data, int count", "struct dev *, const u8 *, int n"),
    ("unsigned long flags;", "u64 flags;"),
    ("\tunsigned short port;\n", "\tu16    port;\n"),
    ("struct net;\n", "struct net;\nstruct later;\n#include <stddef.h>\n"),
    ("\tbool gone;\n", "#ifdef CONFIG_ON\n\tbool gone;\n#else\n\tlong gone;\n#endif\n"),
    ("\tu32 left;\n", "#if IS_ENABLED(CONFIG_OFF)\n\tu32 over;\n#endif\n\tu32 left;\n"),
    ("union { u32 one; char two[4]; };", "union {\n\t\tu32 one;\n\t\tchar two[4];\n\t};"),
]


@pytest.mark.parametrize(("old", "new"), NEUTRAL)
def test_what_leaves_objects_as_they_are(tmp_path: Path, old: str, new: str) -> None:
    new = changed(old, new)
    (found,) = verdict(tmp_path, HEADER, new)
    assert (found.change, found.concerns) == (HeaderChange.NEUTRAL, frozenset())
    assert different(HEADER, new) == []


@pytest.mark.parametrize(
    ("old", "new"), [("int count);", "int count, u32 id);"), ("data, int count);", "data);")]
)
def test_a_callback_of_more_or_fewer_parameters(tmp_path: Path, old: str, new: str) -> None:
    """Who calls it or provides it is concerned, and does not compile if it is not changed."""
    new = changed(old, new)
    (found,) = verdict(tmp_path, HEADER, new)
    assert found.change is HeaderChange.CHANGES
    assert (set(found.concerns), set(found.called)) == ({"send"}, {"live"})
    assert different(HEADER, new) == []
    strict = ("gcc", "-c", "-x", "c", "-", "-o", "/dev/null", "-Werror=incompatible-pointer-types")
    for use in (
        "int call(struct live *p) { return p->send(p->dev, 0, 1); }",
        "static int mine(struct dev *d, const u8 *s, int n) { return n; }\n"
        "struct live named = { .send = mine };",
        "static int mine(struct dev *d, const u8 *s, int n) { return n; }\n"
        "struct live placed = { 0, 0, mine };",
    ):
        for text, fits in ((HEADER, True), (new, False)):
            done = subprocess.run(strict, input=WORDS + text + use, text=True, capture_output=True)
            assert (done.returncode == 0) is fits, done.stderr


def test_a_second_name_has_to_be_mentioned_to_be_needed(tmp_path: Path) -> None:
    old, new = NEUTRAL[3]
    (found,) = verdict(tmp_path, HEADER, changed(old, new))
    assert found.names == {"dev_rcu"}


MOVED = ["enumerator ATTR_B", "enumerator ATTR_MAX"]
REFUSED = [
    # Another place, size or kind.
    ("\tbool gone;\n", "\tbool gone;\n\tbool fresh;\n", ADDED, ["struct live"]),
    ("\tu32 left;\n\tu32 right;\n", "\tu32 right;\n\tu32 left;\n", OTHER, ["struct live"]),
    ("\tu32 left;\n", "", REMOVED, ["struct live"]),
    ("\tu32 left;\n", "\tunion {\n\t\tu32 left;\n\t\tu64 wide;\n\t};\n", OTHER, ["struct live"]),
    ("\tu32 left;\n", "\tunion {\n\t\tu32 left;\n\t\tu16 low;\n\t};\n", OTHER, ["struct live"]),
    ("\tu32 left;\n", "\tunion {\n\t\tu32 left;\n\t\tint sign;\n\t};\n", OTHER, ["struct live"]),
    (
        "\tstruct dev *dev;\n",
        "\tunion {\n\t\tstruct dev *dev;\n\t\tunsigned long bits;\n\t};\n",
        OTHER,
        ["struct live"],
    ),
    ("\tstruct dev *dev;\n", "\tunion {\n\t\tstruct dev *dev_rcu;\n\t};\n", OTHER, ["struct live"]),
    (
        "\tu32 left;\n\tu32 right;\n",
        "\tunion {\n\t\tu32 left;\n\t\tu32 right;\n\t};\n",
        REMOVED,
        ["struct live"],
    ),
    (
        "\tu32 left;\n\tu32 right;\n",
        "\tu32 left;\n\tunion {\n\t\tu32 right;\n\t\tu32 wrong[1];\n\t};\n",
        OTHER,
        ["struct live"],
    ),
    ("struct dev *dev, const", "struct net *dev, const", OTHER, ["struct live"]),
    ("int count);", "long count);", OTHER, ["struct live"]),
    ("int count);", "int count, ...);", OTHER, ["struct live"]),
    ("struct dev *dev, const unsigned char *data, int count", "", OTHER, ["struct live"]),
    ("int (*send)(struct dev *dev,", "long (*send)(", OTHER, ["struct live"]),
    ("unsigned long flags;", "long flags;", OTHER, ["struct live"]),
    ("be16 order;", "u16 order;", OTHER, ["struct live"]),
    ("char name[8];", "char name[4];", OTHER, ["struct live"]),
    # Conditions that the configuration decides otherwise, or does not decide.
    ("\tu32 left;\n", "#ifdef CONFIG_OFF\n\tu32 left;\n#endif\n", REMOVED, ["struct live"]),
    ("\tu32 left;\n", "\tu32 left;\n#ifdef CONFIG_ON\n\tu32 on;\n#endif\n", ADDED, ["struct live"]),
    ("\tu32 left;\n", "#ifdef HERE\n\tu32 left;\n#endif\n", ADDED, ["struct live"]),
    # Bit-fields: other bits, or such as others touch.
    ("a:3, b:5;", "a:4, b:4;", OTHER, ["struct live"]),
    ("a:3, b:5;", "a:3, b:4, c:1;", OTHER, ["struct live"]),
    ("u8 pad:8;", "u8 pad;", OTHER, ["struct live"]),
    ("enum { IDLE, BUSY } state:8;", "signed char state;", OTHER, ["struct live"]),
    ("enum { IDLE, BUSY } state:8;", "enum { IDLE, BUSY } state:16;", OTHER, ["struct live"]),
    # Attributes that make other code or places.
    ("\tchar name[8];\n};", "\tchar name[8];\n} __packed;", ATTRIBUTES, ["struct live"]),
    ("\tchar name[8];\n};", "\tchar name[8];\n} __aligned(64);", ATTRIBUTES, ["struct live"]),
    ("u32 right;", "u32 right ____cacheline_aligned;", OTHER, ["struct live"]),
    # Values that are in use.
    ("SLOW, FAST,", "SLOW, MIDDLE, FAST,", VALUES, ["enumerator FAST"]),
    ("SLOW, FAST,", "SLOW = 1, FAST,", VALUES, ["enumerator FAST", "enumerator SLOW"]),
    ("READY = 4, DEAD", "READY = 4, HURT, DEAD", VALUES, ["enumerator DEAD"]),
    ("SLOW, FAST,", "SLOW,", GONE, []),
    ("ATTR_A, ATTR_B,", "ATTR_A, ATTR_X, ATTR_B,", VALUES, MOVED),
    ("IDLE, BUSY }", "BUSY, IDLE }", VALUES, ["enumerator BUSY", "enumerator IDLE"]),
    # A name that stands for something else.
    ("typedef unsigned int handle_t;", "typedef int handle_t;", "", ["handle_t"]),
]


@pytest.mark.parametrize(("old", "new", "reason", "types"), REFUSED)
def test_what_objects_do_not_survive(
    tmp_path: Path, old: str, new: str, reason: str, types: list[str]
) -> None:
    new = changed(old, new)
    refusals = [found.refusal for found in verdict(tmp_path, HEADER, new)]
    assert any(r is not None and r.code == "type_changed" and reason in r.reason for r in refusals)
    assert different(HEADER, new) == types


@pytest.mark.parametrize(
    ("old", "new", "change", "concerns"),
    [
        ("SLOW, FAST,", "SLOW, FAST, TURBO,", HeaderChange.CHANGES, {"NR_MODES"}),
        (
            "ATTR_A, ATTR_B,",
            "ATTR_A, ATTR_B, ATTR_C,",
            HeaderChange.CHANGES,
            {"__ATTR_END", "ATTR_MAX"},
        ),
        ("FRESH, READY", "FRESH, YOUNG, READY", HeaderChange.ADDS, set()),
        ("READY = 4, DEAD", "READY = 4, DEAD, GONE = 9", HeaderChange.ADDS, set()),
    ],
)
def test_enumerators_that_come_behind(
    tmp_path: Path, old: str, new: str, change: HeaderChange, concerns: set[str]
) -> None:
    new = changed(old, new)
    (found,) = verdict(tmp_path, HEADER, new)
    assert found.change is change
    assert set(found.concerns) == concerns
    assert different(HEADER, new) == []


def test_an_enumeration_that_gets_a_name_of_its_own(tmp_path: Path) -> None:
    new = changed("enum { IDLE, BUSY } state:8;", "u8 state;").replace(
        "struct live {", "enum state {\n\tIDLE = 0,\n\tBUSY,\n};\nstruct live {"
    )
    (found,) = verdict(tmp_path, HEADER, new)
    assert found.change is HeaderChange.ADDS
    assert "state" in found.names and not found.concerns
    assert different(HEADER, new) == []
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (found,) = verdict(wrong, HEADER, new.replace("IDLE = 0", "IDLE = 1"))
    assert found.change is HeaderChange.REFUSED


SPARE = HEADER.replace(
    "\tu32 right;\n",
    "\tu32 right;\n\tstruct_group(reset,\n\tu64 key;\n\tu32 on : 1,\n\t\t__unused : 31;\n\t);\n",
)
LIVE = frozenset({"live"})
BITS, PADDING = Room(bits=LIVE), Room(padding=LIVE)


@pytest.mark.parametrize(
    ("new", "bits"),
    [
        ("fresh : 1,\n\t\t__unused : 30;", {"fresh"}),
        ("fresh : 1,\n\t\told : 30;", {"fresh", "old"}),
        ("x : 2,\n\t\ty : 3,\n\t\t__unused : 26;", {"x", "y"}),
    ],
)
def test_bits_that_nobody_used(tmp_path: Path, new: str, bits: set[str]) -> None:
    """They may have a meaning if no object has them set; else that is a new member."""
    after = SPARE.replace("__unused : 31;", new)
    (found,) = verdict(tmp_path, SPARE, after, BITS)
    assert (found.change, found.carved) == (HeaderChange.NEUTRAL, LIVE)
    assert bits <= found.names
    assert different(SPARE, after, BITS) == []
    assert different(SPARE, after) == ["struct live"]
    (tmp_path / "some").mkdir()
    (refused,) = verdict(tmp_path / "some", SPARE, after)
    assert refused.refusal is not None and refused.refusal.reason == ADDED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # More bits, others than were there, no bits, and bits that had a name.
        ("__unused : 31;", "fresh : 2,\n\t\t__unused : 30;"),
        ("__unused : 31;", "__unused : 31;\n\tu32 fresh : 1;"),
        ("u32 on : 1,\n\t\t__unused : 31;", "u32 __unused : 31,\n\t\ton : 1;"),
        ("__unused : 31;\n", "fresh : 7;\n\tu8 byte;\n\tu16 word;\n"),
        ("u32 on : 1,", "u32 in : 1,"),
        ("u64 key;", "u64 key : 63;\n\tu64 fresh : 1;"),
    ],
)
def test_bits_that_somebody_used(tmp_path: Path, old: str, new: str) -> None:
    assert SPARE.count(old) == 1
    after = SPARE.replace(old, new)
    assert all(found.refusal for found in verdict(tmp_path, SPARE, after, BITS))
    assert different(SPARE, after, BITS) == ["struct live"]


def test_bits_that_another_member_has_too() -> None:
    """What is written as a whole may have any bit set."""
    old = SPARE.replace("u32 on : 1", "union { u32 word; struct { u32 on : 1").replace(
        "__unused : 31;", "__unused : 31; }; };"
    )
    after = old.replace("__unused : 31;", "fresh : 1, __unused : 30;")
    assert different(old, after, BITS) == ["struct live"]


@pytest.mark.parametrize(
    ("old", "member"),
    [
        ("\tu8 more:8;\n", "bool fresh"),
        ("\tbe16 order;\n", "bool fresh"),
        ("\tbe16 order;\n", "u16 fresh"),
        ("\tenum mode mode;\n", "u32 fresh"),
    ],
)
def test_a_member_where_none_was(tmp_path: Path, old: str, member: str) -> None:
    """It may come if all objects are constants and the compiler finds it where none lay."""
    after = changed(old, f"{old}\t{member};\n")
    (found,) = verdict(tmp_path, HEADER, after, PADDING)
    assert (found.change, found.padded) == (HeaderChange.NEUTRAL, LIVE)
    assert "fresh" in found.names
    assert different(HEADER, after, PADDING) == ([] if "u32" not in member else ["struct live"])
    assert different(HEADER, after, BITS) == different(HEADER, after) == ["struct live"]
    for number, room in enumerate((BITS, Room())):
        (tmp_path / str(number)).mkdir()
        (refused,) = verdict(tmp_path / str(number), HEADER, after, room)
        assert refused.refusal is not None and refused.refusal.reason == ADDED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # Another one goes or changes with it; it is none that zeroes say nothing of.
        ("\tbe16 order;\n", "\tu16 fresh;\n"),
        ("\tbe16 order;\n", "\tbe16 other;\n\tu16 fresh;\n"),
        ("\tbe16 order;\n", "\tbe16 order;\n\tbe16 fresh;\n"),
        ("\tu32 right;\n", "\tu32 right;\n\tstruct dev *fresh;\n"),
        ("\tu8 more:8;\n", "\tu8 more:8;\n\tu8 fresh:8;\n"),
    ],
)
def test_a_member_that_may_not_come(tmp_path: Path, old: str, new: str) -> None:
    assert all(found.refusal for found in verdict(tmp_path, HEADER, changed(old, new), PADDING))


def test_what_is_never_compiled_is_no_edit(tmp_path: Path) -> None:
    old = HEADER + "#ifdef CONFIG_OFF\nstruct off {\n\tint a;\n};\n#endif\n"
    assert verdict(tmp_path, old, old.replace("int a;", "long a;\n\tint b;")) == []
