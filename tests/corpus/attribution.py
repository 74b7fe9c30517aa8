# SPDX-License-Identifier: GPL-2.0-or-later
"""How well changelog entries of a real upgrade are told from its difference.

    python3 -m tests.corpus.attribution

prints the table of docs/coverage.md: the entries of labels/attribution-6.1.190.tsv, told by
hand, beside what kspliced tells.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kspliced.plan.attribution import CERTAIN, Attribution, attribute
from kspliced.plan.passages import read_changes
from kspliced.source.changelog import read_news
from kspliced.source.compare import ChangeType, FileChange, Tree, compare
from kspliced.source.opened import open_source
from kspliced.source.package import TreeSource
from kspliced.source.snapshot import TreeSnapshot
from tests.corpus import kernels
from tests.vm import cache as store

OLD, NEW = "6.1.187-1", "6.1.190-1"
LABELS = Path(__file__).parent / "labels"


@dataclass(frozen=True)
class Label:
    """What a person told: the ``files`` of an entry, all of them if ``certain``."""

    certain: bool
    files: frozenset[str]
    subject: str
    reason: str


@dataclass(frozen=True)
class Told:
    """A label, or None where there is none, and what kspliced tells of the entry."""

    subject: str
    cves: tuple[str, ...]
    label: Label | None
    attribution: Attribution

    @property
    def candidates(self) -> frozenset[str]:
        """The files that it may be in."""
        return frozenset(self.attribution.files)

    @property
    def complete(self) -> bool:
        """Whether no file is missing."""
        return self.label is None or self.label.files <= self.candidates

    @property
    def exact(self) -> bool:
        """Whether the files are the label's."""
        return self.label is not None and self.label.files == self.candidates


def labels() -> tuple[Label, ...]:
    """What was told by hand."""
    rows = (LABELS / "attribution-6.1.190.tsv").read_text().splitlines()
    fields = [row.split("\t") for row in rows if not row.startswith("#")]
    return tuple(
        Label(kind == "certain", frozenset(files.split()), subject, reason)
        for kind, files, subject, reason in fields
    )


def live_files() -> frozenset[str]:
    """Files that the search let go live for a server (docs/plan.md)."""
    rows = (LABELS / "live-6.1.190.txt").read_text().splitlines()
    return frozenset(row for row in rows if not row.startswith("#"))


@cache
def told() -> tuple[Told, ...]:
    """Every entry of the upgrade."""
    place = store.made(f"changes-{OLD}-{NEW}", _make)
    rows = (place / "changes").read_text().splitlines()
    changes = [FileChange(path, ChangeType(kind)) for kind, path in map(str.split, rows)]
    entries = read_news((place / "changelog").read_text(), OLD).entries
    found = attribute(entries, read_changes(place / "old", place / "new", changes))
    known = {label.subject: label for label in labels()}
    return tuple(
        Told(entry.subject, entry.cves, known.get(entry.subject), one)
        for entry, one in zip(entries, found, strict=True)
    )


def certain(some: tuple[Told, ...]) -> list[Told]:
    """Those of which all files are known."""
    return [one for one in some if one.label is not None and one.label.certain]


def _make(folder: Path) -> None:
    """Write the changed files of both versions, their list, and the new changelog."""
    old = kernels.source(OLD)
    changes = compare(
        TreeSnapshot(TreeSource(old)),
        TreeSource(kernels.source(NEW)),
        Tree(folder / "new"),
        lambda count: None,
    )
    for change in changes:
        if change.type is not ChangeType.ADDED:
            (folder / "old" / change.path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(old / change.path, folder / "old" / change.path, follow_symlinks=False)
    rows = "".join(f"{change.type.value} {change.path}\n" for change in changes)
    (folder / "changes").write_text(rows)
    (deb,) = store.debs(f"linux-source-6.1={NEW}")
    with open_source(deb, folder) as package:
        (folder / "changelog").write_text(package.changelog)


def _share(some: list[Told], kind: str) -> str:
    number = sum(getattr(one, kind) for one in some)
    return f"{number} of {len(some)} ({number / max(1, len(some)):.1%})"


def _table(some: tuple[Told, ...]) -> Iterator[str]:
    known = certain(some)
    yield f"entries {len(some)}, labelled {sum(t.label is not None for t in some)}"
    yield f"candidate files an entry: {sum(len(t.candidates) for t in some) / len(some):.2f}"
    yield f"one candidate: {sum(len(t.candidates) == 1 for t in some) / len(some):.1%}"
    share = sum(t.attribution.confidence >= CERTAIN for t in some) / len(some)
    yield f"confidence of {CERTAIN} or more: {share:.1%}"
    yield f"no file missing: {_share(known, 'complete')}; just the files: {_share(known, 'exact')}"
    for low, high in ((0.0, 0.5), (0.5, 0.8), (0.8, 0.95), (0.95, 1.01)):
        there = [one for one in known if low <= one.attribution.confidence < high]
        yield f"confidence {low:.2f}..{min(high, 1.0):.2f}: {_share(there, 'complete')}"


if __name__ == "__main__":
    before = time.process_time()
    lines = list(_table(told()))
    print(*lines, f"{time.process_time() - before:.0f} s of CPU", sep="\n")
