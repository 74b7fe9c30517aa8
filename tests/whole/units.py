# SPDX-License-Identifier: GPL-2.0-or-later
"""The units that an upgrade changes, compiled as the builder compiles pre objects.

    python3 -m tests.whole.units VERSION [SECONDS]

compiles, in slices, what the cache has not yet; after SECONDS it begins no further slice. Exit
code 0: nothing is left.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from kspliced.build.kbuild import Kbuild, Unit, find_unit, open_headers
from kspliced.build.select import directories, select
from kspliced.source.compare import ChangeType, FileChange
from tests.vm import cache, kmod_build
from tests.whole.kernels import UPGRADES, Upgrade, source

SLICE = 60


def changed(upgrade: Upgrade) -> tuple[Unit, ...]:
    """Each unit that a changed .c file is compiled as; several when modules share an object."""
    place = cache.made(f"units-{upgrade.name}-{upgrade.new_version}", lambda f: _list(upgrade, f))
    rows = json.loads((place / "units.json").read_text())
    return tuple(Unit(*row) for row in rows)


def _list(upgrade: Upgrade, folder: Path) -> None:
    old = source(upgrade, upgrade.kernel.version)
    new = source(upgrade, upgrade.new_version)
    paths = _differing(old, new)
    changes = tuple(FileChange(path, ChangeType.MODIFIED) for path in paths)
    wanted = [d for d in directories(changes) if (old / d / "Makefile").is_file()]
    listings = _kbuild(upgrade, folder / "list").list_directories(wanted)
    unlisted = frozenset(wanted) - listings.keys()
    chosen = select(changes, listings, unlisted, frozenset, frozenset())
    units = list(chosen.units)
    for refusal in chosen.refused:
        if refusal.code == "several_targets":
            units += find_unit(refusal.unit, listings)
    rows = [(u.path, u.directory, u.target) for u in sorted(units, key=lambda u: u.path)]
    (folder / "units.json").write_text(json.dumps(rows, indent=0))
    shutil.rmtree(folder / "list")


def _differing(old: Path, new: Path) -> list[str]:
    """The .c files that both trees have and that differ."""
    found = []
    for directory, _, names in os.walk(new):
        for name in names:
            path = (Path(directory) / name).relative_to(new)
            before = old / path
            if path.suffix != ".c" or not before.is_file():
                continue
            if not filecmp.cmp(before, new / path, shallow=False):
                found.append(str(path))
    return sorted(found)


def _kbuild(upgrade: Upgrade, objects: Path) -> Kbuild:
    top = kmod_build.headers(upgrade.kernel)
    jobs = len(os.sched_getaffinity(0))
    old = source(upgrade, upgrade.kernel.version)
    return Kbuild(old, objects, open_headers(top, top / ".config"), jobs)


def store(upgrade: Upgrade) -> Path:
    """Where the compiled units are kept, each at its path."""
    path = cache.root() / f"objects-{upgrade.name}"
    path.mkdir(exist_ok=True)
    return path


def missing(upgrade: Upgrade, units: Iterable[Unit]) -> list[Unit]:
    """Those of ``units`` that are not compiled yet, each object once."""
    place = store(upgrade)
    by_path = {unit.path: unit for unit in units}
    return [unit for unit in by_path.values() if not (place / unit.path).is_file()]


def compiled(upgrade: Upgrade, units: Iterable[Unit], until: float = float("inf")) -> int:
    """Compile what is missing of ``units``; begins no slice after time.monotonic() ``until``.

    Returns how many are left. A unit that does not compile raises: its source is the kernel's own.
    """
    left = missing(upgrade, units)
    while left and time.monotonic() < until:
        _compile(upgrade, left[:SLICE])
        left = left[SLICE:]
    return len(left)


def _compile(upgrade: Upgrade, units: list[Unit]) -> None:
    with tempfile.TemporaryDirectory(prefix="ks-units.", dir="/var/tmp") as folder:
        kbuild = _kbuild(upgrade, Path(folder) / "objects")
        failed = kbuild.compile(units)
        assert not failed, failed
        for unit in units:
            target = store(upgrade) / unit.path
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_suffix(f".{os.getpid()}")
            shutil.copyfile(kbuild.object_path(unit), fresh)
            fresh.rename(target)


def main(arguments: list[str]) -> int:
    """Compile the units of the upgrade from version ``arguments[0]``."""
    upgrade = UPGRADES[arguments[0]]
    until = time.monotonic() + float(arguments[1]) if len(arguments) > 1 else float("inf")
    units = changed(upgrade)
    left = compiled(upgrade, units, until)
    print(f"{len(units)} units, {len({u.path for u in units})} objects, {left} not compiled yet")
    return 1 if left else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
