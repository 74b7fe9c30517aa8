# SPDX-License-Identifier: GPL-2.0-or-later
"""Two units of seven do not match: the second attempt is without them and what they go with, of
the same objects, and no compiler runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from kspliced.build.groups import emit_parts
from kspliced.build.kbuild import Unit
from kspliced.build.unit import DiffedUnit, diff_unit, join_units
from kspliced.elf.read import read_object
from kspliced.engine.left_out import without
from kspliced.errors import Code
from kspliced.match import NoMatchError, check_coherence, link, match
from kspliced.model import ChangeKind, FunctionChange, PreUnit
from kspliced.pack import Blob, Pack, pack_bytes, parse_pack
from kspliced.plan.components import Component
from tests.corpus.match.kit import TARGET, compiled, linked, packed, running

BTF = ("-g0", "-gbtf")
NAMES = "abcdefg"
UNIT = """
int printk(const char *format, ...);
int other_%(n)s(int);
static int total_%(n)s;
int entry_%(n)s(int v) { total_%(n)s += v; printk("%(n)s\\n"); return other_%(n)s(v) + %(k)d; }
"""
GLUE = """
struct { char before[24]; char name[56]; } __this_module
__attribute__((section(".gnu.linkonce.this_module"))) = { "", "ks_0123456789ab" };
"""
OTHERS = "".join(f"int other_{n}(int v) {{ return v ^ {ord(n)}; }}\n" for n in NAMES)
# What e adds f uses, and c needs a: each goes with the other.
FRESH = "int fresh(int v) { return v * 3; }\n"
COMPONENTS = tuple(
    Component(f"{n}.c", (f"{n}.c",), (), ("a.c",) if n == "c" else (), ()) for n in NAMES
)


def source(name: str, number: int) -> str:
    return UNIT % {"n": name, "k": number}


def new_source(name: str) -> str:
    text = source(name, 7)
    if name == "f":
        text = "int fresh(int v);" + text.replace("+ 7", "+ fresh(v)")
    return FRESH + text if name == "e" else text


@pytest.fixture(scope="module")
def pack() -> Pack:
    """A real pack of seven units, each with a changed function."""
    diffed: list[DiffedUnit] = []
    for name in NAMES:
        before, after = (compiled(t, *BTF) for t in (source(name, 5), new_source(name)))
        diffed.append(diff_unit(Unit(f"{name}.o", "", TARGET), before, after, ()))
    joined = join_units(diffed)
    assert all(d.live for d in joined), [d.refused for d in joined]
    parts = emit_parts(joined, COMPONENTS, read_object(compiled(GLUE), "glue"))
    manifest = replace(
        packed({}).manifest,
        update="ks_0123456789ab",
        units=tuple(PreUnit(TARGET, d.unit.path, f"pre/{d.unit.path}") for d in joined),
        functions=tuple(f for d in joined for f in d.functions),
        glue=parts.glue,
        groups=parts.groups,
    )
    blobs = (*parts.blobs, *(Blob(f"pre/{d.unit.path}", d.matched) for d in joined))
    found = parse_pack(pack_bytes(manifest, blobs)[0], "test")
    check_coherence(found)
    return found


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Programs that are run, which are to be none."""
    run: list[object] = []
    begin: Any = subprocess.Popen.__init__

    def counted(process: object, *arguments: Any, **options: Any) -> None:
        run.append(arguments)
        begin(process, *arguments, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", counted)
    yield run
    assert run == []


def kernel_but(*others: str) -> bytes:
    """A module in which some units are of another source."""
    texts = [source(name, 6 if name in others else 5) for name in NAMES]
    return linked(*(compiled(t, split=False) for t in (*texts, OTHERS)))


def units(pack: Pack) -> set[str]:
    return {unit for group in pack.manifest.groups for unit in group.units}


@pytest.mark.parametrize(
    ("others", "gone"),
    [("bd", "bd"), ("ab", "abc"), ("be", "bef"), ("f", "ef"), ("g", "g")],
)
def test_the_second_attempt_is_without_all_that_does_not_match(
    pack: Pack, others: str, gone: str, request: pytest.FixtureRequest
) -> None:
    kernel = running(kernel_but(*others))
    request.getfixturevalue("no_compiler")
    with pytest.raises(NoMatchError) as caught:
        match(pack, kernel)
    assert caught.value.code is Code.NO_MATCH
    blamed = set(caught.value.blamed)
    assert blamed == {f"{name}.o" for name in others}
    manifest, blobs = without(pack, blamed, caught.value.message)
    left = parse_pack(pack_bytes(manifest, blobs)[0], "left")
    check_coherence(left)
    lost = {f"{name}.o" for name in gone}
    assert units(left) == units(pack) - lost
    assert {pre.unit for pre in left.manifest.units} == units(left)
    changed = {f.unit for f in left.manifest.functions if f.kind is ChangeKind.CHANGED}
    assert changed == units(left)
    assert {(r.code, r.unit) for r in left.manifest.refused} == {("left_out", u) for u in lost}
    matched = match(left, kernel)
    assert {span.span.unit for span in matched.spans} == units(left)
    made = link(left, matched, ())
    assert made.name == manifest.update != pack.manifest.update
    assert made.name.encode().ljust(56, b"\0") in made.content
    functions = {s.name.rpartition(":")[2] for s in read_object(made.content).symbols}
    assert not functions & {f"entry_{name}" for name in gone}
    # The same is left out, so it is the same update.
    assert without(pack, blamed, "again")[0].update == manifest.update


def test_where_all_match_all_are_one_module(pack: Pack) -> None:
    kernel = running(kernel_but())
    matched = match(pack, kernel)
    assert link(pack, matched, ()).name == pack.manifest.update
    assert len(pack.manifest.groups) == 5


def test_nothing_is_left_out_that_leaves_nothing(pack: Pack) -> None:
    with pytest.raises(ValueError, match="nothing"):
        without(pack, units(pack), "all")


def test_a_pack_of_an_older_builder_is_left_out_by_its_parts(pack: Pack) -> None:
    groups = tuple(replace(group, together="") for group in pack.manifest.groups)
    old = replace(pack, manifest=replace(pack.manifest, groups=groups))
    assert {f.unit for f in without(old, {"a.o"}, "no")[0].functions} == units(pack) - {
        "a.o", "c.o",
    }  # fmt: skip
    assert isinstance(old.manifest.functions[0], FunctionChange)
