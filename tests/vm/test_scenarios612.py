# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches against 6.12 as Debian 12 and as Debian 13 compile it, applied, seen, and undone.

Both kernels have IBT, call padding and runtime constants; gcc 14 aligns loops to more than
functions, so what is replaced there may have other padding than the object that is compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pytest

from kspliced.elf.read import read_object
from kspliced.match.report import Cause
from kspliced.model import Manifest
from kspliced.pack import Pack
from tests.vm import kmod_build, scenario_build
from tests.vm.scenario_guest import UPDATES, ScenarioGuest
from tests.vm.test_scenarios import DROP, SCHEDSTATS, STATUS, Scenario, see

pytestmark = pytest.mark.vm

SCENARIOS = (
    Scenario("string", "cat /proc/cmdline", "console=", "patched: console="),
    Scenario("new_code", "cat /proc/version", "Linux version 6", r"read 42 4[12] Linux version 6"),
    Scenario("static_changed", DROP, "", "drop_caches: silent\n"),
    Scenario("syscall", "uname -m", "x86_64\n", "spliced\n"),
    Scenario("exception", "cat /proc/version", "Linux", "value 0 Linux"),
    Scenario(
        "alternatives",
        "cut -c1-8 /proc/version; cut -c1-8 /proc/version",
        "Linux ve\nLinux ve\n",
        "count 17\ncount 28\n",
    ),
    Scenario("const_string", "head -n 1 /proc/vmstat", "nr_free_pages ", "nr_spare_pages "),
    Scenario(
        "6.12/together",
        f"cat /proc/cmdline {STATUS} /sys/block/loop0/loop/offset",
        "console=.*\nenabled\n0\n",
        "together: .*\non\nat 0\n",
    ),
    Scenario(
        "6.12/static_key",
        f"for n in 0 1 0; do echo $n > {SCHEDSTATS}; cut -c1-12 /proc/cmdline; done",
        "(console=.*\n){3}",
        "schedstats o\nschedstats o\nschedstats o\n",
    ),
    Scenario("6.12/percpu", "cat /proc/sys/fs/inode-nr", r"\d{1,6}\t", r"10000\d{5}\t"),
    Scenario("6.12/aligned", "grep misc /proc/devices", " 10 misc\n", " 10 misc: patched\n"),
    Scenario(
        "6.12/runtime",
        "cat /proc/sys/fs/dentry-state",
        r"\d+\t\d{1,6}\t45\t0\t\d{1,6}\t0$",
        r"\d+\t1000000042\t45\t0\t1000000043\t0$",
    ),
)
REFUSED = {
    "noinstr": "noinstr",
    "export": "export_changed",
    "init": "init_only",
    "init_dropped": "section_class_changed",
}
# Of kernel/sys.c, where x86 has its own.
OVERRIDDEN = {"syscall": ("arch_prctl_spec_ctrl_get", "arch_prctl_spec_ctrl_set")}
KERNELS = (
    pytest.param(kmod_build.KERNELS[1], id="gcc-12", marks=pytest.mark.full),
    pytest.param(kmod_build.TRIXIE, id="gcc-14"),
)

Packs = Mapping[str, Pack | set[str]]


@pytest.fixture(scope="module", params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> kmod_build.Kernel:
    found: kmod_build.Kernel = request.param
    kmod_build.fetch(found)
    return found


@pytest.fixture(scope="module")
def packs(kernel: kmod_build.Kernel) -> Packs:
    return scenario_build.packs(kernel, [*(s.name for s in SCENARIOS), *REFUSED])


@pytest.fixture(scope="module")
def guest(kernel: kmod_build.Kernel) -> Iterator[ScenarioGuest]:
    modules = ("fs/binfmt_misc", "drivers/block/loop")
    with ScenarioGuest(f"scenarios-{kernel.release}", modules, kernel) as machine:
        machine.check(
            "mount -t binfmt_misc none /proc/sys/fs/binfmt_misc; "
            "truncate -s 1M /tmp/disk; losetup /dev/loop0 /tmp/disk; "
            "echo 4 > /proc/sys/vm/drop_caches"
        )
        yield machine
        assert machine.faults() == ""


def pack_of(packs: Packs, name: str) -> Pack:
    pack = packs[name]
    assert isinstance(pack, Pack), pack
    return pack


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_applied_seen_and_undone(guest: ScenarioGuest, packs: Packs, scenario: Scenario) -> None:
    pack = pack_of(packs, scenario.name)
    before = see(guest, scenario.probe)
    assert re.match(scenario.before, before), before
    matched = guest.match(pack)
    assert {(m.function, m.cause) for m in matched.unmatched} == {
        (function, Cause.OVERRIDDEN) for function in OVERRIDDEN.get(scenario.name, ())
    }
    guest.apply(pack, matched)
    text = see(guest, scenario.probe)
    assert re.match(scenario.after, text), text
    assert bool(text) == bool(scenario.after)
    guest.undo(pack)
    text = see(guest, scenario.probe)
    assert re.match(scenario.before, text), text
    assert bool(text) == bool(scenario.before)
    assert "applied" not in guest.check(f"cat {UPDATES}/*/stage 2> /dev/null || true")
    assert guest.faults() == ""


@pytest.mark.parametrize(("name", "code"), REFUSED.items())
def test_refused_with_its_own_code(packs: Packs, name: str, code: str) -> None:
    assert packs[name] == {code}


def constants(manifest: Manifest) -> set[tuple[int, str]]:
    return {(c.size, c.variable) for group in manifest.groups for c in group.constants}


def test_a_pack_says_which_constants_the_kernel_has_to_fill_in(packs: Packs) -> None:
    assert constants(pack_of(packs, "6.12/runtime").manifest) == {
        (8, "dentry_hashtable"), (1, "d_hash_shift"), (8, "USER_PTR_MAX"),
    }  # fmt: skip
    assert constants(pack_of(packs, "string").manifest) == set()


def test_new_code_has_room_for_call_thunks_and_no_sealed_entries(packs: Packs) -> None:
    pack = pack_of(packs, "new_code")
    (group,) = pack.manifest.groups
    part = read_object(pack.blob(group.blob))
    assert part.section_named(".ibt_endbr_seal") is None
    places = {s.name: s.value for s in part.symbols if s.name}
    text = part.section_named(".text")
    assert text is not None
    for name in ("ks_read", "version_proc_show"):
        start = places[name]
        assert start % 16 == 0
        assert places[f"__pfx_{name}"] == start - 16
        assert text.data[start - 16 : start] == b"\x90" * 16


def test_a_unit_is_matched_plainly_where_padding_depends_on_the_place(
    kernel: kmod_build.Kernel, packs: Packs
) -> None:
    plain = set()
    for name in ("6.12/aligned", "6.12/runtime", "string"):
        pack = pack_of(packs, name)
        (unit,) = pack.manifest.units
        text = read_object(pack.blob(unit.blob)).section_named(".text")
        if text is not None and text.size:
            plain.add(name)
    assert plain == ({"6.12/aligned", "6.12/runtime"} if kernel is kmod_build.TRIXIE else set())
