# SPDX-License-Identifier: GPL-2.0-or-later
"""Fetching with the real apt from a local signed repository of small packages."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kspliced.engine.edges import Cancel, Job
from kspliced.engine.fetch import AptFetcher
from kspliced.engine.paths import Paths
from kspliced.engine.room import require_space
from kspliced.errors import Code, KsplicedError
from kspliced.model import Progress
from tests.unit.engine.fakes import NEWER, RUNNING, Machine

HEADERS = f"linux-headers-{RUNNING.release}"
COMMON = "linux-headers-6.1.0-55-common"


def run(*argv: str, cwd: Path, gnupg: Path | None = None) -> bytes:
    environment = {**os.environ, "LC_ALL": "C"} | ({"GNUPGHOME": str(gnupg)} if gnupg else {})
    return subprocess.run(argv, cwd=cwd, env=environment, check=True, capture_output=True).stdout


def make_deb(repository: Path, name: str, version: str, file: str, depends: str = "") -> None:
    tree = repository / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    target = tree / file
    target.parent.mkdir(parents=True)
    target.write_text(f"{name} {version}\n")
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nSource: linux\n"
    control += f"Depends: {depends}\n" if depends else ""
    control += "Maintainer: Nobody <nobody@example.org>\nDescription: a test\n"
    (tree / "DEBIAN/control").write_text(control)
    run("dpkg-deb", "--root-owner-group", "-b", "tree", f"{name}_{version}_all.deb", cwd=repository)
    run("rm", "-r", "tree", cwd=repository)


def make_source(repository: Path, version: str) -> None:
    tree = repository / "linux-src"
    (tree / "debian/source").mkdir(parents=True)
    (tree / "debian/source/format").write_text("1.0\n")
    (tree / "debian/control").write_text(
        "Source: linux\nMaintainer: Nobody <nobody@example.org>\n\n"
        "Package: linux-doc\nArchitecture: all\nDescription: a test\n"
    )
    (tree / "debian/changelog").write_text(
        f"linux ({version}) unstable; urgency=low\n\n  * A test.\n\n"
        " -- Nobody <nobody@example.org>  Sun, 22 Nov 2026 12:00:00 +0000\n"
    )
    run("dpkg-source", "-b", "linux-src", cwd=repository)
    run("rm", "-r", "linux-src", cwd=repository)


class Archive:
    """A signed repository, and an apt that knows nothing else."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repository = root / "repository"
        self.gnupg = root / "gnupg"
        self.apt = root / "apt"
        self.repository.mkdir()
        self.gnupg.mkdir(mode=0o700)
        for name in ("state/lists/partial", "cache/archives/partial", "etc"):
            (self.apt / name).mkdir(parents=True)
        (self.apt / "status").write_text("")
        generate = ("gpg", "--batch", "--passphrase", "", "--quick-gen-key", "test", "ed25519")
        run(*generate, cwd=root, gnupg=self.gnupg)
        run("gpg", "-o", str(root / "key.gpg"), "--export", cwd=root, gnupg=self.gnupg)
        source = f"[signed-by={root}/key.gpg] file:{self.repository} ./\n"
        (self.apt / "etc/sources.list").write_text(f"deb {source}deb-src {source}")

    @property
    def options(self) -> tuple[str, ...]:
        """What points apt here."""
        settings = {
            "Dir::State": f"{self.apt}/state",
            "Dir::State::status": f"{self.apt}/status",
            "Dir::Cache": f"{self.apt}/cache",
            "Dir::Etc::sourcelist": f"{self.apt}/etc/sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Etc::trustedparts": "/dev/null",
        }
        return tuple(part for key, value in settings.items() for part in ("-o", f"{key}={value}"))

    def publish(self, signed: bool = True) -> None:
        """Index and sign what is there, and let apt learn of it."""
        for kind, name in (("packages", "Packages"), ("sources", "Sources")):
            index = run("apt-ftparchive", kind, ".", cwd=self.repository)
            (self.repository / name).write_bytes(index)
        release = run("apt-ftparchive", "release", ".", cwd=self.repository)
        (self.repository / "Release").write_bytes(release)
        if signed:
            sign = ("gpg", "--batch", "--yes", "--clearsign", "-o", "InRelease", "Release")
            run(*sign, cwd=self.repository, gnupg=self.gnupg)
        allow = () if signed else ("-o", "Acquire::AllowInsecureRepositories=true")
        run("apt-get", *self.options, *allow, "update", cwd=self.root)


