# SPDX-License-Identifier: GPL-2.0-or-later
"""Update modules that stay in memory, as the core keeps each that was applied once until the boot.

How much they take, how much they may take, and when one that is reversed may be applied again: the
kernel may still hold the addresses of what it owns (docs/engine.md, "Memory that stays").
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kspliced.engine.files import write_durably
from kspliced.engine.paths import Paths
from kspliced.engine.policy import RESIDENT_LIMIT
from kspliced.errors import Code, StateError
from kspliced.model import Linked

LIMIT_VARIABLE = "KSPLICED_RESIDENT_LIMIT"
_LIMIT = re.compile(r"([1-9][0-9]{0,14})([KMG]?)")
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30}


@dataclass(frozen=True)
class Limit:
    """How many bytes update modules may keep; ``complaint`` says why it is the default, or ""."""

    bytes: int
    complaint: str = ""


@dataclass(frozen=True)
class ResidentModule:
    """A module that stays, its memory in bytes, and the core's word for its stage."""

    module: str
    bytes: int
    stage: str


@dataclass(frozen=True)
class Resident:
    """What stays until the reboot, in bytes, what may at most, and the modules."""

    bytes: int
    limit_bytes: int
    updates: tuple[ResidentModule, ...]


def read_limit(environment: Mapping[str, str]) -> Limit:
    """The limit that an environment sets: bytes, or K, M or G (1024 each); else the default."""
    text = environment.get(LIMIT_VARIABLE, "").strip()
    match = _LIMIT.fullmatch(text.upper())
    if match is not None:
        return Limit(int(match[1]) << _UNITS[match[2]])
    if not text:
        return Limit(RESIDENT_LIMIT)
    return Limit(
        RESIDENT_LIMIT,
        f"{LIMIT_VARIABLE}={text[:40]!a} is no number of bytes (as 512M): "
        f"{mebibytes(RESIDENT_LIMIT)} are allowed, the default",
    )


def read_resident(paths: Paths, limit: Limit) -> Resident:
    """What the core says; nothing where it is not loaded, or is one that keeps nothing."""
    modules = []
    for file in sorted((paths.core / "updates").glob("*/resident")):
        size = _number(file)
        if size:
            stage = ""
            with suppress(OSError):
                stage = (file.parent / "stage").read_text("ascii", "replace").strip()
            modules.append(ResidentModule(file.parent.name, size, stage))
    return Resident(_number(paths.core / "resident"), limit.bytes, tuple(modules))


def _number(file: Path) -> int:
    try:
        text = file.read_text("ascii", "replace").strip()
    except OSError:
        return 0  # the core is not loaded, or the update went while we looked
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else 0


def require_room(paths: Paths, limit: Limit, size: int) -> None:
    """Refuse to load what would keep more memory than is allowed.

    :param size: bytes of the module that is to be loaded; 0 where it is not known yet.
    :raises StateError: RESIDENT_LIMIT.
    """
    kept = _number(paths.core / "resident")
    if kept + max(size, 1) <= limit.bytes:
        return
    adds = f", this one would add {mebibytes(size)}" if size else ""
    raise StateError(
        Code.RESIDENT_LIMIT,
        f"updates that were applied since the boot keep {mebibytes(kept)} of memory{adds}, and "
        f"{mebibytes(limit.bytes)} are allowed",
        "reboot into the new kernel, which gives it back; or raise "
        f"{LIMIT_VARIABLE} (`systemctl edit kspliced.service`)",
    )


def mebibytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / (1 << 20):.1f} MiB"


def fitting(
    paths: Paths,
    loaded: frozenset[str],
    taken: frozenset[str],
    link: Callable[[frozenset[str]], Linked],
) -> Linked:
    """What ``link`` makes, under a name that is free, or that of a module just like it.

    A module that is loaded was linked to addresses that may be others by now.

    :param loaded: modules that are loaded and not applied.
    :param taken: names that it may not have.
    :param link: links for a set of names that are taken.
    """
    while True:
        linked = link(taken)
        if linked.name not in loaded or _kept_digest(paths, linked.name) == _digest(linked.content):
            return linked
        taken |= {linked.name}


def loading(paths: Paths, name: str) -> None:
    """Forget what was loaded as ``name``: something is about to be."""
    with suppress(OSError):
        (paths.loaded / name).unlink(missing_ok=True)


def has_loaded(paths: Paths, name: str, content: bytes) -> None:
    """Remember what was loaded as ``name``. A failure costs memory later, and nothing else."""
    with suppress(OSError):
        paths.loaded.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_durably(paths.loaded / name, _digest(content))


def _kept_digest(paths: Paths, name: str) -> bytes:
    try:
        return (paths.loaded / name).read_bytes()
    except OSError:
        return b""


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
