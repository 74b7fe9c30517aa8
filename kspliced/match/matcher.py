# SPDX-License-Identifier: GPL-2.0-or-later
"""Run-pre matching of the units of one target (Ksplice, EuroSys 2009, section 4.3).

A function's candidates are the addresses that kallsyms has under its name, or the one address
that matched code refers to. Whatever has one candidate left that matches is settled, which may
settle others through the addresses its code shows; what stays possible at two is ambiguous.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from kspliced.elf.object import Symbol
from kspliced.kernel.image import AddressRange, KernelImage
from kspliced.match.compare import Bindings, Failure, Trial, stem_of
from kspliced.match.diagnose import diagnose, judge_unit
from kspliced.match.layout import Layout
from kspliced.match.oracle import Oracle
from kspliced.match.pattern import Recipe
from kspliced.match.report import Cause, Mismatch
from kspliced.match.shorten import may_shorten
from kspliced.match.tables import KeyTables
from kspliced.match.unit import Function, Unit

_CODE_TYPES = frozenset("tTwW")


@dataclass(frozen=True)
class Place:
    """A matched function's run-time address and bytes, and how much was compared."""

    address: int
    found: bytes
    recipe: Recipe
    fields: int
    sites: int


class UnitMatch:
    """One unit and what became of its functions, by symbol index."""

    def __init__(self, unit: Unit, externs: dict[str, int]) -> None:
        self.unit = unit
        self.bound = Bindings(externs)
        self.places: dict[int, Place] = {}
        self.failures: dict[int, Mismatch] = {}
        self.layout = Layout(unit)

    def known(self) -> dict[int, AddressRange]:
        """Where each matched function lies, by symbol index."""
        return {
            index: AddressRange(place.address, place.address + len(place.found))
            for index, place in self.places.items()
        }

    def address_of(self, index: int) -> int | None:
        """Run-time address of symbol ``index`` of the pre object, if matching showed it."""
        symbol = self.unit.object.symbols[index]
        base = self.bound.get(symbol.section)
        return None if base is None else base + symbol.value