@pytest.fixture
def archive() -> Iterator[Archive]:
    """An empty archive. Everything must be readable for apt's own user, and pytest's directory is
    closed to it again by any other pytest that starts."""
    with tempfile.TemporaryDirectory(prefix="ks-apt-") as directory:
        Path(directory).chmod(0o755)
        yield Archive(Path(directory))


@pytest.fixture
def fetcher(machine: Machine, archive: Archive) -> AptFetcher:
    """The fetcher of a machine whose only archive is ``archive``."""
    config = machine.paths.config(RUNNING.release)
    config.parent.mkdir(parents=True)
    config.write_text("CONFIG_64BIT=y\n")
    return AptFetcher(machine.paths, archive.options)


def make_all(archive: Archive) -> None:
    for kernel in (RUNNING, NEWER):
        make_deb(archive.repository, "linux-source-6.1", kernel.version, "usr/src/source")
        make_deb(archive.repository, f"linux-image-{kernel.release}", kernel.version, "boot/image")
    depends = f"{COMMON} (= {RUNNING.version}), linux-kbuild-6.1 (>= 6.1.1), linux-compiler-gcc"
    makefile = f"usr/src/{HEADERS}/Makefile"
    make_deb(archive.repository, HEADERS, RUNNING.version, makefile, depends)
    make_deb(archive.repository, COMMON, RUNNING.version, f"usr/src/{COMMON}/Makefile")
    make_deb(archive.repository, "linux-kbuild-6.1", NEWER.version, "usr/lib/kbuild/fixdep")


def job() -> Job:
    def ignore(_: Progress) -> None:
        return

    return Job(ignore, Cancel())


def test_everything_comes_through_apt(fetcher: AptFetcher, archive: Archive) -> None:
    make_all(archive)
    archive.publish()
    order = fetcher.order(RUNNING, NEWER, job())
    assert order.source.name == "linux-source-6.1_6.1.192-1_all.deb"
    assert order.target.name == "linux-source-6.1_6.1.192-2_all.deb"
    assert (order.headers / "Makefile").read_text() == f"{HEADERS} 6.1.192-1\n"
    assert (order.headers.parent / COMMON / "Makefile").exists()
    assert (order.headers.parents[1] / "lib/kbuild/fixdep").exists()
    assert order.targets == ("vmlinux", "ext4")
    status = order.source.stat()
    assert (status.st_uid, status.st_mode & 0o777) == (os.geteuid(), 0o644)
    # The second time nothing is asked of apt.
    run("rm", "-r", "repository", cwd=archive.root)
    assert fetcher.order(RUNNING, NEWER, job()) == order
    left = [d.name for d in fetcher.paths.sources.iterdir() if d.name.startswith(".")]
    assert left == []


def test_ahead_keeps_what_is_needed_only(fetcher: AptFetcher, archive: Archive) -> None:
    make_all(archive)
    archive.publish()
    old = fetcher.paths.sources / "source-6.1.190-1"
    partial = fetcher.paths.sources / ".partial-source-6.1.192-1"
    for directory in (old, partial):
        directory.mkdir(parents=True)
        (directory / "file").write_text("x")
    names = fetcher.ahead(RUNNING, NEWER, job())
    assert names == (f"headers-{RUNNING.release}", "source-6.1.192-1")
    assert not old.exists() and not partial.exists()


def test_installed_headers_are_used(
    machine: Machine, fetcher: AptFetcher, archive: Archive
) -> None:
    make_all(archive)
    archive.publish()
    installed = machine.paths.usr_src / HEADERS
    installed.mkdir(parents=True)
    with (machine.paths.dpkg / "status").open("a") as status:
        status.write(f"\nPackage: {HEADERS}\nStatus: install ok installed\nVersion: 6.1.192-1\n")
    assert fetcher.order(RUNNING, NEWER, job()).headers == installed


