# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of the components of an upgrade."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from kspliced.model import Refusal
from kspliced.plan.components import Component, SourceNode
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
    and the modules that its files are part of; ``later`` those of its files that only modules which
    are not loaded are made of."""

    component: Component
    decision: Decision
    reasons: tuple[Refusal, ...]
    targets: tuple[str, ...]
    later: tuple[str, ...] = ()


def each(code: str, paths: Iterable[str], reason: str) -> tuple[Refusal, ...]:
    """The same refusal of each of some files."""
    return tuple(Refusal(code, path, "", reason) for path in paths)


def header_fates(
    headers: Iterable[HeaderEdit], fates: Iterable[Fate], idle: Collection[str]
) -> Iterator[Fate]:
    """The changed headers as components of their own. An edit has the worst fate of the components
    that need it; edits of a header with different fates are parts of it.

    :param idle: headers that only modules which are not loaded read.
    """
    found = tuple(headers)
    users = _Users(found, tuple(fates))
    by_path: dict[str, dict[Decision, list[HeaderEdit]]] = {}
    for header in found:
        path = header.edit.path
        decision = _header_fate(header, users.decisions(header), path in idle)
        by_path.setdefault(path, {}).setdefault(decision, []).append(header)
    for path, parts in by_path.items():
        for decision, some in parts.items():
            component = _header_component(path, some, len(parts) > 1)
            yield Fate(component, decision, _header_reasons(path, decision, component.refused), ())


class _Users:
    """Which components need each edit of a header, told by what becomes of them."""

    def __init__(self, headers: tuple[HeaderEdit, ...], fates: tuple[Fate, ...]) -> None:
        self._headers, self._fates = headers, fates
        self._needed: dict[HeaderEdit, set[Decision]] = {}
        self._refused: dict[Refusal, set[Decision]] = {}
        for fate in fates:
            for header in fate.component.headers:
                self._needed.setdefault(header, set()).add(fate.decision)
            for refusal in fate.component.refused:
                self._refused.setdefault(refusal, set()).add(fate.decision)

    def decisions(self, header: HeaderEdit) -> frozenset[Decision]:
        """The fates of those that need an edit."""
        if header.refusal is None:
            return frozenset(self._needed.get(header, ()))
        if not header.only_members:
            return frozenset({Decision.REBOOT})
        # A member that nothing mentions does nothing: objects merely have another size.
        found = set(self._refused.get(header.refusal, ()))
        for fate in self._fates:
            if any(node.mentioned & header.names for node in fate.component.nodes):
                found.add(fate.decision)
        if any(other is not header and self._uses(other, header) for other in self._headers):
            found.add(Decision.REBOOT)
        return frozenset(found)

    @staticmethod
    def _uses(other: HeaderEdit, header: HeaderEdit) -> bool:
        return bool(other.edit.identifiers & header.names)


def _header_fate(header: HeaderEdit, decisions: frozenset[Decision], idle: bool) -> Decision:
    refused = header.refusal is not None
    if idle and (refused or Decision.LIVE not in decisions):
        return Decision.LATER
    if refused and decisions - {Decision.LATER, Decision.IRRELEVANT}:
        return Decision.REBOOT
    order = (Decision.REBOOT, Decision.ASK, Decision.LATER, Decision.LIVE)
    return next((d for d in order if d in decisions), Decision.IRRELEVANT)


def _header_component(path: str, headers: list[HeaderEdit], part: bool) -> Component:
    """Edits of a header as a component, of which others may be ``part`` of the header, too."""
    edits = tuple(header.edit for header in headers)
    start = min(edit.hunks[0].old_start for edit in edits)
    name = min((name for edit in edits for name in edit.names), default=f"line {start}")
    none: frozenset[str] = frozenset()
    node = SourceNode(f"{path}:{name}" if part else path, path, edits, (), none, none, none)
    return Component(
        id=node.id,
        files=(path,),
        headers=(),
        needs=(),
        refused=tuple(h.refusal for h in headers if h.refusal is not None),
        nodes=(node,),
        divided=(path,) if part else (),
    )


def _header_reasons(
    path: str, decision: Decision, refused: tuple[Refusal, ...]
) -> tuple[Refusal, ...]:
    if decision is Decision.LATER:
        return each("module_not_loaded", [path], LATER)
    if decision in (Decision.REBOOT, Decision.ASK):
        reason = "code that needs this change does not go live"
        if decision is Decision.ASK:
            reason = "code that needs this change should be looked at first"
        return refused or (Refusal("needs_refused", path, "", reason),)
    return ()


def header_paths(components: Iterable[Component]) -> dict[str, tuple[str, ...]]:
    """The headers with edits, by the source files that they are for."""
    found: dict[str, set[str]] = {}
    for component in components:
        paths = {header.edit.path for header in component.headers}
        for path in component.files:
            found.setdefault(path, set()).update(paths)
    return {path: tuple(sorted(paths)) for path, paths in found.items()}
