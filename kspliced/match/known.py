# SPDX-License-Identifier: GPL-2.0-or-later
"""What matching found of an update that is applied, kept for the match of its further groups.

While it is applied its targets are pinned, so nothing that was found can have moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from kspliced.match.report import (
    Counts,
    Matched,
    MatchedConstant,
    MatchedDatum,
    MatchedSpan,
    ResolvedImport,
)
from kspliced.model import Group
from kspliced.pack import Pack
from kspliced.record import RecordError, dumps, loads


@dataclass(frozen=True)
class _Found:
    """An address and bytes, in hex; the mask of a span."""

    address: int
    content: str
    mask: str = ""


@dataclass(frozen=True)
class _Known:
    """The pack's digest, the blobs of its groups, and what was found of them, in order."""

    digest: str
    groups: tuple[str, ...]
    imports: tuple[ResolvedImport, ...]
    spans: tuple[_Found, ...]
    data: tuple[_Found, ...]
    constants: tuple[str, ...]


def joined(groups: tuple[Group, ...], one: Matched, other: Matched) -> Matched:
    """What was found of ``groups``, each of which is of ``one`` or the ``other``, just matched."""
    imports = {i.name: i for i in (*one.imports, *other.imports)}
    spans: list[MatchedSpan] = []
    data: list[MatchedDatum] = []
    constants: list[MatchedConstant] = []
    parts = [(m, iter(m.spans), iter(m.data), iter(m.constants)) for m in (one, other)]
    for group in groups:
        its = next(part for part in parts if group in part[0].groups)
        spans += islice(its[1], len(group.spans))
        data += islice(its[2], len(group.data))
        constants += islice(its[3], len(group.constants))
    return Matched(
        groups,
        other.waiting,
        tuple(imports.values()),
        tuple(spans),
        tuple(data),
        tuple(constants),
        other.counts,
        other.unmatched,
    )


def to_bytes(pack: Pack, matched: Matched) -> bytes:
    """What to keep of a match of ``pack``."""
    known = _Known(
        pack.digest,
        tuple(group.blob for group in matched.groups),
        matched.imports,
        tuple(_Found(s.address, s.expect.hex(), s.mask.hex()) for s in matched.spans),
        tuple(_Found(d.address, d.expect.hex()) for d in matched.data),
        tuple(c.value.hex() for c in matched.constants),
    )
    return dumps(known)


def from_bytes(pack: Pack, content: bytes) -> Matched | None:
    """What was kept, or None where it is not of ``pack``, or malformed."""
    try:
        known = loads(_Known, content)
        by_blob = {group.blob: group for group in pack.manifest.groups}
        if known.digest != pack.digest:
            return None
        return _restored(known, tuple(by_blob[blob] for blob in known.groups))
    except (RecordError, KeyError, ValueError):
        return None


def _restored(known: _Known, groups: tuple[Group, ...]) -> Matched:
    """:raises ValueError: the numbers do not agree."""
    spans = (span for group in groups for span in group.spans)
    data = (datum for group in groups for datum in group.data)
    constants = (constant for group in groups for constant in group.constants)
    fromhex = bytes.fromhex
    return Matched(
        groups,
        (),
        known.imports,
        tuple(
            MatchedSpan(span, found.address, fromhex(found.content), fromhex(found.mask))
            for span, found in zip(spans, known.spans, strict=True)
        ),
        tuple(
            MatchedDatum(datum, found.address, fromhex(found.content))
            for datum, found in zip(data, known.data, strict=True)
        ),
        tuple(
            MatchedConstant(constant, fromhex(value))
            for constant, value in zip(constants, known.constants, strict=True)
        ),
        Counts(0, 0, 0, 0),
        (),
    )
