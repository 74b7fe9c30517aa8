# SPDX-License-Identifier: GPL-2.0-or-later
"""Match a pack against a kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from kspliced.errors import BuildError, Code, MatchError, PackError
from kspliced.kernel.image import KernelImage
from kspliced.match.known import joined
from kspliced.match.matcher import TargetMatch
from kspliced.match.report import Counts, Matched
from kspliced.match.resolve import Resolver
from kspliced.match.unit import Unit
from kspliced.model import Group, Import, ImportKind, Progress, ProgressSink, no_progress
from kspliced.pack import Pack

_PHASE = "match"

Answer = TypeVar("Answer")


def match(
    pack: Pack,
    kernel: KernelImage,
    progress: ProgressSink = no_progress,
    known: Matched | None = None,
) -> Matched:
    """Prove that ``kernel`` runs the code that ``pack`` was built against, and locate all it needs.

    A group with a target that is not loaded is left alone. Of the others all functions of all units
    are compared; those that the update replaces or refers to must match, others are reported in
    ``unmatched``.

    :param known: what was found of groups that are applied, and are not looked at again.
    :raises MatchError: TARGET_NOT_LOADED, NO_MATCH (as NoMatchError, with the mismatches),
        AMBIGUOUS, UNRESOLVED.
    :raises PackError: PACK_MALFORMED, PACK_OTHER_KERNEL.
    :raises KernelError: KERNEL_UNREADABLE.
    """
    manifest = pack.manifest
    if kernel.release != manifest.kernel.release:
        raise PackError(
            Code.PACK_OTHER_KERNEL,
            f"the pack is for kernel {manifest.kernel.release}, not {kernel.release}",
            "build an update for the kernel that runs",
        )
    try:
        return _match(pack, kernel, progress, known)
    except (ValueError, OverflowError) as error:
        # Units are compared lazily, so what is wrong with one may show late.
        raise PackError(
            Code.PACK_MALFORMED,
            f"a pre object in the pack is malformed: {error}",
            "build the pack again",
        ) from error


def _match(
    pack: Pack, kernel: KernelImage, progress: ProgressSink, known: Matched | None
) -> Matched:
    ready = _ready(pack, kernel)
    if known is None or not set(known.groups) <= set(ready):
        return _match_groups(pack, kernel, progress, ready)
    fresh = tuple(group for group in ready if group not in known.groups)
    return joined(ready, known, _match_groups(pack, kernel, progress, fresh))


def _match_groups(
    pack: Pack, kernel: KernelImage, progress: ProgressSink, groups: tuple[Group, ...]
) -> Matched:
    targets = _targets(pack, kernel, groups)
    count = sum(len(target.units) for target in targets.values())
    done = 0
    for target in targets.values():
        for unit in target.run():
            progress(Progress(_PHASE, done / count, unit))
            done += 1
    resolver = Resolver(kernel, targets)
    every = dict.fromkeys(i for g in (pack.manifest.glue, *groups) for i in g.imports)
    wanted = [i for i in every if i.kind is not ImportKind.CORE]
    # Spans first: a mismatch of what is to be replaced is what people want to hear about.
    troubles: list[tuple[tuple[str, ...], MatchError]] = []
    every_span = (span for group in groups for span in group.spans)
    spans = tuple(_kept(troubles, (s.unit,), partial(resolver.span, s)) for s in every_span)
    every_datum = (datum for group in groups for datum in group.data)
    data = tuple(_kept(troubles, (d.unit,), partial(resolver.datum, d)) for d in every_datum)
    every_constant = ((group.units, constant) for group in groups for constant in group.constants)
    constants = tuple(
        _kept(troubles, units, partial(resolver.constant, c)) for units, c in every_constant
    )
    imports = tuple(
        _kept(troubles, _askers(pack, groups, i), partial(resolver.address, i)) for i in wanted
    )
    if troubles:
        raise _first(troubles)
    matches = [m for target in targets.values() for m in target.units.values()]
    places = [place for m in matches for place in m.places.values()]
    counts = Counts(
        functions=len(places),
        bytes=sum(len(p.found) for p in places),
        fields=sum(p.fields for p in places),
        sites=sum(p.sites for p in places),
    )
    unmatched = tuple(f for m in matches for _, f in sorted(m.failures.items()))
    progress(Progress(_PHASE, 1.0, f"{counts.functions} functions match"))
    waiting = {t for g in pack.manifest.groups for t in g.targets if not kernel.loaded(t)}
    return Matched(
        groups,
        tuple(sorted(waiting)),
        _found(imports),
        _found(spans),
        _found(data),
        _found(constants),
        counts,
        unmatched,
    )


def _askers(pack: Pack, groups: tuple[Group, ...], wanted: Import) -> tuple[str, ...]:
    """The units to blame where ``wanted`` is not found; none where all of the update needs it."""
    if wanted.unit:
        return (wanted.unit,)
    if wanted in pack.manifest.glue.imports:
        return ()
    return tuple(unit for group in groups if wanted in group.imports for unit in group.units)


def _kept(
    troubles: list[tuple[tuple[str, ...], MatchError]],
    units: tuple[str, ...],
    ask: Callable[[], Answer],
) -> Answer | None:
    """The answer, or None with the trouble noted: all of it is told at once."""
    try:
        return ask()
    except MatchError as error:
        troubles.append((units, error))
        return None


def _first(troubles: list[tuple[tuple[str, ...], MatchError]]) -> MatchError:
    """The first error, with all units that have one, if it is known for each of them."""
    error = troubles[0][1]
    units = tuple(dict.fromkeys(unit for some, _ in troubles for unit in some))
    error.blamed = units if all(some for some, _ in troubles) else ()
    return error


def _found(answers: tuple[Answer | None, ...]) -> tuple[Answer, ...]:
    return tuple(answer for answer in answers if answer is not None)


def _ready(pack: Pack, kernel: KernelImage) -> tuple[Group, ...]:
    """The groups that can go live now; there has to be one."""
    groups = pack.manifest.groups
    ready = tuple(g for g in groups if all(kernel.loaded(target) for target in g.targets))
    if groups and not ready:
        missing = sorted({t for group in groups for t in group.targets if not kernel.loaded(t)})
        error = MatchError(
            Code.TARGET_NOT_LOADED,
            f"module {', '.join(missing)} is not loaded",
            "nothing of it runs; the update applies once it is loaded",
        )
        error.blamed = tuple(unit for group in groups for unit in group.units)
        raise error
    return ready


def _targets(pack: Pack, kernel: KernelImage, groups: tuple[Group, ...]) -> dict[str, TargetMatch]:
    wanted = {unit for group in groups for unit in group.units}
    # A required group's code may refer to what the group that it goes with is made of.
    wanted |= {i.unit for group in groups for i in group.imports if i.kind is ImportKind.UNIT}
    units: dict[str, list[Unit]] = {}
    for pre in pack.manifest.units:
        if pre.unit not in wanted:
            continue
        try:
            unit = Unit(pre.target, pre.unit, pack.blob(pre.blob))
        except BuildError as broken:
            raise PackError(Code.PACK_MALFORMED, broken.message, "build the pack again") from broken
        members = units.setdefault(pre.target, [])
        if any(member.name == unit.name for member in members):
            raise ValueError(f"{pre.target} has unit {unit.name} twice")
        members.append(unit)
    for target in units:
        if not kernel.loaded(target):
            raise ValueError(f"{target} is not among the targets of its group")
    return {t: TargetMatch(t, members, kernel) for t, members in units.items()}
