# SPDX-License-Identifier: GPL-2.0-or-later
"""Entries that are commits, and those that are not, on trees small enough to know the answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kspliced.model import ChangelogEntry
from kspliced.plan.attribution import CERTAIN
from kspliced.plan.commits import Told, attribute_commits
from kspliced.plan.makers import Makers
from kspliced.plan.passages import read_changes
from kspliced.series.commit import Commit, FilePatch
from kspliced.series.diffs import parse_diff
from kspliced.series.trace import trace
from kspliced.source.compare import ChangeType, FileChange
from tests.unit.plan.test_attribution import Files, change, noise
from tests.unit.series.test_trace import patch_of

# Neither subject has a word that its code has.
FIRST, SECOND = "alpha: improve the behaviour", "beta: improve it further"
BOTH: Files = {
    "fs/one.c": change("walk_tree", "check_node(t);"),
    "net/two.c": change("send_frame", "count_bytes(t);"),
    "net/three.c": change("receive_frame", "verify_sum(t);"),
}


def commit(
    tmp_path: Path,
    subject: str,
    files: Files,
    ids: tuple[str, ...] = (),
    fixes: tuple[str, ...] = (),
) -> Commit:
    """One that makes all of ``files``."""
    patches: tuple[FilePatch, ...] = ()
    for path, (old, new) in files.items():
        diff = patch_of(tmp_path, old.split("\n")[:-1], new.split("\n")[:-1], path)
        patches += parse_diff([line + b"\n" for line in diff.split(b"\n")[:-1]], subject)
    return Commit(subject, subject, ids, fixes, patches)


def told(tmp_path: Path, files: Files, commits: tuple[Commit, ...], *subjects: str) -> Told:
    """What is told of a changelog with ``subjects``."""
    changes = []
    for path, both in sorted(files.items()):
        for side, text in zip(("old", "new"), both, strict=True):
            if text:
                place = tmp_path / side / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(text)
        changes.append(FileChange(path, ChangeType.MODIFIED))
    tops = (tmp_path / "old", tmp_path / "new")
    read = read_changes(*tops, changes)
    entries = tuple(ChangelogEntry("1", subject, (), ()) for subject in subjects)
    hunks = {f.path: tuple(p.hunk for p in f.passages if p.hunk) for f in read}
    return attribute_commits(entries, read, commits, trace(commits, *tops, hunks), "2")


def two(tmp_path: Path) -> tuple[Commit, Commit]:
    net = {path: both for path, both in BOTH.items() if path.startswith("net/")}
    return commit(tmp_path, FIRST, {"fs/one.c": BOTH["fs/one.c"]}), commit(tmp_path, SECOND, net)


def test_an_entry_is_the_commit_that_has_its_subject(tmp_path: Path) -> None:
    """However a changelog spells it; and with nothing that its words could tell it by."""
    listed = ("[x86] Beta: improve  it further. (CVE-2026-1)", FIRST.upper())
    found = told(tmp_path, {**noise(), **BOTH}, two(tmp_path), *listed)
    second, first = found.attributions
    assert first.files == ("fs/one.c",) and second.files == ("net/three.c", "net/two.c")
    assert first.confidence == second.confidence == 1.0
    assert all(claim.exact and claim.share == 1.0 for claim in (*first.claims, *second.claims))
    ((*spots,),) = second.together
    assert [spot.path for spot in spots] == ["net/three.c", "net/two.c"] and not first.together
    assert (found.share.commits, found.share.exactly, found.share.hunks) == (2, 3, 43)
    assert {spot.path for spot in found.share.others} == noise().keys()


def test_a_commit_that_is_not_listed_is_an_entry(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    other = commit(tmp_path, "gamma: of something else", {"fs/none.c": change("none", "a;")})
    found = told(tmp_path, BOTH, (first, other, second), SECOND)
    assert [entry.subject for entry in found.entries] == [SECOND, FIRST]
    assert found.entries[1].version == "2" and found.attributions[1].files == ("fs/one.c",)


def test_what_is_of_no_commit_is_told_by_words(tmp_path: Path) -> None:
    files = {**noise(), **BOTH, "fs/afs/x.c": change("afs_rotate_server", "afs_put_list(t);")}
    subject = "afs: put the list in afs_rotate_server()"
    found = told(tmp_path, files, two(tmp_path), FIRST, subject, SECOND)
    first, other, second = found.attributions
    assert other.files == ("fs/afs/x.c",) and other.confidence >= CERTAIN
    assert other.claims and not any(claim.exact for claim in other.claims)
    assert first.files == ("fs/one.c",) and second.files == ("net/three.c", "net/two.c")


def test_an_entry_that_is_reworded_may_be_the_commit_that_is_not_listed(tmp_path: Path) -> None:
    files: Files = {**noise(), "fs/afs/x.c": change("afs_rotate_server", "afs_put_list(t);")}
    made = commit(tmp_path, "afs: whatever", {"fs/afs/x.c": files["fs/afs/x.c"]})
    found = told(tmp_path, files, (made,), "afs: put the list in afs_rotate_server()")
    assert found.attributions[0].files == ("fs/afs/x.c",)
    assert found.entries[1].subject == "afs: whatever"


def test_where_somebody_else_changed_the_file_each_of_its_commits_may_have(tmp_path: Path) -> None:
    """A hunk that no commit makes, in a file where one does not make what there is."""
    old, new = change("walk_tree", "check_node(t);")
    more = "static int other(void)\n{\n\treturn 1;\n}\n\n" * 3
    both = (old + more, new + more.replace("return 1", "return 2", 1))
    made = commit(tmp_path, FIRST, {"fs/one.c": (old + more, new + more)})
    (one,) = told(tmp_path, {"fs/one.c": both}, (made,), FIRST).attributions
    mine, other = one.claims
    assert mine.exact and mine.share == 1.0 and not other.exact and 0.05 <= other.share < 1.0
    makers = Makers((one,))
    assert makers.sure(mine.spot) and not makers.sure(other.spot)
    assert makers.of(other.spot) == {0}


def test_a_commit_and_the_one_that_mends_it_go_together(tmp_path: Path) -> None:
    """Also if the third mends the second: with the first alone both bugs would come."""
    names = ("00112233445566778899", "aabbccddeeff00112233")
    made = (
        commit(tmp_path, "one", {"fs/one.c": BOTH["fs/one.c"]}, ids=names[:1]),
        commit(
            tmp_path, "two", {"net/two.c": BOTH["net/two.c"]}, ids=names[1:], fixes=(names[0][:12],)
        ),
        commit(tmp_path, "three", {"net/three.c": BOTH["net/three.c"]}, fixes=names[1:]),
    )
    one, second, third = told(tmp_path, BOTH, made, "one", "two", "three").attributions
    assert [spot.path for spot in one.together[0]] == ["fs/one.c", "net/three.c", "net/two.c"]
    assert [spot.path for spot in second.together[0]] == ["net/three.c", "net/two.c"]
    assert third.together == ()


def test_a_commit_brings_its_cves(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    made = (replace(first, cves=("CVE-2026-1", "CVE-2026-2")), second)
    entries = told(tmp_path, BOTH, made, SECOND, FIRST).entries
    assert [entry.cves for entry in entries] == [(), ("CVE-2026-1", "CVE-2026-2")]


def test_what_was_taken_back_is_in_no_file(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    old, new = BOTH["fs/one.c"]
    back = commit(tmp_path, f'Revert "{FIRST}"', {"fs/one.c": (new, old)})
    files = {path: both for path, both in BOTH.items() if path != "fs/one.c"}
    found = told(tmp_path, files, (first, second, back), FIRST, SECOND, f'Revert "{FIRST}"')
    one, _, other = found.attributions
    assert one.files == other.files == () and one.reason and other.reason


def test_commits_of_one_subject_are_told_together(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    made = (first, replace(second, subject=FIRST))
    (one,) = told(tmp_path, BOTH, made, FIRST).attributions
    assert one.files == tuple(sorted(BOTH))
