# SPDX-License-Identifier: GPL-2.0-or-later
"""The plan of a whole upgrade for a machine with a server's modules, and its pack.

    python3 -m tests.whole.planned VERSION POLICY PACK

writes the pack and prints the figures of docs/coverage.md.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from kspliced.build.pipeline import build
from kspliced.build.plan import EntryStatus, Plan, plan_of
from kspliced.build.request import BuildRequest
from kspliced.model import no_progress
from kspliced.pack import write_pack
from kspliced.plan.attribution import CERTAIN
from kspliced.plan.safety import Policy
from tests.vm import cache, kmod_build
from tests.whole.kernels import UPGRADES, Upgrade, fetched
from tests.whole.live import loaded


@dataclass(frozen=True)
class Figures:
    """Of the CVEs that touch, or may touch, what runs: how many are live. ``told``: without those
    that need a reboot because one of the places where they may be does."""

    live: int
    touching: int
    told: int

    @property
    def share(self) -> float:
        """Live, of those that touch or may touch what runs."""
        return self.live / self.touching

    @property
    def share_told(self) -> float:
        """Live, of those that are known to touch what runs."""
        return self.live / self.told


def targets(upgrade: Upgrade) -> tuple[str, ...]:
    """vmlinux and the modules that the guest of tests/whole/live.py has loaded."""
    names = (Path(path).name.partition(".")[0] for path in loaded(upgrade))
    return ("vmlinux", *sorted(name.replace("-", "_") for name in names))


def planned(upgrade: Upgrade, policy: Policy, pack: Path) -> Plan:
    """Build for an upgrade, write the ``pack``, and give the plan."""
    fetched(upgrade)
    old, new = (
        cache.debs(f"{upgrade.source}={version}")[0]
        for version in (upgrade.name, upgrade.new_version)
    )
    headers = kmod_build.headers(upgrade.kernel)
    request = BuildRequest(
        from_source=old,
        to_source=new,
        config=headers / ".config",
        headers=headers,
        targets=targets(upgrade),
        only=(),
        exclude=(),
        jobs=len(os.sched_getaffinity(0)),
        workdir=None,
        cache=cache.root() / "planned",
        policy=policy,
    )
    result = build(request, no_progress)
    assert result.manifest is not None, result.refused
    write_pack(pack, result.manifest, result.blobs)
    return plan_of(result)


def figures(plan: Plan) -> Figures:
    """Count."""
    totals = plan.totals
    touching = totals.cves_live + totals.cves_ask + totals.cves_reboot
    vague = sum(
        len(entry.cves)
        for entry in plan.entries
        if entry.status is EntryStatus.REBOOT and entry.confidence < CERTAIN
    )
    return Figures(totals.cves_live, touching, touching - vague)


def main(arguments: list[str]) -> int:
    """The command."""
    version, policy, pack = arguments
    plan = planned(UPGRADES[version], Policy(policy), Path(pack))
    found = figures(plan)
    shares = {"share": round(found.share, 3), "share_told": round(found.share_told, 3)}
    print(json.dumps({**asdict(plan.totals), **asdict(found), **shares}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
