# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan says of every change what becomes of it, and rounds nothing up."""

from __future__ import annotations

import dataclasses

import pytest

from kspliced.build.fates import Decision, Fate
from kspliced.build.plan import Commits, EntryStatus, Lines, Plan, plan_of
from kspliced.build.request import BuildResult
from kspliced.build.select import Irrelevant
from kspliced.model import ChangeKind, ChangelogEntry, FunctionChange, Refusal
from kspliced.plan.attribution import CERTAIN, Attribution, Claim
from kspliced.plan.commits import Share
from kspliced.plan.components import Component, SourceNode
from kspliced.plan.declarations import Declaration, DeclarationKind
from kspliced.plan.edits import Edit, Spot
from kspliced.record import decode, encode
from kspliced.source.lines import Hunk

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


def test_what_commits_do_not_tell_is_listed() -> None:
    spots = (Spot("fs/ext4/a.c", Hunk(5, 0, 6, 2)), Spot("fs/ext4/a.c", Hunk(20, 3, 23, 1)))
    share = Share(commits=7, hunks=9, exactly=7, others=spots)
    plan = plan_of(dataclasses.replace(result(LIVE), share=share))
    assert plan.commits == Commits(
        given=7,
        hunks=9,
        exactly=7,
        others=(Lines("fs/ext4/a.c", 5, 5), Lines("fs/ext4/a.c", 20, 22)),
    )
    assert decode(Plan, encode(plan)) == plan
    assert plan_of(result(LIVE)).commits is None


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
    assert entry.reason
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


def test_what_is_not_live_has_its_reason() -> None:
    reasons = [entry.reason for entry in plan_of(result(LIVE, REBOOT)).entries]
    assert reasons[:3] == ["", "fs/xfs/b.c: it runs only at start-up", "not configured"]
    later = Refusal("module_not_loaded", "fs/xfs/b.c", "", "the module is not loaded")
    entry = plan_of(result(LIVE, fate("fs/xfs/b.c", Decision.LATER, later))).entries[1]
    assert (entry.status, entry.reason) == (
        EntryStatus.LATER,
        "fs/xfs/b.c: the module is not loaded",
    )
    same = plan_of(result(LIVE, fate("fs/xfs/b.c", Decision.IRRELEVANT))).entries[1]
    assert (same.status, same.reason) == (EntryStatus.ABSENT, "fs/xfs/b.c: its code is the same")
    nothing = plan_of(result()).entries
    assert {e.status for e in nothing} == {EntryStatus.ABSENT} and all(e.reason for e in nothing)


@pytest.mark.parametrize("decision", list(Decision))
def test_a_file_of_which_nothing_is_known_leaves_only_the_reboot(decision: Decision) -> None:
    build = result(LIVE, fate("fs/xfs/b.c", decision))
    more = Attribution(("fs/xfs/b.c", "fs/xfs/lost.h"), 0.9)
    told = (build.attributions[0], more, *build.attributions[2:])
    entry = plan_of(dataclasses.replace(build, attributions=told)).entries[1]
    if decision is Decision.REBOOT:
        assert entry.status is EntryStatus.REBOOT
    else:
        assert entry.status is EntryStatus.UNKNOWN and "fs/xfs/lost.h" in entry.reason


def test_of_two_components_with_a_file_the_worse_counts() -> None:
    live = Fate(Component("a", ("fs/xfs/b.c",), (), (), ()), Decision.LIVE, (), ())
    worse = Fate(Component("b", ("fs/xfs/b.c",), (), (), ()), Decision.ASK, (), ())
    told = (Attribution(("fs/xfs/b.c",), 0.9),) * 4
    for fates in ((live, worse), (worse, live)):
        build = dataclasses.replace(result(*fates), attributions=told)
        assert plan_of(build).entries[1].status is EntryStatus.ASK


