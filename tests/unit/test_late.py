# SPDX-License-Identifier: GPL-2.0-or-later
"""Units of modules that are not loaded: their groups, and when they are compiled."""

from __future__ import annotations

from kspliced.build.groups import Waits, group_units
from kspliced.build.kbuild import Unit
from kspliced.build.late import Olds, Pre
from kspliced.build.unit import DiffedUnit, Origin
from kspliced.errors import BuildError, Code
from kspliced.plan.components import Component

LOADED = frozenset({"vmlinux", "ext4"})


def diffed(path: str, target: str) -> DiffedUnit:
    return DiffedUnit(
        Unit(path, path.partition("/")[0], target), b"", None, (), (), Origin((), (), b"")
    )


def component(*files: str) -> Component:
    return Component(files[0], files, (), (), ())


UNITS = tuple(
    diffed(path, target)
    for path, target in (
        ("fs/a.o", "vmlinux"),
        ("fs/b.o", "ext4"),
        ("net/c.o", "sctp"),
        ("net/d.o", "dccp"),
        ("fs/e.o", "vmlinux"),
        ("net/f.o", "sctp"),
    )
)
COMPONENTS = (component("fs/a.c", "fs/b.c", "net/c.c", "net/d.c"), component("fs/e.c", "net/f.c"))


ONE, OTHER = "fs/a.c", "fs/e.c"  # the first sources of the two components


def grouped(loaded: frozenset[str]) -> dict[Waits, list[str]]:
    found = group_units(UNITS, COMPONENTS, loaded)
    return {waits: [d.unit.path for d in members] for waits, members in found}


def test_each_module_that_is_not_loaded_is_a_group_beside_what_it_goes_with() -> None:
    assert grouped(LOADED) == {
        Waits(("ext4", "vmlinux"), "", ONE): ["fs/a.o", "fs/b.o"],
        Waits(("ext4", "sctp", "vmlinux"), "sctp", ONE): ["net/c.o"],
        Waits(("dccp", "ext4", "vmlinux"), "dccp", ONE): ["net/d.o"],
        Waits(("vmlinux",), "", OTHER): ["fs/e.o"],
        Waits(("sctp", "vmlinux"), "sctp", OTHER): ["net/f.o"],
    }


def test_where_all_are_loaded_they_wait_for_one_another() -> None:
    assert grouped(LOADED | {"sctp", "dccp"}) == grouped(frozenset())
    assert grouped(frozenset()) == {
        Waits(("dccp", "ext4", "sctp", "vmlinux"), "", ONE): [
            *("fs/a.o", "fs/b.o", "net/c.o", "net/d.o"),
        ],
        Waits(("sctp", "vmlinux"), "", OTHER): ["fs/e.o", "net/f.o"],
    }


def test_what_has_nothing_to_do_with_one_another_is_apart() -> None:
    """So that one can be left out of the pack later, without the other."""
    units = tuple(diffed(f"fs/{name}.o", "vmlinux") for name in "abcd")
    needs = Component("fs/c.c", ("fs/c.c",), (), ("fs/a.c",), ())
    components = (component("fs/a.c"), component("fs/b.c"), needs, component("fs/d.c", "fs/b.c"))
    found = group_units(units, components)
    assert [[d.unit.path for d in members] for _, members in found] == [
        ["fs/a.o", "fs/c.o"], ["fs/b.o", "fs/d.o"],
    ]  # fmt: skip


def test_they_are_compiled_once_and_when_they_are_wanted() -> None:
    one, other, late = (d.unit for d in (UNITS[0], UNITS[2], UNITS[3]))
    compiled: list[tuple[Unit, ...]] = []

    def more(units: tuple[Unit, ...]) -> Pre:
        compiled.append(units)
        if late in units:
            raise BuildError(Code.COMPILE_FAILED, "none compiles", "")
        return Pre({}, {"net/c.c": frozenset({"net/c.h"})})

    olds = Olds(lambda: Pre({"fs/x.o": "no"}, {}), (other, late), more)
    assert not olds.want((one,)) and compiled == []
    assert olds.want((one, other)) and compiled == [(other,)]
    assert not olds.want((other,))
    assert olds.want((other, late)) and compiled == [(other,), (late,)]
    assert olds().failed == {"fs/x.o": "no", late.path: "none compiles"}
    assert olds().reads == {"net/c.c": frozenset({"net/c.h"})}
