# SPDX-License-Identifier: GPL-2.0-or-later
"""What kspliced costs the machine it runs on, measured in the guest of the story.

    python3 -m bench.guest [--json]

apt's time stands beside that of the same upgrade in a guest without kspliced, in the same run. The
guest is emulated, so seconds are many times a real machine's; bytes and counts are not.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

from tests.vm.story import Printer, Story

MEMORY_LIMIT_MB = 45.0


@dataclass(frozen=True)
class Figures:
    """Seconds of the guest's wall time unless the name says otherwise.

    ``wakeups``: of the idle daemon in 30 s. ``replay_cpu``: CPU seconds of the replay.
    """

    apt_without: float
    apt_with: float
    live_after: float
    pause_us: int
    daemon_mb: float
    wakeups: int
    replay_cpu: float


def measure() -> Figures:
    """Tell the story up to the power cut and take its figures."""
    with Story(Printer(), baseline=True) as story:
        bug = story.bug()
        story.install()
        upgraded = story.upgrade()
        live = story.live()
        survived = story.survives()
        replayed = story.power_cut()
    assert bug.apt_seconds is not None
    return Figures(
        apt_without=round(bug.apt_seconds, 1),
        apt_with=round(upgraded.apt_seconds, 1),
        live_after=live.seconds,
        pause_us=live.pause_us,
        daemon_mb=survived.daemon_mb,
        wakeups=survived.daemon_wakeups,
        replay_cpu=replayed.replay_cpu_seconds,
    )


def misses(figures: Figures) -> tuple[str, ...]:
    """The limits that were missed. Emulated seconds have none."""
    found = []
    if figures.daemon_mb >= MEMORY_LIMIT_MB:
        found.append(f"the idle daemon holds {figures.daemon_mb:.1f} MB")
    if figures.wakeups:
        found.append(f"the idle daemon woke up {figures.wakeups} times")
    return tuple(found)


def main(arguments: list[str]) -> int:
    """Print the figures; 1 when a limit was missed."""
    figures = measure()
    if "--json" in arguments:
        print(json.dumps(asdict(figures)))
    else:
        for name, value in asdict(figures).items():
            print(f"{name:>14} {value}")
    missed = misses(figures)
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
