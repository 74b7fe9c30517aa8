# SPDX-License-Identifier: GPL-2.0-or-later
"""A pack without some of its units: what is left of it is linked anew, and nothing is compiled.

Each part of a pack is an object by itself (build/groups.py): what goes live together, with all that
it needs. So what is left out takes along whatever cannot go live without it, and no more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import replace

from kspliced.model import ChangeKind, Group, Manifest, Refusal
from kspliced.pack import Blob, Pack, update_name


def without(pack: Pack, units: Collection[str], why: str) -> tuple[Manifest, tuple[Blob, ...]]:
    """The manifest and the blobs of ``pack`` without ``units`` and what goes with them.

    The update has another name, as it is another module. Each unit that is left out is refused:
    ``why`` says it of those named, the others go with one of them.

    :raises ValueError: nothing would be left; the pack's glue does not hold the update's name.
    """
    manifest = pack.manifest
    named = frozenset(units)
    lost = {_set(group) for group in manifest.groups if named & set(group.units)}
    kept = tuple(group for group in manifest.groups if _set(group) not in lost)
    if not any(group.spans or group.data for group in kept):
        raise ValueError("nothing of the update would be left")
    gone = {unit: _set(g) for g in manifest.groups if _set(g) in lost for unit in g.units}
    name = _name(manifest.update, kept)
    left = replace(
        manifest,
        update=name,
        units=tuple(pre for pre in manifest.units if pre.unit not in gone),
        functions=tuple(f for f in manifest.functions if f.unit not in gone),
        refused=manifest.refused + _refusals(manifest, gone, named, why),
        groups=kept,
    )
    blobs = {manifest.glue.blob: pack.glue(name)}
    for blob in (*(g.blob for g in kept), *(pre.blob for pre in left.units)):
        blobs[blob] = pack.blob(blob)
    return left, tuple(Blob(name, data) for name, data in blobs.items())


def _set(group: Group) -> str:
    """What groups have in common that go live together, or not at all."""
    return group.together or group.blob


def _name(update: str, kept: tuple[Group, ...]) -> str:
    """Another name for another module, the same each time."""
    made = "\n".join((update, *(group.blob for group in kept)))
    return update_name(hashlib.sha256(made.encode()).hexdigest())


def _refusals(
    manifest: Manifest, gone: dict[str, str], named: frozenset[str], why: str
) -> tuple[Refusal, ...]:
    changed = {f.unit for f in manifest.functions if f.kind is not ChangeKind.DATA} & gone.keys()
    causes: dict[str, list[str]] = {}
    for unit in sorted(named & gone.keys()):
        causes.setdefault(gone[unit], []).append(unit)
    return tuple(
        Refusal(
            "left_out",
            unit,
            "",
            f"it was left out: {why}"
            if unit in named
            # One is enough to know where to look.
            else f"it goes with {causes[gone[unit]][0]}, which was left out",
        )
        for unit in sorted(changed | (named & gone.keys()))
    )
