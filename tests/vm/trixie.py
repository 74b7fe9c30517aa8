# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian 13 beside this Debian 12: its packages, and its compiler in a directory of its own."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from debian.deb822 import Packages

from tests.vm import cache, image
from tests.vm.errors import HarnessError

TREE = Path(__file__).parents[2]
# What the builder depends on, what tests of it need, and certificates for apt.
PACKAGES = (
    *("gcc-14", "make", "libelf1t64", "universal-ctags", "xz-utils", "patch", "ca-certificates"),
    *("python3", "python3-debian", "python3-pyelftools", "python3-capstone"),
)


def root() -> Path:
    """A Debian 13 root with the compiler; about two minutes the first time."""
    key = cache.digest(*PACKAGES, _sources())
    return cache.made(f"trixie-{key}", _make)


def _sources() -> str:
    """The archive's trixie suites: this machine's own sources, with the next release's name; and
    its backports, of which apt takes nothing unasked."""
    lines = image.apt_sources().replace(image.SUITE, "trixie").splitlines()
    backports = [line.replace(" trixie ", " trixie-backports ") for line in lines[:1]]
    return "".join(f"{line}\n" for line in (*lines, *backports))


def _make(folder: Path) -> None:
    cache.command(
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--quiet",
        f"--include={' '.join(PACKAGES)}",
        "--aptopt=APT::Install-Recommends false",
        *image._apt_options(),
        "trixie",
        folder / "root",
        "-",
        stdin=_sources(),
    )


def newest_backport(package: str) -> tuple[str, str]:
    """What of the same kind the newest version of a metapackage in trixie's backports depends on:
    ``linux-headers-7.3.4+deb13-amd64`` of ``linux-headers-amd64``; name and version.

    Raises HarnessError where the archive has none.
    """
    shown = run(["sh", "-ec", f"apt-get -q update >&2; apt-cache show {package}"])
    kind = package.removesuffix("amd64")
    for stanza in Packages.iter_paragraphs(shown.splitlines(), use_apt_pkg=False):
        pattern = rf"({re.escape(kind)}\S+) \(= (\S*~bpo\S*)\)"
        found = re.search(pattern, stanza.get("Depends", ""))
        if found is not None:
            return found[1], found[2]
    raise HarnessError(f"trixie's backports have no {package}")


def fetch(*specs: str) -> None:
    """Put the .deb of each ``name=version`` of trixie where tests.vm.cache.debs() looks first."""
    store = cache.root() / "debs"
    store.mkdir(exist_ok=True)
    missing = [spec for spec in specs if cache._find(store, spec) is None]
    if not missing:
        return
    top = root() / "root"
    for name in ("resolv.conf", "hosts"):
        shutil.copyfile(f"/etc/{name}", top / "etc" / name)
    with tempfile.TemporaryDirectory(dir=top / "tmp") as folder:
        inside = f"/tmp/{Path(folder).name}"
        script = f"cd {inside} && apt-get update -q && apt-get -o APT::Sandbox::User=root download"
        cache.command("chroot", top, "sh", "-ec", f"{script} {' '.join(missing)}")
        for deb in Path(folder).glob("*.deb"):
            shutil.move(deb, store / deb.name)
    if any(cache._find(store, spec) is None for spec in missing):
        raise HarnessError(f"trixie's archive gave not all of {', '.join(missing)}")


def run(command: Sequence[str]) -> str:
    """Run ``command`` there, in this tree, with the cache, and return its output."""
    top = root() / "root"
    script = "set -e\n"
    for place in (TREE, cache.root(), Path("/proc"), Path("/dev")):
        (top / str(place).lstrip("/")).mkdir(parents=True, exist_ok=True)
        script += f'mount --rbind {place} "{top}{place}"\n'
    inside = f'cd {TREE} && exec env KSPLICED_CACHE={cache.root()} "$@"'
    script += f"exec chroot {top} sh -ec '{inside}' sh \"$@\"\n"
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    return cache.command(*words, *command)


if __name__ == "__main__":
    assert os.geteuid() == 0, "mmdebstrap and chroot need root"
    print(root())
