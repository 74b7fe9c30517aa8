# SPDX-License-Identifier: GPL-2.0-or-later
"""A sample of an upgrade's units against a running kernel's memory, and all of them.

docs/coverage.md holds what the whole runs gave.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.build.kbuild import Unit
from kspliced.elf.read import read_object
from kspliced.match.report import Cause
from kspliced.pack import read_pack
from kspliced.plan.safety import Policy
from tests.whole import live, planned, run, units
from tests.whole.capture import captured
from tests.whole.kernels import UPGRADES

pytestmark = pytest.mark.vm

UPGRADE = UPGRADES["6.1.187-1"]
# Every kind of site, and modules that use what others export, also to GPL modules only.
SAMPLE = tuple(
    Unit(f"{directory}/{name}.o", directory, target)
    for target, directory, names in (
        ("vmlinux", "kernel", "sys signal kprobes"),
        ("vmlinux", "kernel/sched", "fair"),
        ("vmlinux", "mm", "vmscan memcontrol"),
        ("vmlinux", "net/core", "dev filter"),
        ("vmlinux", "fs", "exec"),
        ("ext4", "fs/ext4", "inline namei"),
        ("mac80211", "net/mac80211", "mesh"),
        ("bridge", "net/bridge", "br_vlan"),
    )
    for name in names.split()
)
# Weak functions of which x86 has its own.
OVERRIDDEN = {
    ("kernel/kprobes.o", "alloc_insn_page"),
    ("kernel/kprobes.o", "arch_adjust_kprobe_addr"),
    ("kernel/sched/fair.o", "arch_asym_cpu_priority"),
    ("kernel/signal.o", "sigaction_compat_abi"),
    ("kernel/sys.o", "arch_prctl_spec_ctrl_get"),
    ("kernel/sys.o", "arch_prctl_spec_ctrl_set"),
}


@pytest.fixture(scope="module")
def image() -> Path:
    """A guest's memory with the sample's modules, and the sample compiled."""
    assert units.compiled(UPGRADE, SAMPLE) == 0
    return captured(UPGRADE, SAMPLE)


def test_a_sample_matches_a_running_kernel(image: Path) -> None:
    found = run.run(UPGRADE, SAMPLE)
    assert all(f.live for f in found), "a module of the sample did not load"
    assert {(m.unit, m.function) for f in found for m in f.unmatched} == OVERRIDDEN
    assert {m.cause for f in found for m in f.unmatched} == {Cause.OVERRIDDEN}
    assert sum(f.matched for f in found) > 1200
    assert sum(f.sites for f in found) > 3000


def test_a_byte_that_differs_is_found(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = next(u for u in SAMPLE if u.path == "fs/ext4/namei.o")
    content = units.matched(UPGRADE, unit.path)
    obj = read_object(content)
    symbol = next(s for s in obj.symbols if s.name == "ext4_rename")
    section = obj.section(symbol.section)
    code = section.data[symbol.value : symbol.value + symbol.size]
    # Far from any relocation: the last return's address is made of the bytes before it.
    taken = {r.offset - symbol.value + n for r in section.relocations for n in range(-4, 8)}
    at = next(n for n in range(64, len(code)) if n not in taken)
    changed = content.replace(code, code[:at] + bytes((code[at] ^ 1,)) + code[at + 1 :])
    assert changed != content
    monkeypatch.setattr(run, "matched", lambda _, path: changed)
    (found,) = run._target((UPGRADE, image, unit.target, [unit.path]))
    assert [(m.function, m.offset, m.cause) for m in found.unmatched] == [
        ("ext4_rename", at, Cause.OTHER_CODE)
    ]


@pytest.mark.full
def test_an_upgrade_matches_the_kernel_it_begins_with() -> None:
    every = units.changed(UPGRADE)
    assert units.compiled(UPGRADE, every) == 0
    found = run.run(UPGRADE, every)
    matched = sum(f.matched for f in found)
    unmatched = [m for f in found for m in f.unmatched]
    assert matched / (matched + len(unmatched)) > 0.999
    explained = {Cause.OVERRIDDEN, Cause.NO_SYMBOL, Cause.AMBIGUOUS}
    assert [m.line() for m in unmatched if m.cause not in explained] == []


@pytest.mark.full
def test_most_of_what_touches_what_runs_goes_live_and_does_no_harm(tmp_path: Path) -> None:
    """The same under both policies; what ``normal`` lets go is tried."""
    pack = tmp_path / "whole.kspack"
    conservative = planned.figures(planned.planned(UPGRADE, Policy.CONSERVATIVE, pack))
    assert conservative.share >= 0.7 and conservative.share_told >= 0.74
    normal = planned.figures(planned.planned(UPGRADE, Policy.NORMAL, pack))
    assert normal.share >= 0.79 and normal.share_told >= 0.82
    result = live.at_work(read_pack(pack))
    print(conservative, normal, result)
    assert result.faults == "" and result.spans >= 500
