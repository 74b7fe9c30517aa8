# SPDX-License-Identifier: GPL-2.0-or-later
"""What the core has applied, taken into a state that does not tell of it.

A state may be lost, garbled, or older than what runs (/var was rolled back). What is live is the
core's word: it carries the update's name, which is a digest of all that the update is made of.
Cheap to import, as the daemon does; what is rarely needed is imported when it is.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from kspliced.engine.kernels import boot_id
from kspliced.engine.paths import Paths
from kspliced.engine.state import (
    LIVE_STAGES,
    Problem,
    Stage,
    State,
    UpdateRecord,
    blank_record,
    update_of,
)
from kspliced.errors import Code, KsplicedError
from kspliced.model import VMLINUX, ChangeKind, FunctionChange, Group, KernelId

if TYPE_CHECKING:
    from kspliced.kernel.core import Part
    from kspliced.pack import Pack


def applied_modules(paths: Paths) -> frozenset[str]:
    """The update modules that the core has applied; none when it is not loaded."""
    applied = set()
    try:
        for directory in (paths.core / "updates").iterdir():
            if (directory / "stage").read_text("ascii").strip() == "applied":
                applied.add(directory.name)
    except (OSError, ValueError):
        # The core is not loaded, or an update went while we looked: what was seen still holds.
        pass
    return frozenset(applied)


def adopted(paths: Paths, state: State, running: KernelId, now: float) -> State:
    """The state with what the core has applied as live, and nothing else of the running kernel.

    A pack that is there tells what the update is; without one its version is unknown ("").

    :param now: seconds since the epoch, for what was not recorded.
    """
    for module in sorted(applied_modules(paths)):
        state = _adopted(paths, state, running, module, int(now))
    return state


def _adopted(paths: Paths, state: State, running: KernelId, module: str, now: int) -> State:
    update = update_of(module)
    mine = [r for r in state.history if r.update == update and r.kernel == running]
    mine.sort(key=lambda record: record.stage in LIVE_STAGES)
    record = mine[-1] if mine else None
    if record is not None and record.stage in LIVE_STAGES and record.digest:
        return state
    pack = _pack_of(paths, update, running, record.digest if record is not None else "")
    if record is not None and record.stage in LIVE_STAGES and pack is None:
        return state
    live = _record(paths, record, module, pack, running, now)
    for old in state.history:
        if old.stage in LIVE_STAGES and old.update != update and old.kernel == running:
            state = state.change(old, replace(old, stage=Stage.REPLACED))
    return state.put(live)


def _record(
    paths: Paths,
    record: UpdateRecord | None,
    module: str,
    pack: Pack | None,
    running: KernelId,
    now: int,
) -> UpdateRecord:
    """The record of an update that is live, from what is left of it."""
    parts = _parts(paths, module)
    if pack is not None:
        from kspliced.engine.store import record_of

        base = _placed(record_of(pack), pack, module, parts)
    elif record is not None and record.digest:
        base = record
    else:
        base = _unknown(module, running, parts)
    boot, pause = "", 0
    with suppress(KsplicedError):
        boot = boot_id(paths)
    with suppress(OSError, ValueError):
        pause = int((paths.core / "updates" / module / "pause_ns").read_text("ascii"))
    return replace(
        base,
        stage=Stage.LIVE,
        wanted=True,
        pause_us=(pause + 500) // 1000,
        applied_at=now,
        boot_id=boot,
        problem=None,
    )


def _placed(
    record: UpdateRecord, pack: Pack, module: str, parts: tuple[Part, ...] | None
) -> UpdateRecord:
    """The record with what of its pack is not live, as the core's spans and data tell."""
    there = {(part.target, part.name) for part in parts or ()}
    whole = module == record.update

    def live(group: Group) -> bool:
        places = {(span.target, span.symbol) for span in group.spans}
        places |= {(datum.target, datum.symbol) for datum in group.data}
        return places <= there if places else whole

    held = [group for group in pack.manifest.groups if not live(group)]
    targets = {target for group in held for target in group.targets}
    waiting = targets - {VMLINUX} - {target for target, _ in there}
    units = tuple(unit for group in held for unit in group.units)
    return replace(record, waiting=tuple(sorted(waiting)), held=units)


def _unknown(module: str, running: KernelId, parts: tuple[Part, ...] | None) -> UpdateRecord:
    """A record of an update whose pack is missing."""
    why = "the core replaces it"
    functions = tuple(
        FunctionChange(part.target, "", part.name, ChangeKind.CHANGED, why)
        for part in parts or ()
        if part.replaced
    )
    return replace(
        blank_record(running, ""), update=update_of(module), functions=functions, pinned=True
    )


def pack_problem(paths: Paths, record: UpdateRecord) -> Problem | None:
    """What it means that the pack of an update that is live is missing; None where it is there."""
    with suppress(OSError):
        if record.digest and paths.pack(record.digest).is_file():
            return None
    if not record.digest:
        text = f"{record.update} is live, but its pack is missing: its version is unknown"
        remedy = "`kspliced undo` takes it back; `kspliced apply` builds the update again"
        return Problem(Code.PACK_MISSING, text, remedy, (), record.applied_at)
    text = f"{record.update} is live, but its pack is missing: the next boot cannot apply it again"
    remedy = "`kspliced undo`, then `kspliced apply`, builds it again"
    return Problem(Code.PACK_MISSING, text, remedy, (), record.applied_at)


def _parts(paths: Paths, module: str) -> tuple[Part, ...] | None:
    """What the core says that the module concerns; None where it does not say."""
    from kspliced.kernel.core import Core

    try:
        return Core(paths.core).parts(module)
    except KsplicedError:
        return None


def _pack_of(paths: Paths, update: str, running: KernelId, digest: str) -> Pack | None:
    """A kept pack of an update: that with a digest, or else any, the newest first."""
    from kspliced.pack import read_pack

    try:
        files = [file for file in paths.packs.iterdir() if file.suffix == ".kspack"]
        files.sort(key=lambda file: (file.stem == digest, file.stat().st_mtime), reverse=True)
    except OSError:
        return None
    for file in files:
        with suppress(KsplicedError):
            pack = read_pack(file)
            known = (pack.digest, pack.manifest.update, pack.manifest.kernel)
            if known == (file.stem, update, running):
                return pack
    return None
