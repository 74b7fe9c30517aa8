# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of the components of an upgrade."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum

from kspliced.model import Refusal
from kspliced.plan.components import Component
from kspliced.plan.headers import HeaderEdit

LATER = "the module is not loaded; it would load with the old code"


class Decision(str, Enum):
    """What becomes of a component: ``ask`` could go live but a person should look at it first,
    ``later`` is code of modules that are not loaded."""

    LIVE = "live"
    REBOOT = "reboot"
    ASK = "ask"
    LATER = "later"
    IRRELEVANT = "irrelevant"


@dataclass(frozen=True)
class Fate:
    """A component and what becomes of it; ``reasons`` unless it is live; ``targets`` are vmlinux
    and the modules that its files are part of."""

    component: Component
    decision: Decision
    reasons: tuple[Refusal, ...]
    targets: tuple[str, ...]


def each(code: str, paths: Iterable[str], reason: str) -> tuple[Refusal, ...]:
    """The same refusal of each of some files."""
    return tuple(Refusal(code, path, "", reason) for path in paths)


def header_fates(
    headers: Iterable[HeaderEdit], fates: Iterable[Fate], idle: Collection[str]
) -> Iterable[Fate]:
    """The changed headers as components of their own: each has the worst of its edits' fates, and
    an edit that of the components which need it.

    :param idle: headers that only modules which are not loaded read.
    """
    users: dict[HeaderEdit, set[Decision]] = {}
    for fate in fates:
        for header in fate.component.headers:
            users.setdefault(header, set()).add(fate.decision)
    by_path: dict[str, list[HeaderEdit]] = {}
    for header in headers:
        by_path.setdefault(header.edit.path, []).append(header)
    for path, edits in by_path.items():
        refusals = tuple(h.refusal for h in edits if h.refusal is not None)
        decisions = frozenset().union(*(users.get(header, frozenset()) for header in edits))
        decision, reasons = _header_fate(path, refusals, decisions, path in idle)
        yield Fate(Component(path, (path,), (), (), refusals), decision, reasons, ())


def _header_fate(
    path: str, refusals: tuple[Refusal, ...], decisions: frozenset[Decision], idle: bool
) -> tuple[Decision, tuple[Refusal, ...]]:
    later = each("module_not_loaded", [path], LATER)
    if idle and (refusals or Decision.LIVE not in decisions):
        return Decision.LATER, later
    if refusals:
        return Decision.REBOOT, refusals
    if decisions & {Decision.REBOOT, Decision.ASK}:
        reason = "code that needs this change does not go live"
        return Decision.REBOOT, (Refusal("needs_refused", path, "", reason),)
    order = (Decision.LATER, Decision.LIVE, Decision.IRRELEVANT)
    decision = next((d for d in order if d in decisions), Decision.IRRELEVANT)
    return decision, later if decision is Decision.LATER else ()


def header_paths(components: Iterable[Component]) -> dict[str, tuple[str, ...]]:
    """The headers with edits, by the source files that they are for."""
    found: dict[str, set[str]] = {}
    for component in components:
        paths = {header.edit.path for header in component.headers}
        for path in component.files:
            found.setdefault(path, set()).update(paths)
    return {path: tuple(sorted(paths)) for path, paths in found.items()}
