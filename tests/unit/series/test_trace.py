# SPDX-License-Identifier: GPL-2.0-or-later
"""Which commits made each hunk, on files small enough to know the answer."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspliced.lines import split_lines
from kspliced.series.commit import Commit
from kspliced.series.diffs import parse_diff
from kspliced.series.trace import MadeHunk, Traced, trace
from kspliced.source.lines import hunks

PATH = "fs/one.c"


def numbered(count: int = 30) -> list[str]:
    return [f"line {n}" for n in range(count)]


def patch_of(tmp_path: Path, before: list[str] | None, after: list[str] | None, path: str) -> bytes:
    """The difference that diff(1) makes; None where there is no file."""
    sides = []
    for side, lines in (("a", before), ("b", after)):
        file = tmp_path / f"patch-{side}"
        file.write_text("".join(f"{line}\n" for line in lines or ()))
        label = f"{side}/{path}" if lines is not None else "/dev/null"
        sides.append((file, label))
    labels = [word for _, label in sides for word in ("--label", label)]
    files = [str(file) for file, _ in sides]
    return subprocess.run(["diff", "-u", *labels, *files], capture_output=True).stdout


def commit(name: str, diff: bytes) -> Commit:
    return Commit(name, name, (), (), parse_diff(split_lines(diff, keepends=True), name))


def traced(tmp_path: Path, old: list[str], new: list[str], *diffs: bytes) -> Traced:
    """What is told of one file."""
    for side, lines in (("old", old), ("new", new)):
        file = tmp_path / side / PATH
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines))
    commits = tuple(commit(f"c{n}", diff) for n, diff in enumerate(diffs))
    tops = (tmp_path / "old", tmp_path / "new")
    return trace(commits, *tops, {PATH: hunks(*(top / PATH for top in tops))})


def series(tmp_path: Path, *versions: list[str]) -> tuple[bytes, ...]:
    """A commit from each version of the file to the next."""
    return tuple(patch_of(tmp_path, one, other, PATH) for one, other in pairwise(versions))


def told(found: Traced) -> list[tuple[set[int], bool]]:
    return [(set(made.commits), made.exact) for made in found.hunks]


def with_line(lines: list[str], at: int, *more: str, instead: int = 0) -> list[str]:
    return [*lines[:at], *more, *lines[at + instead :]]


def test_each_hunk_is_of_its_commit(tmp_path: Path) -> None:
    old = numbered()
    one = with_line(old, 3, "one")
    two = with_line(one, 20, "two", instead=2)
    found = traced(tmp_path, old, two, *series(tmp_path, old, one, two))
    assert told(found) == [({0}, True), ({1}, True)]
    assert found.files[0].settled and found.files[0].commits == {0, 1}


def test_two_commits_that_changed_the_same_lines_made_the_hunk_together(tmp_path: Path) -> None:
    old = numbered()
    one = with_line(old, 10, "one", instead=1)
    two = with_line(one, 10, "two", instead=1)
    assert told(traced(tmp_path, old, two, *series(tmp_path, old, one, two))) == [({0, 1}, True)]


def test_what_a_later_commit_took_out_again_counts(tmp_path: Path) -> None:
    """The one that adds three lines, and the one that takes one of them out."""
    old = numbered()
    one = with_line(old, 10, "one", "other", "third")
    two = with_line(one, 11, instead=1)
    assert told(traced(tmp_path, old, two, *series(tmp_path, old, one, two))) == [({0, 1}, True)]


def test_what_was_taken_back_made_nothing(tmp_path: Path) -> None:
    old = numbered()
    one = with_line(old, 10, "one", instead=2)
    two = with_line(old, 20, "two")
    found = traced(tmp_path, old, two, *series(tmp_path, old, one, old, two))
    assert told(found) == [({2}, True)]


def test_the_context_may_have_moved_and_changed(tmp_path: Path) -> None:
    """The commits are upstream's; the distribution's two trees have more lines, and other ones."""
    upstream = numbered()
    one = with_line(upstream, 10, "one")
    two = with_line(one, 20, "two", instead=1)
    diffs = series(tmp_path, upstream, one, two)

    def theirs(lines: list[str]) -> list[str]:
        changed = ["theirs 8" if line == "line 8" else line for line in lines]
        return [*(f"more {n}" for n in range(40)), *changed]

    found = traced(tmp_path, theirs(upstream), theirs(two), *diffs)
    assert told(found) == [({0}, True), ({1}, True)]


def test_what_the_commits_do_not_make_is_not_theirs(tmp_path: Path) -> None:
    old = numbered()
    one = with_line(old, 3, "one")
    new = with_line(one, 20, "somebody's")
    found = traced(tmp_path, old, new, *series(tmp_path, old, one))
    assert told(found) == [({0}, True), (set(), False)]
    assert not found.files[0].settled


def test_a_hunk_that_somebody_else_changed_too_is_not_exact(tmp_path: Path) -> None:
    old = numbered()
    one = with_line(old, 10, "one", "two")
    new = with_line(old, 10, "one", "somebody's", "two")
    assert told(traced(tmp_path, old, new, *series(tmp_path, old, one))) == [({0}, False)]


def test_a_commit_that_the_old_tree_has_made_nothing(tmp_path: Path) -> None:
    older = numbered()
    old = with_line(older, 3, "one")
    new = with_line(old, 20, "two")
    found = traced(tmp_path, old, new, *series(tmp_path, older, old, new))
    assert told(found) == [({1}, True)]


def test_a_commit_of_something_else_makes_nothing(tmp_path: Path) -> None:
    old = numbered()
    foreign = [f"foreign {n}" for n in range(30)]
    diffs = series(tmp_path, foreign, with_line(foreign, 10, "one"))
    assert told(traced(tmp_path, old, with_line(old, 10, "two"), *diffs)) == [(set(), False)]


def test_the_part_of_a_hunk_that_fits_is_made(tmp_path: Path) -> None:
    old = numbered()
    one = with_line(with_line(old, 14, "two", instead=1), 10, "one", instead=1)
    theirs = with_line(old, 14, "theirs", instead=1)
    new = with_line(theirs, 10, "one", instead=1)
    found = traced(tmp_path, theirs, new, *series(tmp_path, old, one))
    assert told(found) == [({0}, True)]


def test_files_that_come_and_go(tmp_path: Path) -> None:
    diffs = (patch_of(tmp_path, None, numbered(5), PATH),)
    assert told(traced(tmp_path, [], numbered(5), *diffs)) == [({0}, True)]
    diffs = (patch_of(tmp_path, numbered(5), None, PATH),)
    assert told(traced(tmp_path, numbered(5), [], *diffs)) == [({0}, True)]


def test_what_is_renamed_is_made_by_who_renamed_it(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for top, path, text in ((old, "a.c", "one\ntwo\n"), (new, "b.c", "one\nthree\n")):
        top.mkdir()
        (top / path).write_text(text)
    diff = (
        b"diff --git a/a.c b/b.c\nsimilarity index 50%\nrename from a.c\nrename to b.c\n"
        b"--- a/a.c\n+++ b/b.c\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n"
    )
    changed = {path: hunks(old / path, new / path) for path in ("a.c", "b.c")}
    found = trace((commit("c", diff),), old, new, changed)
    assert [(made.path, set(made.commits), made.exact) for made in found.hunks] == [
        ("a.c", {0}, True),
        ("b.c", {0}, True),
    ]


def test_what_was_added_and_then_moved_is_of_both(tmp_path: Path) -> None:
    """In neither tree is the file that was moved."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    (new / "b.c").write_text("one\ntwo\n")
    added = b"--- /dev/null\n+++ b/a.c\n@@ -0,0 +1,2 @@\n+one\n+two\n"
    moved = b"diff --git a/a.c b/b.c\nsimilarity index 100%\nrename from a.c\nrename to b.c\n"
    commits = (commit("c", added), commit("d", moved))
    found = trace(commits, old, new, {"b.c": hunks(old / "b.c", new / "b.c")})
    assert told(found) == [({0, 1}, True)]


