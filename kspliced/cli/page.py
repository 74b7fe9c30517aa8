# SPDX-License-Identifier: GPL-2.0-or-later
"""One self-contained page of an upgrade: no script, style or font comes from elsewhere."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib.resources import files

from kspliced.build.fates import Decision
from kspliced.build.plan import Component, EntryStatus, Lines, Plan, PlannedEntry
from kspliced.lines import split_lines

_WORDS = {
    "live": "can go live",
    "reboot": "needs a reboot",
    "ask": "look at it first",
    "later": "module not loaded",
    "irrelevant": "not in this kernel",
    "absent": "not in this kernel",
    "unknown": "unknown",
}
_ORDER = (Decision.REBOOT, Decision.ASK, Decision.LIVE, Decision.LATER, Decision.IRRELEVANT)
# Lines of one file's difference, and files of one component that are not code of this kernel.
_MOST_LINES, _MOST_FILES = 400, 200
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? ")


def page(title: str, plan: Plan, diffs: Mapping[str, str]) -> str:
    """The page, as HTML.

    :param title: what the upgrade is, ``6.1.187-1 to 6.1.190-1``.
    :param diffs: unified differences by path.
    """
    entries: dict[str, list[PlannedEntry]] = defaultdict(list)
    for entry in plan.entries:
        for name in entry.components:
            entries[name].append(entry)
    components = sorted(plan.components, key=lambda c: (_ORDER.index(c.decision), c.id))
    body = (
        *_summary(title, plan),
        *_subsystems(plan.components),
        *_filter(),
        '<section id="components"><h2>Components</h2>',
        *(part for c in components for part in _component(c, entries[c.id], diffs)),
        "</section>",
        '<section id="entries"><h2>Changelog</h2>',
        *(_entry(entry) for entry in plan.entries),
        "</section>",
    )
    parts = files("kspliced.cli")
    style = parts.joinpath("page.css").read_text("utf-8")
    script = parts.joinpath("page.js").read_text("utf-8")
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
            "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>\n{style}</style></head><body>",
            *body,
            f"<script>\n{script}</script></body></html>\n",
        )
    )


def _summary(title: str, plan: Plan) -> Iterator[str]:
    totals = plan.totals
    touched = totals.cves - totals.cves_absent
    yield f"<header><h1>{escape(title)}</h1>"
    yield (
        f'<p class="verdict">{totals.cves_live} of {touched} CVE fixes that touch this kernel '
        f"go live; {totals.cves_reboot} need a reboot, {totals.cves_ask} should be looked at "
        f"first, {totals.cves_later} are in modules that are not loaded, "
        f"{totals.cves_unknown} could not be told.</p>"
    )
    numbers = (
        ("live", totals.live), ("reboot", totals.reboot), ("ask", totals.ask),
        ("later", totals.later),
    )  # fmt: skip
    whole = sum(number for _, number in numbers) or 1
    yield '<div class="bar" role="img" aria-label="components by decision">'
    for name, number in numbers:
        yield f'<span class="{name}" style="flex-grow:{number / whole:.4f}"></span>'
    yield '</div><ul class="legend">'
    for name, number in numbers:
        yield f'<li><b class="{name}">{number}</b> {_WORDS[name]}</li>'
    yield f"<li><b>{totals.entries}</b> changelog entries</li></ul></header>"


def _subsystems(components: Iterable[Component]) -> Iterator[str]:
    """How many components of each subsystem have which decision."""
    counts: dict[str, Counter[Decision]] = defaultdict(Counter)
    for component in components:
        if component.decision is not Decision.IRRELEVANT and component.files:
            counts[_subsystem(component.files[0])][component.decision] += 1
    shown = [decision for decision in _ORDER if decision is not Decision.IRRELEVANT]
    yield '<section id="subsystems"><h2>Subsystems</h2><div class="wide"><table><tr><th></th>'
    yield "".join(f"<th>{_WORDS[decision.value]}</th>" for decision in shown) + "</tr>"
    for name, found in sorted(counts.items(), key=lambda item: (-item[1].total(), item[0])):
        cells = "".join(f"<td>{found[decision] or ''}</td>" for decision in shown)
        yield f"<tr><th>{escape(name)}</th>{cells}</tr>"
    yield "</table></div></section>"


def _subsystem(path: str) -> str:
    return "/".join(path.split("/")[:2]) if path.count("/") > 1 else path.split("/")[0]


def _filter() -> Iterator[str]:
    yield '<form id="filter"><input type="search" placeholder="search: file, function, CVE, word">'
    for name in ("live", "reboot", "ask", "later", "irrelevant"):
        checked = " checked" if name != "irrelevant" else ""
        yield (
            f'<label class="{name}"><input type="checkbox" value="{name}"{checked}> '
            f"{_WORDS[name]}</label>"
        )
    yield '<output id="count"></output></form>'


def _component(
    component: Component, entries: list[PlannedEntry], diffs: Mapping[str, str]
) -> Iterator[str]:
    name = component.decision.value
    cves = sorted({cve for entry in entries for cve in entry.cves})
    yield f'<details class="component" data-decision="{name}"><summary>'
    yield f'<span class="badge {name}">{_WORDS[name]}</span> <code>{escape(component.id)}</code>'
    notes = [*component.targets[:3], *(cves if len(cves) < 2 else [f"{len(cves)} CVEs"])]
    yield f'<span class="notes">{escape(", ".join(notes))}</span></summary>'
    for reason in component.reasons:
        yield (
            f'<p class="reason"><b>{escape(reason.code)}</b> {escape(reason.reason)}'
            f"<br><code>{escape(reason.evidence)}</code></p>"
        )
    if component.functions:
        yield f"<p>functions: <code>{escape(', '.join(component.functions))}</code></p>"
    yield from (_entry(entry) for entry in entries)
    for path in component.files[:_MOST_FILES]:
        yield _diff(path, _part(diffs.get(path), [n for n in component.lines if n.file == path]))
    if len(component.files) > _MOST_FILES:
        yield f"<p>and {len(component.files) - _MOST_FILES} further files</p>"
    yield "</details>"


def _entry(entry: PlannedEntry) -> str:
    status = entry.status.value
    told = entry.status is not EntryStatus.UNKNOWN
    sure = f", {entry.confidence:.0%} sure" if told else ""
    sure += f": {escape(entry.reason)}" if entry.reason else ""
    cves = " ".join(f"<b>{escape(cve)}</b>" for cve in entry.cves)
    return (
        f'<p class="entry"><span class="badge {status}">{_WORDS[status]}</span> '
        f'{escape(entry.subject)} {cves}<span class="notes">{sure}</span></p>'
    )


def _part(text: str | None, lines: list[Lines]) -> str | None:
    """The hunks of a unified difference that hold some of ``lines``, or all if there are none."""
    if text is None or not lines:
        return text
    head, *hunks = re.split(r"^(?=@@ )", text, flags=re.MULTILINE)
    return head + "".join(hunk for hunk in hunks if any(_holds(hunk, part) for part in lines))


def _holds(hunk: str, lines: Lines) -> bool:
    found = _HUNK.match(hunk)
    if found is None:
        return True
    start, count = int(found.group(1)), int(found.group(2) or 1)
    return lines.start < start + count and start <= lines.end


def _diff(path: str, text: str | None) -> str:
    if text is None:
        return f"<p><code>{escape(path)}</code></p>"
    lines = split_lines(text)
    marked = (f'<span class="{_side(line)}">{escape(line)}</span>' for line in lines[:_MOST_LINES])
    more = len(lines) - _MOST_LINES
    rest = f"<p>and {more} further lines</p>" if more > 0 else ""
    return f'<div class="wide"><pre>{chr(10).join(marked)}</pre></div>{rest}'


def _side(line: str) -> str:
    if line.startswith(("+++", "---")):
        return "file"
    return {"+": "plus", "-": "minus", "@": "at"}.get(line[:1], "same")
