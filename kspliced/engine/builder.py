# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the builder with no rights: `kspliced build` in a hardened transient unit.

It compiles downloaded source, so it gets a user of its own, no network, and bounds on memory, tasks
and time. Its progress comes through a pipe; its pack is read as untrusted.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import kspliced
from kspliced.engine.command import require_space
from kspliced.engine.edges import BuildOrder, Built, Job
from kspliced.engine.files import read_regular
from kspliced.engine.paths import Paths
from kspliced.engine.store import MAX_PACK
from kspliced.errors import BuildError, Code
from kspliced.kernel.modules import listed
from kspliced.model import ChangelogEntry, FunctionChange, Refusal
from kspliced.oserror import translated
from kspliced.record import RecordError, decode
from kspliced.worker import clean, run_worker

# Measured: a packed source of 6.1 takes 800 MB in the cache, the temporary trees 300 MB.
BUILD_BYTES = 3 << 29
_CACHE_NAME = "kspliced"
_UNIT = "kspliced-build-"
_PROPERTIES = (
    "DynamicUser=yes",
    "User=kspliced-build",
    f"CacheDirectory={_CACHE_NAME}",
    "CacheDirectoryMode=0755",
    "PrivateNetwork=yes",
    "RestrictAddressFamilies=AF_UNIX",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectProc=invisible",
    "PrivateUsers=yes",
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "RestrictSUIDSGID=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "LockPersonality=yes",
    "RemoveIPC=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallErrorNumber=EPERM",
    "UMask=0022",
    "MemoryMax=2G",
    "TasksMax=512",
    "LimitFSIZE=4G",
    "LimitCORE=0",
    "RuntimeMaxSec=4h",
    # Stopping the daemon stops the build, should the worker not be there to do it.
    "PartOf=kspliced.service",
    "Nice=10",
    "CPUWeight=20",
    "IOWeight=20",
    "OOMScoreAdjust=500",
)

Wrap = Callable[[str, list[str]], list[str]]


def transient_unit(unit: str, command: list[str]) -> list[str]:
    """The command that runs ``command`` in the hardened transient service ``unit``."""
    options = [f"--property={value}" for value in _PROPERTIES]
    # PrivateTmp's /var/tmp is on the disk, and systemd removes it with the unit.
    environment = [
        f"--setenv=PYTHONPATH={Path(kspliced.__file__).resolve().parent.parent}",
        "--setenv=TMPDIR=/var/tmp",
        "--setenv=PYTHONDONTWRITEBYTECODE=1",
    ]
    run = ["systemd-run", "--pipe", "--wait", "--collect", f"--unit={unit}"]
    return [*run, "--description=kspliced builder", *options, *environment, "--", *command]


@dataclass(frozen=True)
class UnitBuilder:
    """The builder as a transient unit. ``wrap`` makes the sandboxed command of a plain one."""

    paths: Paths
    wrap: Wrap = transient_unit

    def build(self, order: BuildOrder, job: Job) -> Built:
        """Build the update.

        :raises KsplicedError: what the builder reports, CANCELLED, NO_SPACE, TOOL_MISSING.
        """
        name = f"{order.kernel.version}-{order.to_version}-{os.getpid()}".replace(":", "")
        unit = f"{_UNIT}{os.getpid()}.service"
        output = self.paths.cache / f"{name}.kspack"
        targets = self.paths.run / f"targets-{os.getpid()}"
        with translated():
            require_space(self.paths.build, BUILD_BYTES, "building the update")
            self._sweep()
            targets.parent.mkdir(parents=True, exist_ok=True)
            targets.write_text(listed(order.targets, order.foreign), "utf-8")
            try:
                value = run_worker(
                    self.wrap(unit, _command(order, targets, output, self.paths.cache)),
                    job.part(0.2, 0.84),
                    lambda: job.cancel.wanted,
                    lambda: _stop(unit),
                )
                built, has_pack = _parse(value)
                content = read_regular(output, MAX_PACK) if has_pack else None
            finally:
                targets.unlink(missing_ok=True)
                output.unlink(missing_ok=True)
        return replace(built, content=content)

    def _sweep(self) -> None:
        """End a builder whose worker was killed, and remove what it left: we hold the lock."""
        _stop(f"{_UNIT}*.service")
        for pattern in (self.paths.cache.glob("*.kspack"), self.paths.run.glob("targets-*")):
            for file in pattern:
                file.unlink(missing_ok=True)


def _command(order: BuildOrder, targets: Path, output: Path, cache: Path) -> list[str]:
    return [
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
        "--cache",
        str(cache / "sources"),
        "-o",
        str(output),
        "--progress",
        "json",
        *(f"--exclude={unit}" for unit in order.exclude),
    ]


def _stop(unit: str) -> None:
    """Stop the unit with everything in it; systemd-run then ends by itself."""
    subprocess.run(
        ["systemctl", "stop", unit],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
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
