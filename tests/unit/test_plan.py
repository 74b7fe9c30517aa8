# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan says of every change what becomes of it, and rounds nothing up."""

from __future__ import annotations

import dataclasses

import pytest

from kspliced.build.pipeline import BuildResult
from kspliced.build.plan import EntryStatus, plan_of
from kspliced.build.search import Decision, Fate
from kspliced.build.select import Irrelevant
from kspliced.model import ChangeKind, ChangelogEntry, FunctionChange, Refusal
from kspliced.plan.attribution import CERTAIN, Attribution
from kspliced.plan.components import Component

ENTRIES = (
    ChangelogEntry("6.1.2-1", "ext4: fix it (CVE-2026-12345)", ("CVE-2026-12345",), ()),
    ChangelogEntry("6.1.2-1", "xfs: in xfs_one(): fix it", ("CVE-2026-2",), ()),
    ChangelogEntry("6.1.2-1", "drm/radeon: fix it", ("CVE-2026-3",), ()),
    ChangelogEntry("6.1.2-1", "unheard of: fix it", ("CVE-2026-4",), ()),
)
FUNCTION = FunctionChange("ext4", "fs/ext4/a.o", "f", ChangeKind.CHANGED, "own source")
IRRELEVANT = (Irrelevant("drivers/gpu/drm/radeon/x.c", "not configured"),)
REFUSAL = Refusal("init_only", "fs/xfs/b.o", "xfs_one", "it runs only at start-up")


def fate(path: str, decision: Decision, *reasons: Refusal) -> Fate:
    return Fate(Component(path, (path,), (), (), ()), decision, reasons, ())


PLACES = ("fs/ext4/", "fs/xfs/", "drivers/gpu/drm/radeon/", "nowhere/")


def result(*fates: Fate, confidence: float = 0.9) -> BuildResult:
    """A build whose entries may be in all files of their places."""
    live = (FUNCTION,) if any(f.decision is Decision.LIVE for f in fates) else ()
    refused = tuple(reason for f in fates for reason in f.reasons)
    paths = [*(f.component.id for f in fates), *(item.path for item in IRRELEVANT)]
    told = (tuple(path for path in paths if path.startswith(place)) for place in PLACES)
    attributions = tuple(Attribution(files, confidence if files else 0.0) for files in told)
    return BuildResult(None, (), live, refused, IRRELEVANT, fates, attributions, ENTRIES, ())


LIVE = fate("fs/ext4/a.c", Decision.LIVE)
REBOOT = fate("fs/xfs/b.c", Decision.REBOOT, REFUSAL)
OTHER = fate("fs/xfs/c.c", Decision.LIVE)


def statuses(*fates: Fate) -> list[str]:
    return [entry.status.value for entry in plan_of(result(*fates)).entries]


def test_every_entry_has_its_own_fate() -> None:
    plan = plan_of(result(LIVE, REBOOT))
    assert [(c.id, c.decision.value) for c in plan.components] == [
        ("fs/ext4/a.c", "live"),
        ("fs/xfs/b.c", "reboot"),
        ("not configured", "irrelevant"),
    ]
    assert [e.status.value for e in plan.entries] == ["live", "reboot", "absent", "unknown"]
    assert plan.components[0].functions == ("f",)
    assert plan.components[1].reasons[0].code == "init_only"
    totals = plan.totals
    assert (totals.live, totals.reboot, totals.entries_live) == (1, 1, 1)
    assert (totals.cves, totals.cves_live, totals.cves_reboot) == (4, 1, 1)
    assert (totals.cves_absent, totals.cves_unknown) == (1, 1)


def test_an_entry_that_may_be_in_several_files_has_the_worst_fate() -> None:
    assert statuses(REBOOT, OTHER)[1] == "reboot"
    assert statuses(fate("fs/xfs/b.c", Decision.LIVE), OTHER)[1] == "live"


@pytest.mark.parametrize("decision", list(Decision))
def test_of_an_entry_that_may_be_elsewhere_only_the_reboot_is_said(decision: Decision) -> None:
    build = result(LIVE, fate("fs/xfs/b.c", decision), confidence=CERTAIN - 0.01)
    entry = plan_of(build).entries[1]
    assert entry.status.value == ("reboot" if decision is Decision.REBOOT else "unknown")
    assert bool(entry.reason) == (entry.status is EntryStatus.UNKNOWN)
    build = result(LIVE, fate("fs/xfs/b.c", decision), confidence=CERTAIN)
    assert plan_of(build).entries[1].status is not EntryStatus.UNKNOWN


def test_what_is_unknown_has_one_reason() -> None:
    unknown = plan_of(result(LIVE, REBOOT)).entries[3]
    assert (unknown.status, unknown.components) == (EntryStatus.UNKNOWN, ())
    assert unknown.reason
    silent = dataclasses.replace(
        result(LIVE), entries=(), attributions=(), changelog="no changelog"
    )
    plan = plan_of(silent)
    assert (plan.changelog, plan.entries, plan.totals.cves) == ("no changelog", (), 0)
    lost = dataclasses.replace(result(LIVE), attributions=())
    assert {entry.status for entry in plan_of(lost).entries} == {EntryStatus.UNKNOWN}


@pytest.mark.parametrize("decision", [Decision.ASK, Decision.LATER, Decision.REBOOT])
def test_what_is_not_live_is_not_called_so(decision: Decision) -> None:
    other = fate("fs/ext4/b.c", Decision.LIVE)
    assert statuses(fate("fs/ext4/a.c", decision), other)[0] == decision.value


def test_a_cve_has_the_worst_of_its_entries() -> None:
    both = (ENTRIES[0], ChangelogEntry("6.1.2-1", "xfs: more of it", ("CVE-2026-12345",), ()))
    mixed = result(LIVE, REBOOT)
    told = mixed.attributions[:2]
    plan = plan_of(BuildResult(None, (), (), (), (), mixed.fates, told, both, ()))
    assert [e.status for e in plan.entries] == [EntryStatus.LIVE, EntryStatus.REBOOT]
    assert (plan.totals.cves, plan.totals.cves_live, plan.totals.cves_reboot) == (1, 0, 1)
