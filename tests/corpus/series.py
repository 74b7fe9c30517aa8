# SPDX-License-Identifier: GPL-2.0-or-later
"""How well the commits of a real series are told, with the series and without.

    python3 -m tests.corpus.series [VERSION...]

prints the tables of docs/coverage.md. Debian's source package has two quilt series, debian/patches
and debian/patches-rt. The old tree has none, or the first part, of a series applied, the new one
all of it, by patch(1); the changelog is made of the subjects. Who made a line is asked of git
blame, over commits of the patches in a repository of the files that they change.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kspliced.model import ChangelogEntry
from kspliced.plan.attribution import CERTAIN, Attribution, attribute
from kspliced.plan.commits import Told, attribute_commits
from kspliced.plan.edits import Spot
from kspliced.plan.passages import ChangedFile, read_changes
from kspliced.series.commit import Commit
from kspliced.series.read import open_series
from kspliced.series.trace import Traced, trace
from kspliced.source.compare import ChangeType, FileChange
from tests.corpus import kernels
from tests.vm import cache, image

MAIN, RT = "patches", "patches-rt"
_BLAMED = re.compile(r"^([0-9a-f]{40}) \d+ \d+")
_GIT = ("git", "-c", "user.name=x", "-c", "user.email=x", "-c", "core.autocrlf=false")


def debian(version: str) -> Path:
    """The directories of patches of a source package."""

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            archive = _fetched(version, "--diff-only", Path(temporary))
            names = (f"debian/{MAIN}", f"debian/{RT}")
            cache.command("tar", "-xJf", archive, "-C", folder, "--strip-components=1", *names)

    return cache.made(f"debian-{version}", make)


def source(version: str) -> Path:
    """The files that the series change, or all files, with debian/patches applied, as linux-source
    packages have them."""
    if version in kernels.RELEASES:
        return kernels.source(version)

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=cache.root()) as temporary:
            archive = _fetched(version, "--tar-only", Path(temporary))
            series = [debian(version) / name for name in (MAIN, RT)]
            top = f"linux-{version.rpartition('-')[0]}"
            wanted = {f"{top}/{path}\n" for place in series for path in _changed(place)}
            names = "".join(sorted(wanted))
            # What a series adds is not there, and tar says so.
            unpack = ("tar", "-C", str(folder), "-xJf", str(archive), "--strip-components=1")
            done = subprocess.run(
                [*unpack, "-T", "-"], input=names, capture_output=True, text=True, cwd=folder
            )
            assert (folder / "Makefile").is_file(), done.stderr
        for name in _names(series[0]):
            _patch(folder, series[0] / name)

    return cache.made(f"patched-{version}", make)


def _fetched(version: str, part: str, place: Path) -> Path:
    """A part of a source package, from the archives that the machine's own apt knows."""
    (place / "lists").mkdir()
    suites = image.apt_sources()
    if version.startswith("6.12."):
        suites = suites.replace(image.SUITE, "trixie")
    (place / "list").write_text(re.sub(r"^deb ", "deb-src ", suites, flags=re.MULTILINE))
    options = (
        *("-o", f"Dir::Etc::sourcelist={place}/list", "-o", "Dir::Etc::sourceparts=/"),
        *("-o", f"Dir::State::lists={place}/lists", "-o", "Dir::Cache::srcpkgcache="),
        *("-o", "Dir::Cache::pkgcache=", "-o", "APT::Sandbox::User=root"),
    )
    cache.command("apt-get", *options, "-q", "update")
    fetch = ("source", "--download-only", part, f"linux={version}")
    cache.command("apt-get", *options, "-q", *fetch, cwd=place)
    (archive,) = place.glob("*.tar.xz")
    return archive


def _names(place: Path) -> list[str]:
    """The patches of a series."""
    lines = (line.partition("#")[0].split() for line in (place / "series").read_text().split("\n"))
    return [words[0] for words in lines if words]


def commits_of(place: Path) -> tuple[Commit, ...]:
    commits = open_series(place).read
    assert commits is not None and len(commits) == len(_names(place))
    return commits


def _changed(place: Path) -> set[str]:
    """What a series changes, and the version."""
    files = (file for commit in commits_of(place) for file in commit.files)
    return {"Makefile", *(path for file in files for path in (*file.paths, file.old) if path)}


