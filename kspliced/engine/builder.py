# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the builder with no rights: `kspliced build` in a hardened transient unit.

Its progress comes through a pipe; its pack is read as untrusted (engine/builder_unit.py has what
it may touch, engine/builder_cache.py what it finds of builds before).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kspliced import limits
from kspliced.engine.builder_cache import cache_of, inputs, keep_only
from kspliced.engine.builder_unit import Confined, stopped, transient_unit, without_result
from kspliced.engine.edges import BuildOrder, Built, Job
from kspliced.engine.files import read_regular
from kspliced.engine.paths import Paths
from kspliced.engine.room import BUILD_BYTES, BUILD_FILES, packed_bytes, require_space
from kspliced.engine.transient import stop
from kspliced.errors import BuildError, Code, KsplicedError
from kspliced.kernel.kallsyms import without_addresses
from kspliced.kernel.modules import listed
from kspliced.model import ChangelogEntry, FunctionChange, Refusal
from kspliced.oserror import translated
from kspliced.record import RecordError, decode
from kspliced.worker import WorkerLost, clean, run_worker

_UNIT = "kspliced-build-"

Wrap = Callable[[Confined], list[str]]


@dataclass(frozen=True)
class UnitBuilder:
    """The builder as a transient unit. ``wrap`` gives the command that runs another one in it."""

    paths: Paths
    wrap: Wrap = transient_unit

    def build(self, order: BuildOrder, job: Job) -> Built:
        """Build the update.

        :raises KsplicedError: what the builder reports, CANCELLED, NO_SPACE, TOOL_MISSING;
            BUILDER_UNAVAILABLE, BUILDER_LOST when that is not about the update.
        """
        name = f"{order.kernel.version}-{order.to_version}-{os.getpid()}".replace(":", "")
        unit = f"{_UNIT}{os.getpid()}.service"
        targets = self.paths.run / f"targets-{os.getpid()}"
        symbols = self.paths.run / f"symbols-{os.getpid()}"
        with translated():
            self._sweep()
            cache = cache_of(self.paths, order)
            keep_only(self.paths, cache, job.cancel)
            needed = max(0, BUILD_BYTES - packed_bytes(cache))
            require_space(cache, needed, "building the update", BUILD_FILES)
            output = cache / f"{name}.kspack"
            targets.parent.mkdir(parents=True, exist_ok=True)
            targets.write_text(listed(order.targets, order.foreign), "utf-8")
            targets.chmod(0o644)
            # The unit may not read /proc/kallsyms, and needs no address.
            symbols.write_bytes(_symbols(self.paths))
            symbols.chmod(0o644)
            command = _command(order, targets, symbols, output, cache)
            reads = (inputs(order.source), inputs(order.target), order.config, order.headers)
            try:
                value = self._run(Confined(unit, command, cache, (*reads, targets, symbols)), job)
                built, has_pack = _parse(value)
                content = read_regular(output, limits.PACK_BYTES) if has_pack else None
            finally:
                targets.unlink(missing_ok=True)
                symbols.unlink(missing_ok=True)
                output.unlink(missing_ok=True)
        return replace(built, content=content)

    def _run(self, confined: Confined, job: Job) -> object:
        """Run the unit to its end; its result."""
        try:
            return run_worker(
                self.wrap(confined),
                job.part(0.2, 0.84),
                lambda: job.cancel.wanted,
                lambda: stop(confined.unit),
            )
        except WorkerLost as error:
            # Where systemd-run alone went, the unit may be there still.
            stop(confined.unit)
            raise without_result(error) from error
        except KsplicedError as error:
            if error.code is Code.CANCELLED and not job.cancel.wanted:
                raise stopped(error) from error
            raise

    def _sweep(self) -> None:
        """End a builder whose worker was killed, and remove what it left: we hold the lock."""
        stop(f"{_UNIT}*.service")
        lists = (self.paths.run.glob(f"{name}-*") for name in ("targets", "symbols"))
        for places in (self.paths.cache.glob("*/*.kspack"), *lists):
            for file in places:
                file.unlink(missing_ok=True)


def _symbols(paths: Paths) -> bytes:
    """What the running kernel proper has, without addresses; nothing where no kernel says so."""
    try:
        return without_addresses((paths.proc / "kallsyms").read_bytes())
    except FileNotFoundError:
        return b""


def _command(
    order: BuildOrder, targets: Path, symbols: Path, output: Path, cache: Path
) -> tuple[str, ...]:
    return (
        sys.executable or "/usr/bin/python3",
        "-P",
        "-m",
        "kspliced.cli",
        "build",
        "--from",
        str(order.source),
        "--to",
        str(order.target),
        "--config",
        str(order.config),
        "--headers",
        str(order.headers),
        "--targets",
        str(targets),
        "--symbols",
        str(symbols),
        "--cache",
        str(cache / "sources"),
        "-o",
        str(output),
        "--progress",
        "json",
    )


def _parse(value: object) -> tuple[Built, bool]:
    """The builder's result (the JSON of `kspliced build --json`), which is untrusted, and whether
    it made a pack."""
    try:
        if not isinstance(value, dict):
            raise RecordError("not an object")
        functions = tuple(decode(FunctionChange, item) for item in _list(value, "functions"))
        refused = tuple(_refusal(item) for item in _list(value, "refused"))
        listed = _list({"entries": [], **value}, "entries")
        entries = tuple(_clean_entry(decode(ChangelogEntry, item)) for item in listed)
        return Built(None, functions, refused, entries), bool(value.get("pack"))
    except RecordError as error:
        raise BuildError(Code.FAILED, f"the builder's result is malformed: {error}") from error


def _list(value: dict[str, Any], key: str) -> list[Any]:
    items = value.get(key)
    if not isinstance(items, list):
        raise RecordError(f"{key} is no array")
    return items


def _clean_entry(entry: ChangelogEntry) -> ChangelogEntry:
    return ChangelogEntry(
        clean(entry.version),
        clean(entry.subject),
        tuple(clean(cve) for cve in entry.cves),
        tuple(clean(bug) for bug in entry.bugs),
    )


def _refusal(item: object) -> Refusal:
    if isinstance(item, dict):
        item = {"evidence": "", **item}
    parsed = decode(Refusal, item)
    return Refusal(
        clean(parsed.code),
        clean(parsed.unit),
        clean(parsed.symbol),
        clean(parsed.reason),
        clean(parsed.evidence),
    )
