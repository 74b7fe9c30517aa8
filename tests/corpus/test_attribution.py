# SPDX-License-Identifier: GPL-2.0-or-later
"""Real entries, told by hand and by kspliced: nothing is called live that is elsewhere too."""

from __future__ import annotations

import pytest

from kspliced.build.select import not_kernel
from kspliced.plan.attribution import CERTAIN
from tests.corpus.attribution import Told, certain, labels, live_files, told


@pytest.fixture(scope="module")
def entries() -> tuple[Told, ...]:
    return told()


def test_the_labels_are_about_this_upgrade(entries: tuple[Told, ...]) -> None:
    known = {one.subject for one in entries}
    assert len(labels()) >= 120
    assert [label.subject for label in labels() if label.subject not in known] == []
    assert all(label.files and label.reason for label in labels())


def called_live(one: Told, live: frozenset[str]) -> bool:
    """Whether a plan calls an entry live, if just the files ``live`` are."""
    files = {path for path in one.candidates if not not_kernel(path)}
    return bool(files) and files <= live and one.attribution.confidence >= CERTAIN


def test_nothing_is_called_live_that_is_in_other_files(entries: tuple[Told, ...]) -> None:
    live = live_files()
    found = [one for one in certain(entries) if called_live(one, live)]
    assert [(one.subject, one.candidates) for one in found if not one.complete] == []
    assert len(found) >= 110, "so many of the labelled entries are"


def test_few_files_are_missing_and_few_too_many(entries: tuple[Told, ...]) -> None:
    known = certain(entries)
    sure = [one for one in known if one.attribution.confidence >= CERTAIN]
    assert sum(one.complete for one in known) >= 0.98 * len(known)
    assert sum(one.complete for one in sure) >= 0.99 * len(sure)
    assert sum(one.exact for one in known) >= 0.62 * len(known)
    assert sum(len(one.candidates) for one in entries) <= 2.2 * len(entries)


def test_most_entries_are_told_with_confidence(entries: tuple[Told, ...]) -> None:
    sure = [one for one in entries if one.attribution.confidence >= CERTAIN]
    assert len(sure) >= 0.8 * len(entries)


def test_sources_of_one_commit_are_told(entries: tuple[Told, ...]) -> None:
    known = [one for one in certain(entries) if one.attribution.together]
    groups = [
        (one, {spot.path for spot in group}) for one in known for group in one.attribution.together
    ]
    wrong = [one.subject for one, group in groups if one.label and not group <= one.label.files]
    assert len(groups) >= 20 and len(wrong) <= 0.25 * len(groups), wrong