@dataclass(frozen=True)
class Case:
    """A series of a source package, of which the old tree has the first ``applied`` patches."""

    version: str
    name: str
    applied: int = 0


@dataclass(frozen=True)
class Trees:
    """Two trees with the files that a series changes, and a repository with a commit a patch:
    ``digits`` are their names, the first that of the tree before all."""

    case: Case
    old: Path
    new: Path
    repository: Path
    digits: tuple[str, ...]

    @cached_property
    def commits(self) -> tuple[Commit, ...]:
        """Those that the new tree has more than the old one."""
        return commits_of(debian(self.case.version) / self.case.name)[self.case.applied :]

    @cached_property
    def entries(self) -> tuple[ChangelogEntry, ...]:
        """The changelog."""
        return tuple(ChangelogEntry("1", commit.subject, (), ()) for commit in self.commits)

    @cached_property
    def files(self) -> tuple[ChangedFile, ...]:
        """What differs."""
        trees = (self.old, self.new)
        paths = [
            {p.relative_to(top).as_posix() for p in top.rglob("*") if p.is_file()} for top in trees
        ]
        changes = []
        for path in sorted(paths[0] | paths[1]):
            both = [top / path for top in trees]
            if not both[0].exists():
                changes.append(FileChange(path, ChangeType.ADDED))
            elif not both[1].exists():
                changes.append(FileChange(path, ChangeType.REMOVED))
            elif both[0].read_bytes() != both[1].read_bytes():
                changes.append(FileChange(path, ChangeType.MODIFIED))
        return read_changes(self.old, self.new, changes)

    @cached_property
    def traced(self) -> Traced:
        """With the series."""
        hunks = {f.path: tuple(p.hunk for p in f.passages if p.hunk) for f in self.files}
        return trace(self.commits, self.old, self.new, hunks)

    @cached_property
    def exactly(self) -> Told:
        """The entries, with the series."""
        return attribute_commits(self.entries, self.files, self.commits, self.traced, "1")

    @cached_property
    def by_words(self) -> tuple[Attribution, ...]:
        """The entries, without the series."""
        return attribute(self.entries, self.files)

    @cached_property
    def makers(self) -> dict[Spot, frozenset[int]]:
        """Who made the lines of each hunk, as git says."""
        found: dict[Spot, frozenset[int]] = {}
        numbers = {digits: n - 1 for n, digits in enumerate(self.digits)}
        ends = f"{self.digits[0]}..{self.digits[-1]}"
        for file in self.files:
            spots = [Spot(file.path, p.hunk) for p in file.passages if p.hunk is not None]
            added = self._blame(self.digits[-1], file.path, self.new)
            gone = self._blame(ends, file.path, self.old)
            changing = [numbers[d] for d in self._log(ends, file.path)]
            for spot in spots:
                hunk = spot.hunk
                new = added[hunk.new_start - 1 :][: hunk.new_count] if hunk.new_count else []
                old = gone[hunk.old_start - 1 :][: hunk.old_count] if hunk.old_count else []
                mine = {numbers[digits] for digits in new} - {-1}
                # The last commit that had the line; the next one that changes the file took it out.
                last = (numbers[digits] for digits in old)
                mine |= {min((c for c in changing if c > n), default=-1) for n in last} - {-1}
                found[spot] = frozenset(mine)
        return found

    def _blame(self, revisions: str, path: str, side: Path) -> list[str]:
        """The commit of each line; where the revisions are two, the last one that has the line."""
        if not (side / path).exists():
            return []
        reverse = ("--reverse",) if ".." in revisions else ()
        said = _git(self.repository, "blame", "--line-porcelain", *reverse, revisions, "--", path)
        return [m.group(1) for line in said.split("\n") if (m := _BLAMED.match(line))]

    def _log(self, *words: str) -> list[str]:
        revisions, path = words
        return _git(self.repository, "log", "--format=%H", revisions, "--", path).split()


def _git(repository: Path, *words: str) -> str:
    done = subprocess.run(
        [*_GIT, "-C", str(repository), *words], capture_output=True, check=True, errors="replace"
    )
    return done.stdout