@pytest.mark.parametrize("decision", ["reboot", "ask", "live"])
def test_what_is_in_a_module_that_is_not_loaded_is_not_here(decision: str) -> None:
    """Whatever becomes of the rest of its component; what is here, too, has the fate of that."""
    files = ("fs/xfs/a.c", "fs/xfs/b.c")
    fate = Fate(Component("a", files, (), (), ()), Decision(decision), (), (), ("fs/xfs/b.c",))
    told = (Attribution(files[:1], 0.9), Attribution(files[1:], 0.9)) * 2
    told = (*told[:2], Attribution(files, 0.9), told[3])
    entries = plan_of(dataclasses.replace(result(fate), attributions=told)).entries
    assert [entry.status.value for entry in entries[:3]] == [decision, "later", decision]


LINE_4, LINE_9, LINE_20 = (Spot("fs/xfs/b.c", Hunk(line, 1, line, 1)) for line in (4, 9, 20))


def part(name: str, spot: Spot, decision: Decision) -> Fate:
    """A component with the part ``name`` of fs/xfs/b.c."""
    none: frozenset[str] = frozenset()
    function = Declaration(spot.path, name, DeclarationKind.FUNCTION, spot.hunk.old_start, 9, False)
    edit = Edit(spot.path, (spot.hunk,), (), (function,), (), ())
    node = SourceNode(f"{spot.path}:{name}", spot.path, (edit,), (), none, none, none)
    component = Component(node.id, (spot.path,), (), (), (), (node,), (spot.path,))
    return Fate(component, decision, (), ())


PARTS = (part("good", LINE_4, Decision.LIVE), part("bad", LINE_9, Decision.REBOOT))


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        # It certainly made the good one only.
        (((LINE_4, 0.9),), "live"),
        # It may have made the other, too, or one that is not known to be another's.
        (((LINE_4, 0.9), (LINE_9, 0.03)), "reboot"),
        (((LINE_4, 0.7),), "reboot"),
        ((), "reboot"),
        # Another made the bad one beyond doubt.
        (((LINE_4, 0.01), (LINE_20, 0.9)), "live"),
    ],
)
def test_an_entry_has_the_fate_of_its_part(
    claims: tuple[tuple[Spot, float], ...], status: str
) -> None:
    mine = Attribution(("fs/xfs/b.c",), 0.9, claims=tuple(Claim(*claim) for claim in claims))
    other = Attribution(("fs/xfs/b.c",), 0.9, claims=(Claim(LINE_9, 0.85),))
    build = dataclasses.replace(result(*PARTS), attributions=(mine, other, mine, mine))
    plan = plan_of(build)
    assert plan.entries[0].status.value == status
    assert plan.entries[1].status.value == "reboot"
    good = next(c for c in plan.components if c.id.endswith(":good"))
    assert [(lines.start, lines.end) for lines in good.lines] == [(4, 4)]


@pytest.mark.parametrize(("call", "status"), [("good(1);", "reboot"), ("other(1);", "live")])
def test_who_changed_a_function_may_have_changed_its_calls(call: str, status: str) -> None:
    """A file may be cut there, where the changelog's words are of different entries."""
    (node,) = PARTS[1].component.nodes
    calls = dataclasses.replace(node.edits[0], new_lines=(call,))
    node = dataclasses.replace(node, edits=(calls,))
    bad = dataclasses.replace(PARTS[1].component, nodes=(node,))
    mine = Attribution(("fs/xfs/b.c",), 0.9, claims=(Claim(LINE_4, 0.9),))
    other = Attribution(("fs/xfs/b.c",), 0.9, claims=(Claim(LINE_9, 0.95),))
    build = result(PARTS[0], dataclasses.replace(PARTS[1], component=bad))
    build = dataclasses.replace(build, attributions=(mine, other, mine, mine))
    assert plan_of(build).entries[0].status.value == status


@pytest.mark.parametrize(("share", "status"), [(0.89, "reboot"), (0.9, "live")])
def test_a_part_that_is_anothers(share: float, status: str) -> None:
    mine = Attribution(("fs/xfs/b.c",), 0.9, claims=(Claim(LINE_4, 0.7),))
    other = Attribution(claims=(Claim(LINE_9, share),))
    build = dataclasses.replace(result(*PARTS), attributions=(mine, other, mine, mine))
    assert plan_of(build).entries[0].status.value == status


