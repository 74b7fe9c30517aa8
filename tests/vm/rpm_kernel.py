# SPDX-License-Identifier: GPL-2.0-or-later
"""The upgrade's two kernels as RPM packages: Debian's source, our configuration and spec.

No archive of a distribution with RPM packages is at hand. The source of 6.1.192-1 is Debian's
tarball as it is, 6.1.192-2 is that and a patch, the difference of Debian's two tarballs.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.corpus import kernels
from tests.vm import cache, case
from tests.vm.errors import HarnessError

FILES = Path(__file__).with_name("rpm_files")
UPSTREAM = case.OLD_VERSION.partition("-")[0]
_TOP = "linux-source-6.1"
_TARBALL = f"./usr/src/{_TOP}.tar.xz"
_CHANGELOG = f"./usr/share/doc/{_TOP}/changelog.Debian.gz"
_ENTRY = re.compile(r"^linux \((?P<version>\S+)\).*?^ -- (?P<who>.*?)  (?P<when>.*?)$", re.M | re.S)
_ITEM = re.compile(r"^ +[*-] (?P<text>.*(?:\n {4,}(?![*-] )\S.*)*)", re.M)
_KEY = "kspliced harness"


@dataclass(frozen=True)
class Build:
    """One build of the kernel: Debian's version of its source, and its package's release."""

    source: str
    release: str

    @property
    def version(self) -> str:
        """VERSION-RELEASE of its packages."""
        return f"{UPSTREAM}-{self.release}"

    @property
    def uname(self) -> str:
        """Its uname -r."""
        return f"{self.version}.x86_64"


OLD = Build(case.OLD_VERSION, "1.ks1")
NEW = Build(case.NEW_VERSION, "2.ks1")


@dataclass(frozen=True)
class Packages:
    """The packages of one build: the binary ones and the source."""

    folder: Path

    @property
    def binary(self) -> tuple[Path, ...]:
        """kernel, kernel-core, kernel-modules, kernel-devel."""
        return tuple(sorted((self.folder / "RPMS").glob("*/*.rpm")))

    @property
    def source(self) -> Path:
        """The .src.rpm."""
        (path,) = (self.folder / "SRPMS").glob("*.src.rpm")
        return path


@dataclass(frozen=True)
class Key:
    """The key of the packages: GnuPG's home with the secret part, and the public one, armoured."""

    home: Path
    public: Path

    def sign(self, *packages: Path) -> None:
        """Put a signature into each package."""
        # Debian's RPM does not say where GnuPG is.
        macros = {"__gpg": "/usr/bin/gpg", "_gpg_path": str(self.home), "_gpg_name": _KEY}
        cache.command("rpmsign", *defines(macros), "--addsign", *packages)
        cache.command("gpgconf", "--homedir", self.home, "--kill", "all")


def defines(macros: dict[str, str]) -> list[str]:
    """Options that define macros of RPM's."""
    return [word for pair in macros.items() for word in ("--define", " ".join(pair))]


def key() -> Key:
    """The key that signs all packages of this cache."""

    def make(folder: Path) -> None:
        home = folder / "gnupg"
        home.mkdir(mode=0o700)
        gpg = ("gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback")
        words = ("--passphrase", "", "--quick-generate-key", _KEY, "rsa3072", "sign", "never")
        cache.command(*gpg, *words)
        cache.command(*gpg, "--armor", "--output", folder / "key.asc", "--export", _KEY)
        cache.command("gpgconf", "--homedir", home, "--kill", "all")

    folder = cache.made("rpm-key-1", make)
    return Key(folder / "gnupg", folder / "key.asc")


def packages() -> tuple[Packages, Packages]:
    """The old and the new build, signed; compiled where they are not in the cache yet."""
    texts = (path.read_bytes() for path in sorted(FILES.glob("kernel*")))
    name = f"rpm-kernel-{cache.digest(repr((OLD, NEW)), *texts)}"
    folder = cache.made(name, _make)
    return Packages(folder / OLD.release), Packages(folder / NEW.release)