def trees(case: Case) -> Trees:
    """The two trees of a case, and the repository."""
    key = cache.digest(case.version, case.name, str(case.applied))
    top = cache.made(f"series-{case.version}-{key}", lambda folder: _make(folder, case))
    digits = tuple((top / "digits").read_text().split())
    return Trees(case, top / "old", top / "new", top / "git", digits)


def _make(folder: Path, case: Case) -> None:
    place = debian(case.version) / case.name
    series, top = _names(place), source(case.version)
    tree = folder / "git"
    tree.mkdir()
    for path in _changed(place):
        if (top / path).is_file():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(top / path, tree / path)
    if case.name == MAIN:
        # The tree of the package has them all.
        for name in reversed(series):
            _patch(tree, place / name, "-R")
    for name in series[: case.applied]:
        _patch(tree, place / name)
    shutil.copytree(tree, folder / "old")
    _git(tree, "init", "-q")
    digits = [_commit(tree)]
    for name in series[case.applied :]:
        _patch(tree, place / name)
        digits.append(_commit(tree))
    shutil.copytree(tree, folder / "new", ignore=shutil.ignore_patterns(".git"))
    (folder / "digits").write_text("\n".join(digits))


def _patch(tree: Path, patch: Path, *options: str) -> None:
    quiet = ("-s", "-f", "-E", "--no-backup-if-mismatch")
    cache.command("patch", "-d", tree, "-p1", *quiet, *options, "-i", patch)


def _commit(tree: Path) -> str:
    _git(tree, "add", "-A", "-f")
    _git(tree, "commit", "-q", "--allow-empty", "-m", "x")
    return _git(tree, "rev-parse", "HEAD").strip()


@dataclass(frozen=True)
class Figures:
    """What came of a case. With the series: of the ``hunks`` that differ ``exact`` are told, with
    at least whom git blame names ``enough``, with nobody else ``same``. Without it: ``claimed`` are
    told beyond doubt (0.9), ``right`` if git blame names one of those. Of ``entries`` that change
    files, as words tell them, ``whole`` have no file missing, ``just`` none too many either;
    ``certain`` are told with a confidence of CERTAIN, of these ``missing`` have one missing."""

    hunks: int
    exact: int
    enough: int
    same: int
    claimed: int
    right: int
    entries: int
    whole: int
    just: int
    certain: int
    missing: int


def figures(some: Trees) -> Figures:
    """Compare what is told with what git says."""
    made = {Spot(m.path, m.hunk): m.commits for m in some.traced.hunks if m.exact}
    beyond: dict[Spot, set[int]] = {}
    for number, told in enumerate(some.by_words):
        for claim in told.claims:
            if claim.share >= 0.9:
                beyond.setdefault(claim.spot, set()).add(number)
    both = [(f, t) for f, t in zip(files_of(some), some.by_words, strict=True) if f]
    return Figures(
        hunks=len(some.makers),
        exact=len(made),
        enough=sum(some.makers[spot] <= by for spot, by in made.items()),
        same=sum(some.makers[spot] == by for spot, by in made.items()),
        claimed=len(beyond),
        right=sum(bool(some.makers[spot] & by) for spot, by in beyond.items()),
        entries=len(both),
        whole=sum(f <= set(t.files) for f, t in both),
        just=sum(f == set(t.files) for f, t in both),
        certain=sum(t.confidence >= CERTAIN for _, t in both),
        missing=sum(t.confidence >= CERTAIN and not f <= set(t.files) for f, t in both),
    )


def files_of(some: Trees) -> list[set[str]]:
    """The files that each commit made a hunk of, as git says."""
    found: list[set[str]] = [set() for _ in some.commits]
    for spot, by in some.makers.items():
        for number in by:
            found[number].add(spot.path)
    return found


def _table(case: Case) -> Iterator[str]:
    some = trees(case)
    changed = len(some.files)
    before = time.process_time()
    hunks = len(some.traced.hunks)
    spent = time.process_time() - before
    yield f"{case}: {len(some.commits)} commits, {changed} files, {hunks} hunks"
    yield f"  {figures(some)}, {spent:.1f} s to read and trace"


if __name__ == "__main__":
    for version in sys.argv[1:] or ["6.1.187-1", "6.12.107-1"]:
        for name in (RT, MAIN):
            print(*_table(Case(version, name)), sep="\n", flush=True)
