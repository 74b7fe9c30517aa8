# SPDX-License-Identifier: GPL-2.0-or-later
"""Every changed file ends as a unit, irrelevant, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspliced.build.kbuild import Listing, Unit
from kspliced.build.select import (
    Nature,
    every_unit_reads,
    only_version,
    rests,
    select,
    worth_keeping,
)
from kspliced.source.compare import ChangeType, FileChange

EMPTY: frozenset[str] = frozenset()
LISTINGS = {
    "fs": Listing(frozenset({"fs/open.o"}), EMPTY, (), frozenset({"fs/ext4"})),
    "fs/ext4": Listing(
        EMPTY,
        frozenset({"fs/ext4/mballoc.o"}),
        (("fs/ext4/ext4.o", frozenset({"fs/ext4/mballoc.o"})),),
        EMPTY,
    ),
    "fs/jfs": Listing(EMPTY, frozenset({"fs/jfs/super.o"}), (), EMPTY),
    "fs/adfs": Listing(EMPTY, EMPTY, (), EMPTY),
    "drivers/amdgpu": Listing(
        EMPTY,
        frozenset({"drivers/amdkfd/built_beside.o"}),
        (("drivers/amdgpu/amdgpu.o", frozenset({"drivers/amdkfd/built_beside.o"})),),
        EMPTY,
    ),
    "lib": Listing(frozenset({"lib/two.o"}), frozenset({"lib/two.o"}), (), EMPTY),
    "drivers": Listing(EMPTY, EMPTY, (), frozenset({"drivers/amdgpu"})),
    "drivers/habanalabs": Listing(EMPTY, EMPTY, (), EMPTY),
}
INCLUDERS = {
    "lib/fair.c": frozenset({"lib/two.c", "fs/fair.h"}),
    "fs/part.c": frozenset({"fs/open.c"}),
    "fs/nested.c": frozenset({"fs/part.c"}),
    "fs/unused.c": frozenset({"fs/not_built.c"}),
    "fs/lost.c": frozenset({"drivers/amdkfd/not_told.c"}),
}
READERS = {
    "fs/jfs/inner.h": frozenset({"fs/jfs/super.c", "fs/adfs/round.h"}),
    "fs/adfs/round.h": frozenset({"fs/jfs/inner.h", "fs/jfs/super.c"}),
    "fs/jfs/borrowed.h": frozenset({"fs/ext4/mballoc.c"}),
    "fs/jfs/passed.h": frozenset({"fs/adfs/passes.h"}),
    "fs/adfs/passes.h": frozenset({"fs/open.c"}),
    "fs/jfs/foreign.h": frozenset({"arch/arm/mm/init.c", "tools/test.c"}),
}
NATURE = Nature(
    lambda: frozenset({*INCLUDERS, "elsewhere.c"}),
    lambda path: INCLUDERS.get(path, EMPTY),
    lambda paths: {path: READERS.get(path, EMPTY) for path in paths},
    lambda path: path == "fs/idle/Makefile",
)


def sort(path: str, kind: ChangeType = ChangeType.MODIFIED, targets: tuple[str, ...] = ()) -> str:
    change = FileChange(path, kind)
    unlisted = frozenset({"drivers/amdkfd", "drivers/habanalabs/common"})
    found = select((change,), LISTINGS, unlisted, NATURE, frozenset(targets))
    lists = (found.units, found.later, found.headers, found.irrelevant, found.refused)
    assert sum(map(len, lists)) == 1
    if found.units:
        return f"unit {found.units[0].target}"
    if found.later:
        return f"later {found.later[0].target}"
    if found.headers:
        return "idle header" if found.idle_headers else "header"
    return found.refused[0].code if found.refused else "irrelevant"


@pytest.mark.parametrize(
    ("path", "verdict"),
    [
        ("fs/ext4/mballoc.c", "unit ext4"),
        ("fs/open.c", "unit vmlinux"),
        ("fs/ext4/not_built.c", "irrelevant"),
        ("fs/jfs/super.c", "irrelevant"),  # Kbuild does not descend there
        ("fs/jfs/inner.h", "irrelevant"),
        ("fs/jfs/borrowed.h", "header"),
        ("fs/jfs/passed.h", "header"),
        ("fs/jfs/foreign.h", "irrelevant"),
        ("lib/two.c", "several_targets"),
        ("lib/fair.c", "included_source"),
        ("fs/part.c", "header"),
        ("fs/nested.c", "included_source"),
        ("fs/unused.c", "irrelevant"),
        ("fs/lost.c", "included_source"),
        ("fs/elsewhere.c", "included_source"),
        ("fs/idle/Makefile", "irrelevant"),
        ("drivers/habanalabs/common/device.c", "irrelevant"),
        ("drivers/amdkfd/not_told.c", "unknown_file"),
        ("drivers/amdkfd/built_beside.c", "unit amdgpu"),
        ("include/linux/mm.h", "header"),
        ("fs/ext4/ext4.h", "header"),
        ("fs/adfs/adfs.h", "irrelevant"),
        ("fs/jfs/jfs.h", "irrelevant"),
        ("fs/ext4/Makefile", "kbuild_changed"),
        ("Makefile", "kbuild_changed"),
        ("scripts/Makefile.build", "kbuild_changed"),
        ("scripts/checkpatch.pl", "irrelevant"),
        ("arch/arm64/mm/fault.c", "irrelevant"),
        ("arch/x86/entry/vdso/vma.c", "vdso"),
        ("arch/x86/purgatory/purgatory.c", "other_program"),
        ("lib/memcpy.S", "assembly"),
        ("lib/table.bin", "unknown_file"),
        ("Documentation/x.rst", "irrelevant"),
        ("tools/objtool/check.c", "irrelevant"),
        ("MAINTAINERS", "irrelevant"),
    ],
)
def test_verdicts(path: str, verdict: str) -> None:
    assert sort(path) == verdict


def test_a_unit_of_a_module_that_is_not_a_target_is_for_later() -> None:
    assert sort("fs/ext4/mballoc.c", targets=("vmlinux",)) == "later ext4"
    assert sort("fs/ext4/mballoc.c", targets=("vmlinux", "ext4")) == "unit ext4"


def test_a_header_beside_modules_that_are_not_loaded_is_idle() -> None:
    assert sort("fs/ext4/ext4.h", targets=("vmlinux",)) == "idle header"
    assert sort("fs/ext4/ext4.h", targets=("vmlinux", "ext4")) == "header"
    assert sort("fs/internal.h", targets=("vmlinux",)) == "header", "vmlinux has code there"
    assert sort("include/linux/mm.h", targets=("vmlinux",)) == "header"


def test_a_file_that_comes_or_goes_is_refused() -> None:
    assert sort("fs/open.c", ChangeType.REMOVED) == "source_set_changed"


def test_a_unit_knows_where_kbuild_compiles_it() -> None:
    change = FileChange("fs/ext4/mballoc.c", ChangeType.MODIFIED)
    found = select((change,), LISTINGS, EMPTY, NATURE, EMPTY)
    assert found.units == (Unit("fs/ext4/mballoc.o", "fs/ext4", "ext4"),)


def test_only_a_version_number() -> None:
    old = b"VERSION = 6\nSUBLEVEL = 1\nall:\n"
    assert only_version(old, old.replace(b"= 1", b"= 2"))
    assert not only_version(old, old + b"x:\n")


@given(st.text("abc/.chSxKM", min_size=1, max_size=20))
def test_no_path_is_lost(path: str) -> None:
    sort(path)
    assert every_unit_reads(path) <= worth_keeping(path, 1 << 30) <= worth_keeping(path, 0)


@pytest.mark.parametrize(
    ("path", "common", "kept"),
    [
        ("include/linux/mm.h", True, True),
        ("arch/x86/kernel/head.c", False, True),
        ("arch/x86/include/asm/io.h", True, True),
        ("arch/arm/include/asm/io.h", False, False),
        ("fs/ext4/Makefile", True, True),
        ("fs/ext4/ext4.h", False, True),
        ("scripts/mod/modpost.c", True, True),
        ("Documentation/a.rst", False, False),
        ("tools/objtool/check.c", False, False),
    ],
)
def test_what_is_written_for_every_unit_and_what_is_kept(
    path: str, common: bool, kept: bool
) -> None:
    assert (every_unit_reads(path), worth_keeping(path, 4096)) == (common, kept)


def test_lists_of_registers_are_not_kept() -> None:
    registers = "drivers/gpu/drm/amd/include/asic_reg/dcn/dcn_3_0_0_sh_mask.h"
    assert worth_keeping(registers, 100 << 10) and not worth_keeping(registers, 5 << 20)
    assert worth_keeping("drivers/net/ethernet/sfc/mcdi_pcol.h", 1508986)


@pytest.mark.parametrize(
    ("path", "targets", "expected"),
    [
        ("fs/ext4/part.c", {"vmlinux"}, True),
        ("fs/ext4/part.c", {"vmlinux", "ext4"}, False),
        ("fs/part.c", {"vmlinux"}, False),
        ("nowhere/part.c", {"vmlinux"}, False),
        # All that is configured matters.
        ("fs/ext4/part.c", set(), False),
    ],
)
def test_what_only_modules_that_are_not_loaded_may_include(
    path: str, targets: set[str], expected: bool
) -> None:
    assert rests(path, LISTINGS, targets) is expected
