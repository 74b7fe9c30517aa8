# SPDX-License-Identifier: GPL-2.0-or-later
"""The update pack: one self-describing, content-digested, reproducible file.

Layout, little-endian::

    0   8   magic "KSPLPACK"
    8   4   format version
    12  4   length of the manifest, bytes
    16  8   length of the whole file, bytes
    24  32  SHA-256 of the whole file with these 32 bytes zero: the pack's digest
    56  …   manifest: canonical JSON of Envelope
        …   blobs, xz, one behind the other in the order of the envelope
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from kspliced import limits
from kspliced.errors import Code, PackError
from kspliced.model import Manifest
from kspliced.named import open_named, write_named
from kspliced.record import RecordError, dumps, loads

FORMAT = 5
_MAGIC = b"KSPLPACK"
_HEADER = struct.Struct("<8sIIQ32s")
_DIGEST_OFFSET = 24
_BLANK = bytes(32)
_REBUILD = "build it again, or fetch it again"
# Record names no member of the manifest like that twice, and text in it has its quotes escaped.
_TO_VERSION = re.compile(rb'"to_version":"([0-9A-Za-z.+~:_-]{1,128})"')
_PIECE = 1 << 20
_THIS_MODULE = ".gnu.linkonce.this_module"
_NAME_DIGITS = 12
_NAME_ROOM = 56  # MODULE_NAME_LEN, include/linux/module.h


@dataclass(frozen=True)
class Blob:
    """A named file inside a pack, uncompressed."""

    name: str
    data: bytes


@dataclass(frozen=True)
class BlobEntry:
    """Where a blob lies: ``stored`` bytes of xz that unpack to ``size`` bytes."""

    name: str
    size: int
    stored: int


@dataclass(frozen=True)
class Envelope:
    """The manifest with its table of blobs, as it is written."""

    manifest: Manifest
    blobs: tuple[BlobEntry, ...]


@dataclass(frozen=True)
class Pack:
    """A verified pack."""

    digest: str
    manifest: Manifest
    blobs: tuple[Blob, ...]

    def blob(self, name: str) -> bytes:
        """The blob called ``name``.

        :raises PackError: PACK_MALFORMED when the manifest names a blob the pack does not hold.
        """
        for blob in self.blobs:
            if blob.name == name:
                return blob.data
        raise PackError(Code.PACK_MALFORMED, f"the pack holds no {name}", _REBUILD)

    def glue(self, name: str) -> bytes:
        """The glue's object, with ``name`` in struct module's name instead of the manifest's.

        :raises PackError: PACK_MALFORMED. ValueError when the glue has no room for the name.
        """
        glue = self.blob(self.manifest.glue.blob)
        if name == self.manifest.update:
            return glue
        field = self.manifest.update.encode().ljust(_NAME_ROOM, b"\0")
        if glue.count(field) != 1 or len(name) >= _NAME_ROOM:
            raise ValueError(f"the glue's {_THIS_MODULE} does not hold the update's name")
        return glue.replace(field, name.encode().ljust(_NAME_ROOM, b"\0"))


def update_name(digest: str) -> str:
    """What an update is called that is told from all others by ``digest``, in hexadecimal."""
    return f"ks_{digest[:_NAME_DIGITS]}"


def pack_bytes(manifest: Manifest, blobs: tuple[Blob, ...]) -> tuple[bytes, str]:
    """The file's content and its digest (64 hex digits); same input, same bytes."""
    stored = [lzma.compress(blob.data, lzma.FORMAT_XZ, lzma.CHECK_CRC32) for blob in blobs]
    entries = tuple(
        BlobEntry(blob.name, len(blob.data), len(data))
        for blob, data in zip(blobs, stored, strict=True)
    )
    envelope = dumps(Envelope(manifest, entries))
    body = envelope + b"".join(stored)
    total = _HEADER.size + len(body)
    content = bytearray(_HEADER.pack(_MAGIC, FORMAT, len(envelope), total, _BLANK) + body)
    digest = hashlib.sha256(content)
    content[_DIGEST_OFFSET : _DIGEST_OFFSET + 32] = digest.digest()
    return bytes(content), digest.hexdigest()


def write_pack(path: Path, manifest: Manifest, blobs: tuple[Blob, ...]) -> str:
    """Write the pack to ``path`` atomically; returns its digest. OSError passes to the caller."""
    content, digest = pack_bytes(manifest, blobs)
    write_named(path, content)
    return digest


def read_pack(path: Path) -> Pack:
    """Read and verify the pack at ``path``.

    :raises PackError: IO if it cannot be read, PACK_MALFORMED, PACK_FORMAT.
    """
    try:
        with open_named(path) as file:
            content = file.read(limits.PACK_BYTES + 1)
    except OSError as error:
        raise PackError(
            Code.IO, f"cannot read {path}: {error.strerror}", "name a readable pack"
        ) from error
    return parse_pack(content, str(path))


