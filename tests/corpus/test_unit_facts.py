# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts of real units, as Kbuild compiled them, and when they are read anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kspliced.build.kbuild import Kbuild, Unit
from kspliced.build.unit_facts import FactsSource
from kspliced.errors import BuildError, Code
from kspliced.facts.model import AccessKind, AccessPath, UnreadKind
from tests.corpus import kernels, stages
from tests.vm.case import OLD_VERSION

UNIT = Unit("lib/klist.o", "lib", "vmlinux")
# No function is in it.
DATA = Unit("lib/ctype.o", "lib", "vmlinux")
FILES = ("lib/klist.c", "lib/ctype.c")


class Place:
    """An object tree in which UNIT and DATA are compiled, of a source tree with its own FILES."""

    def __init__(self, folder: Path) -> None:
        old = kernels.source(OLD_VERSION)
        self.tree = folder / "tree"
        self.tree.mkdir(parents=True)
        for entry in old.iterdir():
            if entry.name != "lib":
                (self.tree / entry.name).symlink_to(entry)
        (self.tree / "lib").mkdir()
        for entry in (old / "lib").iterdir():
            place = self.tree / "lib" / entry.name
            if f"lib/{entry.name}" in FILES:
                shutil.copyfile(entry, place)
            else:
                place.symlink_to(entry)
        headers = kernels.headers(OLD_VERSION)
        self.kbuild = Kbuild(self.tree, folder / "objects", headers, stages.jobs())
        self._version = headers.compiler_version
        self._objects = folder / "objects"

    def source(self, kept: Path | None) -> FactsSource:
        """What facts are asked of, after what is not up to date has been compiled."""
        assert self.kbuild.compile((UNIT, DATA)) == {}
        return FactsSource(self.tree, self._objects, self.kbuild, self._version, kept)


def test_facts_of_a_unit(tmp_path: Path) -> None:
    source = Place(tmp_path).source(None)
    facts = source.facts(UNIT, {"klist_del", "klist_put", "spin_lock"}.__contains__)
    assert not facts.unread
    functions = {function.name: function for function in facts.functions}
    assert set(functions) == {"klist_del", "klist_put", "spin_lock"}
    put = functions["klist_put"]
    assert put.static and put.place.file == "lib/klist.c"
    lock = next(call for call in put.calls if call.callee == "spin_lock")
    assert lock.arguments[0].path == AccessPath("", "struct klist", ("k_lock",))
    assert any(call.slots == (AccessPath("", "struct klist", ("put",)),) for call in put.calls)
    assert functions["spin_lock"].place.file == "include/linux/spinlock.h"
    every = [unread for function in source.facts(UNIT).functions for unread in function.unread]
    assert {unread.kind for unread in every} <= {UnreadKind.ASSEMBLY}
    assert any(
        access.kind is AccessKind.WRITE and access.path.members
        for function in source.facts(UNIT).functions
        for access in function.accesses
    )
    assert source.facts(DATA).functions == ()


def test_they_are_kept_until_something_that_the_unit_is_made_of_changes(tmp_path: Path) -> None:
    kept, place = tmp_path / "kept", Place(tmp_path / "one")
    first = place.source(kept).facts(UNIT)
    (entry,) = kept.iterdir()
    number = entry.stat().st_ino
    # Wherever the source lies.
    other = Place(tmp_path / "two")
    assert other.source(kept).facts(UNIT) == first
    assert list(kept.iterdir()) == [entry]
    assert entry.stat().st_ino == number, "it was read and written again"
    text = (place.tree / "lib/klist.c").read_text()
    begin = "klist_release(struct kref *kref)\n{"
    changed = text.replace(begin, f"{begin}\n\tbarrier();")
    assert changed != text
    (place.tree / "lib/klist.c").write_text(changed)
    assert place.source(kept).facts(UNIT) != first
    assert len(list(kept.iterdir())) == 2


def test_what_is_kept_and_cannot_be_read_is_made_again(tmp_path: Path) -> None:
    kept, source = tmp_path / "kept", Place(tmp_path / "one").source(tmp_path / "kept")
    first = source.facts(UNIT)
    (entry,) = kept.iterdir()
    whole = entry.read_bytes()
    for damaged in (b"", whole[:100], b"x" * 100):
        entry.write_bytes(damaged)
        assert source.facts(UNIT) == first
        assert entry.read_bytes() == whole


def test_a_unit_that_was_not_compiled(tmp_path: Path) -> None:
    with pytest.raises(BuildError) as error:
        Place(tmp_path).source(None).facts(Unit("lib/other.o", "lib", "vmlinux"))
    assert error.value.code is Code.FAILED
