# SPDX-License-Identifier: GPL-2.0-or-later
"""From a matched target to the addresses of an update's imports and spans."""

from __future__ import annotations

from kspliced.elf.object import Binding, Symbol
from kspliced.errors import Code, MatchError, PackError
from kspliced.kernel.image import KernelImage
from kspliced.kernel.memory import is_gone
from kspliced.match.matcher import TargetMatch, UnitMatch
from kspliced.match.oracle import Oracle
from kspliced.match.report import (
    REMEDIES,
    Cause,
    MatchedConstant,
    MatchedDatum,
    MatchedSpan,
    Mismatch,
    NoMatchError,
    ResolvedImport,
)
from kspliced.match.unit import Function
from kspliced.model import VMLINUX, Datum, Import, ImportKind, RuntimeConstant, Span

_POINTER = 8
_REBUILD = "build the pack again"
_OTHER = "build the update on this machine's kernel source, or apply it after the next reboot"


class Resolver:
    """Answers for one kernel, after all targets were matched."""

    def __init__(self, kernel: KernelImage, targets: dict[str, TargetMatch]) -> None:
        self._kernel = kernel
        self._targets = targets

    def address(self, wanted: Import) -> ResolvedImport:
        """The run-time address, or per-CPU offset, of an import that is not the core's.

        :raises MatchError: NO_MATCH, AMBIGUOUS, UNRESOLVED.
        :raises PackError: PACK_MALFORMED.
        """
        unit = wanted.kind is ImportKind.UNIT
        address = self._unit_symbol(wanted) if unit else self._extern(wanted)
        # A module's symbols for start-up go with what they name; those of vmlinux remain.
        if is_gone(self._kernel.memory(address, VMLINUX)):
            raise MatchError(
                Code.UNRESOLVED,
                f"{wanted.unit or wanted.target}: new code uses {wanted.symbol}, which the kernel "
                "has freed after start-up",
                _OTHER,
            )
        return ResolvedImport(wanted.name, address)

    def span(self, span: Span) -> MatchedSpan:
        """A span's address and bytes; errors as :meth:`address`."""
        match = self._unit(span.target, span.unit)
        function = _function(match, span.index)
        if function is None or function.name != span.symbol or function.size != span.size:
            raise PackError(
                Code.PACK_MALFORMED,
                f"the pack's span {span.symbol[:80]!r} is no function of {span.unit[:80]!r}",
                _REBUILD,
            )
        place = match.places.get(span.index)
        if place is None:
            raise _unmatched(match, span.index, span.symbol)
        patcher = self._kernel.redirected(function.name, span.target)
        if patcher:
            raise _redirected(match, function, place.address, patcher)
        # Where the kernel's is shorter, what follows is neither compared nor ours.
        rest = bytes(span.size - len(place.found))
        mask = place.recipe.mask() + rest
        jump = span.jump_offset
        if jump >= 0 and mask[jump : jump + 5] != b"\xff" * 5:
            raise PackError(
                Code.PACK_MALFORMED,
                f"the pack would put a jump over code of {span.symbol} that the kernel rewrites",
                _REBUILD,
            )
        return MatchedSpan(span, place.address, place.found + rest, mask)

    def datum(self, datum: Datum) -> MatchedDatum:
        """Where a datum is, and its bytes; errors as :meth:`address`."""
        match = self._unit(datum.target, datum.unit)
        symbols = match.unit.object.symbols
        symbol = symbols[datum.index] if 0 <= datum.index < len(symbols) else None
        if symbol is None or not _is_datum(match, symbol, datum):
            raise PackError(
                Code.PACK_MALFORMED,
                f"the pack's {datum.symbol[:80]!r} is no constant of {datum.unit[:80]!r}",
                _REBUILD,
            )
        wanted = Import(
            datum.import_name, ImportKind.UNIT, datum.target, datum.unit, datum.symbol, datum.index
        )
        # What matched code refers to has the compiled content, or it would not match.
        address = self._unit_symbol(wanted) + datum.offset
        found = self._kernel.read(address, datum.size)
        if any(found) and not match.unit.constant(symbol.section):
            raise MatchError(
                Code.NO_MATCH,
                f"{datum.target}: {datum.symbol} has a callback at {datum.offset} already, which "
                "another update or module has set",
                _OTHER,
            )
        return MatchedDatum(datum, address, found)

    def constant(self, constant: RuntimeConstant) -> MatchedConstant:
        """A runtime constant's value; errors as :meth:`address`."""
        if constant.size not in (1, 8):
            raise PackError(
                Code.PACK_MALFORMED,
                f"the pack has a runtime constant of {constant.size} bytes",
                _REBUILD,
            )
        value = Oracle(self._kernel, VMLINUX).runtime_constant(constant.variable)
        if value is None:
            raise MatchError(
                Code.UNRESOLVED,
                f"the running kernel has not one {constant.variable[:80]!r}, of which new code "
                "needs the value",
                _OTHER,
            )
        return MatchedConstant(constant, value.to_bytes(8, "little")[: constant.size])

    def _unit(self, target: str, unit: str) -> UnitMatch:
        match = self._targets[target].units.get(unit) if target in self._targets else None
        if match is None:
            raise PackError(
                Code.PACK_MALFORMED,
                f"the pack refers to unit {unit[:80]!r} of {target[:80]!r} but does not hold it",
                _REBUILD,
            )
        return match

    def _unit_symbol(self, wanted: Import) -> int:
        match = self._unit(wanted.target, wanted.unit)
        symbols = match.unit.object.symbols
        if not 0 <= wanted.index < len(symbols) or symbols[wanted.index].name != wanted.symbol:
            raise PackError(
                Code.PACK_MALFORMED,
                f"the pack's import {wanted.symbol[:80]!r} is no symbol of {wanted.unit[:80]!r}",
                _REBUILD,
            )
        symbol = symbols[wanted.index]
        function = _function(match, wanted.index)
        if function is not None:
            place = match.places.get(wanted.index)
            if place is None and function.weak:
                return self._extern(wanted)
            if place is None:
                raise _unmatched(match, wanted.index, wanted.symbol)
            return place.address
        if symbol.binding is Binding.WEAK:
            return self._extern(wanted)
        address = match.address_of(wanted.index)
        if address is None and symbol.defined:
            address = self._targets[wanted.target].unreferenced(match, symbol)
        if address is None and symbol.defined and symbol.binding is not Binding.LOCAL:
            return self._extern(wanted)
        if address is None:
            raise MatchError(
                Code.UNRESOLVED,
                f"{wanted.unit}: no matched code shows where {wanted.symbol} is",
                _OTHER,
            )
        return address

    def _extern(self, wanted: Import) -> int:
        """By the scope of ld and the module loader: the target's own, or what others export.

        An upgrade may export a function of the kernel proper for a module's new code. The hot
        kernel does not export it, but knows one function of that name.
        """
        target, name = wanted.target, wanted.symbol
        if target in self._targets:
            shown = self._targets[target].externs.get(name)
            shown = shown if shown is not None else self._defined(target, name)
            if shown is not None:
                return shown
        symbols = self._kernel.symbols
        own = symbols.named(name, target)
        if target == VMLINUX:
            own = tuple(s for s in own if s.type.isupper())
            found = own
        else:
            found = own + symbols.exported(name)
            found = found or tuple(s for s in symbols.named(name, VMLINUX) if s.type.isupper())
        addresses = sorted({s.address for s in found})
        if not addresses:
            raise MatchError(
                Code.UNRESOLVED, f"{target}: the running kernel has no global symbol {name}", _OTHER
            )
        if len(addresses) > 1:
            where = ", ".join(sorted({s.target for s in found}))
            text = f"{target}: {name} may be any of {len(addresses)} symbols of {where}"
            places = sorted({f"{name} at {s.address:#x} [{s.target}]" for s in found})
            raise MatchError(Code.AMBIGUOUS, text, _OTHER, (), tuple(places))
        return addresses[0]

    def _defined(self, target: str, name: str) -> int | None:
        """The address of ``name`` if a matched unit of ``target`` defines it for others."""
        for match in self._targets[target].units.values():
            for symbol in match.unit.object.symbols:
                if symbol.name == name and symbol.defined and _shared(symbol):
                    function = _function(match, symbol.index)
                    if function is None or symbol.index in match.places:
                        return match.address_of(symbol.index)
        return None


