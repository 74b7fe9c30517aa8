# SPDX-License-Identifier: GPL-2.0-or-later
"""What apt's user left in its directory is not believed: kind, owner, size and digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kspliced.engine.download import Announced, announced, claim
from kspliced.errors import Code, SourceError

CONTENT = b"a source" * 1000
NAME = "linux-source-6.1_6.1.192-1_all.deb"


def the_file(**changes: object) -> Announced:
    digest = hashlib.sha256(CONTENT).hexdigest()
    values = {
        "uri": f"http://x/{NAME}",
        "name": NAME,
        "size": len(CONTENT),
        "kind": "SHA256",
        "digest": digest,
    }
    return Announced(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    partial, whole = tmp_path / "partial", tmp_path / "whole"
    partial.mkdir()
    whole.mkdir()
    return partial, whole


def test_what_was_announced_is_ours_afterwards(folders: tuple[Path, Path]) -> None:
    partial, whole = folders
    (partial / NAME).write_bytes(CONTENT)
    (partial / "more").write_bytes(b"nobody announced it")
    claim(partial, whole, (the_file(),))
    (found,) = whole.iterdir()
    assert found.name == NAME and found.read_bytes() == CONTENT
    assert (found.stat().st_uid, found.stat().st_mode & 0o7777) == (os.geteuid(), 0o644)
    assert found.stat().st_ino != (partial / NAME).stat().st_ino


def planted_link(place: Path) -> None:
    secret = place.parents[1] / "secret"
    secret.write_bytes(CONTENT)
    secret.chmod(0o600)
    place.symlink_to(secret)


def planted_hard_link(place: Path) -> None:
    secret = place.parents[1] / "secret"
    secret.write_bytes(CONTENT)
    secret.chmod(0o600)
    os.link(secret, place)


def another_owner(place: Path) -> None:
    place.write_bytes(CONTENT)
    os.chown(place, 12345, -1)


def longer(place: Path) -> None:
    place.write_bytes(CONTENT + b"x")


def shorter(place: Path) -> None:
    place.write_bytes(CONTENT[:-1])


def other_bytes(place: Path) -> None:
    place.write_bytes(CONTENT[:-1] + b"x")


def nothing(place: Path) -> None:
    return


PLANTED: tuple[tuple[Callable[[Path], object], str], ...] = (
    (planted_link, "cannot be opened"),
    (planted_hard_link, "another name"),
    (os.mkfifo, "not a regular file"),
    (Path.mkdir, "not a regular file"),
    (another_owner, "belongs to user 12345"),
    (longer, "bytes, not"),
    (shorter, "bytes, not"),
    (other_bytes, "its SHA256 is another"),
    (nothing, "cannot be opened"),
)


@pytest.mark.parametrize(("plant", "why"), PLANTED, ids=lambda v: getattr(v, "__name__", None))
def test_what_was_planted_is_refused(
    folders: tuple[Path, Path], plant: Callable[[Path], object], why: str
) -> None:
    if plant is another_owner and os.geteuid() != 0:
        pytest.skip("needs root to be two users")
    partial, whole = folders
    plant(partial / NAME)
    with pytest.raises(SourceError) as caught:
        claim(partial, whole, (the_file(),))
    assert caught.value.code is Code.SOURCE_UNAVAILABLE and why in caught.value.message
    secret = partial.parent / "secret"
    if secret.exists():
        assert secret.stat().st_mode & 0o777 == 0o600, "its mode is what it was"


def test_the_directory_may_be_a_link_neither(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    partial, whole = folders
    (partial / NAME).write_bytes(CONTENT)
    (tmp_path / "link").symlink_to(partial)
    with pytest.raises(OSError, match="link"):
        claim(tmp_path / "link", whole, (the_file(),))


def test_an_archive_on_this_machine_is_read_where_it_is(folders: tuple[Path, Path]) -> None:
    """apt makes links to it, which anybody could have made; the digest is what counts."""
    partial, whole = folders
    place = partial.parent / "a b.deb"
    place.write_bytes(CONTENT)
    (partial / NAME).symlink_to("/etc/passwd")
    uri = f"file:{partial.parent}/a%20b.deb"
    claim(partial, whole, (the_file(uri=uri),))
    assert (whole / NAME).read_bytes() == CONTENT
    place.write_bytes(CONTENT[::-1])
    (whole / NAME).unlink()
    with pytest.raises(SourceError, match="SHA256"):
        claim(partial, whole, (the_file(uri=uri),))


@pytest.mark.parametrize(
    "line",
    [
        f"'http://x/{NAME}' {NAME} 8000 ",
        f"'http://x/{NAME}' {NAME} 8000 MD5Sum:{'0' * 32}",
        f"'http://x/{NAME}' {NAME} 8000 SHA1:{'0' * 40}",
        f"'http://x/{NAME}' ../{NAME} 8000 SHA256:{'0' * 64}",
        f"'http://x/{NAME}' .. 8000 SHA256:{'0' * 64}",
    ],
)
def test_without_a_strong_digest_nothing_is_fetched(line: str) -> None:
    with pytest.raises(SourceError) as caught:
        announced(f"Reading package lists...\n{line}\n")
    assert caught.value.code is Code.SOURCE_UNAVAILABLE


def test_what_apt_prints_is_understood() -> None:
    text = f"Need to get 1 B.\n'http://x/%7e1' a_1%3a2_all.deb 7 SHA512:{'ab' * 64}\n"
    assert announced(text) == (
        Announced("http://x/%7e1", "a_1%3a2_all.deb", 7, "SHA512", "ab" * 64),
    )
