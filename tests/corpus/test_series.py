# SPDX-License-Identifier: GPL-2.0-or-later
"""Real series: what commits made is known, and git says the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kspliced.plan.edits import Spot
from kspliced.series.trace import trace
from tests.corpus.series import MAIN, RT, Case, Trees, commits_of, debian, figures, files_of, trees

VERSION, APPLIED = "6.1.187-1", 10


@pytest.fixture(scope="module")
def most() -> Trees:
    """The most of debian/patches-rt."""
    return trees(Case(VERSION, RT, APPLIED))


def test_every_hunk_is_told_and_git_agrees(most: Trees) -> None:
    found = figures(most)
    assert found.hunks >= 300 and found.exact == found.enough == found.hunks
    assert found.same >= 0.98 * found.hunks


def test_entries_are_just_what_their_commits_changed(most: Trees) -> None:
    told = most.exactly
    assert told.share.others == () and len(told.entries) == len(most.commits)
    both = list(zip(files_of(most), told.attributions, strict=True))
    assert all(files <= set(one.files) and one.confidence == 1.0 for files, one in both)
    # Who changed its one line last is all that git knows.
    counted = {"localversion-rt"}
    more = [set(one.files) - files for files, one in both if set(one.files) - files - counted]
    assert len(more) <= 0.05 * len(both), more


def test_what_the_old_tree_has_already_makes_nothing(most: Trees) -> None:
    """The whole series, as a source package has it, of which the old tree has some."""
    every = commits_of(debian(VERSION) / RT)
    hunks = {f.path: tuple(p.hunk for p in f.passages if p.hunk) for f in most.files}
    found = trace(every, most.old, most.new, hunks)
    mine = {Spot(m.path, m.hunk): m.commits for m in most.traced.hunks}
    told = {Spot(m.path, m.hunk): m.commits for m in found.hunks if m.exact}
    assert len(told) >= 0.95 * len(mine)
    shifted = {spot: {n - APPLIED for n in by} for spot, by in told.items()}
    assert [spot for spot, by in shifted.items() if not by >= mine[spot]] == []
    assert sum(shifted[spot] == mine[spot] for spot in told) >= 0.9 * len(told)


def test_a_commit_that_is_left_out_makes_its_hunks_nobodys(most: Trees) -> None:
    """Never those of the ones that are left."""
    left = most.commits[: len(most.commits) // 2]
    hunks = {f.path: tuple(p.hunk for p in f.passages if p.hunk) for f in most.files}
    found = trace(left, most.old, most.new, hunks)
    told = {Spot(m.path, m.hunk): m.commits for m in found.hunks if m.exact}
    assert told and all(most.makers[spot] <= by for spot, by in told.items())
    others = [m for m in found.hunks if not m.exact]
    assert all(max(most.makers[Spot(m.path, m.hunk)]) >= len(left) for m in others)


@pytest.mark.full
@pytest.mark.parametrize("version", ["6.1.187-1", "6.12.107-1"])
@pytest.mark.parametrize("name", [RT, MAIN])
def test_whole_series(version: str, name: str) -> None:
    found = figures(trees(Case(version, name)))
    assert found.exact == found.enough == found.hunks
    assert found.same >= 0.95 * found.hunks
    assert replace(found, whole=0) != found, "words tell some of it, too"
