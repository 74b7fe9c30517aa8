# SPDX-License-Identifier: GPL-2.0-or-later
"""What of an upgrade the caller wants."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatch

from kspliced.plan.attribution import Attribution
from kspliced.plan.components import Decomposition
from kspliced.plan.safety import Policy


@dataclass(frozen=True)
class Wish:
    """What the caller wants: a policy, globs of units to leave out, and of the only ones to take,
    if not all; ``told`` is what the changelog's entries are about; ``foreign`` are loaded modules
    that are not of the kernel's own tree."""

    policy: Policy
    exclude: tuple[str, ...]
    only: tuple[str, ...] = ()
    told: tuple[Attribution, ...] = ()
    foreign: frozenset[str] = frozenset()

    def leaves_out(self, unit: str) -> bool:
        """Whether the caller named ``unit``, an object, as one to leave out."""
        return any(fnmatch(unit, glob) for glob in self.exclude)

    def takes(self, source: str) -> bool:
        """Whether the caller wants the unit of ``source``, for what it says about others."""
        unit = f"{source.rpartition('.')[0]}.o"
        return not self.only or any(fnmatch(unit, glob) for glob in self.only)


def wanted(found: Decomposition, wish: Wish) -> Decomposition:
    """What of a decomposition is asked for: components with a unit that is, whole."""
    if not wish.only:
        return found
    components = tuple(c for c in found.components if any(map(wish.takes, c.files)))
    files = {path for component in components for path in component.files}
    headers = {header for component in components for header in component.headers}
    return replace(
        found,
        components=components,
        headers=tuple(header for header in found.headers if header in headers),
        sources=tuple(node for node in found.sources if node.path in files),
    )
