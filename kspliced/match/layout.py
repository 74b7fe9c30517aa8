# SPDX-License-Identifier: GPL-2.0-or-later
"""The order of a unit's functions, which is the order of its code in the kernel.

The pre object has a section for each function; the running kernel's unit was compiled without,
so its functions lie one behind the other in that order, each at its alignment.
"""

from __future__ import annotations

from kspliced.kernel.image import AddressRange
from kspliced.match.unit import Function, Unit

_SUBSECTIONS = (".text.unlikely.", ".text.startup.", ".text.exit.", ".text.hot.")


class Layout:
    """Knows each function's neighbours in the section that it would be in."""

    def __init__(self, unit: Unit) -> None:
        self._align = {index: max(s.align, 1) for index, s in unit.sections.items()}
        self._before: dict[int, Function] = {}
        self._behind: dict[int, Function] = {}
        last: dict[str, Function] = {}
        for function in sorted(unit.functions, key=lambda f: (f.section, f.value)):
            name = unit.sections[function.section].name
            kind = next((s for s in _SUBSECTIONS if name.startswith(s)), "")
            kind = kind or (".text." if name.startswith(".text.") else name)
            before = last.get(kind)
            if before is not None:
                self._before[function.index] = before
                self._behind[before.index] = function
            last[kind] = function

    def fitting(
        self, function: Function, candidates: tuple[int, ...], known: dict[int, AddressRange]
    ) -> tuple[int, ...]:
        """Those of ``candidates`` that join a neighbour, of which ``known`` has the place."""
        before = self._before.get(function.index)
        behind = self._behind.get(function.index)
        fits = []
        for address in candidates:
            end = address + function.size
            joins = False
            if before is not None and before.index in known:
                joins = self._next(known[before.index].end, function) == address
            if not joins and behind is not None and behind.index in known:
                joins = self._next(end, behind) == known[behind.index].start
            if joins:
                fits.append(address)
        return tuple(fits)

    def _next(self, end: int, following: Function) -> int:
        """Where ``following`` begins when what is before it ends at ``end``."""
        align = self._align[following.section]
        # What its section has before it is its call padding.
        return -(-end // align) * align + following.value
