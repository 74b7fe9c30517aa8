# SPDX-License-Identifier: GPL-2.0-or-later
"""A pack comes back as it went in, or is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspliced.errors import Code, PackError
from kspliced.model import (
    ChangeKind,
    ChangelogEntry,
    Datum,
    FunctionChange,
    Group,
    Import,
    ImportKind,
    KernelId,
    Manifest,
    PreUnit,
    RuntimeConstant,
    Span,
)
from kspliced.pack import (
    FORMAT,
    Blob,
    Identity,
    identify,
    pack_bytes,
    parse_pack,
    read_pack,
    write_pack,
)

MANIFEST = Manifest(
    update="ks_0123456789ab",
    kernel=KernelId("6.1.0-55-amd64", "6.1.192-1", "x86_64"),
    to_version="6.1.192-2",
    compiler="gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0",
    core_abi=1,
    units=(PreUnit("ext4", "fs/ext4/mballoc.o", "pre/fs/ext4/mballoc.o"),),
    functions=(FunctionChange("ext4", "fs/ext4/mballoc.o", "f", ChangeKind.CHANGED, "own source"),),
    refused=(),
    entries=(ChangelogEntry("6.1.192-2", "ext4: fix", (), ("1154101",)),),
    glue=Group("part/glue", (), (), (), (), (), (), False),
    groups=(
        Group(
            "part/ext4",
            ("ext4",),
            ("fs/ext4/mballoc.o",),
            (Import("ext4::memcpy", ImportKind.EXTERN, "ext4", "", "memcpy", -1),),
            (Span("ext4", "fs/ext4/mballoc.o", "f", 3, 64, 5, "ext4:fs:3:f", 0),),
            (Datum("ext4", "fs/ext4/mballoc.o", "ops", 4, 0, 16, "ext4:fs:4:ops", 64, 0, (8,)),),
            (RuntimeConstant(".text", 16, 8, "USER_PTR_MAX"),),
            False,
        ),
    ),
)
BLOBS = (Blob("part/ext4", b"module" * 50), Blob("pre/fs/ext4/mballoc.o", bytes(300)))
GOOD, DIGEST = pack_bytes(MANIFEST, BLOBS)


def test_its_identity_is_had_without_reading_it_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "update.kspack"
    write_pack(path, MANIFEST, BLOBS)
    # Wherever a piece ends: in the version, before and behind it.
    for piece in (7, 61, 1 << 20):
        monkeypatch.setattr("kspliced.pack._PIECE", piece)
        with path.open("rb") as file:
            assert identify(file.fileno(), "it") == Identity(DIGEST, MANIFEST.to_version)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "update.kspack"
    assert write_pack(path, MANIFEST, BLOBS) == DIGEST
    pack = read_pack(path)
    assert (pack.manifest, pack.blobs, pack.digest) == (MANIFEST, BLOBS, DIGEST)
    assert pack.blob("part/ext4") == BLOBS[0].data
    assert [p.name for p in tmp_path.iterdir()] == ["update.kspack"]


def test_same_input_same_bytes() -> None:
    assert pack_bytes(MANIFEST, BLOBS) == (GOOD, DIGEST)


@pytest.mark.parametrize("size", range(len(GOOD)))
def test_truncated_at_any_byte(size: int) -> None:
    with pytest.raises(PackError) as caught:
        parse_pack(GOOD[:size], "p")
    assert caught.value.code is Code.PACK_MALFORMED
    assert caught.value.remedy


def test_any_bit_flipped() -> None:
    for place in range(len(GOOD)):
        for bit in range(8):
            damaged = bytearray(GOOD)
            damaged[place] ^= 1 << bit
            with pytest.raises(PackError):
                parse_pack(bytes(damaged), "p")


@given(st.binary(max_size=400))
def test_any_bytes(content: bytes) -> None:
    with pytest.raises(PackError):
        parse_pack(content, "p")


def test_another_format_says_so() -> None:
    changed = bytearray(GOOD)
    changed[8] = FORMAT + 1
    changed[24:56] = bytes(32)
    import hashlib

    changed[24:56] = hashlib.sha256(changed).digest()
    with pytest.raises(PackError) as caught:
        parse_pack(bytes(changed), "p")
    assert caught.value.code is Code.PACK_FORMAT


def test_a_blob_that_the_manifest_names_and_the_pack_lacks() -> None:
    content, _ = pack_bytes(MANIFEST, BLOBS[:1])
    with pytest.raises(PackError, match="holds no pre/"):
        parse_pack(content, "p").blob("pre/fs/ext4/mballoc.o")


def test_two_blobs_of_one_name() -> None:
    content, _ = pack_bytes(MANIFEST, (BLOBS[0], dataclasses.replace(BLOBS[1], name="part/ext4")))
    with pytest.raises(PackError, match="one name"):
        parse_pack(content, "p")


def test_a_pack_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PackError) as caught:
        read_pack(tmp_path / "none")
    assert caught.value.code is Code.IO
