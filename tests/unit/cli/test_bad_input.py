# SPDX-License-Identifier: GPL-2.0-or-later
"""What the verbs that read files say where these are not what they should be: one error with its
cause and a remedy, and nothing is left behind."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest

from kspliced.cli.main import main
from kspliced.errors import ExitCode
from kspliced.pack import FORMAT, Blob, write_pack
from tests.unit.cli.offered import NOBODY, Ended, run
from tests.unit.engine.fakes import manifest

RELEASE = "6.1.0-55-amd64"
OLD, NEW = "6.1.192-1", "6.1.192-2"


def _nothing(place: Path) -> None:
    """There is nothing."""


def _unreadable(place: Path) -> None:
    place.write_bytes(b"x")
    place.chmod(0)


def _cut(place: Path) -> None:
    place.write_bytes(gzip.compress(os.urandom(4000))[:-2000])


def _elf(place: Path) -> None:
    place.write_bytes(b"\x7fELF\2\1\1" + bytes(2000))


# What is at a place, by kind; nothing of it is a pack, a source, a configuration or a list.
THINGS: dict[str, Callable[[Path], object]] = {
    "nothing": _nothing,
    "directory": lambda place: place.mkdir(),
    "unreadable": _unreadable,
    "empty": lambda place: place.write_bytes(b""),
    "text": lambda place: place.write_text("#!/bin/sh\necho vmlinux\n"),
    "cut": _cut,
    "elf": _elf,
    "loop": lambda place: place.symlink_to(place),
    "fifo": os.mkfifo,
    "null": lambda place: place.symlink_to("/dev/null"),
    "zero": lambda place: place.symlink_to("/dev/zero"),
}
NAMES: dict[str, Callable[[Path], Path]] = {
    "bytes": lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")),
    "long": lambda folder: folder / ("n" * 300),
    "deep": lambda folder: folder / ("d/" * 2500),
}


def _open_up(place: Path) -> None:
    """Let another user in."""
    above = (place, *place.parents)
    ours = [n for n, folder in enumerate(above) if folder.name.startswith("pytest-of-")]
    for folder in above[: (ours or [1])[0] + 1]:
        folder.chmod(0o755)


def _tree(top: Path, version: str) -> Path:
    for folder in ("debian", "kernel"):
        (top / folder).mkdir(parents=True)
    (top / "Makefile").write_text("VERSION = 6\n")
    (top / "Kbuild").write_text("obj-y += kernel/\n")
    (top / "debian/changelog").write_text(f"linux ({version}) bookworm; urgency=high\n")
    (top / "README").write_text(version)
    return top


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources, a headers package with its configuration and compiler, lists and a pack."""
    top = tmp_path_factory.mktemp("machine")
    _open_up(top)
    _tree(top / "old", OLD)
    _tree(top / "new", NEW)
    generated = top / "headers/include/generated"
    generated.mkdir(parents=True)
    for name in ("tools", "scripts", "include/config", "arch/x86/include/generated"):
        (top / "headers" / name).mkdir(parents=True)
    (generated / "utsrelease.h").write_text(f'#define UTS_RELEASE "{RELEASE}"\n')
    (generated / "package.h").write_text(f'#define LINUX_PACKAGE_ID " Debian {OLD}"\n')
    (top / "cc").write_text(f"#!/bin/sh\necho {top}/cc 1.0\n")
    (top / "cc").chmod(0o755)
    (top / "config").write_text(f'CONFIG_CC_VERSION_TEXT="{top}/cc 1.0"\n')
    shutil.copy(top / "config", top / "headers/.config")
    (top / "targets").write_text("vmlinux\n")
    (top / "symbols").write_text("T _text\n")
    write_pack(top / "pack", manifest(), (Blob("update.ko", b"\x7fELF"),))
    return top


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where bad input lies; everybody may write there."""
    _open_up(tmp_path)
    place = tmp_path / "box"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    return place


def words(machine: Path, folder: Path, verb: str, **given: object) -> list[str]:
    """A command line of a verb that takes sources."""
    options: dict[str, object] = {
        "from": machine / "old",
        "to": machine / "new",
        **{name: machine / name for name in ("config", "headers", "targets", "symbols")},
        "cache": folder / "cache",
        "jobs": 1,
        **({} if verb == "plan" else {"output": folder / "out"}),
        **given,
    }
    return [verb, *chain.from_iterable((f"--{name}", str(v)) for name, v in options.items())]


def assert_one_error(ended: Ended, folder: Path, exits: tuple[int, ...] = (1,)) -> None:
    """Cause and remedy in one line, the code that belongs to it, and nothing made."""
    assert ended.code in exits, ended
    assert ended.out == "" and "Traceback" not in ended.err, ended
    lines = [line for line in ended.err.splitlines() if not line.startswith("  ")]
    assert len(lines) == 1 and lines[0].startswith("kspliced: "), ended
    cause, _, remedy = lines[0].rpartition("; ")
    assert len(cause) > 15 and len(remedy) > 5, ended
    shutil.rmtree(folder / "cache", ignore_errors=True)
    left = {path.name for path in folder.iterdir()} - {"input", "\udcff\udcfe"}
    assert left == set(), "something is left"


@pytest.mark.parametrize("name", [*THINGS, *NAMES])
@pytest.mark.parametrize("verb", ["show", "match", "image"])
def test_no_pack_and_no_module(machine: Path, folder: Path, verb: str, name: str) -> None:
    place = NAMES[name](folder) if name in NAMES else folder / "input"
    THINGS.get(name, _nothing)(place)
    line = ["match", str(machine / "pack"), "--image"] if verb == "image" else [verb]
    user = NOBODY if name == "unreadable" else None
    assert_one_error(run([*line, str(place)], folder, user), folder)


@pytest.mark.parametrize("name", [*THINGS, *NAMES])
def test_no_source(machine: Path, folder: Path, name: str) -> None:
    place = NAMES[name](folder) if name in NAMES else folder / "input"
    THINGS.get(name, _nothing)(place)
    user = NOBODY if name == "unreadable" else None
    ended = run(words(machine, folder, "plan", to=place), folder, user)
    assert_one_error(ended, folder)
    assert str(folder) in ended.err


@pytest.mark.parametrize("name", ["unreadable", "empty", "text", "cut", "loop", "fifo", "zero"])
@pytest.mark.parametrize("suffix", [".deb", ".dsc", ".rpm"])
def test_no_package(machine: Path, folder: Path, suffix: str, name: str) -> None:
    """What a source is called decides who reads it."""
    place = folder / f"input{suffix}"
    THINGS[name](place)
    user = NOBODY if name == "unreadable" else None
    ended = run(words(machine, folder, "plan", **{"from": place}), folder, user)
    place.rename(folder / "input")
    assert_one_error(ended, folder)
    assert str(place) in ended.err


@pytest.mark.parametrize("name", [*THINGS, *NAMES])
@pytest.mark.parametrize("option", ["config", "headers", "targets", "symbols"])
def test_no_configuration_and_no_list(machine: Path, folder: Path, option: str, name: str) -> None:
    place = NAMES[name](folder) if name in NAMES else folder / "input"
    THINGS.get(name, _nothing)(place)
    user = NOBODY if name == "unreadable" else None
    ended = run(words(machine, folder, "build", **{option: place}), folder, user)
    if (option, name) == ("symbols", "empty"):
        assert ended.code == ExitCode.NOTHING_TO_DO, "a kernel may hide them"
        return
    assert_one_error(ended, folder)
    assert str(folder) in ended.err


@pytest.mark.parametrize("name", ["empty", "loop", "fifo", "null", "long"])
@pytest.mark.parametrize("option", ["workdir", "cache"])
def test_no_place_to_work(machine: Path, folder: Path, option: str, name: str) -> None:
    place = NAMES[name](folder) if name in NAMES else folder / "input"
    THINGS.get(name, _nothing)(place)
    assert_one_error(run(words(machine, folder, "plan", **{option: place}), folder), folder)


@pytest.mark.parametrize("name", ["directory", "loop", "fifo", "null", "zero", "long", "deep"])
@pytest.mark.parametrize("verb", ["build", "report"])
def test_no_place_for_the_output(machine: Path, folder: Path, verb: str, name: str) -> None:
    """It is said before anything is read."""
    place = NAMES[name](folder) if name in NAMES else folder / "input"
    THINGS.get(name, _nothing)(place)
    before = place.lstat() if name not in NAMES else None
    line = words(machine, folder, verb, output=place, to=folder / "nothing")
    ended = run(line, folder)
    assert_one_error(ended, folder)
    assert "cannot write" in ended.err and "--output" in ended.err
    assert before is None or place.lstat().st_ino == before.st_ino, "it is another file now"


@pytest.mark.parametrize("verb", ["build", "report"])
@pytest.mark.parametrize("place", ["", "/", "no/such/folder", "secret/out"])
def test_an_output_nobody_may_write(machine: Path, folder: Path, verb: str, place: str) -> None:
    (folder / "input").mkdir(mode=0o555)
    at = str(folder / "input" / "out") if place.startswith("secret") else place
    at = str(folder / at) if at.startswith("no/") else at
    ended = run(words(machine, folder, verb, output=at, cache=folder / "cache"), folder, NOBODY)
    assert_one_error(ended, folder)


def test_a_page_that_does_not_fit(machine: Path, folder: Path) -> None:
    """What was there stays, and no part of the new one does."""
    page = folder / "input"
    page.write_text("the page of before")
    line = words(machine, folder, "report", output=page, to=machine / "old")
    assert_one_error(run(line, folder, largest=3000), folder)
    assert page.read_text() == "the page of before"
    assert run(line, folder).code == 0
    assert "</html>" in page.read_text()


@pytest.mark.parametrize("length", [1, 8, 55, 56, 400, -1])
@pytest.mark.parametrize("verb", ["show", "match"])
def test_a_pack_that_was_cut(machine: Path, folder: Path, verb: str, length: int) -> None:
    whole = (machine / "pack").read_bytes()
    (folder / "input").write_bytes(whole[:length])
    ended = run([verb, str(folder / "input")], folder)
    assert_one_error(ended, folder)


@pytest.mark.parametrize("verb", ["show", "match"])
def test_a_pack_of_a_newer_version(
    machine: Path, folder: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((machine / "pack").read_bytes())
    content[8:12] = struct.pack("<I", FORMAT + 1)
    content[24:56] = bytes(32)
    content[24:56] = hashlib.sha256(content).digest()
    (folder / "input").write_bytes(content)
    line = [verb, str(folder / "input")]
    ended = run(line, folder)
    assert_one_error(ended, folder)
    assert f"format {FORMAT + 1}" in ended.err and f"format {FORMAT}" in ended.err
    assert main([*line, "--json"]) == ExitCode.FAILED
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "pack_format"


def _dsc(folder: Path, version: str) -> Path:
    """A source package of Debian's, made by hand."""
    tree = _tree(folder / f"linux-{version}", version)
    name = f"linux_{version}.tar.xz"
    subprocess.run(["tar", "-cJf", name, tree.name], cwd=folder, check=True)
    shutil.rmtree(tree)
    data = (folder / name).read_bytes()
    dsc = folder / "linux.dsc"
    dsc.write_text(
        "Format: 3.0 (native)\nSource: linux\nBinary: linux\nArchitecture: any\n"
        f"Version: {version}\nMaintainer: A <a@example.org>\n"
        f"Checksums-Sha256:\n {hashlib.sha256(data).hexdigest()} {len(data)} {name}\n"
        f"Files:\n {hashlib.md5(data).hexdigest()} {len(data)} {name}\n"
    )
    return dsc


