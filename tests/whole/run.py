# SPDX-License-Identifier: GPL-2.0-or-later
"""Match units of an upgrade with the kernel it begins with.

    python3 -m tests.whole.run VERSION

compiles what is not compiled yet, captures a guest's memory once, matches every function of every
unit and writes build/whole-VERSION.json and build/whole-VERSION.md, the table of docs/coverage.md.
Modules that would not load in the guest are matched with the files that were shipped.
"""

from __future__ import annotations

import collections
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from kspliced.build.kbuild import Unit as BuiltUnit
from kspliced.kernel.image import KernelImage
from kspliced.kernel.live import LiveKernel
from kspliced.kernel.offline import ModuleFile, OfflineKernel
from kspliced.match.matcher import TargetMatch
from kspliced.match.report import Cause, Mismatch
from kspliced.match.unit import Unit
from kspliced.model import VMLINUX
from tests.whole.capture import captured
from tests.whole.kernels import UPGRADES, Upgrade, dependencies, modules
from tests.whole.units import changed, compiled, failures, matched

BUILD = Path(__file__).parents[2] / "build"
# vmlinux's units at a time: each is some megabytes once it is read.
_BATCH = 50


@dataclass(frozen=True)
class Finding:
    """One unit. ``live``: matched with a running kernel; ``freed`` are functions of init and exit
    sections, which no kernel has once it runs."""

    unit: str
    target: str
    live: bool
    matched: int
    freed: int
    bytes: int
    fields: int
    sites: int
    unmatched: tuple[Mismatch, ...]


def run(upgrade: Upgrade, units: Iterable[BuiltUnit]) -> list[Finding]:
    """Match those of ``units`` that compiled, target by target."""
    units = tuple(units)
    place = captured(upgrade, units)
    failed = failures(upgrade)
    targets: dict[str, list[str]] = {}
    for unit in units:
        if unit.path in failed:
            continue
        targets.setdefault(unit.target, []).append(unit.path)
    jobs = [
        (upgrade, place, t, batch) for t, paths in targets.items() for batch in _batches(t, paths)
    ]
    # The longest first, so that none is left alone at the end.
    jobs.sort(key=lambda job: -len(job[3]))
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return [finding for found in pool.map(_target, jobs) for finding in found]


def _batches(target: str, paths: list[str]) -> Iterator[list[str]]:
    size = _BATCH if target == VMLINUX else len(paths)
    for start in range(0, len(paths), size):
        yield paths[start : start + size]


def _target(job: tuple[Upgrade, Path, str, list[str]]) -> list[Finding]:
    upgrade, place, target, paths = job
    units = [Unit(target, path, matched(upgrade, path)) for path in paths]
    with image(upgrade, place, target) as (kernel, live):
        match = TargetMatch(target, units, kernel)
        for _ in match.run():
            pass
        found = []
        for one in match.units.values():
            places = one.places.values()
            freed = sum(one.unit.transient(f.section) for f in one.unit.functions)
            found.append(
                Finding(
                    unit=one.unit.name,
                    target=target,
                    live=live,
                    matched=len(places),
                    freed=freed,
                    bytes=sum(len(p.found) for p in places),
                    fields=sum(p.fields for p in places),
                    sites=sum(p.sites for p in places),
                    unmatched=tuple(m for _, m in sorted(one.failures.items())),
                )
            )
        return found


@contextmanager
def image(upgrade: Upgrade, place: Path, target: str) -> Iterator[tuple[KernelImage, bool]]:
    """The kernel captured in ``place``, or ``target`` as it was shipped; whether it runs."""
    with LiveKernel(place / "proc", place / "sys") as kernel:
        if kernel.loaded(target):
            yield kernel, True
            return
    top = modules(upgrade)
    content = (top / dependencies(top)[target][-1]).read_bytes()
    yield OfflineKernel(upgrade.kernel.release, [ModuleFile(target, content)]), False


def table(upgrade: Upgrade, found: list[Finding]) -> str:
    """What was found, for docs/coverage.md."""
    groups = (
        ("vmlinux, running", [f for f in found if f.target == VMLINUX]),
        ("modules, running", [f for f in found if f.target != VMLINUX and f.live]),
        ("modules, shipped files", [f for f in found if not f.live]),
        ("all", found),
    )
    head = ["units", "targets", "functions", "matched", "bytes", "fields", "sites", "freed"]
    lines = [f"|  | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for title, members in groups:
        matched = sum(f.matched for f in members)
        functions = matched + sum(len(f.unmatched) for f in members)
        share = f"{matched} ({100 * matched / functions:.3f} %)" if functions else "0"
        row = (len(members), len({f.target for f in members}), functions, share)
        sums = [sum(getattr(f, name) for f in members) for name in ("bytes", "fields", "sites")]
        cells = (*row, *sums, sum(f.freed for f in members))
        lines.append(f"| {title} | {' | '.join(str(cell) for cell in cells)} |")
    lines += ["", "| not compiled | why |", "|---|---|"]
    lines += [f"| {path} | {why} |" for path, why in sorted(failures(upgrade).items())]
    lines += ["", "| function | unit | cause | why |", "|---|---|---|---|"]
    for mismatch in (m for f in found for m in f.unmatched):
        where = f"`{mismatch.function}` | {mismatch.unit} [{mismatch.target}]"
        lines.append(f"| {where} | {mismatch.cause.value} | {mismatch.reason} |")
    return "\n".join(lines) + "\n"


def causes(found: list[Finding]) -> collections.Counter[Cause]:
    """How many functions do not match, by cause."""
    return collections.Counter(m.cause for f in found for m in f.unmatched)


def main(arguments: list[str]) -> int:
    """Match all units of the upgrade from ``arguments[0]``."""
    upgrade = UPGRADES[arguments[0]]
    units = changed(upgrade)
    compiled(upgrade, units)
    captured(upgrade, units)
    start = time.monotonic()
    found = run(upgrade, units)
    print(f"matched in {time.monotonic() - start:.0f} s")
    BUILD.mkdir(exist_ok=True)
    text = table(upgrade, found)
    (BUILD / f"whole-{upgrade.name}.md").write_text(text)
    rows = [asdict(finding) for finding in found]
    (BUILD / f"whole-{upgrade.name}.json").write_text(json.dumps(rows, indent=1, default=bytes.hex))
    for line in text.splitlines()[:6]:
        print(line)
    for cause, count in causes(found).most_common():
        print(f"{count:6} {cause.value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
