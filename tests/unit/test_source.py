# SPDX-License-Identifier: GPL-2.0-or-later
"""Sources: comparing two, keeping line numbers, reading changelogs, naming functions."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspliced.errors import Code, SourceError
from kspliced.model import ChangelogEntry
from kspliced.source.cache import SourceCache
from kspliced.source.changelog import News, read_news
from kspliced.source.compare import ChangeType, FileChange, Tree
from kspliced.source.compare import compare as differing
from kspliced.source.differences import differences
from kspliced.source.functions import touched_functions
from kspliced.source.lines import keep_line_numbers
from kspliced.source.members import Member, tar_members
from kspliced.source.opened import open_source
from kspliced.source.package import TreeSource
from kspliced.source.snapshot import TreeSnapshot, header_readers, includers, is_included

CHANGELOG = """\
linux (6.1.3-2) bookworm; urgency=high

  * ext4: fix a thing (Closes: #100, #101)

 -- A B <a@b.c>  Mon, 16 Nov 2026 11:17:40 +0100

linux (6.1.3-1) bookworm; urgency=high

  * New upstream stable update:
    https://example.org/ChangeLog-6.1.3
    - net: bound a length that is long enough to need
      another line (CVE-2026-12345)
    - mm: plain
  [ A B ]
  * arch: enable it

 -- A B <a@b.c>  Mon, 15 Nov 2026 11:17:40 +0100

linux (6.1.2-1) bookworm; urgency=high

  * old news (CVE-2026-1111)

 -- A B <a@b.c>  Mon, 14 Nov 2026 11:17:40 +0100
"""


def test_new_entries_are_those_above_the_running_version() -> None:
    news = read_news(CHANGELOG, "6.1.2-1")
    assert news.problem == ""
    assert news.entries == (
        ChangelogEntry("6.1.3-2", "ext4: fix a thing (Closes: #100, #101)", (), ("100", "101")),
        ChangelogEntry(
            "6.1.3-1",
            "net: bound a length that is long enough to need another line (CVE-2026-12345)",
            ("CVE-2026-12345",),
            (),
        ),
        ChangelogEntry("6.1.3-1", "mm: plain", (), ()),
        ChangelogEntry("6.1.3-1", "arch: enable it", (), ()),
    )
    assert read_news(CHANGELOG, "6.1.3-2") == News(())


@pytest.mark.parametrize(
    ("changelog", "problem"),
    [
        ("", "no changelog that can be read"),
        ("\0\xff\n * what is this\n", "no changelog that can be read"),
        (CHANGELOG.replace("6.1.2-1", "6.1.1-9"), "of 6.1.3-2 does not mention 6.1.2-1"),
        ("linux (2) x; y\n\n -- A\n\nlinux (6.1.2-1) x; y\n", "says nothing of what changed"),
    ],
)
def test_a_changelog_that_cannot_be_used_says_why(changelog: str, problem: str) -> None:
    news = read_news(changelog, "6.1.2-1")
    assert news.entries == () and problem in news.problem


def test_an_address_between_two_lists_is_no_part_of_an_entry() -> None:
    both = CHANGELOG.replace(
        "    - mm: plain\n",
        "    - mm: plain\n    https://example.org/ChangeLog-6.1.4\n    - fs: more\n",
    )
    subjects = [entry.subject for entry in read_news(both, "6.1.2-1").entries]
    assert subjects[2:4] == ["mm: plain", "fs: more"]


@dataclass(frozen=True)
class FakeSource:
    files: tuple[tuple[str, bytes], ...]
    key: str = "a" * 64
    version: str = "6.1.1-1"
    changelog: str = ""

    def members(self) -> Iterator[Member]:
        return (Member(path, data, False, "") for path, data in self.files)


def ignore(_: int) -> None:
    pass


def small(_: str, size: int) -> bool:
    return size < 10


OLD = {"a.h": b"1", "b.c": b"2", "c/d.c": b"3", "c/e.h": b"4"}
PACKED = FakeSource(tuple(OLD.items()))


def compare(folder: Path, old: FakeSource, new: list[tuple[str, bytes]]) -> tuple[FileChange, ...]:
    with SourceCache(folder / "cache", small).snapshot(old, ignore) as snapshot:
        return differing(snapshot, FakeSource(tuple(new)), Tree(folder / "new"), ignore)


def test_differences(tmp_path: Path) -> None:
    new = [("a.h", b"1"), ("b.c", b"two"), ("c/e.h", b"4"), ("c/f.c", b"5")]
    assert compare(tmp_path, PACKED, new) == (
        FileChange("b.c", ChangeType.MODIFIED),
        FileChange("c/d.c", ChangeType.REMOVED),
        FileChange("c/f.c", ChangeType.ADDED),
    )
    written = {str(p.relative_to(tmp_path / "new")) for p in (tmp_path / "new").rglob("*.?")}
    assert written == {"b.c", "c/f.c"}
    assert (tmp_path / "new/b.c").read_bytes() == b"two"


def test_what_neither_tree_has_is_no_difference(tmp_path: Path) -> None:
    """Documentation is not kept: one that goes is in neither tree, and was an error."""
    old, new = tmp_path / "old", tmp_path / "new"
    files = {
        "kept.c": (b"int a;\n", b"int b;\n"),
        "gone.c": (b"int a;\n", None),
        "come.c": (None, b"int b;\n"),
        "bytes.c": (b"\xff\xfe\0", b"\xff\0"),
        "latin.c": (b"/* \xe9 */\n", b"/* \xe8 */\n"),
        "empty.c": (b"", b"x\n"),
        "Documentation/gone.rst": (None, None),
    }
    for name, (before, after) in files.items():
        for top, content in ((old, before), (new, after)):
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            if content is not None:
                (top / name).write_bytes(content)
    for top in (old, new):
        (top / "link").symlink_to(f"nowhere/{top.name}")
    (old / "file").write_bytes(b"int a;\n")
    (new / "file").mkdir()
    paths = [*files, "link", "file", "never"]
    found = {diff.path for diff in differences(old, new, paths)}
    assert found == {*files, "link", "file"} - {"Documentation/gone.rst"}


@given(st.permutations(list(OLD.items())))
def test_the_order_of_members_does_not_matter(new: list[tuple[str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        assert compare(Path(directory), PACKED, new) == ()


def test_which_sources_others_include(tmp_path: Path) -> None:
    files = (
        ("a/x.c", b'#include "one.c"\n# include "../b/two.c"\n#include "else/three.c"\n'),
        *((path, b"") for path in ("a/one.c", "b/one.c", "b/two.c", "c/else/three.c")),
    )
    expected = {"a/one.c": True, "b/one.c": False, "b/two.c": True, "c/else/three.c": True}
    with SourceCache(tmp_path / "cache", small).snapshot(FakeSource(files), ignore) as packed:
        for path, data in files:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(data)
        for name in ("Makefile", "Kbuild"):
            (tmp_path / name).touch()
        for snapshot in (packed, TreeSnapshot(TreeSource(tmp_path))):
            found = {path: is_included(path, snapshot.included) for path in expected}
            assert found == expected
        by = {path for path in expected if includers(path, snapshot) == {"a/x.c"}}
        assert by == {path for path, included in expected.items() if included}
        assert includers("a/one.c", packed) == frozenset(), "what is not kept is not compiled"


def test_which_files_may_include_a_header(tmp_path: Path) -> None:
    files = {
        "a/x.c": '#include "y.h"\n# include "../b/near.h"\n',
        "a/z.c": "#include <deep/far.h>\n/* b/near.h */\n",
        "a/y.h": "#include <far.h>\n",
        "a/far.h": "",
        "b/y.h": "",
        "b/near.h": "",
        "b/deep/far.h": "",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    for name in ("Makefile", "Kbuild"):
        (tmp_path / name).touch()
    source = TreeSnapshot(TreeSource(tmp_path))
    headers = [path for path in files if path.endswith(".h")]
    assert header_readers(headers, source) == {
        "a/y.h": {"a/x.c"},
        "a/far.h": {"a/y.h"},
        "b/y.h": set(),
        "b/near.h": {"a/x.c"},
        "b/deep/far.h": {"a/z.c"},
    }


def test_a_packed_source_is_read_once(tmp_path: Path) -> None:
    source = FakeSource((("a.c", b'#include "b.c"\n'), ("b.c", b"2"), ("c/d.h", b"3")))
    cache = SourceCache(tmp_path, small)
    with cache.snapshot(source, ignore) as first:
        assert first.has("b.c") and not first.has("a.c"), "too large to keep"
    with cache.snapshot(FakeSource(()), ignore) as again:
        assert set(again.paths()) == {"a.c", "b.c", "c/d.h"}
        assert (again.version, again.included) == ("6.1.1-1", frozenset({"b.c"}))
        assert again.read("c/d.h") == Member("c/d.h", b"3", False, "")
        assert again.digest("a.c") and not again.digest("x")


@pytest.mark.parametrize("name", ["index.json", "content"])
def test_a_packed_source_that_was_cut_is_made_again(tmp_path: Path, name: str) -> None:
    cache = SourceCache(tmp_path, small)
    with cache.snapshot(PACKED, ignore):
        pass
    file = tmp_path / PACKED.key / name
    file.write_bytes(file.read_bytes()[:-1])
    with cache.snapshot(PACKED, ignore) as snapshot:
        assert snapshot.read("c/e.h").data == b"4"


def test_a_packed_source_that_is_damaged_is_refused(tmp_path: Path) -> None:
    cache = SourceCache(tmp_path, small)
    with cache.snapshot(PACKED, ignore) as snapshot:
        (tmp_path / PACKED.key / "content").write_bytes(b"12X4")
        assert snapshot.read("a.h").data == b"1"
        with pytest.raises(SourceError, match=r"damaged at c/d\.c"):
            snapshot.read("c/d.c")


def test_what_a_power_cut_left_of_the_laid_out_files_is_mended(tmp_path: Path) -> None:
    cache = SourceCache(tmp_path, small)
    with cache.snapshot(PACKED, ignore) as snapshot:
        assert snapshot.checkout is not None
        assert Tree(snapshot.checkout).add(snapshot, lambda path: path != "b.c") == 3
    (snapshot.checkout / "c/d.c").write_bytes(b"")
    with cache.snapshot(PACKED, ignore) as snapshot:
        assert snapshot.checkout is not None
        assert Tree(snapshot.checkout).add(snapshot, lambda path: True) == 2
        assert (snapshot.checkout / "c/d.c").read_bytes() == b"3"
        assert (snapshot.checkout / "b.c").read_bytes() == b"2"
        with cache.snapshot(PACKED, ignore) as second:
            assert second.checkout is None, "two builds never share the laid out files"


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    cache = SourceCache(tmp_path, small, limit=20)
    abandoned = tmp_path / "kspliced.xyz"
    abandoned.mkdir()
    keys = [character * 64 for character in "abc"]
    for age, key in enumerate(keys):
        with cache.snapshot(FakeSource(tuple(OLD.items()), key), ignore):
            os.utime(tmp_path / key, (age, age))
    # Each counts twice its content: two times 8 bytes fit.
    assert {p.name for p in tmp_path.iterdir()} == {*keys[1:], abandoned.name}
    os.utime(abandoned, (0, 0))
    with cache.snapshot(FakeSource((), keys[1]), ignore):
        pass
    assert {p.name for p in tmp_path.iterdir()} == set(keys[1:])


def test_a_source_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    class Broken(FakeSource):
        def members(self) -> Iterator[Member]:
            yield from super().members()
            raise SourceError(Code.SOURCE_UNREADABLE, "torn")

    with (
        pytest.raises(SourceError, match="torn"),
        SourceCache(tmp_path, small).snapshot(Broken(PACKED.files), ignore),
    ):
        raise AssertionError("not reached")
    assert list(tmp_path.iterdir()) == []


def test_trees_are_compared_and_shared(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "fs").mkdir(parents=True)
    for name in ("Makefile", "Kbuild", "fs/a.c", "fs/b.c"):
        (old / name).write_text(name)
    (old / "fs/link").symlink_to("a.c")
    (old / "dirlink").symlink_to("fs")
    shutil.copytree(old, new, symlinks=True, copy_function=os.link)
    (new / "fs/b.c").unlink()
    (new / "fs/b.c").write_text("other")
    (new / "fs/link").unlink()
    (new / "fs/a.c").chmod(0o644)
    with (
        open_source(old, tmp_path) as one,
        open_source(new, tmp_path) as other,
        SourceCache(tmp_path / "cache", small).snapshot(one, ignore) as snapshot,
    ):
        assert differing(snapshot, other, Tree(tmp_path / "changed"), ignore) == (
            FileChange("fs/b.c", ChangeType.MODIFIED),
            FileChange("fs/link", ChangeType.REMOVED),
        )
        tree = Tree(tmp_path / "tree")
        assert tree.add(snapshot, lambda path: path.startswith("fs/")) == 3
        assert (tmp_path / "tree/fs/a.c").samefile(old / "fs/a.c")
        assert (tmp_path / "tree/fs/link").readlink() == Path("a.c")
        assert tree.add(snapshot, lambda path: True) == 3
    assert not (tmp_path / "cache").exists()


def archive(*names: str) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    return io.BytesIO(stream.getvalue())


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "top/../../evil"])
def test_a_path_that_leaves_the_tree_is_refused(name: str) -> None:
    with pytest.raises(SourceError, match="outside its own tree"):
        list(tar_members(archive("top/ok", name), "s"))


def test_a_truncated_archive_is_refused() -> None:
    content = archive(*(f"top/{n}" for n in range(30))).getvalue()
    for size in range(512, 20000, 517):
        with pytest.raises(SourceError) as caught:
            list(tar_members(io.BytesIO(content[:size]), "s"))
        assert caught.value.code is Code.SOURCE_UNREADABLE


@pytest.mark.parametrize("name", ["missing", "a.txt", "bad.deb", "bad.dsc", "empty"])
def test_what_is_not_a_source_is_refused(tmp_path: Path, name: str) -> None:
    for made in ("a.txt", "bad.deb", "bad.dsc"):
        (tmp_path / made).write_text("not that")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError) as caught, open_source(tmp_path / name, tmp_path) as source:
        list(source.members())
    assert caught.value.code is Code.SOURCE_UNREADABLE
    assert caught.value.remedy


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_of_every_format_are_read_as_tarfile_reads_them(form: int) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as tar:
        for number, name in enumerate(["a", "b/" * 30 + "c", "d/" * 60 + "e" * 90]):
            info = tarfile.TarInfo(f"top/{name}")
            info.size = 600 * number
            info.mode = 0o755 if number else 0o644
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
        info = tarfile.TarInfo("top/link")
        info.type, info.linkname = (
            tarfile.SYMTYPE,
            "b/" * (20 if form == tarfile.USTAR_FORMAT else 99),
        )
        tar.addfile(info)
        info = tarfile.TarInfo("top/folder")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as tar:
        expected = []
        for info in tar:
            if info.isdir():
                continue
            content = tar.extractfile(info) if info.isreg() else None
            data = content.read() if content else b""
            executable = info.isreg() and bool(info.mode & 0o100)
            link = info.linkname if info.issym() else ""
            expected.append(Member(info.name.removeprefix("top/"), data, executable, link))
    assert list(tar_members(io.BytesIO(stream.getvalue()), "s")) == expected


@given(st.data())
def test_a_damaged_archive_is_refused_or_read(data: st.DataObject) -> None:
    content = bytearray(archive("top/a", "top/" + "b" * 120).getvalue())
    place = data.draw(st.integers(0, 4095))
    content[place] ^= data.draw(st.integers(1, 255))
    try:
        list(tar_members(io.BytesIO(bytes(content)), "s"))
    except SourceError as error:
        assert error.code is Code.SOURCE_UNREADABLE


def test_a_symlink_out_of_the_tree_is_not_made(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "t")
    tree.write(Member("a/in", b"", False, "../b"))
    tree.write(Member("a/out", b"", False, "../../../etc"))
    tree.write(Member("a/abs", b"", False, "/etc"))
    assert [p.name for p in (tmp_path / "t/a").iterdir()] == ["in"]


C_OLD = """\
int a(int n)
{
	warn(__LINE__);
	return n;
}

/* a comment that is
 * long ( enough
 */
#define M(x) \\
	do { x; \\
	} while (0)

int b(int n)
{
	call(n,
		"a ( string",
		__LINE__);
	warn(__LINE__);
	return n;
}
"""


def lines_of(tmp_path: Path, old: str, new: str) -> list[tuple[str, int]]:
    """What the preprocessor makes of __LINE__ in the patched file: (text before it, number)."""
    (tmp_path / "old.c").write_text(old)
    (tmp_path / "new.c").write_text(new)
    patched = tmp_path / "patched.c"
    patched.write_bytes(keep_line_numbers(tmp_path / "old.c", tmp_path / "new.c"))
    done = subprocess.run(
        ["gcc", "-E", "-P", str(patched)], check=True, capture_output=True, text=True
    )
    return [
        (line.rsplit("(", 1)[0].strip(), int("".join(c for c in line if c.isdigit())))
        for line in done.stdout.splitlines()
        if any(c.isdigit() for c in line) and "while" not in line
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("int a(int n)\n", "int fresh;\n\n\nint a(int n)\n"),
        ("\treturn n;\n}\n\n/*", "\treturn n + more(n);\n\n}\n\n/*"),
        (" * long ( enough\n", " * long ( enough\n * longer\n"),
        ("\tdo { x; \\\n", "\tdo { x; \\\n\tx; \\\n"),
        ("\twarn(__LINE__);\n\treturn n;\n}\n\n/*", "\twarn(__LINE__);\n}\n\n/*"),
    ],
)
def test_unchanged_lines_keep_their_numbers(tmp_path: Path, old: str, new: str) -> None:
    changed = C_OLD.replace(old, new, 1)
    assert changed != C_OLD
    before, after = lines_of(tmp_path, C_OLD, C_OLD), lines_of(tmp_path, C_OLD, changed)
    assert before[-2:] == after[-2:]


def test_a_file_with_no_shift_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "old.c").write_text(C_OLD)
    (tmp_path / "new.c").write_text(C_OLD.replace("return n", "return m"))
    kept = keep_line_numbers(tmp_path / "old.c", tmp_path / "new.c")
    assert kept == (tmp_path / "new.c").read_bytes()


def test_touched_functions(tmp_path: Path) -> None:
    (tmp_path / "old.c").write_text(C_OLD)
    (tmp_path / "new.c").write_text(C_OLD.replace('"a ( string"', '"other"'))
    assert touched_functions(tmp_path / "old.c", tmp_path / "new.c") == ("b",)
