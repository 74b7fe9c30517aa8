# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions that static initialisers store, read from an object: its relocations say where in a
variable a function's address is, its BTF which member that is.

GCC's BTF has every variable that a unit defines outside of functions.
"""

from __future__ import annotations

from collections.abc import Iterator

from kspliced.build.btf import AGGREGATES, SECTION, Kind, Types
from kspliced.elf.object import Object, Relocation, Section, Symbol, SymbolType
from kspliced.elf.x86 import R_X86_64_64
from kspliced.errors import BuildError, Code
from kspliced.facts.tables import Step, TableSlot

_BITS = 8
# Members inside of members: no kernel has that many.
_DEEPEST = 32


def table_slots(obj: Object) -> tuple[TableSlot, ...]:
    """The functions in an object's variables, in the order of sections and offsets.

    Of a function in a variable that BTF does not have (a function's own static one) it is not
    known where. What is in no variable (``__mcount_loc``) is left out.

    :raises BuildError: OBJECT_MALFORMED, the BTF is.
    """
    section = obj.section_named(SECTION)
    try:
        return tuple(_Reader(obj, Types(section.data) if section is not None else None).slots())
    except (ValueError, IndexError) as error:
        raise BuildError(Code.OBJECT_MALFORMED, f"malformed BTF: {error}") from error


class _Reader:
    def __init__(self, obj: Object, types: Types | None) -> None:
        self._obj, self._types = obj, types
        self._variables: dict[str, set[int]] = {}
        self._typedefs: dict[int, str] = {}
        for one in types.all if types is not None else ():
            if one.kind is Kind.VAR:
                self._variables.setdefault(one.name, set()).add(one.value)
            elif one.kind is Kind.TYPEDEF:
                self._typedefs.setdefault(one.value, one.name)
        self._owners: dict[int, list[Symbol]] = {}
        self._functions: dict[tuple[int, int], str] = {}
        for symbol in obj.symbols:
            if symbol.defined and symbol.type is SymbolType.OBJECT:
                self._owners.setdefault(symbol.section, []).append(symbol)
            elif symbol.defined and symbol.type is SymbolType.FUNC:
                self._functions.setdefault((symbol.section, symbol.value), symbol.name)

    def slots(self) -> Iterator[TableSlot]:
        for section in self._obj.sections:
            if not section.alloc or section.executable:
                continue
            for relocation in section.relocations:
                if relocation.type == R_X86_64_64:
                    yield from self._stored(section, relocation)

    def _stored(self, section: Section, relocation: Relocation) -> Iterator[TableSlot]:
        owner = next(
            (
                symbol
                for symbol in self._owners.get(section.index, ())
                if symbol.value <= relocation.offset < symbol.value + symbol.size
            ),
            None,
        )
        if owner is None:
            return
        known, name = self._function(relocation)
        places = dict(self._places(owner, _BITS * (relocation.offset - owner.value)))
        for steps, pointer in places.items():
            if known or pointer:
                yield TableSlot(owner.name, steps, name)
        if known and not places:
            yield TableSlot(owner.name, None, name)

    def _function(self, relocation: Relocation) -> tuple[bool, str]:
        """Whether it is known to be a function, and its name or the symbol's."""
        symbol = self._obj.symbols[relocation.symbol]
        if symbol.type is SymbolType.FUNC:
            return True, symbol.name
        if symbol.defined and symbol.type is SymbolType.SECTION:
            place = (symbol.section, symbol.value + relocation.addend)
            named = self._functions.get(place, "")
            return bool(named), named
        return False, symbol.name

    def _places(self, owner: Symbol, offset: int) -> Iterator[tuple[tuple[Step, ...], bool]]:
        """The members at a bit of a variable, as steps, and whether they point to functions."""
        for number in sorted(self._variables.get(owner.name, ())):
            yield from self._within(number, offset, (), "")

    def _within(
        self, number: int, offset: int, steps: tuple[Step, ...], around: str
    ) -> Iterator[tuple[tuple[Step, ...], bool]]:
        """As :meth:`_places`; ``around``: the type that members of one without a name count to."""
        types = self._types
        if types is None or len(steps) > _DEEPEST:
            return
        number = types.plain(number)
        one = types.all[number]
        if one.kind is Kind.PTR:
            target = types.all[types.plain(one.value)]
            yield steps, target.kind is Kind.FUNC_PROTO
        elif one.kind is Kind.ARRAY:
            element, _ = types.array(number)
            size = _BITS * types.size(element)
            if size:
                yield from self._within(element, offset % size, steps, "")
        elif one.kind in AGGREGATES:
            holder = self._named(number) or around
            for member in types.members(number):
                size = max(_BITS * types.size(member.type), member.width)
                # An array without a length is at the end, and as long as what is stored in it.
                if member.offset <= offset and (offset < member.offset + size or not size):
                    inside = (*steps, Step(holder, member.name)) if member.name else steps
                    rest = "" if member.name else holder
                    yield from self._within(member.type, offset - member.offset, inside, rest)
        else:
            yield steps, False

    def _named(self, number: int) -> str:
        if self._types is None:
            return ""
        one = self._types.all[number]
        name = one.name or self._typedefs.get(number, "")
        return f"{one.kind.name.lower()} {name}" if name else ""
