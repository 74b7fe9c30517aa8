# SPDX-License-Identifier: GPL-2.0-or-later
"""A local, signed apt repository of real packages, on a disk that a guest mounts read-only.

It has two states: ``before``, what the archive offered before the upgrade, and ``after``. A guest
sees one of them at a time, as it would see its mirror change over night.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.vm.cache import command
from tests.vm.guest import Guest

SUITE = "bookworm-security"
MEDIA = "/srv/media"
LABEL = "repository"
PLACE = "/srv/repository"
KEYRING = "/etc/apt/keyrings/harness.gpg"
SOURCES = f"""\
Types: deb
URIs: file:{PLACE}
Suites: {SUITE}
Components: main
Signed-By: {KEYRING}
"""


@dataclass(frozen=True)
class Repository:
    """The disk to attach to a guest, and the public key that its indexes are signed with."""

    disk: Path
    key: bytes


@contextmanager
def repository(before: tuple[Path, ...], after: tuple[Path, ...]) -> Iterator[Repository]:
    """Make a repository: ``before`` is offered from the start, ``after`` joins it.

    The disk and the signing key exist as long as the context.
    """
    with tempfile.TemporaryDirectory(prefix="ks-repo-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        home = root / "gnupg"
        home.mkdir(mode=0o700)
        gpg = ("gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback")
        command(
            *gpg, "--passphrase", "", "--quick-generate-key", "harness", "ed25519", "sign", "1d"
        )
        tree = root / "tree"
        _state(tree / "before", before, gpg)
        _state(tree / "after", before + after, gpg)
        disk = root / "repository.ext4"
        write_disk(tree, disk)
        key = root / "key.gpg"
        command(*gpg, "--output", key, "--export", "harness")
        yield Repository(disk, key.read_bytes())
        command("gpgconf", "--homedir", home, "--kill", "all")


def _state(tree: Path, debs: tuple[Path, ...], gpg: tuple[str | Path, ...]) -> None:
    pool = tree / "pool"
    pool.mkdir(parents=True)
    for deb in dict.fromkeys(debs):
        _place(deb, pool / deb.name)
    index = tree / "dists" / SUITE / "main" / "binary-amd64"
    index.mkdir(parents=True)
    only = [f"-oAPT::FTPArchive::{kind}=false" for kind in ("MD5", "SHA1", "SHA512")]
    packages = command("apt-ftparchive", *only, "packages", "pool", cwd=tree)
    (index / "Packages").write_text(packages)
    fields = {
        "Origin": "Harness",
        "Label": "Harness",
        "Suite": SUITE,
        "Codename": SUITE,
        "Architectures": "amd64",
        "Components": "main",
    }
    options = [f"-oAPT::FTPArchive::Release::{name}={value}" for name, value in fields.items()]
    release = index.parents[1]
    (release / "Release").write_text(
        command("apt-ftparchive", *only, *options, "release", ".", cwd=release)
    )
    command(*gpg, "--clearsign", "--output", release / "InRelease", release / "Release")


def _place(source: Path, target: Path) -> None:
    # Both states hold the same files: as hard links they are on the disk once. Across file
    # systems the first state gets a copy.
    first = target.parents[2] / "before" / "pool" / target.name
    if first != target and first.exists():
        source = first
    try:
        os.link(source, target)
    except OSError:
        target.write_bytes(source.read_bytes())
    target.chmod(0o644)


def write_disk(tree: Path, disk: Path) -> None:
    """Make the disk that a guest mounts, of a directory with the states."""
    used = {path.stat().st_ino: path.stat().st_size for path in tree.rglob("*")}
    size = sum(used.values()) * 11 // 10 + (16 << 20)
    command(
        "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-L", LABEL, "-m", "0",
        "-d", tree, disk, f"{size >> 10}k",
    )  # fmt: skip


def attach(guest: Guest, repo: Repository) -> None:
    """Tell a guest's apt of the repository, in its state ``before``."""
    guest.put(SOURCES.encode(), "/etc/apt/sources.list.d/harness.sources")
    guest.run(f"mkdir -p {Path(KEYRING).parent}")
    guest.put(repo.key, KEYRING)
    mount(guest)


def mount(guest: Guest) -> None:
    """Mount the repository's disk, in its state ``before``, now and at each boot."""
    guest.run(
        f"mkdir -p {MEDIA}; mount {MEDIA} 2>/dev/null || "
        f"{{ echo 'LABEL={LABEL} {MEDIA} ext4 ro,nofail 0 0' >> /etc/fstab; mount {MEDIA}; }}"
    )
    offer(guest, "before")


def offer(guest: Guest, state: str) -> None:
    """Let the repository be in the state ``before`` or ``after``."""
    guest.run(f"test -d {MEDIA}/{state} && ln -sfn {MEDIA}/{state} {PLACE}")
