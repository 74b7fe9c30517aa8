# SPDX-License-Identifier: GPL-2.0-or-later
"""The builder's stages from selection on, over an unpacked tree and the few files that change.

No tree is walked or copied: the new tree is one of links to the old one, real only where a file
changes. What the pipeline finds out by comparing two sources is here said by the caller.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kspliced.build import blame
from kspliced.build.kbuild import PLAIN_FLAGS, Headers, Kbuild, Unit
from kspliced.build.select import Nature, Selection, directories, select
from kspliced.build.unit import DiffedUnit, diff_unit
from kspliced.build.workspace import source_of
from kspliced.plan.components import Texts
from kspliced.plan.placement import only_placed
from kspliced.source.compare import ChangeType, FileChange
from kspliced.source.functions import touched_functions
from kspliced.source.lines import keep_line_numbers

_INCLUDED = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*"([^"]+\.c)"', re.MULTILINE)


@dataclass(frozen=True)
class Trees:
    """``old`` is an unpacked source, ``work`` an empty directory for all that is made."""

    old: Path
    headers: Headers
    work: Path

    def new(self, name: str) -> Path:
        """Where the new tree called ``name`` is."""
        return self.work / name / "tree"

    def text(self, name: str) -> Path:
        """Where the new tree's changed files are as they were given."""
        return self.work / name / "text"

    def objects(self, name: str) -> Path:
        """The object tree that belongs to it."""
        return self.work / name / "objects"


def choose(trees: Trees, paths: Iterable[str], targets: Iterable[str] = ()) -> Selection:
    """What the builder makes of changed files, as Kbuild says what is built."""
    changes = tuple(FileChange(path, ChangeType.MODIFIED) for path in sorted(paths))
    wanted = [d for d in directories(changes) if _has_kbuild(trees.old / d)]
    objects = trees.work / "list"
    kbuild = Kbuild(trees.old, objects, trees.headers, 1)
    listings = kbuild.list_directories(wanted) if wanted else {}
    unlisted = frozenset(wanted) - listings.keys()
    included = frozenset(
        name for change in changes for name in _included_near(trees.old / change.path)
    )
    return select(changes, listings, unlisted, nature(included), frozenset(targets))


def nature(included: frozenset[str] = frozenset()) -> Nature:
    """Of a source of which nothing else is known: nobody reads what, and no Kbuild edit is idle."""
    return Nature(
        lambda: included,
        lambda path: frozenset(),
        lambda paths: dict.fromkeys(paths, frozenset()),
        lambda path: False,
    )


def _has_kbuild(directory: Path) -> bool:
    return (directory / "Makefile").is_file() or (directory / "Kbuild").is_file()


def _included_near(path: Path) -> set[str]:
    found = set()
    for source in path.parent.glob("*.c"):
        for match in _INCLUDED.finditer(source.read_bytes()):
            found.add(PurePosixPath(match.group(1).decode()).name)
    return found


def put(trees: Trees, name: str, files: Mapping[str, bytes]) -> None:
    """Make the new tree ``name``: the old one but for ``files``."""
    tree, text = trees.new(name), trees.text(name)
    tree.mkdir(parents=True)
    for entry in trees.old.iterdir():
        (tree / entry.name).symlink_to(entry)
    for path, content in files.items():
        (text / path).parent.mkdir(parents=True, exist_ok=True)
        (text / path).write_bytes(content)
        place = tree / path
        _make_real(trees.old, tree, place.parent)
        place.unlink(missing_ok=True)
        if path.endswith(".c") and (trees.old / path).exists():
            content = keep_line_numbers(trees.old / path, text / path)
        place.write_bytes(content)


def _make_real(old: Path, tree: Path, directory: Path) -> None:
    """Turn links to directories into directories of links, from ``tree`` down."""
    if directory == tree:
        return
    # From the top: below a link, everything is the old tree's own.
    _make_real(old, tree, directory.parent)
    if directory.is_symlink():
        directory.unlink()
        directory.mkdir()
        for entry in (old / directory.relative_to(tree)).iterdir():
            (directory / entry.name).symlink_to(entry)
    elif not directory.is_dir():
        directory.mkdir()


def compile_all(
    trees: Trees, pre: tuple[Unit, ...], post: Mapping[str, tuple[Unit, ...]]
) -> dict[str, str]:
    """Compile ``pre`` over the old tree and, for each new tree by name, its units.

    Returns the compiler's first words of the objects that do not compile.
    """
    failed = Kbuild(trees.old, trees.objects("pre"), trees.headers, jobs()).compile(pre)
    for name, units in post.items():
        new = Kbuild(trees.new(name), trees.objects(name), trees.headers, jobs())
        failed |= new.compile(units)
    return failed


def compile_plain(trees: Trees, units: tuple[Unit, ...], place: Path) -> dict[str, bytes]:
    """Units of the old tree as the kernel was compiled, by path, made in ``place``."""
    kbuild = Kbuild(trees.old, place / "objects", trees.headers, jobs(), PLAIN_FLAGS)
    failed = kbuild.compile(units)
    assert not failed, failed
    return {unit.path: kbuild.object_path(unit).read_bytes() for unit in units}


def jobs() -> int:
    """How many compilers run at once."""
    return len(os.sched_getaffinity(0))


def diff(trees: Trees, name: str, unit: Unit) -> DiffedUnit:
    """Compare a unit of the new tree ``name`` with the old tree's."""
    source = source_of(unit)
    texts = Texts(trees.old, trees.text(name), (source,))
    return diff_unit(
        unit,
        (trees.objects("pre") / unit.path).read_bytes(),
        (trees.objects(name) / unit.path).read_bytes(),
        touched_functions(trees.old / source, trees.text(name) / source),
        only_placed=lambda symbol: only_placed(
            texts, source, blame.in_source(symbol, texts.new(source))
        ),
    )
