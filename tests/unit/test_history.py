# SPDX-License-Identifier: GPL-2.0-or-later
"""The changelog and the commits of an upgrade, as a build takes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kspliced.build.history import given_series, read_history
from kspliced.build.request import BuildRequest
from kspliced.errors import Code, ExitCode, KsplicedError
from kspliced.model import ChangelogEntry
from kspliced.source.changelog import News
from kspliced.source.compare import ChangeType, FileChange
from tests.unit.plan.test_attribution import Files, change
from tests.unit.plan.test_commits import BOTH, FIRST, commit

CHANGES = tuple(FileChange(path, ChangeType.MODIFIED) for path in sorted(BOTH))
NONE = News((), "the new source has no changelog that can be read")


@pytest.fixture
def tops(tmp_path: Path) -> tuple[Path, Path]:
    """The two trees."""
    for path, both in BOTH.items():
        for side, text in zip(("old", "new"), both, strict=True):
            (tmp_path / side / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / side / path).write_text(text)
    return tmp_path / "old", tmp_path / "new"


def request(tmp_path: Path) -> BuildRequest:
    return BuildRequest(tmp_path, tmp_path, tmp_path, tmp_path, (), (), 1, None)


def test_without_commits_all_is_told_by_words(tops: tuple[Path, Path]) -> None:
    entries = (ChangelogEntry("1", "fs: check the node in walk_tree()", (), ()),)
    found = read_history(News(entries), (), *tops, CHANGES, "2")
    assert found.share is None and found.attributions[0].files == ("fs/one.c",)
    assert read_history(NONE, (), *tops, CHANGES, "2").attributions == ()


def test_without_a_changelog_commits_are_the_entries(
    tops: tuple[Path, Path], tmp_path: Path
) -> None:
    found = read_history(NONE, (commit(tmp_path, FIRST, BOTH),), *tops, CHANGES, "2")
    assert [entry.subject for entry in found.news.entries] == [FIRST] and not found.news.problem
    assert found.share is not None and found.share.exactly == found.share.hunks == 3


def test_commits_of_another_kernel_are_an_error(tops: tuple[Path, Path], tmp_path: Path) -> None:
    foreign: Files = {path: change("somebody_elses", "x;") for path in BOTH}
    with pytest.raises(KsplicedError) as caught:
        read_history(NONE, (commit(tmp_path, FIRST, foreign),), *tops, CHANGES, "2")
    assert caught.value.code is Code.SERIES_OTHER_KERNEL and caught.value.remedy
    assert "none of 1 commits made any of the 3 changes" in caught.value.message


def test_where_nothing_differs_no_commit_is_foreign(
    tops: tuple[Path, Path], tmp_path: Path
) -> None:
    found = read_history(NONE, (commit(tmp_path, FIRST, BOTH),), *tops, (), "2")
    assert found.share is not None and found.share.hunks == 0 and found.news == NONE


def test_what_a_request_names(tmp_path: Path) -> None:
    asked = request(tmp_path)
    assert given_series(asked) is None
    with pytest.raises(KsplicedError) as caught:
        given_series(replace(asked, cve_data=tmp_path))
    assert caught.value.exit_code is ExitCode.USAGE and "--commits" in caught.value.remedy
    for one in (replace(asked, commits=tmp_path / "none"), replace(asked, commits=tmp_path)):
        with pytest.raises(KsplicedError) as caught:
            given_series(one)
        assert caught.value.code is Code.SERIES_UNREADABLE
    (tmp_path / "one.json").write_text("{}")
    with pytest.raises(KsplicedError) as caught:
        given_series(replace(asked, commits=tmp_path, cve_data=tmp_path))
    assert caught.value.code is Code.CVE_DATA_UNREADABLE
