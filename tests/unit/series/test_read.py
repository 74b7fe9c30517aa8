# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches in every form that sites have them in, and what is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kspliced import limits
from kspliced.errors import Code, SourceError
from kspliced.series import read as reading
from kspliced.series.commit import Commit
from kspliced.series.read import open_series

DIFF = b"--- a/fs/one.c\n+++ b/fs/one.c\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n"
OTHER = DIFF.replace(b"one.c", b"two.c")
MAIL = b"""From 0123456789abcdef0123456789abcdef01234567 Mon Sep 17 00:00:00 2001
From: =?UTF-8?q?J=C3=BCrgen?= <j@example.org>
Date: Wed, 22 Jun 2022 11:36:17 +0200
Subject: [PATCH 6.1 02/72] fs: one: count to two
 at last

commit fedcba9876543210fedcba9876543210fedcba98 upstream.

From here on it counts.

Fixes: 00112233445566778899 ("fs: one: add it")
---
 fs/one.c | 2 +-
 1 file changed, 1 insertion(+), 1 deletion(-)

diff --git a/fs/one.c b/fs/one.c
index 1..2 100644
--- a/fs/one.c
+++ b/fs/one.c
@@ -1,2 +1,2 @@ int one(void)
 one
-two
+2
--
2.39.5

"""


def read(path: Path) -> tuple[Commit, ...]:
    found = open_series(path).read
    assert found is not None
    return found


def refused(path: Path) -> SourceError:
    with pytest.raises(SourceError) as caught:
        read(path)
    assert caught.value.code is Code.SERIES_UNREADABLE and caught.value.remedy
    return caught.value


def test_a_mail_says_who_it_is(tmp_path: Path) -> None:
    file = tmp_path / "all.mbox"
    file.write_bytes(MAIL + MAIL.replace(b"count to two", b"again").replace(b"one.c", b"two.c"))
    first, second = read(file)
    assert first.subject == "fs: one: count to two at last"
    assert first.ids == ("0123456789abcdef" * 2 + "01234567", "fedcba9876543210" * 2 + "fedcba98")
    assert first.fixes == ("00112233445566778899",)
    assert [f.new for c in (first, second) for f in c.files] == ["fs/one.c", "fs/two.c"]
    assert first.called("fedcba987654") and not first.called("fedcba")


@pytest.mark.parametrize(
    "subject, told",
    [
        (b"=?utf-8?q?fs=3A_=C3=BC?=", "fs: ü"),
        (b"=?no-such-charset?q?fs=3A_one?=", "fs: one"),
        (b"=?utf-8?b?broken?=", None),
        (b"fs: \xff\xfe raw", None),
    ],
)
def test_what_is_broken_in_a_header_is_read_as_it_stands(
    tmp_path: Path, subject: bytes, told: str | None
) -> None:
    (tmp_path / "one.patch").write_bytes(b"Subject: [PATCH] " + subject + b"\n\n" + DIFF)
    (commit,) = read(tmp_path / "one.patch")
    assert commit.files and (told is None or commit.subject == told)


@pytest.mark.parametrize("encoding", ["quoted-printable", "base64", "no-such-encoding"])
def test_bodies_are_decoded(tmp_path: Path, encoding: str) -> None:
    import base64
    import quopri

    body = {"quoted-printable": quopri.encodestring(DIFF), "base64": base64.encodebytes(DIFF)}
    head = f"Subject: fs: one\nContent-Transfer-Encoding: {encoding}\n\n".encode()
    (tmp_path / "one.eml").write_bytes(head + body.get(encoding, DIFF))
    (commit,) = read(tmp_path)
    assert commit.files[0].hunks[0].after == [b"one\n", b"2\n"]


def test_a_body_that_is_no_base64_is_no_patch(tmp_path: Path) -> None:
    head = b"Subject: fs\nContent-Transfer-Encoding: base64\n\n"
    (tmp_path / "one.mbox").write_bytes(head + b"!!! not \xff base64 !!!\n")
    assert "has no patch" in refused(tmp_path / "one.mbox").message


def test_a_series_has_an_order_and_options(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.patch").write_bytes(DIFF.replace(b"a/fs", b"fs").replace(b"b/fs", b"fs"))
    (tmp_path / "b/z.patch").write_bytes(b"Description: fs: two\n more\n\n" + OTHER)
    (tmp_path / "series").write_text("# first\nb/z.patch\n\na.patch -p0 # last\n")
    two, one = read(tmp_path)
    assert (two.subject, two.files[0].new) == ("fs: two more", "fs/two.c")
    assert (one.subject, one.files[0].new) == ("a", "fs/one.c")


def test_patches_go_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "0002-b.patch").write_bytes(OTHER)
    (tmp_path / "0001-a.patch").write_bytes(DIFF)
    (tmp_path / "0000-cover-letter.patch").write_bytes(b"Subject: all of it\n\nwords\n")
    assert [commit.subject for commit in read(tmp_path)] == ["0001-a", "0002-b"]


