# SPDX-License-Identifier: GPL-2.0-or-later
"""What the builder is asked for, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kspliced.build.fates import Fate
from kspliced.build.select import Irrelevant
from kspliced.model import ChangelogEntry, FunctionChange, Manifest, Refusal
from kspliced.pack import Blob
from kspliced.plan.attribution import Attribution
from kspliced.plan.commits import Share
from kspliced.plan.safety import Policy
from kspliced.source.differences import FileDiff


@dataclass(frozen=True)
class BuildRequest:
    """What to build. ``targets``: vmlinux and module names that matter, empty for all that the
    configuration builds; ``foreign``: those of them that are not of the kernel's own tree;
    ``only``: globs of units, empty for all; ``exclude``: globs of units to
    leave out; ``jobs``: parallel compilers;
    ``workdir``: where the temporary trees go (needs some 300 MB), None for the default;
    ``cache``: a folder for packed sources (source.cache, 700 MB each), None to keep nothing;
    ``symbols``: the running kernel's, as /proc/kallsyms has them, or without addresses; None if it
    is not known that the kernel runs here;
    ``diffs``: tell the differences of the changed files, too; ``known``: keys of results that the
    caller has, of which only the key is wanted; ``commits``: a repository or patches that the new
    source was made with (series/read.py), ``cve_data``: JSON of the CVEs that commits mend."""

    from_source: Path
    to_source: Path
    config: Path
    headers: Path
    targets: tuple[str, ...]
    only: tuple[str, ...]
    jobs: int
    workdir: Path | None
    cache: Path | None = None
    policy: Policy = Policy.CONSERVATIVE
    exclude: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    symbols: Path | None = None
    diffs: bool = False
    known: frozenset[str] = frozenset()
    commits: Path | None = None
    cve_data: Path | None = None


@dataclass(frozen=True)
class StageTime:
    """How long a stage took, in seconds."""

    stage: str
    seconds: float


@dataclass(frozen=True)
class BuildResult:
    """What came of it. ``manifest`` is None when nothing may go live; then ``refused`` says why,
    or it is empty too and nothing in the upgrade concerns this kernel. Otherwise ``refused`` is
    what of the upgrade waits for the reboot; ``fates`` has both, by component. ``attributions``
    are the files of each entry; ``changelog`` says why there are no entries, or ''. ``key`` is the
    same for the same result, or ''; of one that the caller has there is nothing else. ``share`` is
    how far commits told it, where they were given."""

    manifest: Manifest | None
    blobs: tuple[Blob, ...]
    functions: tuple[FunctionChange, ...]
    refused: tuple[Refusal, ...]
    irrelevant: tuple[Irrelevant, ...]
    fates: tuple[Fate, ...]
    attributions: tuple[Attribution, ...]
    entries: tuple[ChangelogEntry, ...]
    seconds: tuple[StageTime, ...]
    changelog: str = ""
    from_version: str = ""
    to_version: str = ""
    diffs: tuple[FileDiff, ...] = ()
    key: str = ""
    share: Share | None = None


def known_result(key: str) -> BuildResult:
    """That of a build whose result the caller has."""
    return BuildResult(None, (), (), (), (), (), (), (), (), key=key)