@pytest.mark.parametrize("how", ["whole", "missing", "cut", "other", "signed"])
def test_a_source_package_whose_tarball_is_not_it(machine: Path, folder: Path, how: str) -> None:
    (folder / "input").mkdir()
    dsc = _dsc(folder / "input", OLD)
    tarball = next((folder / "input").glob("*.xz"))
    if how == "missing":
        tarball.unlink()
    elif how == "cut":
        tarball.write_bytes(tarball.read_bytes()[:-8])
    elif how == "other":
        # Of the same size, and as good an archive: only its digest tells.
        content = bytearray(tarball.read_bytes())
        content[-1] ^= 1
        tarball.write_bytes(content)
    elif how == "signed":
        # By nobody whose key is here: that is the fetch's matter.
        head = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n"
        tail = "-----BEGIN PGP SIGNATURE-----\n\niQ==\n=AAAA\n-----END PGP SIGNATURE-----\n"
        dsc.write_text(f"{head}{dsc.read_text()}\n{tail}")
    ended = run(words(machine, folder, "build", **{"from": dsc}), folder)
    if how in ("whole", "signed"):
        assert ended.code == ExitCode.NOTHING_TO_DO, ended
        return
    assert_one_error(ended, folder)
    assert "error:" in ended.err and tarball.name in ended.err


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_package_that_was_cut(machine: Path, folder: Path, share: float) -> None:
    deb = _deb(folder, "linux-source-6.1")
    content = deb.read_bytes()
    deb.write_bytes(content[: int(len(content) * share)])
    ended = run(words(machine, folder, "build", to=deb), folder)
    deb.rename(folder / "input")
    assert_one_error(ended, folder)