def parse_pack(content: bytes, name: str) -> Pack:
    """Verify ``content`` as a pack; ``name`` is what errors call it.

    :raises PackError: PACK_MALFORMED, PACK_FORMAT.
    """
    version, manifest_size, total, stored_digest = _header(content, name)
    if total != len(content):
        raise PackError(
            Code.PACK_MALFORMED, f"{name} has {len(content)} bytes, not {total}", _REBUILD
        )
    if total > limits.PACK_BYTES:
        raise PackError(
            Code.PACK_MALFORMED, f"{name} has over {limits.PACK_BYTES >> 20} MiB", _REBUILD
        )
    view = memoryview(content)
    digest = hashlib.sha256(content[:_DIGEST_OFFSET] + _BLANK)
    digest.update(view[_HEADER.size :])
    if digest.digest() != stored_digest:
        raise PackError(
            Code.PACK_MALFORMED, f"{name} is damaged: its digest does not match", _REBUILD
        )
    if version != FORMAT:
        raise PackError(
            Code.PACK_FORMAT,
            f"{name} has pack format {version}; this kspliced reads format {FORMAT}",
            "build it with this version of kspliced",
        )
    end = _HEADER.size + manifest_size
    try:
        envelope = _envelope(content[_HEADER.size : end])
        blobs = _unpack(envelope.blobs, view[end:])
    except (RecordError, lzma.LZMAError, ValueError, EOFError) as error:
        text = f"{name} is malformed: {error!s:.400}"
        raise PackError(Code.PACK_MALFORMED, text, _REBUILD) from error
    return Pack(digest.hexdigest(), envelope.manifest, blobs)


@dataclass(frozen=True)
class Identity:
    """What a pack is and what it says that it brings, before it is read as a whole."""

    digest: str
    to_version: str


def identify(descriptor: int, name: str) -> Identity:
    """The identity of the pack behind ``descriptor``, read piece by piece from its beginning.

    Only what it takes to name the pack is verified: header, length and digest. ``name`` is what
    errors call it. OSError passes to the caller.

    :raises PackError: PACK_MALFORMED.
    """
    header = os.pread(descriptor, _HEADER.size, 0)
    _, manifest_size, total, stored_digest = _header(header, name)
    digest = hashlib.sha256(header[:_DIGEST_OFFSET] + _BLANK)
    versions: dict[int, bytes] = {}
    offset, end, before = _HEADER.size, _HEADER.size + manifest_size, b""
    while offset < limits.PACK_BYTES and (piece := os.pread(descriptor, _PIECE, offset)):
        digest.update(piece)
        if offset < end:
            text = before + piece[: end - offset]
            for found in _TO_VERSION.finditer(text):
                versions[offset - len(before) + found.start()] = found[1]
            before = text[-256:]
        offset += len(piece)
    if offset != total or digest.digest() != stored_digest:
        raise PackError(Code.PACK_MALFORMED, f"{name} is damaged or too large", _REBUILD)
    if len(versions) != 1:
        raise PackError(Code.PACK_MALFORMED, f"{name} does not name one version", _REBUILD)
    (version,) = versions.values()
    return Identity(digest.hexdigest(), version.decode("ascii"))


def _header(content: bytes, name: str) -> tuple[int, int, int, bytes]:
    """What the header at the beginning of ``content`` says: the format, the lengths of the manifest
    and of the whole file, and its digest.

    :raises PackError: PACK_MALFORMED when there is none.
    """
    if len(content) < _HEADER.size or not content.startswith(_MAGIC):
        raise PackError(Code.PACK_MALFORMED, f"{name} is not a kspliced pack", _REBUILD)
    _, version, manifest_size, total, digest = _HEADER.unpack_from(content)
    return version, manifest_size, total, digest


def _envelope(text: bytes) -> Envelope:
    """The manifest, looked at before it is parsed: each value costs far more than its bytes.

    :raises RecordError: it is malformed, or larger than any upgrade's.
    """
    values = text.count(b",") + text.count(b"[") + text.count(b"{")
    if len(text) > limits.PACK_MANIFEST or values > limits.PACK_VALUES:
        raise RecordError(f"its manifest has {len(text)} bytes and {values} values")
    envelope = loads(Envelope, text, limits.PACK_TEXT)
    sizes = [entry.size for entry in envelope.blobs]
    if len(sizes) > limits.PACK_BLOBS or sum(sizes) > limits.PACK_UNPACKED:
        raise RecordError(f"its {len(sizes)} blobs unpack to {sum(sizes)} bytes")
    if any(entry.size < 0 or entry.stored < 0 for entry in envelope.blobs):
        raise RecordError("a blob has an impossible size")
    return envelope


def _unpack(entries: tuple[BlobEntry, ...], body: memoryview) -> tuple[Blob, ...]:
    blobs = []
    offset = 0
    for entry in entries:
        stored = body[offset : offset + entry.stored]
        offset += entry.stored
        # A bound on the output keeps a small file from filling the memory.
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limits.PACK_XZ)
        data = unpacker.decompress(stored, entry.size + 1)
        if len(data) != entry.size or not unpacker.eof or unpacker.unused_data:
            raise ValueError(f"blob {entry.name[:80]!r} is not {entry.size} bytes of xz")
        blobs.append(Blob(entry.name, data))
    if offset != len(body):
        raise ValueError("bytes follow the last blob")
    if len({blob.name for blob in blobs}) != len(blobs):
        raise ValueError("two blobs have one name")
    return tuple(blobs)