def test_a_block_that_slides_is_of_its_commit(tmp_path: Path) -> None:
    """diff(1) may say that other equal lines came than a commit says."""
    old = ["int f()", "{", "\treturn 1;", "}", "", "int h()", "{", "\treturn 3;", "}"]
    new = [*old[:5], "int g()", "{", "\treturn 2;", "}", "", *old[5:]]
    slid = (
        b"--- a/fs/one.c\n+++ b/fs/one.c\n@@ -2,3 +2,8 @@\n {\n \treturn 1;\n+}\n+\n+int g()\n+{\n"
        b"+\treturn 2;\n }\n"
    )
    assert told(traced(tmp_path, old, new, slid)) == [({0}, True)]


_LINES = st.lists(st.sampled_from("abcd"), max_size=12)


@settings(max_examples=40)
@given(versions=st.lists(_LINES, min_size=2, max_size=5))
def test_the_commits_make_all_of_it(
    tmp_path_factory: pytest.TempPathFactory, versions: list[list[str]]
) -> None:
    """Whatever the versions of a file: nothing is of nobody, unless the alignment is another."""
    tmp_path = tmp_path_factory.mktemp("trace")
    diffs = [d for d in series(tmp_path, *versions) if d]
    found = traced(tmp_path, versions[0], versions[-1], *diffs)
    assert not diffs or found.files[0].settled or versions[0] == versions[-1]
    every = set(range(len(diffs)))
    made: list[MadeHunk] = list(found.hunks)
    assert all(one.commits <= every and one.exact == bool(one.commits) for one in made)
    if len(diffs) == 1:
        assert all(one.commits == {0} for one in made)
