# SPDX-License-Identifier: GPL-2.0-or-later
"""What the differ says of a real upgrade, unit by unit.

    python3 -m tests.corpus.survey 6.1.187-1 6.1.190-1 [PREFIX]...

Takes the .c files that differ, below the prefixes if there are any, over the *old* headers: so
what the headers' changes add is missing, and some units do not compile. Writes build/survey.json
and prints the sums.
"""

from __future__ import annotations

import collections
import filecmp
import json
import os
import re
import sys
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kspliced.build.kbuild import Unit
from tests.corpus import kernels, stages

# Where the name of another function or file begins in a reason.
_WORDS = re.compile(r":| of | by ")
RESULT = Path(__file__).parents[2] / "build" / "survey.json"


@dataclass(frozen=True)
class Finding:
    """What became of one unit. ``state`` is failed, crash, same, live or refused; functions and
    data are ``(name, kind, why)``, refusals ``(code, symbol, evidence)``."""

    unit: str
    target: str
    state: str
    changes: list[tuple[str, str, str]] = field(default_factory=list)
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    trace: str = ""


def changed_sources(old: Path, new: Path, prefixes: tuple[str, ...]) -> list[str]:
    """The .c files that both trees have and that differ."""
    found = []
    for directory, _, names in os.walk(new):
        for name in names:
            path = (Path(directory) / name).relative_to(new)
            if name.endswith(".c") and str(path).startswith(prefixes or ("",)):
                before = old / path
                if before.is_file() and not filecmp.cmp(before, new / path, shallow=False):
                    found.append(str(path))
    return sorted(found)


def examine(trees: stages.Trees, unit: Unit) -> Finding:
    """Diff one unit, if both its objects are there."""
    objects = [trees.objects(name) / unit.path for name in ("pre", "new")]
    if not all(path.is_file() for path in objects):
        return Finding(unit.path, unit.target, "failed")
    try:
        diffed = stages.diff(trees, "new", unit)
    except Exception:  # noqa: BLE001  a survey reports what nobody expected
        return Finding(unit.path, unit.target, "crash", trace=traceback.format_exc())
    changes = [(f.name, f.kind.value, f.why) for f in diffed.functions]
    refused = [(r.code, r.symbol, r.evidence or r.reason) for r in diffed.refused]
    state = "refused" if refused else "live" if changes else "same"
    return Finding(unit.path, unit.target, state, changes, refused)


def survey(old: str, new: str, prefixes: tuple[str, ...], work: Path) -> list[Finding]:
    """Compile and examine every changed unit."""
    tree = kernels.source(new)
    trees = stages.Trees(kernels.source(old), kernels.headers(old), work)
    paths = changed_sources(trees.old, tree, prefixes)
    chosen = stages.choose(trees, paths)
    sources = [path for path in paths if not path.startswith(("tools/", "samples/"))]
    stages.put(trees, "new", {path: (tree / path).read_bytes() for path in sources})
    print(f"{len(paths)} sources, {len(chosen.units)} units", flush=True)
    start = time.monotonic()
    stages.compile_all(trees, chosen.units, {"new": chosen.units})
    print(f"compiled in {time.monotonic() - start:.0f} s", flush=True)
    with ProcessPoolExecutor(stages.jobs()) as pool:
        return list(pool.map(examine, [trees] * len(chosen.units), chosen.units))


def main(arguments: list[str]) -> int:
    """Run the survey; 1 when the differ crashed on a unit."""
    old, new, *prefixes = arguments
    with tempfile.TemporaryDirectory(prefix="survey.", dir="/var/tmp") as folder:
        found = survey(old, new, tuple(prefixes), Path(folder))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps([asdict(finding) for finding in found], indent=1))
    states = collections.Counter(finding.state for finding in found)
    codes = collections.Counter(code for f in found for code in {r[0] for r in f.refused})
    whys = collections.Counter(
        (kind, _WORDS.split(why)[0]) for f in found for _, kind, why in f.changes
    )
    for state, count in states.most_common():
        print(f"{count:5} {state}")
    for code, count in codes.most_common():
        print(f"{count:5} units refused: {code}")
    for (kind, why), count in whys.most_common():
        print(f"{count:5} {kind}: {why}")
    return 1 if states["crash"] else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
