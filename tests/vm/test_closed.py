# SPDX-License-Identifier: GPL-2.0-or-later
"""A header's inline function calls what another part of the upgrade adds: both go live or neither.

The builder itself, on ext4's real source with a few lines more; no guest.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kspliced.build.pipeline import build
from kspliced.build.request import BuildRequest, BuildResult
from kspliced.model import ImportKind, no_progress
from kspliced.plan.safety import Policy
from tests.vm import real
from tests.vm.case import OLD_RELEASE

pytestmark = pytest.mark.vm

HEADER, USER, ADDER = "fs/ext4/ext4.h", "fs/ext4/mballoc.c", "fs/ext4/balloc.c"
_END = "#endif\t/* _EXT4_H */"
_PLACE = "\tif (!S_ISREG(inode->i_mode)) {\n\t\t/*BUG_ON(!list_empty(&ei->i_prealloc_list));*/"
_INLINE = """\
static inline unsigned int ext4_rounded(unsigned int needed)
{
\treturn ext4_fresh(needed);
}

"""
_FRESH = "\nunsigned int ext4_fresh(unsigned int needed)\n{\n\treturn needed | 1;\n}\n"
_FORCED = "EXPORT_SYMBOL_GPL(ext4_fresh);\n"  # nobody else links by it: export_changed


@pytest.fixture
def request_(tmp_path: Path) -> BuildRequest:
    """mballoc.c uses an inline function of the header, which calls what balloc.c adds."""
    kernel, new = real.kernel(), tmp_path / "new"
    shutil.copytree(real.tree(), new, symlinks=True, copy_function=os.link)
    declared = "unsigned int ext4_fresh(unsigned int needed);\n"
    edit(new / HEADER, _END, declared + _INLINE + _END)
    edit(new / USER, _PLACE, f"\tneeded = ext4_rounded(needed);\n{_PLACE}")
    add(new / ADDER, _FRESH)
    return BuildRequest(
        from_source=real.tree(),
        to_source=new,
        config=kernel / f"boot/config-{OLD_RELEASE}",
        headers=kernel,
        targets=("vmlinux", "ext4"),
        only=(),
        jobs=2,
        workdir=None,
        policy=Policy.NORMAL,
    )


def edit(path: Path, before: str, after: str) -> None:
    """Change a file of a tree of links."""
    text = path.read_text()
    assert text.count(before) == 1
    path.unlink()
    path.write_text(text.replace(before, after))


def add(path: Path, more: str) -> None:
    """Put something at a file's end."""
    text = path.read_text()
    path.unlink()
    path.write_text(text + more)


def fates(result: BuildResult) -> dict[str, str]:
    """What becomes of each source."""
    found = {f.component.id: f.decision.value for f in result.fates}
    return {name: fate for name, fate in found.items() if not name.startswith(HEADER)}


def test_both_go_live(request_: BuildRequest) -> None:
    result = build(request_, no_progress)
    assert fates(result) == {USER: "live", ADDER: "live"}
    names = {f.name for f in result.functions}
    assert names == {"ext4_discard_preallocations", "ext4_fresh"}
    assert result.manifest is not None
    imports = [i for group in result.manifest.groups for i in group.imports]
    assert "ext4_fresh" not in {i.symbol for i in imports if i.kind is ImportKind.EXTERN}


def test_neither_goes_live_where_what_adds_it_is_refused(request_: BuildRequest) -> None:
    add(request_.to_source / ADDER, _FORCED)
    result = build(request_, no_progress)
    assert fates(result) == {USER: "reboot", ADDER: "reboot"}
    assert result.manifest is None
    (one,) = [r for r in result.refused if r.code == "symbol_missing"]
    assert (one.unit, one.symbol) == (USER, "ext4_fresh")
    assert one.reason == (
        f"new code uses ext4_fresh, which {ADDER} adds, and that does not go live: export_changed"
    )


def test_what_does_not_use_it_goes_live_all_the_same(request_: BuildRequest) -> None:
    """Of the same file, and of a third one."""
    new = request_.to_source
    add(new / ADDER, _FORCED)
    edit(new / "fs/ext4/bitmap.c", "\treturn numchars * BITS_PER_BYTE - ",
         "\tnumchars &= ~1U;\n\treturn numchars * BITS_PER_BYTE - ")  # fmt: skip
    result = build(request_, no_progress)
    assert fates(result) == {USER: "reboot", ADDER: "reboot", "fs/ext4/bitmap.c": "live"}


def test_what_is_not_asked_for_adds_nothing(request_: BuildRequest) -> None:
    result = build(replace(request_, only=("fs/ext4/mballoc.o",)), no_progress)
    assert result.manifest is None
    assert {r.code for r in result.refused} >= {"symbol_missing"}
