# SPDX-License-Identifier: GPL-2.0-or-later
"""The safety rules against components that were labelled by hand.

    python3 -m tests.corpus.safety

Prints, for the components that the rules were made with and for those they were not, a table and
every component on which the rules and the label disagree. Compiles nothing, and looks at the
components' source files and what they use of the headers beside these: what headers elsewhere add
is missing.
"""

from __future__ import annotations

import filecmp
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kspliced.plan.components import Texts
from kspliced.plan.safety import Doubt, Policy, doubts, passes
from tests.corpus import kernels

LABELS = Path(__file__).parent / "labels" / "safety-6.1.190.tsv"
UNSEEN = LABELS.with_name("safety-6.1.190-unseen.tsv")
OLD, NEW = "6.1.187-1", "6.1.190-1"


@dataclass(frozen=True)
class Labelled:
    """``label`` is safe, person, unsafe or cannot; the file says what each means."""

    component: str
    files: tuple[str, ...]
    label: str
    reason: str


@dataclass(frozen=True)
class Judged:
    """What the rules say of a labelled component."""

    labelled: Labelled
    doubts: tuple[Doubt, ...]

    @property
    def codes(self) -> str:
        """The doubts' codes; the weak ones in parentheses."""
        found = (d.refusal.code if d.strong else f"({d.refusal.code})" for d in self.doubts)
        return " ".join(dict.fromkeys(found)) or "-"


def labelled(labels: Path = LABELS) -> tuple[Labelled, ...]:
    """The labelled components, in the order in which they were drawn."""
    rows = (line.split("\t") for line in labels.read_text().splitlines() if line[0] != "#")
    return tuple(Labelled(name, tuple(files.split()), *rest) for name, files, *rest in rows)


def judge(components: Iterable[Labelled]) -> list[Judged]:
    """Apply the rules."""
    wanted = tuple(components)
    paths = {path for component in wanted for path in component.files}
    paths |= {header for path in paths for header in _headers_beside(path)}
    texts = Texts(kernels.source(OLD), kernels.source(NEW), sorted(paths))
    return [Judged(c, _doubts(texts, c)) for c in wanted]


def _doubts(texts: Texts, component: Labelled) -> tuple[Doubt, ...]:
    edits = [edit for path in component.files for edit in texts.edits(path)]
    used = frozenset().union(*(edit.identifiers for edit in edits))
    headers = dict.fromkeys(header for path in component.files for header in _headers_beside(path))
    given = (edit for header in headers for edit in texts.edits(header) if edit.names & used)
    return doubts((*edits, *given), texts)


def _headers_beside(path: str) -> list[str]:
    """The changed headers in a source's folder."""
    new, old = kernels.source(NEW), kernels.source(OLD)
    found = (str(file.relative_to(new)) for file in (new / path).parent.glob("*.h"))
    return sorted(
        name
        for name in found
        if (old / name).is_file() and not filecmp.cmp(old / name, new / name, shallow=False)
    )


def passing(judged: Iterable[Judged], policy: Policy, label: str) -> list[Judged]:
    """Those with ``label`` that go live by themselves."""
    return [j for j in judged if j.labelled.label == label and passes(policy, j.doubts)]


def disagreements(judged: Iterable[Judged]) -> list[Judged]:
    """Those doubted though safe, and those not doubted though somebody should look."""
    return [
        j
        for j in judged
        if j.labelled.label != "cannot" and bool(j.doubts) != (j.labelled.label != "safe")
    ]


def table(judged: list[Judged]) -> str:
    """Precision and recall of what the rules doubt, in Markdown.

    Precision: of those doubted, the part not labelled safe. Recall: of those labelled unsafe, and
    of those labelled unsafe or person, the part doubted. ``cannot`` is left out of all of it."""
    lines = [
        "| policy | safe that pass | doubted | precision | recall, unsafe | with person |",
        "|---|---|---|---|---|---|",
    ]
    known = [j for j in judged if j.labelled.label != "cannot"]
    for policy in (Policy.CONSERVATIVE, Policy.NORMAL):
        passed = {label: passing(known, policy, label) for label in ("safe", "person", "unsafe")}
        every = {label: [j for j in known if j.labelled.label == label] for label in passed}
        caught = {label: len(every[label]) - len(passed[label]) for label in passed}
        bad, alarms = caught["person"] + caught["unsafe"], sum(caught.values())
        part = [
            _part(len(passed["safe"]), len(every["safe"])),
            str(alarms),
            _part(bad, alarms),
            _part(caught["unsafe"], len(every["unsafe"])),
            _part(bad, len(every["unsafe"]) + len(every["person"])),
        ]
        lines.append(f"| {policy.value} | {' | '.join(part)} |")
    return "\n".join(lines)


def _part(some: int, every: int) -> str:
    return f"{some} of {every} ({100 * some // every} %)" if every else "none"


def main() -> int:
    """Print the table and the disagreements."""
    for labels in (LABELS, UNSEEN):
        judged = judge(labelled(labels))
        print(f"\n{labels.name}\n{table(judged)}")
        _print_disagreements(judged)
    return 0


def _print_disagreements(judged: list[Judged]) -> None:
    for found in disagreements(judged):
        what = found.labelled
        print(f"\n{what.component}: {what.label}, but {found.codes}\n  label: {what.reason}")
        for doubt in found.doubts:
            refusal = doubt.refusal
            print(f"  {refusal.code}: {refusal.unit} {refusal.symbol}: {refusal.evidence}")


if __name__ == "__main__":
    raise SystemExit(main())
