# SPDX-License-Identifier: GPL-2.0-or-later
"""The units that an upgrade changes, compiled as the builder compiles pre objects.

    python3 -m tests.whole.units VERSION [list | SECONDS [UNIT...]]

compiles, in slices, what the cache has not yet; after SECONDS it begins no further slice.
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

from kspliced.build.kbuild import (
    FLAGS,
    PLAIN_FLAGS,
    Kbuild,
    Unit,
    ancestors,
    find_unit,
    open_headers,
)
from kspliced.build.plain import needs_plain, prove_alike
from kspliced.build.select import directories, select
from kspliced.elf.read import read_object
from kspliced.source.compare import ChangeType, FileChange
from tests.corpus import stages
from tests.vm import cache, kmod_build, trixie
from tests.whole.kernels import UPGRADES, Upgrade, fetched, source

SLICE = 60
# Beside an object: it does not compile, and why; it is to be compiled plainly, too.
_FAILED, _PLAIN = ".failed", ".plain"
# Only another architecture's Makefile descends there.
_OTHER_MACHINES = ("drivers/s390/", "drivers/parisc/")


def changed(upgrade: Upgrade) -> tuple[Unit, ...]:
    """Each unit that a changed .c file is compiled as; several when modules share an object."""
    place = cache.root() / f"units-{upgrade.name}-{upgrade.new_version}"
    if not place.is_dir() and shutil.which(upgrade.compiler) is None:
        _elsewhere(upgrade, ["list"])
    else:
        cache.made(place.name, lambda folder: _list(upgrade, folder))
    rows = json.loads((place / "units.json").read_text())
    return tuple(Unit(*row) for row in rows if not row[0].startswith(_OTHER_MACHINES))


def _elsewhere(upgrade: Upgrade, arguments: list[str]) -> None:
    """Run this module where the compiler is."""
    fetched(upgrade)
    for version in (upgrade.kernel.version, upgrade.new_version):
        source(upgrade, version)
    kmod_build.headers(upgrade.kernel)
    trixie.run(["python3", "-m", "tests.whole.units", upgrade.name, *arguments])


def _list(upgrade: Upgrade, folder: Path) -> None:
    old = source(upgrade, upgrade.kernel.version)
    new = source(upgrade, upgrade.new_version)
    paths = _differing(old, new)
    changes = tuple(FileChange(path, ChangeType.MODIFIED) for path in paths)
    above = (a for d in upgrade.directories for a in (d, *ancestors(d)))
    wanted = sorted({*directories(changes), *above})
    wanted = [d for d in wanted if (old / d / "Makefile").is_file()]
    listings = _kbuild(upgrade, folder / "list").list_directories(wanted)
    unlisted = frozenset(wanted) - listings.keys()
    chosen = select(changes, listings, unlisted, stages.nature(), frozenset())
    units = list(chosen.units)
    for refusal in chosen.refused:
        if refusal.code == "several_targets":
            units += find_unit(refusal.unit, listings)
    for directory in upgrade.directories:
        for path in listings[directory].builtin | listings[directory].modular:
            name = f"{path.removesuffix('.o')}.c"
            if (old / name).is_file() and path.startswith(f"{directory}/"):
                units += find_unit(name, listings)
    units = sorted(set(units), key=lambda unit: (unit.path, unit.target))
    rows = [(u.path, u.directory, u.target) for u in units]
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


def _kbuild(upgrade: Upgrade, objects: Path, flags: str = FLAGS) -> Kbuild:
    top = kmod_build.headers(upgrade.kernel)
    jobs = len(os.sched_getaffinity(0))
    old = source(upgrade, upgrade.kernel.version)
    return Kbuild(old, objects, open_headers(top, top / ".config"), jobs, flags)


def store(upgrade: Upgrade, flags: str = FLAGS) -> Path:
    """Where the units compiled with ``flags`` are kept, each at its path."""
    path = cache.root() / f"objects-{upgrade.name}-{cache.digest(flags)}"
    path.mkdir(exist_ok=True)
    return path


def matched(upgrade: Upgrade, path: str) -> bytes:
    """The object of a unit that a pack has for matching, which is proved to be the split one."""
    split = (store(upgrade) / path).read_bytes()
    before = read_object(split, path)
    if not needs_plain(before):
        return split
    plain = (store(upgrade, PLAIN_FLAGS) / path).read_bytes()
    prove_alike(before, read_object(plain, path))
    return plain


def missing(upgrade: Upgrade, units: Iterable[Unit], flags: str = FLAGS) -> list[Unit]:
    """Those of ``units`` that were not tried with ``flags`` yet, each object once."""
    # In no order of theirs, so that what is compiled when time is up is a fair sample.
    by_path = {u.path: u for u in sorted(units, key=lambda u: cache.digest(u.path))}
    failed = failures(upgrade)
    place = store(upgrade, flags)
    return [u for p, u in by_path.items() if p not in failed and not (place / p).is_file()]


def failures(upgrade: Upgrade) -> dict[str, str]:
    """By object, why the builder cannot compile it: make's words."""
    place = store(upgrade)
    return {
        str(path.relative_to(place)).removesuffix(_FAILED): path.read_text()
        for path in place.rglob(f"*{_FAILED}")
    }