def test_names_of_all_kinds(tmp_path: Path) -> None:
    text = (
        b"diff --git a/old.c b/gone.c\nsimilarity index 100%\nrename from old.c\nrename to gone.c\n"
        b'diff --git "a/f\\303\\244.c" "b/f\\303\\244.c"\nindex 1..2\n'
        b'--- "a/f\\303\\244.c"\n+++ "b/f\\303\\244.c"\n@@ -1 +1 @@\n-a\n+b\n'
        b"diff --git a/x y.bin b/x y.bin\nindex 1..2\nBinary files a/x y.bin and b/x y.bin differ\n"
        b"diff --git a/new b/new\nnew file mode 100644\nindex 0..1\n"
        b"--- linux.orig/stamped.c\t2020-01-01 00:00:00\n+++ linux/stamped.c\t2020-01-01\n"
        b"@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n"
        b"--- a/dead\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n"
    )
    (tmp_path / "all.patch").write_bytes(text)
    (commit,) = read(tmp_path)
    assert [(file.old, file.new, len(file.hunks)) for file in commit.files] == [
        ("old.c", "gone.c", 0),
        ("fä.c", "fä.c", 1),
        ("x y.bin", "x y.bin", 0),
        ("", "new", 0),
        ("stamped.c", "stamped.c", 1),
        ("dead", "", 1),
    ]
    assert commit.files[4].hunks[0].lines == (b"-a", b"+b")


@pytest.mark.parametrize("path", [b"a/../../etc/passwd", b"/etc/passwd", b"a/x/../y", b"a/"])
def test_a_path_outside_of_the_tree_is_refused(tmp_path: Path, path: bytes) -> None:
    file = tmp_path / "evil.patch"
    file.write_bytes(DIFF.replace(b"a/fs/one.c", path).replace(b"b/fs/one.c", path))
    assert "no path inside" in refused(file).message and str(file) in refused(file).message


def test_a_rename_out_of_the_tree_is_refused(tmp_path: Path) -> None:
    head = b"diff --git a/x b/y\nrename from x\nrename to ../../y\n"
    (tmp_path / "evil.patch").write_bytes(head)
    assert "no path inside" in refused(tmp_path / "evil.patch").message


@pytest.mark.parametrize(
    "text",
    [
        DIFF.removesuffix(b"+2\n"),
        DIFF.replace(b"-two", b"?two"),
        DIFF.replace(b"@@ -1,2", b"@@ -1,1"),
        DIFF.replace(b"+1,2 @@", b"+1,999999999 @@"),
    ],
)
def test_a_hunk_that_is_cut_is_damage(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "one.patch").write_bytes(text)
    assert "is damaged: its hunk at line 3" in refused(tmp_path).message


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.patch")
    (tmp_path / "1.patch").mkdir()
    assert "is not a git repository" in refused(tmp_path).message
    assert "is not a git repository" in refused(tmp_path / "0.patch").message
    (tmp_path / "series").write_text("0.patch\n")
    assert "0.patch, which is not there" in refused(tmp_path).message


def test_what_is_nothing_of_the_kind(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none").message
    assert "is not a git repository" in refused(tmp_path).message
    (tmp_path / "one.patch").write_bytes(b"words\n")
    assert "has no patch" in refused(tmp_path).message
    (tmp_path / "one.patch").write_bytes(b"\x7fELF\0\0\0" * 1000)
    assert "has no patch" in refused(tmp_path / "one.patch").message
    assert "is not a git repository" in refused(Path("/dev/null")).message


@pytest.mark.parametrize(
    "series, said",
    [
        ("", "names no patch"),
        ("# nothing\n\n", "names no patch"),
        ("gone.patch\n", "gone.patch, which is not there"),
        ("../one.patch\n", "../one.patch, which is elsewhere"),
        ("/etc/passwd\n", "/etc/passwd, which is elsewhere"),
        ("words\n", "words is no patch"),
    ],
)
def test_a_series_that_cannot_be_used(tmp_path: Path, series: str, said: str) -> None:
    place = tmp_path / "patches"
    place.mkdir()
    (tmp_path / "one.patch").write_bytes(DIFF)
    (place / "words").write_text("words\n")
    (place / "series").write_text(series)
    assert said in refused(place).message


def test_too_much_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SERIES_BYTES", limits.KIB)
    (tmp_path / "one.patch").write_bytes(DIFF)
    (tmp_path / "two.patch").write_bytes(OTHER + b"\n" * limits.KIB)
    assert "MiB" in refused(tmp_path).message
