# SPDX-License-Identifier: GPL-2.0-or-later
"""What the changelog, and commits where a site has them, say of an upgrade."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kspliced.build.request import BuildRequest
from kspliced.errors import BuildError, Code, SourceError
from kspliced.plan.attribution import Attribution, attribute
from kspliced.plan.commits import Share, attribute_commits
from kspliced.plan.passages import ChangedFile, read_changes
from kspliced.series.commit import Commit
from kspliced.series.cves import read_cves
from kspliced.series.read import Series, open_series
from kspliced.series.trace import trace
from kspliced.source.changelog import News
from kspliced.source.compare import FileChange
from kspliced.source.lines import Hunk


@dataclass(frozen=True)
class History:
    """The changelog's entries and, with commits, those that it does not list; ``attributions`` are
    the files of each; ``share`` how far commits told the difference, None without."""

    news: News
    attributions: tuple[Attribution, ...] = ()
    share: Share | None = None


def given_series(request: BuildRequest) -> Series | None:
    """The commits that a request names, if any.

    :raises SourceError: SERIES_UNREADABLE, CVE_DATA_UNREADABLE.
    :raises BuildError: USAGE.
    """
    if request.commits is None:
        if request.cve_data is not None:
            text = "--cve-data tells which commits mend CVEs, and no commits are named"
            raise BuildError(Code.USAGE, text, "name them with --commits")
        return None
    cves = None if request.cve_data is None else read_cves(request.cve_data)
    return open_series(request.commits, cves)


def read_history(
    news: News,
    commits: tuple[Commit, ...],
    old_top: Path,
    new_top: Path,
    changes: tuple[FileChange, ...],
    version: str,
) -> History:
    """Tell which files the changelog's entries are about, and which hunks, where commits say it.

    :param version: of the new source.
    :raises SourceError: SERIES_OTHER_KERNEL where no commit made anything of the difference.
    """
    if not (news.entries or commits):
        return History(news)
    files = read_changes(old_top, new_top, changes)
    if not commits:
        return History(news, attribute(news.entries, files))
    traced = trace(commits, old_top, new_top, {file.path: _hunks(file) for file in files})
    told = attribute_commits(news.entries, files, commits, traced, version)
    if told.share.hunks and not told.share.exactly:
        raise SourceError(
            Code.SERIES_OTHER_KERNEL,
            f"none of {len(commits)} commits made any of the {told.share.hunks} changes between "
            "the two sources",
            "name the commits between just these versions, or none",
        )
    problem = "" if told.entries else news.problem
    return History(News(told.entries, problem), told.attributions, told.share)


def _hunks(file: ChangedFile) -> tuple[Hunk, ...]:
    return tuple(passage.hunk for passage in file.passages if passage.hunk is not None)
