# SPDX-License-Identifier: GPL-2.0-or-later
"""What the steps of the story found, as it goes to build/demo/result.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bug:
    """The oops without kspliced; ``apt_seconds`` of the same upgrade there, if it was timed."""

    console: tuple[str, ...]
    apt_seconds: float | None


@dataclass(frozen=True)
class Installed:
    """Installing our packages, DKMS building the core included."""

    apt_seconds: float
    boot_seconds: float


@dataclass(frozen=True)
class Upgraded:
    """The upgrade with kspliced installed."""

    apt_seconds: float


@dataclass(frozen=True)
class Live:
    """What `kspliced status` says once the update is live.

    ``phases``: when each phase was first seen, in seconds after apt had returned.
    """

    seconds: float
    running: str
    effective: str
    summary: str
    functions: tuple[str, ...]
    entries: tuple[str, ...]
    bugs: tuple[str, ...]
    pause_us: int
    reboot_required: str
    journal_entries: int
    phases: dict[str, float]

    def lines(self) -> tuple[str, ...]:
        """The same for people."""
        return (
            f"live {self.seconds:.0f} s after apt returned: {self.summary}",
            f"running {self.running}, effective {self.effective}",
            f"functions replaced: {', '.join(self.functions)}",
            *(f"changelog: {entry}" for entry in self.entries),
            f"bugs closed: {', '.join('#' + bug for bug in self.bugs)}",
            f"all CPUs were held for {self.pause_us} µs; reboot needed: {self.reboot_required}",
        )


@dataclass(frozen=True)
class Survived:
    """The trigger on the mended kernel, and the idle daemon there.

    ``daemon_mb`` is its resident memory, ``daemon_wakeups`` how often it ran in 30 s.
    """

    rounds: int
    release: str
    effective: str
    daemon_mb: float
    daemon_wakeups: int


@dataclass(frozen=True)
class Reverted:
    """Undo and apply under load: seconds of each command, and the pause of the second switch."""

    undo_seconds: float
    apply_seconds: float
    pause_us: int


@dataclass(frozen=True)
class Replayed:
    """Seconds since the kernel started at which the replay ended and the network came up."""

    replayed_at: float
    network_at: float
    replay_cpu_seconds: float


@dataclass(frozen=True)
class Removed:
    """What the status says after the package was removed and installed again."""

    state: str


@dataclass(frozen=True)
class Retired:
    """What the status says under the new kernel."""

    state: str


@dataclass(frozen=True)
class Joined:
    """Seconds from the load of a module that an update waited for to its new code."""

    seconds: float


Finding = (
    Bug | Installed | Upgraded | Live | Survived | Reverted | Replayed | Removed | Joined | Retired
)


def live(status: dict[str, Any], seconds: float, phases: dict[str, float], journal: int) -> Live:
    """The finding in the JSON of `kspliced status`."""
    update = status["update"]
    return Live(
        seconds=round(seconds, 1),
        running=status["running"],
        effective=status["effective"],
        summary=update["summary"],
        functions=tuple(f["name"] for f in update["functions"] if f["kind"] == "changed"),
        entries=tuple(entry["subject"] for entry in update["entries"]),
        bugs=tuple(bug for entry in update["entries"] for bug in entry["bugs"]),
        pause_us=int(update["pause_us"]),
        reboot_required=status["reboot_required"]["verdict"],
        journal_entries=journal,
        phases=phases,
    )
