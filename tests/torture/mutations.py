# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants of a pack: of its bytes, of its structure, of the objects in it.

Each is made from a seed alone, so that one that does harm can be made again. Where a mutation has
to get past the digest, the digest is made right again, as an attacker would.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import random
import struct
from collections.abc import Callable
from typing import Any

from kspliced.model import Manifest
from kspliced.pack import Blob, Pack, pack_bytes
from kspliced.record import RecordError, decode, encode

_HEADER = struct.Struct("<8sIIQ32s")
_DIGEST = slice(24, 56)
_NUMBERS = (-1, 0, 1, 7, 255, 4096, 65536, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**40)
_TEXTS = ("", "\0", "/", "../../etc/passwd", "vmlinux", "ks_x", "a.o", "\u2028", "x" * 70_000)

Json = Any


def mutant(pack: Pack, content: bytes, seed: int) -> tuple[str, bytes]:
    """The kind of mutation and the file that it gives for ``seed``; never ``content`` itself."""
    chance = random.Random(seed)
    for _ in range(100):
        kind, make = chance.choice(_KINDS)
        made = make(pack, content, chance)
        if made != content:
            return kind, made
    raise AssertionError(f"seed {seed} changes nothing")


def sealed(content: bytes) -> bytes:
    """The file with its length and its digest made right."""
    if len(content) < _HEADER.size:
        return content
    fixed = bytearray(content)
    fixed[16:24] = struct.pack("<Q", len(fixed))
    fixed[_DIGEST] = bytes(32)
    fixed[_DIGEST] = hashlib.sha256(fixed).digest()
    return bytes(fixed)


def _edited(data: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, removed, added, moved or doubled."""
    edited = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        at = chance.randrange(len(edited) + 1)
        size = chance.choice((1, 1, 2, 4, 8, 64))
        what = chance.randrange(6)
        if what == 0 and at < len(edited):
            edited[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            edited[at : at + size] = chance.randbytes(len(edited[at : at + size]))
        elif what == 2:
            del edited[at : at + size]
        elif what == 3:
            edited[at:at] = chance.randbytes(size)
        elif what == 4:
            edited[at:at] = edited[at : at + size]
        else:
            value = chance.choice(_NUMBERS) & (2**64 - 1)
            edited[at : at + 8] = value.to_bytes(8, "little")[: len(edited[at : at + 8])]
    if chance.random() < 0.05:
        del edited[chance.randrange(len(edited) + 1) :]
    return bytes(edited)


def _bytes(pack: Pack, content: bytes, chance: random.Random) -> bytes:
    return _edited(content, chance)


def _sealed_bytes(pack: Pack, content: bytes, chance: random.Random) -> bytes:
    return sealed(_edited(content, chance))


def _envelope(pack: Pack, content: bytes, chance: random.Random) -> bytes:
    """The JSON of the manifest and of the table of blobs: any value, of any type."""
    size = struct.unpack_from("<I", content, 12)[0]
    envelope = json.loads(content[_HEADER.size : _HEADER.size + size])
    for _ in range(chance.choice((1, 1, 2, 3))):
        _mutate(envelope, chance)
    text = json.dumps(envelope, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    body = text.encode("utf-8", "surrogatepass")
    head = bytearray(content[: _HEADER.size])
    head[12:16] = struct.pack("<I", len(body))
    return sealed(bytes(head) + body + content[_HEADER.size + size :])


def _manifest(pack: Pack, content: bytes, chance: random.Random) -> bytes:
    """A manifest of the right shape with another value in it, so that it reaches the matching."""
    while True:
        value = encode(pack.manifest)
        _mutate(value, chance, typed=True)
        try:
            manifest = decode(Manifest, value)
        except RecordError:
            continue
        return pack_bytes(manifest, pack.blobs)[0]


def _object(pack: Pack, content: bytes, chance: random.Random) -> bytes:
    """A pre object with other bytes; what the update brings is its own affair."""
    pre = {unit.blob for unit in pack.manifest.units}
    name = chance.choice(sorted(pre))
    blobs = tuple(
        Blob(b.name, _edited(b.data, chance)) if b.name == name else b for b in pack.blobs
    )
    return pack_bytes(pack.manifest, blobs)[0]


def _bomb(pack: Pack, content: bytes, chance: random.Random) -> bytes:
    """A blob that unpacks to more than it says, or to very much."""
    size = struct.unpack_from("<I", content, 12)[0]
    envelope = json.loads(content[_HEADER.size : _HEADER.size + size])
    stored = lzma.compress(bytes(chance.choice((1 << 20, 16 << 20, 64 << 20))), preset=0)
    said = chance.choice((0, 1, 1 << 20, 64 << 20, 256 << 20, 2**40))
    envelope["blobs"] = [{"name": "a.o", "size": said, "stored": len(stored)}] * chance.randint(
        1, 8
    )
    body = json.dumps(envelope).encode()
    head = bytearray(content[: _HEADER.size])
    head[12:16] = struct.pack("<I", len(body))
    return sealed(bytes(head) + body + stored * len(envelope["blobs"]))


_KINDS: tuple[tuple[str, Callable[[Pack, bytes, random.Random], bytes]], ...] = (
    ("bytes", _bytes),
    ("bytes, digest right", _sealed_bytes),
    ("envelope", _envelope),
    ("envelope", _envelope),
    ("manifest", _manifest),
    ("manifest", _manifest),
    ("pre object", _object),
    ("pre object", _object),
    ("bomb", _bomb),
)


def _places(value: Json) -> list[tuple[Json, Any]]:
    """Each container of a JSON value with each of its keys."""
    found: list[tuple[Json, Any]] = []
    waiting = [value]
    while waiting:
        container = waiting.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            found.append((container, key))
            if isinstance(container[key], dict | list):
                waiting.append(container[key])
    return found


def _mutate(value: Json, chance: random.Random, typed: bool = False) -> None:
    """Change one place of a JSON value; ``typed``: to a value of the same type."""
    places = _places(value)
    container, key = chance.choice(places)
    old = container[key]
    if typed:
        container[key] = _alike(old, chance, places)
    elif chance.random() < 0.15:
        del container[key]
    elif chance.random() < 0.15 and isinstance(container, list):
        container.extend([old] * chance.choice((1, 2, 500)))
    else:
        other, name = chance.choice(places)
        container[key] = chance.choice(
            (None, True, chance.choice(_NUMBERS), 0.5, chance.choice(_TEXTS), [], {}, [old] * 3)
            if chance.random() < 0.7
            else (json.loads(json.dumps(other[name])),)
        )


def _alike(old: Json, chance: random.Random, places: list[tuple[Json, Any]]) -> Json:
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return chance.choice((old + 1, old - 1, old * 2, -old, *_NUMBERS))
    if isinstance(old, str):
        others = [c[k] for c, k in places if isinstance(c[k], str)]
        return chance.choice((*others, *_TEXTS, old + "x", old[:-1]))
    if isinstance(old, list) and old:
        return chance.choice((old[:-1], old[1:], old + old, [], old[::-1]))
    return old