def compiled(upgrade: Upgrade, units: Iterable[Unit], until: float = float("inf")) -> int:
    """Compile what is missing of ``units``; begins no slice after time.monotonic() ``until``.

    Returns how many are left; what does not compile is not among them, see failures().
    """
    units = tuple(units)
    left = _left(upgrade, units)
    if left and shutil.which(upgrade.compiler) is None:
        seconds = str(until - time.monotonic())
        _elsewhere(upgrade, [seconds, *(unit.path for unit, _ in left)])
        return len(_left(upgrade, units))
    while left and time.monotonic() < until:
        flags = left[0][1]
        _compile(upgrade, [unit for unit, with_ in left if with_ == flags][:SLICE], flags)
        left = _left(upgrade, units)
    return len(left)


def _left(upgrade: Upgrade, units: tuple[Unit, ...]) -> list[tuple[Unit, str]]:
    """What is to be compiled, with which flags; plainly, what the builder compiles so, too."""
    place = store(upgrade)
    plain = [u for u in units if (place / f"{u.path}{_PLAIN}").is_file()]
    return [
        *((unit, FLAGS) for unit in missing(upgrade, units)),
        *((unit, PLAIN_FLAGS) for unit in missing(upgrade, plain, PLAIN_FLAGS)),
    ]


def _compile(upgrade: Upgrade, units: list[Unit], flags: str) -> None:
    with tempfile.TemporaryDirectory(prefix="ks-units.", dir="/var/tmp") as folder:
        kbuild = _kbuild(upgrade, Path(folder) / "objects", flags)
        failed = kbuild.compile(units)
        for unit in units:
            target = store(upgrade, flags) / unit.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if unit.path in failed:
                target.with_name(target.name + _FAILED).write_text(failed[unit.path])
                continue
            fresh = target.with_suffix(f".{os.getpid()}")
            shutil.copyfile(kbuild.object_path(unit), fresh)
            if flags == FLAGS and needs_plain(read_object(fresh.read_bytes(), unit.path)):
                target.with_name(target.name + _PLAIN).touch()
            fresh.rename(target)


def main(arguments: list[str]) -> int:
    """Compile the units of the upgrade from version ``arguments[0]``."""
    upgrade = UPGRADES[arguments[0]]
    units = changed(upgrade)
    if arguments[1:] == ["list"]:
        return 0
    until = time.monotonic() + float(arguments[1]) if arguments[1:] else float("inf")
    if arguments[2:]:
        units = tuple(unit for unit in units if unit.path in arguments[2:])
    left = compiled(upgrade, units, until)
    print(f"{len(units)} units, {left} not compiled yet")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
