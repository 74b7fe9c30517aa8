# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels of RPM packages: a real database, and real packages that real dnf and rpm verify."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from kspliced.engine.dnf import DnfFetcher
from kspliced.engine.edges import BuildOrder, Cancel, Job
from kspliced.engine.kernels import (
    installed_kernels,
    running_kernel,
)
from kspliced.engine.paths import Paths
from kspliced.engine.versions import flavour, of_rpm, series
from kspliced.errors import Code, KernelError, KsplicedError, SourceError
from kspliced.model import KernelId
from tests.unit.test_srpm import SPEC

SPEC_HEAD, SPEC_TAIL = SPEC.split("%description\nd\n")
BODY = """\
%description
d
%package core
Summary: c
Provides: kernel-uname-r = 6.1.192-%{release}.x86_64
%description core
c
%package devel
Summary: d
%description devel
d
%prep
%install
mkdir -p %{buildroot}/usr/src/kernels/6.1.192-%{release}.x86_64
touch %{buildroot}/usr/src/kernels/6.1.192-%{release}.x86_64/.config
%files core
%files devel
/usr/src/kernels
"""


def run(*command: str | Path, **more: str) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **more},
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@dataclass(frozen=True)
class Archive:
    """Signed packages of two builds in a repository, and a root whose rpm trusts their key."""

    folder: Path
    root: Path

    @property
    def paths(self) -> Paths:
        return Paths(self.root)

    def make(self, release: str) -> None:
        spec = self.folder / f"kernel-{release}.spec"
        spec.write_text(SPEC_HEAD.format(release=release, more="") + BODY)
        sources = self.folder / "SOURCES"
        sources.mkdir(exist_ok=True)
        for name in ("linux.tar.gz", "fix.patch"):
            (sources / name).write_text("")
        run("rpmbuild", "-ba", "--quiet", "--define", f"_topdir {self.folder}", spec)

    def packages(self, pattern: str) -> list[Path]:
        return sorted(self.folder.glob(f"*RPMS/**/{pattern}.rpm"))

    def sign(self, home: Path, *packages: Path) -> None:
        words = ("_gpg_name tester", f"_gpg_path {home}", "__gpg /usr/bin/gpg")
        options = [word for pair in words for word in ("--define", pair)]
        run("rpmsign", "--addsign", *options, *packages, GNUPGHOME=str(home))

    def publish(self) -> None:
        run("createrepo_c", "--quiet", "--update", self.folder)

    def fetcher(self) -> DnfFetcher:
        options = (
            f"--installroot={self.root}",
            "--releasever=1",
            f"--repofrompath=ours,file://{self.folder}",
            "--repoid=ours",
            "--refresh",
            "--setopt=reposdir=/nowhere",
            f"--setopt=cachedir={self.folder / 'cache'}",
        )
        return DnfFetcher(self.paths, options, (f"--root={self.root}",))

    def install(self, *names: str) -> None:
        wanted = [path for name in names for path in self.packages(name)]
        run("rpm", f"--root={self.root}", "-i", "--nodeps", "--noscripts", *wanted)


def key(home: Path) -> Path:
    """A new key called tester; its public part."""
    home.mkdir(mode=0o700)
    gpg = ("gpg", "--homedir", home, "--batch", "--quiet")
    run(*gpg, "--passphrase", "", "--quick-generate-key", "tester", "rsa2048", "sign")
    public = home / "public.asc"
    run(*gpg, "--armor", "--output", public, "--export", "tester")
    run("gpgconf", "--homedir", home, "--kill", "all")
    return public


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    found = Archive(tmp_path / "archive", tmp_path / "root")
    for directory in ("proc/sys/kernel", "var/lib/kspliced/sources", "etc"):
        (found.root / directory).mkdir(parents=True)
    found.folder.mkdir()
    public = key(tmp_path / "key")
    run("rpm", f"--root={found.root}", "--import", public)
    for release in ("1.ks1", "2.ks1"):
        found.make(release)
    found.sign(tmp_path / "key", *found.packages("*"))
    run("gpgconf", "--homedir", tmp_path / "key", "--kill", "all")
    found.publish()
    return found


def runs(archive: Archive, release: str) -> None:
    kernel = archive.root / "proc/sys/kernel"
    (kernel / "osrelease").write_text(f"{release}\n")
    (kernel / "version").write_text("#1 SMP PREEMPT_DYNAMIC Mon Nov  2 12:00:00 UTC 2026\n")


OLD = KernelId("6.1.192-1.ks1.x86_64", "6.1.192-1.ks1", "x86_64")
NEW = KernelId("6.1.192-2.ks1.x86_64", "6.1.192-2.ks1", "x86_64")
NOW = Job(lambda _: None, Cancel())