def _shared(symbol: Symbol) -> bool:
    return symbol.binding is Binding.GLOBAL


def _is_datum(match: UnitMatch, symbol: Symbol, datum: Datum) -> bool:
    """Whether a symbol is a constant, or has a pointer where the pack says so."""
    if match.unit.constant(symbol.section):
        return datum.offset == 0 and datum.size == symbol.size
    inside = 0 <= datum.offset <= symbol.size - _POINTER and datum.offset % _POINTER == 0
    return match.unit.data(symbol.section) and inside and datum.size == _POINTER


def _function(match: UnitMatch, index: int) -> Function | None:
    return next((f for f in match.unit.functions if f.index == index), None)


def _unmatched(match: UnitMatch, index: int, symbol: str) -> MatchError:
    mismatch = match.failures.get(index)
    if mismatch is None:
        return MatchError(
            Code.UNRESOLVED,
            f"{match.unit.name}: {symbol} is code that is gone after boot",
            _OTHER,
        )
    if mismatch.cause is Cause.AMBIGUOUS:
        return NoMatchError(Code.AMBIGUOUS, mismatch.summary(), _OTHER, (mismatch,))
    remedy = REMEDIES.get(mismatch.cause, _OTHER)
    others = tuple(m for i, m in sorted(match.failures.items()) if i != index)
    return NoMatchError(Code.NO_MATCH, mismatch.summary(), remedy, (mismatch, *others))


def _redirected(match: UnitMatch, function: Function, address: int, patcher: str) -> NoMatchError:
    mismatch = Mismatch(
        target=match.unit.target,
        unit=match.unit.name,
        function=function.name,
        address=address,
        offset=0,
        expected=b"",
        found=b"",
        cause=Cause.LIVEPATCH,
        reason=f"{patcher} replaces it",
    )
    return NoMatchError(Code.NO_MATCH, mismatch.summary(), REMEDIES[Cause.LIVEPATCH], (mismatch,))