class TargetMatch:
    """All units of one target; they share what undefined names resolve to."""

    def __init__(self, target: str, units: Iterable[Unit], kernel: KernelImage) -> None:
        self.target = target
        self.externs: dict[str, int] = {}
        self.units = {unit.name: UnitMatch(unit, self.externs) for unit in units}
        self._kernel = kernel
        self._oracle = Oracle(kernel, target)
        self._tables = KeyTables(kernel, target)

    def run(self) -> Iterator[str]:
        """Match everything; yields each unit's name when its functions are first looked at."""
        waiting: list[tuple[UnitMatch, Function]] = []
        for match in self.units.values():
            yield match.unit.name
            functions = [f for f in match.unit.functions if not match.unit.transient(f.section)]
            # What is shorter in the kernel must be known before others show places in it, and where
            # a section is before what another unit may have overridden in it.
            functions.sort(key=lambda f: (not may_shorten(match.unit, f), f.weak))
            waiting += [(match, f) for f in functions if not self._settle(match, f)]
        while waiting:
            left = [(match, f) for match, f in waiting if not self._settle(match, f)]
            if len(left) == len(waiting):
                left = [(match, f) for match, f in waiting if not self._settle(match, f, True)]
            if len(left) == len(waiting):
                break
            waiting = left
        for match, function in waiting:
            match.failures[function.index] = self._ambiguous(match, function)
        for match in self.units.values():
            match.failures = judge_unit(match.failures, len(match.places))

    def unreferenced(self, match: UnitMatch, symbol: Symbol) -> int | None:
        """The address of a datum that no matched code shows.

        A static key is found through the kernel's jump table, a constant by its name and content,
        and so is what may be written, if it leads to what matching showed of its unit.
        """
        section = symbol.section
        base = self._tables.key_base(match.unit, section, match.bound.sections)
        bases, written = [] if base is None else [base], False
        if base is None:
            written = match.unit.leads_to(section, match.bound.sections)
            if written or match.unit.constant(section):
                named = self._kernel.symbols.stem(stem_of(symbol.name), self.target)
                bases = list(dict.fromkeys(s.address - symbol.value for s in named))
        possible = []
        for base in bases:
            trial = Trial(match.unit, self._kernel, self._oracle, match.bound)
            if not (trial.leads if written else trial.datum)(section, base):
                possible.append(trial)
        if len(possible) != 1:
            return None
        possible[0].commit()
        return match.address_of(symbol.index)

    def _settle(self, match: UnitMatch, function: Function, by_layout: bool = False) -> bool:
        """Try ``function`` at all its candidates; False when several remain possible.

        ``by_layout``: the one behind the function before it in the object, or before the function
        behind it, is meant, as a unit's code is in one piece.
        """
        if self._overridden(match, function):
            match.failures[function.index] = self._mismatch(
                match, function, 0, Failure(0, b"", b"", Cause.OVERRIDDEN, _OVERRIDDEN)
            )
            return True
        candidates = self.candidates(match, function)
        if by_layout:
            candidates = match.layout.fitting(function, candidates, match.known())
            if len(candidates) != 1:
                return False
        possible: list[tuple[int, Trial]] = []
        worst: tuple[int, Failure, bytes] | None = None
        for address in candidates:
            trial = Trial(match.unit, self._kernel, self._oracle, match.bound)
            failure = trial.function(function, address)
            if failure is None:
                possible.append((address, trial))
            elif worst is None or failure.offset > worst[1].offset:
                worst = (address, failure, trial.found)
        if len(possible) > 1:
            return False
        if possible:
            address, trial = possible[0]
            trial.commit()
            match.places[function.index] = Place(
                address, trial.found, trial.recipe, trial.fields, trial.sites
            )
        else:
            match.failures[function.index] = self._failed(match, function, worst)
        return True

    def _overridden(self, match: UnitMatch, function: Function) -> bool:
        """Whether a weak function's name leads elsewhere than its section shows it to be."""
        base = match.bound.get(function.section)
        if not function.weak or base is None:
            return False
        named = self._kernel.symbols.named(function.name, self.target)
        return all(symbol.address != base + function.value for symbol in named)

    def candidates(self, match: UnitMatch, function: Function) -> tuple[int, ...]:
        """Where ``function`` may be, each address once."""
        base = match.bound.get(function.section)
        if base is not None:
            return (base + function.value,)
        symbols = self._kernel.symbols
        found = symbols.named(function.name, self.target)
        found = found or symbols.stem(stem_of(function.name), self.target)
        return tuple(dict.fromkeys(s.address for s in found if s.type in _CODE_TYPES))

    def _failed(
        self, match: UnitMatch, function: Function, worst: tuple[int, Failure, bytes] | None
    ) -> Mismatch:
        if worst is None:
            return self._mismatch(
                match, function, 0, Failure(0, b"", b"", Cause.NO_SYMBOL, _NO_SYMBOL)
            )
        address, failure, found = worst
        if function.weak and failure.cause is Cause.OTHER_CODE:
            failure = replace(failure, cause=Cause.OVERRIDDEN, reason=_OVERRIDDEN)
        failure = diagnose(self._kernel, failure, address, found)
        return self._mismatch(match, function, address, failure)

    def _ambiguous(self, match: UnitMatch, function: Function) -> Mismatch:
        addresses = self.candidates(match, function)
        reason = f"it is equally possible at {len(addresses)} places"
        places = ", ".join(f"{a:#x}" for a in addresses)
        failure = Failure(0, b"", b"", Cause.AMBIGUOUS, reason, places)
        return self._mismatch(match, function, 0, failure)

    def _mismatch(
        self, match: UnitMatch, function: Function, address: int, failure: Failure
    ) -> Mismatch:
        return Mismatch(
            target=self.target,
            unit=match.unit.name,
            function=function.name,
            address=address,
            offset=failure.offset,
            expected=failure.expected,
            found=failure.found,
            cause=failure.cause,
            reason=failure.reason,
            evidence=failure.evidence,
        )


_OVERRIDDEN = "it is weak, and the function of this name in the kernel is another unit's"
_NO_SYMBOL = "the running kernel has no function of this name"