def test_the_kernel_that_runs_and_those_that_are_there(archive: Archive) -> None:
    runs(archive, OLD.release)
    archive.install("kernel-core-6.1.192-1*")
    assert running_kernel(archive.paths) == OLD and of_rpm(OLD)
    assert installed_kernels(archive.paths, OLD).newest == OLD
    archive.install("kernel-core-6.1.192-2*")
    assert installed_kernels(archive.paths, OLD).newest == NEW
    # A downgrade leaves nothing to follow.
    assert installed_kernels(archive.paths, NEW).newest == NEW


def test_a_running_kernel_whose_package_was_erased(archive: Archive) -> None:
    runs(archive, OLD.release)
    archive.install("kernel-core-6.1.192-2*")
    with pytest.raises(KernelError) as caught:
        running_kernel(archive.paths)
    assert OLD.release in caught.value.message and "install its package" in caught.value.remedy


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("6.1.192-2.ks1.x86_64", ("6.1", "x86_64")),
        ("6.8.5-301.fc40.x86_64+debug", ("6.8", "x86_64+debug")),
        ("6.1.0-55-amd64", ("6.1", "amd64")),
        ("6.12.94+deb13-cloud-amd64", ("6.12", "cloud-amd64")),
        ("6.1.192", ("", "")),
    ],
)
def test_releases(release: str, expected: tuple[str, str]) -> None:
    assert (series(release), flavour(release)) == expected


def order(archive: Archive) -> BuildOrder:
    (archive.root / "proc/modules").write_text("ext4 1 0 - Live 0x0\n")
    archive.install("kernel-core-*")
    return archive.fetcher().order(OLD, NEW, NOW)


def test_everything_is_fetched(archive: Archive) -> None:
    found = order(archive)
    assert found.source.name == "kernel-6.1.192-1.ks1.src.rpm"
    assert found.target.name == "kernel-6.1.192-2.ks1.src.rpm"
    assert found.headers.name == OLD.release and (found.headers / ".config").is_file()
    assert found.config == found.headers / ".config"
    names = {path.name for path in archive.paths.sources.iterdir()}
    assert names == {
        "source-6.1.192-1.ks1",
        "source-6.1.192-2.ks1",
        "headers-6.1.192-1.ks1.x86_64",
    }
    # The daemon cannot write to /var/log; dnf puts its root before what it is told.
    logs = list(archive.paths.root.rglob("dnf.log"))
    assert logs and all(log.match("run/kspliced/dnf/dnf.log") for log in logs)


def unsign(archive: Archive, path: Path) -> None:
    run("rpmsign", "--delsign", path)


def sign_by_another(archive: Archive, path: Path) -> None:
    home = archive.folder.parent / "other"
    key(home)
    unsign(archive, path)
    archive.sign(home, path)
    run("gpgconf", "--homedir", home, "--kill", "all")


@pytest.mark.parametrize("harm", [unsign, sign_by_another])
def test_a_source_that_nobody_vouches_for(
    archive: Archive, harm: Callable[[Archive, Path], None]
) -> None:
    (path,) = archive.packages("kernel-6.1.192-2*.src")
    harm(archive, path)
    archive.publish()
    with pytest.raises(SourceError) as caught:
        order(archive)
    assert caught.value.code is Code.SOURCE_UNAVAILABLE
    assert "not signed with a key that rpm trusts" in caught.value.message
    assert not (archive.paths.sources / "source-6.1.192-2.ks1").exists()


def test_a_key_that_rpm_trusts_for_something_else_is_no_kernels(archive: Archive) -> None:
    (path,) = archive.packages("kernel-6.1.192-2*.src")
    sign_by_another(archive, path)
    run("rpm", f"--root={archive.root}", "--import", archive.folder.parent / "other/public.asc")
    archive.publish()
    with pytest.raises(SourceError) as caught:
        order(archive)
    assert caught.value.code is Code.SOURCE_UNAVAILABLE
    assert "but the installed kernels with" in caught.value.message
    assert not (archive.paths.sources / "source-6.1.192-2.ks1").exists()


def test_a_kernel_that_nobody_signed_vouches_for_nothing(archive: Archive) -> None:
    for path in archive.packages("kernel-core-*"):
        unsign(archive, path)
    with pytest.raises(SourceError) as caught:
        order(archive)
    assert "no installed kernel is signed" in caught.value.message


@pytest.mark.parametrize(
    ("gone", "code", "words"),
    [
        ("kernel-6.1.192-2*.src", Code.SOURCE_UNAVAILABLE, "no trusted source"),
        ("kernel-devel-6.1.192-1*", Code.HEADERS_MISSING, "kernel-devel 6.1.192-1.ks1"),
    ],
)
def test_what_is_not_offered(archive: Archive, gone: str, code: Code, words: str) -> None:
    (path,) = archive.packages(gone)
    path.unlink()
    archive.publish()
    with pytest.raises(KsplicedError) as caught:
        order(archive)
    assert caught.value.code is code and words in caught.value.message
    assert "apt" not in caught.value.remedy
    assert not [path for path in archive.paths.sources.iterdir() if path.name[0] == "."]
