# SPDX-License-Identifier: GPL-2.0-or-later
"""``make torture``: the long campaigns, with their figures in build/torture/result.json."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tests.torture import packs, power, subjects
from tests.torture.packs import Report, Subject

RESULT = Path(__file__).parents[2] / "build" / "torture" / "result.json"
MUTANTS = 10_000
# One of a real tree takes ten times as long as a small one.
REAL_SHARE = 5
CAMPAIGNS = ("packs", "power")


@dataclass(frozen=True)
class Found:
    """The figures of a campaign, and what was wrong."""

    figures: dict[str, object]
    wrong: tuple[str, ...]


def _say(text: str) -> None:
    print(text, flush=True)


def _mutated(name: str, make: Callable[[], Subject], count: int) -> Found:
    def progress(done: int) -> None:
        if done % 1000 == 0:
            _say(f"  {name}: {done} of {count}")

    report: Report = packs.campaign(make, count, progress=progress)
    counts = {f"{kind}: {outcome}": n for (kind, outcome), n in sorted(report.counts.items())}
    figures = {
        "mutants": count,
        "outcomes": counts,
        "peak_mb": round(report.peak / 1e6),
        "seconds": round(report.seconds),
    }
    wrong = tuple(f"{name}, seed {t.seed}: {t.kind}: {t.outcome}: {t.words}" for t in report.harm)
    return Found(figures, wrong)


def _packs() -> dict[str, Found]:
    found = {"packs, small": _mutated("small", subjects.small, MUTANTS)}
    with tempfile.TemporaryDirectory() as folder:
        subject = subjects.real(Path(folder))
        found["packs, ext4"] = _mutated(
            "ext4", partial(subjects.itself, subject), MUTANTS // REAL_SHARE
        )
    return found


def _power() -> dict[str, Found]:
    cuts = power.campaign(_say)
    figures: dict[str, object] = {"cuts": [asdict(cut) for cut in cuts]}
    wrong = tuple(f"cut {cut.number}, {cut.step}: {cut.wrong}" for cut in cuts if cut.wrong)
    return {"power cuts": Found(figures, wrong if cuts else ("no step was reached",))}


def main() -> int:
    """Run the campaigns that were asked for, all of them by default; 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.torture")
    parser.add_argument("campaign", nargs="*", choices=[*CAMPAIGNS, []], help="default: all")
    asked = parser.parse_args().campaign or CAMPAIGNS
    runs: dict[str, Callable[[], dict[str, Found]]] = {"packs": _packs, "power": _power}
    found: dict[str, Found] = {}
    for campaign in asked:
        _say(campaign)
        found |= runs[campaign]()
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({name: asdict(one) for name, one in found.items()}, indent=1))
    wrong = [line for one in found.values() for line in one.wrong]
    for line in wrong:
        _say(f"WRONG: {line}")
    _say(f"{len(found)} campaigns, {len(wrong)} findings; figures in {RESULT}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
