# SPDX-License-Identifier: GPL-2.0-or-later
"""The source of a kernel comes from who the kernel came from: real apt, real signed archives."""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.engine.fetch import AptFetcher
from kspliced.engine.origin import Origins
from kspliced.errors import Code, KsplicedError, SourceError
from tests.unit.engine.fakes import NEWER, RUNNING, Machine
from tests.unit.engine.test_fetch import Archive, archive, job, make_deb, make_source, run

__all__ = ["archive"]  # a fixture

IMAGE = f"linux-image-{RUNNING.release}"
SOURCE = "linux-source-6.1"


class Site:
    """One of several archives: ``key`` signs it, ``origin`` is what it says of itself."""

    def __init__(self, apt: Archive, name: str, key: str, origin: str) -> None:
        self.folder = apt.root / name
        self.folder.mkdir()
        self._apt = apt
        self._key = key
        self._origin = origin
        self.keyring = apt.root / f"{key}.gpg"
        if not self.keyring.exists():
            generate = ("gpg", "--batch", "--passphrase", "", "--quick-gen-key", key, "ed25519")
            run(*generate, cwd=apt.root, gnupg=apt.gnupg)
            run("gpg", "-o", str(self.keyring), "--export", key, cwd=apt.root, gnupg=apt.gnupg)

    def publish(self) -> None:
        """Index and sign."""
        for kind, name in (("packages", "Packages"), ("sources", "Sources")):
            index = run("apt-ftparchive", kind, ".", cwd=self.folder)
            (self.folder / name).write_bytes(index)
        option = f"-oAPT::FTPArchive::Release::Origin={self._origin}"
        release = run(
            "apt-ftparchive", *([option] if self._origin else []), "release", ".", cwd=self.folder
        )
        (self.folder / "Release").write_bytes(release)
        sign = (
            "gpg",
            "--batch",
            "--yes",
            "-u",
            self._key,
            "--clearsign",
            "-o",
            "InRelease",
            "Release",
        )
        run(*sign, cwd=self.folder, gnupg=self._apt.gnupg)


@pytest.fixture
def apt(archive: Archive) -> Archive:
    return archive


@pytest.fixture
def fetcher(machine: Machine, apt: Archive) -> AptFetcher:
    headers = f"linux-headers-{RUNNING.release}"
    (machine.paths.usr_src / headers).mkdir(parents=True)
    with (machine.paths.dpkg / "status").open("a") as status:
        status.write(
            f"\nPackage: {headers}\nStatus: install ok installed\nVersion: {RUNNING.version}\n"
        )
    config = machine.paths.config(RUNNING.release)
    config.parent.mkdir(parents=True)
    config.write_text("CONFIG_64BIT=y\n")
    return AptFetcher(machine.paths, apt.options)


def known(apt: Archive, *sites: Site, bound: bool = True, stanzas: bool = False) -> None:
    """Have apt know these archives, each ``bound`` to its keyring."""
    for site in sites:
        site.publish()
    if stanzas:
        parts = apt.apt / "etc/parts"
        parts.mkdir()
        text = "\n\n# And:\n".join(
            f"Types: deb deb-src\nURIs: file:{s.folder}\nSuites: ./\nSigned-By:\n {s.keyring}"
            for s in sites
        )
        (parts / "all.sources").write_text(text + "\n")
        (apt.apt / "etc/sources.list").write_text("")
        options = ("-o", f"Dir::Etc::sourceparts={parts}")
    else:
        lines = (
            f"{kind} {f'[signed-by={s.keyring}] ' if bound else ''}file:{s.folder} ./\n"
            for s in sites
            for kind in ("deb", "deb-src")
        )
        (apt.apt / "etc/sources.list").write_text("".join(lines))
        options = ("-o", "Dir::Etc::sourceparts=/dev/null")
    run("apt-get", *apt.options, *options, "update", cwd=apt.root)


def source_of(fetcher: AptFetcher) -> Path:
    return fetcher.order(RUNNING, RUNNING, job()).source


def refused(fetcher: AptFetcher) -> str:
    with pytest.raises(KsplicedError) as caught:
        source_of(fetcher)
    error = caught.value
    assert error.code is Code.SOURCE_UNAVAILABLE and error.remedy
    assert list(fetcher.paths.sources.iterdir()) == []
    return "\n".join((error.message, *error.details))


def test_another_suite_of_the_distribution_will_do(fetcher: AptFetcher, apt: Archive) -> None:
    main, security = (Site(apt, name, "distro", "Debian") for name in ("main", "security"))
    make_deb(main.folder, IMAGE, RUNNING.version, "boot/image")
    make_deb(security.folder, SOURCE, RUNNING.version, "usr/src/source")
    known(apt, main, security)
    assert source_of(fetcher).read_bytes() == next(security.folder.glob("*.deb")).read_bytes()


