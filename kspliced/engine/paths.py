# SPDX-License-Identifier: GPL-2.0-or-later
"""Where everything lies on the machine, below a root that tests move."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """The files of ARCHITECTURE.md ("Files on the machine") below ``root``."""

    root: Path = Path("/")

    @property
    def lib(self) -> Path:
        """Durable files: state, packs, queue, sources."""
        return self.root / "var/lib/kspliced"

    @property
    def state(self) -> Path:
        """The durable state (engine/state.py)."""
        return self.lib / "state.json"

    @property
    def healthy(self) -> Path:
        """The identity of the last boot that became healthy after a replay."""
        return self.lib / "healthy"

    @property
    def stopped(self) -> Path:
        """The identity of the last boot that ended in order before it was healthy, and a count."""
        return self.lib / "stopped"

    @property
    def packs(self) -> Path:
        """Packs, named by their digest."""
        return self.lib / "packs"

    @property
    def queue(self) -> Path:
        """Requests of package manager hooks (engine/queue.py)."""
        return self.lib / "queue"

    @property
    def aside(self) -> Path:
        """Files that could not be believed, kept for the administrator."""
        return self.lib / "aside"

    @property
    def evidence(self) -> Path:
        """What errors do not show to everybody, for root (engine/evidence.py)."""
        return self.lib / "evidence"

    @property
    def sources(self) -> Path:
        """Source and headers packages (engine/fetch.py)."""
        return self.lib / "sources"

    @property
    def cache(self) -> Path:
        """The builder's caches, one for each set of inputs (engine/builder_cache.py); the builder
        owns what is in each, so root reads that as untrusted."""
        return self.root / "var/cache/kspliced"

    @property
    def run(self) -> Path:
        """Files of this boot."""
        return self.root / "run/kspliced"

    @property
    def lock(self) -> Path:
        """Held by the one worker that may change anything."""
        return self.run / "lock"

    @property
    def matched(self) -> Path:
        """What matching found of update modules, each in a file of its name (match/known.py)."""
        return self.run / "matched"

    @property
    def loaded(self) -> Path:
        """What update modules were loaded, each in a file of its name (engine/resident.py)."""
        return self.run / "loaded"

    @property
    def listener(self) -> Path:
        """The device that tells of modules whose loads wait (docs/kernel-core.md)."""
        return self.root / "dev/kspliced"

    @property
    def core(self) -> Path:
        """The kernel core's files (docs/kernel-core.md)."""
        return self.root / "sys/kernel/kspliced"

    @property
    def proc(self) -> Path:
        """procfs."""
        return self.root / "proc"

    @property
    def dpkg(self) -> Path:
        """dpkg's database."""
        return self.root / "var/lib/dpkg"

    @property
    def rpm(self) -> Path:
        """rpm's database."""
        places = (self.root / "var/lib/rpm", self.root / "usr/lib/sysimage/rpm")
        return next((place for place in places if place.is_dir()), places[0])

    @property
    def usr_src(self) -> Path:
        """Where headers packages install."""
        return self.root / "usr/src"

    def config(self, release: str) -> Path:
        """The configuration that the kernel package of ``release`` ships."""
        places = (
            self.root / "boot" / f"config-{release}",
            self.root / "lib/modules" / release / "config",
        )
        return next((place for place in places if place.is_file()), places[0])

    def pack(self, digest: str) -> Path:
        """The stored pack with this digest."""
        return self.packs / f"{digest}.kspack"
