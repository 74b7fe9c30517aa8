# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel source RPM packages, made here by rpmbuild: the tree with its patches, and bad ones."""

from __future__ import annotations

import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from kspliced.errors import Code, SourceError
from kspliced.source.changelog import read_news
from kspliced.source.opened import open_source

PREP = "%setup -q -n kernel-%{version} -c\ncd linux\npatch -p1 < %{PATCH1}\n"
SPEC = """\
Name: kernel
Version: 6.1.192
Release: {release}
Summary: s
License: GPL
BuildArch: noarch
Source0: linux.tar.gz
Patch1: fix.patch
{more}
%description
d
%package core
Summary: c
%description core
c
%prep
{prep}
%files core
%changelog
* Mon Nov 02 2026 A. U. Thor <a@example.org> - 6.1.192-2
- ext4: fix a thing
  that was wrong (CVE-2026-12345)
- net: another

* Sun Nov 01 2026 A. U. Thor <a@example.org> [6.1.192-1]
- New upstream version
"""
PATCH = """\
--- a/fs/a.c
+++ b/fs/a.c
@@ -1 +1 @@
-int a;
+int b;
"""


def source_rpm(
    folder: Path, release: str = "2", prep: str = PREP, more: str = "", macro: str = "nothing 1"
) -> Path:
    assert shutil.which("rpmbuild"), "rpmbuild is missing: run tests/setup.sh"
    tree = folder / "linux"
    (tree / "fs").mkdir(parents=True)
    (tree / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 192\n")
    (tree / "Kbuild").write_text("")
    (tree / "fs/a.c").write_text("int a;\n")
    sources = folder / "SOURCES"
    sources.mkdir()
    with tarfile.open(sources / "linux.tar.gz", "w:gz") as archive:
        archive.add(tree, "linux")
    (sources / "fix.patch").write_text(PATCH)
    spec = folder / "kernel.spec"
    spec.write_text(SPEC.format(release=release, prep=prep, more=more))
    command = ["rpmbuild", "-bs", "--quiet", "--define", f"_topdir {folder}", "--define", macro]
    subprocess.run([*command, str(spec)], check=True, capture_output=True)
    (path,) = (folder / "SRPMS").glob("*.src.rpm")
    return path


def members(path: Path, work: Path) -> dict[str, bytes]:
    work.mkdir(exist_ok=True)
    with open_source(path, work) as source:
        return {member.path: member.data for member in source.members()}


def refusal(path: Path, work: Path) -> SourceError:
    with pytest.raises(SourceError) as caught:
        members(path, work)
    assert caught.value.code is Code.SOURCE_UNREADABLE
    assert not list(work.iterdir()), "nothing is left behind"
    return caught.value


def test_the_tree_is_patched(tmp_path: Path) -> None:
    found = members(source_rpm(tmp_path / "rpm"), tmp_path / "work")
    assert sorted(found) == ["Kbuild", "Makefile", "fs/a.c"]
    assert found["fs/a.c"] == b"int b;\n"
    assert not list((tmp_path / "work").iterdir())


def test_version_and_changelog(tmp_path: Path) -> None:
    with open_source(source_rpm(tmp_path / "rpm"), tmp_path) as source:
        assert source.version == "6.1.192-2"
        assert len(source.key) == 64
        news = read_news(source.changelog, "6.1.192-1")
    assert [(entry.version, entry.subject, entry.cves) for entry in news.entries] == [
        (
            "6.1.192-2",
            "ext4: fix a thing that was wrong (CVE-2026-12345)",
            ("CVE-2026-12345",),
        ),
        ("6.1.192-2", "net: another", ()),
    ]


def test_a_truncated_package(tmp_path: Path) -> None:
    whole = source_rpm(tmp_path / "rpm").read_bytes()
    cut = tmp_path / "cut.src.rpm"
    random.seed(1)
    sizes = {0, 1, 95, 96, 97, len(whole) - 1, *random.sample(range(len(whole)), 12)}
    for size in sorted(sizes):
        cut.write_bytes(whole[:size])
        assert str(cut) in refusal(cut, tmp_path / "work").message, size


def test_a_tampered_package(tmp_path: Path) -> None:
    content = bytearray(source_rpm(tmp_path / "rpm").read_bytes())
    content[-200] ^= 1
    bad = tmp_path / "bad.src.rpm"
    bad.write_bytes(content)
    refusal(bad, tmp_path / "work")


def test_a_patch_that_does_not_apply(tmp_path: Path) -> None:
    prep = PREP.replace("patch", "echo 'int z;' > fs/a.c\npatch", 1)
    error = refusal(source_rpm(tmp_path / "rpm", prep=prep), tmp_path / "work")
    assert "prep" in error.message
    assert any("FAILED" in line for line in error.details)


def test_a_spec_that_needs_what_is_not_here(tmp_path: Path) -> None:
    """A macro of another distribution stays as it is written, and fails as a command."""
    prep = "%{a_macro_of_nobody}\n" + PREP
    error = refusal(source_rpm(tmp_path / "rpm", prep=prep), tmp_path / "work")
    assert "prep" in error.message


def test_a_condition_that_only_its_maker_knows(tmp_path: Path) -> None:
    """It was made where the macro is defined; here it says nothing that is true or false."""
    more = "%if %{condition_of_nobody}\nProvides: nothing\n%endif"
    path = source_rpm(tmp_path / "rpm", more=more, macro="condition_of_nobody 1")
    error = refusal(path, tmp_path / "work")
    assert any("condition_of_nobody" in line for line in error.details), error.details


@pytest.mark.parametrize(
    "condition", ["0%{?distribution_of_nobody} >= 9", "%{with something_of_nobody}"]
)
def test_a_condition_on_what_is_not_here_is_false(tmp_path: Path, condition: str) -> None:
    prep = f"{PREP}%if {condition}\nrm fs/a.c\n%endif\n"
    path = source_rpm(tmp_path / "rpm", prep=prep)
    assert members(path, tmp_path / "work")["fs/a.c"] == b"int b;\n"


def test_a_package_without_a_kernel(tmp_path: Path) -> None:
    path = source_rpm(tmp_path / "rpm", prep="%setup -q -n kernel -c\nrm linux/Kbuild\n")
    assert "leaves no kernel tree" in refusal(path, tmp_path / "work").message


def test_what_is_to_be_installed_for_a_build_is_not_needed(tmp_path: Path) -> None:
    path = source_rpm(tmp_path / "rpm", more="BuildRequires: a-compiler-of-nobody")
    assert members(path, tmp_path / "work")["fs/a.c"] == b"int b;\n"


def test_a_binary_package(tmp_path: Path) -> None:
    source_rpm(tmp_path / "rpm")
    folder = tmp_path / "rpm"
    command = ["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {folder}", "kernel.spec"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (path,) = folder.glob("RPMS/*/*.rpm")
    assert "is not a source package" in refusal(path, tmp_path / "work").message