@pytest.mark.parametrize("stanzas", [False, True])
@pytest.mark.parametrize("kind", ["deb", "deb-src"])
@pytest.mark.parametrize("origin", ["Debian", "Elsewhere", ""])
def test_an_archive_for_something_else_is_no_source(
    machine: Machine, apt: Archive, fetcher: AptFetcher, origin: str, kind: str, stanzas: bool
) -> None:
    """apt trusts its key, and it may say that it is the distribution."""
    main, third = Site(apt, "main", "distro", "Debian"), Site(apt, "third", "third", origin)
    make_deb(main.folder, IMAGE, RUNNING.version, "boot/image")
    if kind == "deb":
        make_deb(third.folder, SOURCE, RUNNING.version, "usr/src/source")
    else:
        make_source(third.folder, RUNNING.version)
    known(apt, main, third, stanzas=stanzas)
    if stanzas:
        parts = ("-o", f"Dir::Etc::sourceparts={apt.apt}/etc/parts")
        fetcher = AptFetcher(machine.paths, (*apt.options, *parts))
    text = refused(fetcher)
    assert f"would come from file:{third.folder} ./" in text
    assert f"the installed kernels are from file:{main.folder} ./ (Debian)" in text


def test_without_a_name_only_the_same_archive_will_do(fetcher: AptFetcher, apt: Archive) -> None:
    first, second = Site(apt, "first", "distro", ""), Site(apt, "second", "distro", "")
    make_deb(first.folder, IMAGE, RUNNING.version, "boot/image")
    make_deb(second.folder, SOURCE, RUNNING.version, "usr/src/source")
    known(apt, first, second)
    assert "would come from" in refused(fetcher)
    make_deb(first.folder, SOURCE, RUNNING.version, "usr/src/source")
    (second.folder / f"{SOURCE}_{RUNNING.version}_all.deb").unlink()
    known(apt, first, second)
    assert source_of(fetcher).exists()


def test_a_kernel_of_no_archive(fetcher: AptFetcher, apt: Archive) -> None:
    """Installed from a file: nothing tells whose source to trust."""
    main = Site(apt, "main", "distro", "Debian")
    make_deb(main.folder, IMAGE, NEWER.version, "boot/image")
    make_deb(main.folder, SOURCE, RUNNING.version, "usr/src/source")
    known(apt, main)
    assert f"no archive that apt knows offers the installed {IMAGE}" in refused(fetcher)


def test_a_kernel_of_another_flavour_vouches_for_nothing(
    machine: Machine, fetcher: AptFetcher, apt: Archive
) -> None:
    main, third = Site(apt, "main", "distro", "Debian"), Site(apt, "third", "third", "Third")
    other = "6.9.1-x64v3-third1"
    make_deb(main.folder, IMAGE, RUNNING.version, "boot/image")
    make_deb(third.folder, f"linux-image-{other}", "6.9.1-1", "boot/image")
    make_deb(third.folder, SOURCE, RUNNING.version, "usr/src/source")
    with (machine.paths.dpkg / "status").open("a") as status:
        status.write(
            f"\nPackage: linux-image-{other}\nStatus: install ok installed\nVersion: 6.9.1-1\n"
        )
    known(apt, main, third)
    assert "would come from" in refused(fetcher)


def test_debians_own_archives(tmp_path: Path) -> None:
    """As apt tells of them: security beside stable and backports, which is of another origin."""
    keyring = tmp_path / "keyring.pgp"
    link = tmp_path / "keyring.gpg"
    link.symlink_to(keyring)
    (tmp_path / "debian.sources").write_text(
        f"Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\nSigned-By: {link}\n\n\n"
        f"Types: deb\nURIs: http://security.debian.org\nsigned-by: {keyring}\n"
    )
    first = f"{tmp_path}/debian.sources:1"
    targets = (
        f"{first}|http://deb.debian.org/debian/|bookworm|Debian\n"
        f"{first}|http://deb.debian.org/debian/|bookworm-backports|Debian Backports\n"
        f"{tmp_path}/debian.sources:2|http://security.debian.org/|bookworm-security|Debian\n"
    )
    rows = (
        " linux-image-amd | 1 | http://deb.debian.org/debian bookworm/main amd64 Packages\n"
        " linux-source | 2 | http://security.debian.org bookworm-security/main amd64 Packages\n"
        " linux-source | 3 | http://deb.debian.org/debian bookworm-backports/main amd64 Packages\n"
    )
    origins = Origins(lambda argv: targets if argv[0] == "apt-get" else rows)
    kernel = (("linux-image-amd", "1"),)
    origins.require_same(kernel, (("linux-source", "2"),), ("http://security.debian.org/pool/x",))
    for version, uri in (
        ("3", "http://deb.debian.org/debian/pool/x"),
        ("2", "http://deb.debian.org/debian/pool/x"),
        ("2", "http://security.debian.org.evil.example/pool/x"),
    ):
        with pytest.raises(SourceError):
            origins.require_same(kernel, (("linux-source", version),), (uri,))


def test_a_source_list_that_cannot_be_read_does_not_count_as_unbound(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        Origins(lambda _: f"{tmp_path}/gone.list:1|http://x/|s|Debian\n")
    assert caught.value.code is Code.SOURCE_UNAVAILABLE and "gone.list" in caught.value.message