def _make(folder: Path) -> None:
    sources = folder / "SOURCES"
    sources.mkdir()
    shutil.copy(FILES / "kernel-x86_64.config", sources)
    (sources / f"linux-{UPSTREAM}.tar.xz").write_bytes(_member(OLD, _TARBALL))
    patch = f"debian-{NEW.source}.patch"
    (sources / patch).write_text(_difference())
    for build, patches in ((OLD, ()), (NEW, (patch,))):
        _compile(build, sources, patches, folder / build.release)
    shutil.rmtree(sources)


def _compile(build: Build, sources: Path, patches: tuple[str, ...], folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".rpmbuild.", dir=cache.root()) as place:
        spec = folder / "kernel.spec"
        folder.mkdir()
        spec.write_text(_spec(build, patches))
        macros = {
            "_topdir": place,
            "_sourcedir": str(sources),
            "_rpmdir": str(folder / "RPMS"),
            "_srcrpmdir": str(folder / "SRPMS"),
            "_smp_mflags": f"-j{os.cpu_count()}",
        }
        store = cache.root() / "ccache-rpm-kernel"
        words = ("env", f"CCACHE_DIR={store}", f"HOME={place}", "KBUILD_BUILD_TIMESTAMP=@0")
        cache.command(*words, "nice", "rpmbuild", "-ba", "--quiet", *defines(macros), spec)
    made = Packages(folder)
    key().sign(*made.binary, made.source)


def _spec(build: Build, patches: tuple[str, ...]) -> str:
    text = (FILES / "kernel.spec").read_text()
    values = {
        "VERSION": UPSTREAM,
        "RELEASE": build.release,
        "PATCHES": "\n".join(f"Patch{n}: {patch}" for n, patch in enumerate(patches, 1)),
        "APPLY": "\n".join(f"%patch{n} -p1" for n, _ in enumerate(patches, 1)),
        "CHANGELOG": _changelog(build),
    }
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _changelog(build: Build) -> str:
    """Debian's changelog of the two builds in RPM's form, as far as ``build`` has it."""
    text = gzip.decompress(_member(build, _CHANGELOG)).decode()
    entries = []
    for match in _ENTRY.finditer(text):
        known = {b.source: b for b in (OLD, NEW)}.get(match["version"])
        if known is None:
            break
        # RPM knows the day's name, and wants it right.
        when = datetime.strptime(match["when"], "%a, %d %b %Y %H:%M:%S %z")
        head = f"* {when:%a %b %d %Y} {match['who']} - {known.version}"
        items = (" ".join(item["text"].split()) for item in _ITEM.finditer(match[0]))
        entries.append("\n".join([head, *(f"- {item.replace('%', '%%')}" for item in items)]))
    if not entries:
        raise HarnessError(f"the changelog of {build.source} does not begin with {OLD.source}")
    return "\n\n".join(entries)


def _member(build: Build, name: str) -> bytes:
    """A file out of the package linux-source."""
    (deb,) = cache.debs(f"linux-source-6.1={build.source}")
    unpack = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    data = subprocess.run(unpack, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.extractfile(name)
        if member is None:
            raise HarnessError(f"{deb} holds no {name}")
        return member.read()


def _difference() -> str:
    """The patch that makes the new source of the old one."""
    with tempfile.TemporaryDirectory(prefix=".rpm-source.", dir=cache.root()) as place:
        old, new = Path(place, "a"), Path(place, "b")
        old.symlink_to(kernels.source(OLD.source))
        new.mkdir()
        unpack = ["tar", "-xJ", "-C", str(new), "--strip-components=1"]
        subprocess.run(unpack, check=True, input=_member(NEW, _TARBALL))
        compare = ["diff", "-ruN", "a/", "b/"]
        done = subprocess.run(compare, cwd=place, capture_output=True, text=True)
    if done.returncode != 1:
        raise HarnessError(f"the sources do not differ as expected: {done.stderr}")
    return done.stdout