def test_a_binary_package_in_place_of_the_source(machine: Path, folder: Path) -> None:
    deb = _deb(folder, "linux-image-6.1.0-56-amd64")
    ended = run(words(machine, folder, "build", to=deb), folder)
    deb.rename(folder / "input")
    assert_one_error(ended, folder)
    assert "not a linux-source package" in ended.err


def _deb(folder: Path, package: str) -> Path:
    """A binary package with a source in it."""
    root = folder / "root"
    for name in ("DEBIAN", "usr/src", f"usr/share/doc/{package}"):
        (root / name).mkdir(parents=True)
        (root / name).chmod(0o755)
    _tree(folder / "linux", NEW)
    (folder / "linux/noise").write_bytes(os.urandom(20000))
    tarball = root / "usr/src/linux-source-6.1.tar.xz"
    subprocess.run(["tar", "-cJf", tarball, "linux"], cwd=folder, check=True)
    control = f"Package: {package}\nVersion: {NEW}\nArchitecture: all\n"
    control += "Maintainer: A <a@example.org>\nDescription: a source\n"
    (root / "DEBIAN/control").write_text(control)
    text = (folder / "linux/debian/changelog").read_bytes()
    log = root / f"usr/share/doc/{package}/changelog.Debian.gz"
    log.write_bytes(gzip.compress(text))
    deb = folder / "a.deb"
    command = ["dpkg-deb", "--root-owner-group", "-b", str(root), str(deb)]
    subprocess.run(command, check=True, capture_output=True)
    for place in (root, folder / "linux"):
        shutil.rmtree(place)
    return deb


def test_sources_of_which_one_is_the_other(machine: Path, folder: Path) -> None:
    """The same twice is nothing to do; the wrong way round, the old one is not the kernel's."""
    same = run(words(machine, folder, "build", to=machine / "old"), folder)
    assert_one_error(Ended(same.code, same.out, f"{same.err.strip()}; no remedy\n"), folder, (3,))
    swapped = {"from": machine / "new", "to": machine / "old"}
    ended = run(words(machine, folder, "build", **swapped), folder)
    assert_one_error(ended, folder)
    assert f"{NEW}, but the kernel is {OLD}" in ended.err


def test_a_kernel_that_is_not_installed(machine: Path, folder: Path) -> None:
    for option in ("config", "headers"):
        given = {option: Path("/usr/src/linux-headers-0.0.0-0-none")}
        ended = run(words(machine, folder, "build", **given), folder)
        assert_one_error(ended, folder)
        assert "0.0.0-0-none" in ended.err


def test_a_work_directory_beside_a_cache_that_is_not_there(machine: Path, folder: Path) -> None:
    ended = run(words(machine, folder, "plan", workdir=folder / "work"), folder)
    assert ended.code == ExitCode.NOTHING_TO_DO, ended
