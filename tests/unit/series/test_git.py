# SPDX-License-Identifier: GPL-2.0-or-later
"""Commits of repositories, also of such as want to have something run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kspliced.errors import Code, SourceError
from kspliced.series.commit import Commit
from kspliced.series.read import open_series

_IDENTITY = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "protocol.file.allow=always")


def git(place: Path, *words: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(place), "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", *_IDENTITY, "-C", str(place), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()


def commit(place: Path, message: str, text: str, path: str = "fs/one.c") -> str:
    file = place / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", message)
    return git(place, "rev-parse", "HEAD")


@pytest.fixture
def stable(tmp_path: Path) -> Path:
    """A branch with two releases and two commits between them."""
    place = tmp_path / "linux"
    place.mkdir()
    git(place, "init", "-q", "-b", "linux-6.1.y")
    commit(place, "Linux 6.1.187", "one\n")
    git(place, "tag", "v6.1.187")
    commit(place, "fs: one: first\n\ncommit 00112233445566778899 upstream.\n", "one\ntwo\n")
    commit(place, 'fs: one: second\n\nFixes: 00112233445566778899 ("x")\n', "one\n2\n")
    commit(place, "Linux 6.1.190", "190\n", "Makefile")
    git(place, "tag", "-a", "v6.1.190", "-m", "v6.1.190")
    return place


def commits(
    path: Path, tmp_path: Path, old: str = "6.1.187-1", new: str = "6.1.190-1"
) -> list[str]:
    return [one.subject for one in found(path, tmp_path, old, new)]


def found(
    path: Path, tmp_path: Path, old: str = "6.1.187-1", new: str = "6.1.190-1"
) -> tuple[Commit, ...]:
    return open_series(path).commits(old, new, tmp_path)


def refused(path: Path, tmp_path: Path, old: str = "6.1.187-1", new: str = "6.1.190-1") -> str:
    with pytest.raises(SourceError) as caught:
        commits(path, tmp_path, old, new)
    assert caught.value.code is Code.SERIES_UNREADABLE and caught.value.remedy
    return caught.value.message


SUBJECTS = ["fs: one: first", "fs: one: second", "Linux 6.1.190"]


def test_the_commits_between_two_releases(stable: Path, tmp_path: Path) -> None:
    assert commits(stable, tmp_path) == SUBJECTS
    first, second, _ = found(stable, tmp_path)
    assert len(first.ids[0]) == 40 and first.ids[1:] == ("00112233445566778899",)
    assert second.fixes == ("00112233445566778899",)
    assert second.files[0].hunks[0].before == [b"one\n", b"two\n"]


def test_versions_of_all_kinds(stable: Path, tmp_path: Path) -> None:
    for old, new in (("6.1.187", "6.1.190"), ("6.1.187-1~deb12u1", "5:6.1.190-200.fc37")):
        assert commits(stable, tmp_path, old, new) == SUBJECTS


def test_repositories_of_all_kinds(stable: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(stable), "bare.git")
    git(stable, "worktree", "add", "-q", str(tmp_path / "tree"), "HEAD~1")
    git(tmp_path, "clone", "-q", "-s", str(stable), "shared")
    git(stable, "pack-refs", "--all")
    for name in ("bare.git", "tree", "shared", "linux"):
        assert commits(tmp_path / name, tmp_path) == SUBJECTS


def test_a_release_is_found_by_its_commit(stable: Path, tmp_path: Path) -> None:
    git(stable, "tag", "-d", "v6.1.187")
    git(stable, "tag", "-d", "v6.1.190")
    assert commits(stable, tmp_path) == SUBJECTS


def test_what_is_missing_is_said(stable: Path, tmp_path: Path) -> None:
    assert "has no tag v6.1.200" in refused(stable, tmp_path, new="6.1.200-1")
    assert "both of release 6.1.190" in refused(stable, tmp_path, "6.1.190-1", "6.1.190-2")
    assert "is no version" in refused(stable, tmp_path, "kernel")
    assert "no commit between" in refused(stable, tmp_path, "6.1.190-1", "6.1.187-1")
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "-q")
    assert "has no tag" in refused(tmp_path / "empty", tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/.git").write_text("words\n")
    assert "does not say where" in refused(tmp_path / "broken", tmp_path)
    (tmp_path / "broken/.git").write_text("gitdir: /nowhere/at/all\n")
    assert "is no directory" in refused(tmp_path / "broken", tmp_path)


def test_a_shallow_clone_has_what_it_has(stable: Path, tmp_path: Path) -> None:
    url = f"file://{stable}"
    git(tmp_path, "clone", "-q", "--depth=4", "--no-single-branch", url, "enough")
    assert commits(tmp_path / "enough", tmp_path) == SUBJECTS
    git(tmp_path, "clone", "-q", "--depth=1", url, "short")
    assert "has no tag v6.1.187" in refused(tmp_path / "short", tmp_path)


def test_damage_is_said(stable: Path, tmp_path: Path) -> None:
    for file in (stable / ".git/objects").glob("??/*"):
        file.chmod(0o600)
        file.write_bytes(b"damaged")
    assert "git cannot read" in refused(stable, tmp_path)
    shutil.rmtree(stable / ".git/objects")
    assert "it has no objects" in refused(stable, tmp_path)


@pytest.mark.parametrize("name", ["packed-refs", "shallow", "commondir", "refs/heads/pipe"])
def test_what_is_no_file_is_not_waited_for(stable: Path, tmp_path: Path, name: str) -> None:
    os.mkfifo(stable / ".git" / name)
    assert commits(stable, tmp_path) == SUBJECTS


def test_references_that_are_not_read_are_said(stable: Path, tmp_path: Path) -> None:
    (stable / ".git/reftable").mkdir()
    assert "reftable" in refused(stable, tmp_path)


def test_nothing_of_a_repository_is_run(stable: Path, tmp_path: Path) -> None:
    """Each of these has git run a command when it logs, diffs, pages or fetches."""
    ran = tmp_path / "ran"
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\necho $0 $* >> {ran}\ncat\n")
    script.chmod(0o755)
    for key in (
        *("core.fsmonitor", "core.pager", "pager.log", "diff.external", "diff.evil.textconv"),
        *("diff.evil.command", "gpg.program", "core.sshCommand", "core.gitProxy", "core.editor"),
        *("filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "credential.helper"),
    ):
        git(stable, "config", key, str(script))
    for key, value in (
        ("log.showSignature", "true"),
        ("core.hooksPath", str(tmp_path / "hooks")),
        ("alias.log", f"!{script}"),
        ("remote.origin.url", f"ext::{script} %S"),
        ("remote.origin.promisor", "true"),
        ("remote.origin.partialclonefilter", "blob:none"),
        ("extensions.partialClone", "origin"),
        ("protocol.allow", "always"),
        ("include.path", str(tmp_path / "more")),
    ):
        git(stable, "config", key, value)
    (tmp_path / "more").write_text(f"[diff]\n\texternal = {script}\n")
    (tmp_path / "hooks").mkdir()
    for hook in (*("post-checkout", "reference-transaction"), "post-index-change"):
        shutil.copy(script, tmp_path / "hooks" / hook)
        shutil.copy(script, stable / ".git/hooks" / hook)
    attributes = "* diff=evil filter=evil\n"
    (stable / ".gitattributes").write_text(attributes)
    (stable / ".git/info/attributes").write_text(attributes)
    assert commits(stable, tmp_path) == SUBJECTS
    # One that has to be fetched is not.
    blob = git_safe(stable, "rev-parse", "HEAD~1:fs/one.c")
    (stable / ".git/objects" / blob[:2] / blob[2:]).unlink()
    assert "git cannot read" in refused(stable, tmp_path)
    assert not ran.exists()


def git_safe(place: Path, *words: str) -> str:
    """Of a repository that would run commands for others."""
    return git(place, "-c", "alias.log=", *words)


def test_a_repository_of_somebody_else_is_read(stable: Path, tmp_path: Path) -> None:
    """git's own safe.directory would refuse it, to run nothing of it; nothing is."""
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    for directory, folders, files in os.walk(stable):
        for name in (*folders, *files, "."):
            os.lchown(Path(directory) / name, 65534, 65534)
    assert commits(stable, tmp_path) == SUBJECTS


def test_without_git_that_is_said(
    stable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(SourceError) as caught:
        commits(stable, tmp_path)
    assert (caught.value.code, caught.value.remedy) == (Code.TOOL_MISSING, "install git")