@pytest.mark.parametrize(("share", "status"), [(0.89, "reboot"), (0.9, "absent")])
def test_hunks_of_comments_and_code_that_is_of_others(share: float, status: str) -> None:
    """What it may have made is in no component, so it made no code where others made all of it."""
    mine = Attribution(("fs/xfs/b.c",), 0.9, claims=(Claim(LINE_20, 0.4),))
    others = (
        Attribution(claims=(Claim(LINE_4, 0.95),)),
        Attribution(claims=(Claim(LINE_9, share),)),
    )
    build = dataclasses.replace(result(*PARTS), attributions=(mine, *others, mine))
    assert plan_of(build).entries[0].status.value == status


@pytest.mark.parametrize(("use", "status"), [(".x = fresh,", "live"), (".x = other,", "reboot")])
def test_who_alone_uses_what_is_new_is_who_brought_it(use: str, status: str) -> None:
    """The words of a hunk that sets a callback may be those of another entry."""
    (node,) = PARTS[1].component.nodes
    function = Declaration("fs/xfs/b.c", "fresh", DeclarationKind.FUNCTION, 4, 4, True)
    brings = Edit("fs/xfs/b.c", (LINE_4.hunk,), (), (function,), (), ("static int fresh();",))
    uses = Edit("fs/xfs/b.c", (LINE_9.hunk,), (), (), (), (use,))
    bad = dataclasses.replace(node, edits=(brings, uses))
    bad_fate = dataclasses.replace(
        PARTS[1], component=dataclasses.replace(PARTS[1].component, nodes=(bad,))
    )
    mine = Attribution(("fs/xfs/b.c",), 0.9, claims=(Claim(LINE_9, 0.6), Claim(LINE_20, 0.9)))
    other = Attribution(("fs/xfs/b.c",), 0.9, claims=(Claim(LINE_4, 0.95),))
    build = result(part("good", LINE_20, Decision.LIVE), bad_fate)
    build = dataclasses.replace(build, attributions=(mine, other, mine, mine))
    assert plan_of(build).entries[0].status.value == status


def test_a_part_that_nobody_is_known_to_have_made_may_be_anybodys() -> None:
    mine = Attribution(("fs/xfs/b.c",), 0.9, claims=(Claim(LINE_4, 0.9),))
    build = dataclasses.replace(result(*PARTS), attributions=(mine, *(Attribution(),) * 3))
    assert plan_of(build).entries[0].status is EntryStatus.REBOOT


@pytest.mark.parametrize(
    ("claims", "confidence", "status"),
    [
        (((LINE_20, 0.9),), 0.9, "absent"),
        (((LINE_20, 0.9),), 0.7, "unknown"),
        # It may be in what is compiled, too.
        (((LINE_20, 0.9), (LINE_4, 0.03)), 0.9, "live"),
        (((LINE_20, 0.7),), 0.9, "reboot"),
    ],
)
@pytest.mark.parametrize("divided", [True, False])
def test_an_entry_whose_hunks_are_not_compiled(
    claims: tuple[tuple[Spot, float], ...], confidence: float, status: str, divided: bool
) -> None:
    mine = Attribution(("fs/xfs/b.c",), confidence, claims=tuple(Claim(*one) for one in claims))
    others = (Attribution(claims=(Claim(LINE_4, 0.8),)), Attribution(claims=(Claim(LINE_9, 0.85),)))
    whole = dataclasses.replace(PARTS[0].component, divided=())
    parts = PARTS if divided else (dataclasses.replace(PARTS[0], component=whole),)
    build = dataclasses.replace(result(*parts), attributions=(mine, *others, mine))
    entry = plan_of(build).entries[0]
    assert entry.status.value == ("live" if status == "reboot" and not divided else status)
    assert bool(entry.components) is (status in ("live", "reboot"))


def test_the_functions_of_a_part() -> None:
    changes = tuple(
        FunctionChange("xfs", "fs/xfs/b.o", name, ChangeKind.CHANGED, "")
        for name in ("good", "bad")
    )
    build = dataclasses.replace(result(*PARTS), functions=changes)
    found = {c.id: c.functions for c in plan_of(build).components}
    assert found["fs/xfs/b.c:good"] == ("good",) and found["fs/xfs/b.c:bad"] == ()