def test_headers_of_another_version_are_not_used(
    machine: Machine, fetcher: AptFetcher, archive: Archive
) -> None:
    make_all(archive)
    archive.publish()
    installed = machine.paths.usr_src / HEADERS
    installed.mkdir(parents=True)
    with (machine.paths.dpkg / "status").open("a") as status:
        status.write(f"\nPackage: {HEADERS}\nStatus: install ok installed\nVersion: 6.1.192-9\n")
    assert fetcher.order(RUNNING, NEWER, job()).headers != installed


def test_deb_src_when_the_binary_package_is_gone(fetcher: AptFetcher, archive: Archive) -> None:
    make_all(archive)
    (archive.repository / "linux-source-6.1_6.1.192-1_all.deb").unlink()
    make_source(archive.repository, "6.1.192-1")
    archive.publish()
    order = fetcher.order(RUNNING, NEWER, job())
    assert order.source.name == "linux_6.1.192-1.dsc"
    assert list(order.source.parent.glob("linux_*.tar.*"))


def test_a_source_that_no_archive_has(fetcher: AptFetcher, archive: Archive) -> None:
    archive.publish()
    with pytest.raises(KsplicedError) as caught:
        fetcher.order(RUNNING, NEWER, job())
    assert caught.value.code is Code.SOURCE_UNAVAILABLE
    assert "6.1.192-1" in caught.value.message and "apt update" in caught.value.remedy
    assert list(fetcher.paths.sources.iterdir()) == []


def test_headers_that_no_archive_has(fetcher: AptFetcher, archive: Archive) -> None:
    make_all(archive)
    (archive.repository / f"{HEADERS}_6.1.192-1_all.deb").unlink()
    archive.publish()
    with pytest.raises(KsplicedError) as caught:
        fetcher.order(RUNNING, NEWER, job())
    assert caught.value.code is Code.HEADERS_MISSING and HEADERS in caught.value.remedy


def test_a_package_that_was_tampered_with(fetcher: AptFetcher, archive: Archive) -> None:
    make_all(archive)
    archive.publish()
    deb = archive.repository / "linux-source-6.1_6.1.192-1_all.deb"
    content = bytearray(deb.read_bytes())
    content[-1] ^= 1
    deb.write_bytes(content)
    with pytest.raises(KsplicedError) as caught:
        fetcher.order(RUNNING, NEWER, job())
    assert caught.value.code is Code.SOURCE_UNAVAILABLE
    assert not (fetcher.paths.sources / "source-6.1.192-1").exists()


def test_an_unsigned_archive(fetcher: AptFetcher, archive: Archive) -> None:
    list_file = archive.apt / "etc/sources.list"
    list_file.write_text(f"deb file:{archive.repository} ./\n")
    make_all(archive)
    archive.publish(signed=False)
    with pytest.raises(KsplicedError) as caught:
        fetcher.order(RUNNING, NEWER, job())
    assert caught.value.code is Code.SOURCE_UNAVAILABLE
    assert "authenticated" in " ".join(caught.value.details)


def test_cancel(fetcher: AptFetcher, archive: Archive) -> None:
    make_all(archive)
    archive.publish()
    stopped = job()
    stopped.cancel.wanted = True
    with pytest.raises(KsplicedError) as caught:
        fetcher.order(RUNNING, NEWER, stopped)
    assert caught.value.code is Code.CANCELLED


def test_no_space_says_how_much_and_where(tmp_path: Path) -> None:
    with pytest.raises(KsplicedError) as caught:
        require_space(tmp_path / "not/yet", 1 << 60, "downloading")
    assert caught.value.code is Code.NO_SPACE
    assert str(tmp_path) in caught.value.message and "MiB" in caught.value.remedy


def test_no_configuration(machine: Machine, fetcher: AptFetcher, archive: Archive) -> None:
    make_all(archive)
    archive.publish()
    Paths(machine.paths.root).config(RUNNING.release).unlink()
    with pytest.raises(KsplicedError) as caught:
        fetcher.order(RUNNING, NEWER, job())
    assert caught.value.code is Code.CONFIG_MISSING
