# SPDX-License-Identifier: GPL-2.0-or-later
"""Jumps that are longer in the pre object than in the running kernel.

With a section for each function, a jump from one function to another is relocated and has 32
bits. In the kernel both are in one section, so gas resolved it, with 8 bits where that is enough
(relax_segment() in gas/write.c). All behind it then lies nearer, which may let jumps inside the
function shrink as well, and changes their displacements. Measured on 6.1.0-53: 16 of 5174
functions.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace

from kspliced.match.pattern import Bound, Field, Recipe
from kspliced.match.unit import Function, Unit

_JMP32, _JMP8 = 0xE9, 0xEB
_SHORT_JCC = range(0x70, 0x80)
_NEAR_JCC = range(0x80, 0x90)
_LOOPS = range(0xE0, 0xE4)


@dataclass(frozen=True)
class Cuts:
    """Where a section's code is shorter in the kernel: ``ends`` are the offsets, in the pre
    object's section, behind the jumps that shrank; ``removed[i]`` bytes are gone before ends[i]'s
    instruction's end, all earlier ones included."""

    ends: tuple[int, ...]
    removed: tuple[int, ...]

    def shift(self, offset: int) -> int:
        """How many bytes nearer what the pre object has at ``offset`` is in the kernel."""
        number = bisect_right(self.ends, offset)
        return self.removed[number - 1] if number else 0


@dataclass(frozen=True)
class Shortened:
    """The recipe of a function with short jumps, and where its section lost bytes."""

    recipe: Recipe
    cuts: Cuts


def may_shorten(unit: Unit, function: Function) -> bool:
    """Whether ``function`` jumps to another function of its unit."""
    recipe = unit.recipe(function.section, function.value, function.size)
    code = unit.sections[function.section].data
    return any(
        isinstance(f.want.key, int) and code[function.value + f.offset - 1] == _JMP32
        for f in recipe.fields
        if isinstance(f.want, Bound) and f.relative and f.offset
    )


def shorten(unit: Unit, function: Function, found: bytes) -> Shortened | None:
    """What ``function`` is when the jumps that ``found`` has short are short.

    None when ``found`` has none of them short; whether all else fits is for the caller to compare.
    """
    recipe = unit.recipe(function.section, function.value, function.size)
    start = function.value
    code = unit.sections[function.section].data[start : start + function.size]
    branches = _branches(code, recipe)
    ends: list[int] = []
    removed: list[int] = []
    for branch in branches:
        gone = removed[-1] if removed else 0
        at = branch.offset - gone
        if branch.long and found[at : at + 1] == bytes((branch.short_opcode,)):
            ends.append(branch.end)
            removed.append(gone + branch.end - branch.offset - 2)
    if not ends:
        return None
    cuts = Cuts(tuple(ends), tuple(removed))
    shrunk = frozenset(ends)
    data = bytearray()
    fields = {f.offset: f for f in recipe.fields}
    last = 0
    for branch in branches:
        data += recipe.data[last : branch.offset]
        last = branch.end
        encoded = _encoded(branch, cuts, shrunk, code)
        if encoded is None:
            return None
        data += encoded
        if branch.end in shrunk and branch.field is not None:
            fields[branch.field.offset] = _short_field(branch)
    data += recipe.data[last:]
    moved = tuple(f.moved(-cuts.shift(offset)) for offset, f in fields.items())
    sites = tuple(replace(s, offset=s.offset - cuts.shift(s.offset)) for s in recipe.sites)
    whole = Cuts(tuple(e + start for e in ends), tuple(removed))
    return Shortened(Recipe(bytes(data), moved, sites), whole)


@dataclass(frozen=True)
class _Branch:
    """A direct jump: ``field`` if relocated, else ``target`` in the function's own offsets."""

    offset: int
    end: int
    long: bool
    short_opcode: int
    field: Field | None
    target: int


def _branches(code: bytes, recipe: Recipe) -> tuple[_Branch, ...]:
    import capstone  # costs more than matching itself, so only for the few that need it

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.skipdata = True
    fields = {f.offset: f for f in recipe.fields}
    holes = {n for s in recipe.sites for n in range(s.offset, s.offset + s.size)}
    found = []
    for offset, size, _, _ in decoder.disasm_lite(code, 0):
        branch = _branch(code, offset, offset + size, fields)
        if branch is not None and offset not in holes:
            found.append(branch)
    return tuple(found)


def _branch(code: bytes, offset: int, end: int, fields: dict[int, Field]) -> _Branch | None:
    first, size = code[offset], end - offset
    if first == 0x0F and size == 6 and code[offset + 1] in _NEAR_JCC:
        width, short = 4, code[offset + 1] - 0x10
    elif first == _JMP32 and size == 5:
        width, short = 4, _JMP8
    elif size == 2 and (first == _JMP8 or first in _SHORT_JCC or first in _LOOPS):
        width, short = 1, first
    else:
        return None
    field = fields.get(end - width)
    distance = int.from_bytes(code[end - width : end], "little", signed=True)
    return _Branch(offset, end, width == 4, short, field, end + distance)


def _encoded(branch: _Branch, cuts: Cuts, shrunk: frozenset[int], code: bytes) -> bytes | None:
    """The branch as it is in the kernel, with zeros if its displacement is relocated.

    None when it cannot reach so far: then the kernel's code only looks as if it had shrunk.
    """
    if branch.end in shrunk:
        opcode, width = bytes((branch.short_opcode,)), 1
    else:
        width = 4 if branch.long else 1
        opcode = code[branch.offset : branch.end - width]
    if branch.field is not None:
        return opcode + bytes(width)
    goal = branch.target - cuts.shift(branch.target)
    distance = goal - (branch.end - cuts.shift(branch.end))
    limit = 1 << (8 * width - 1)
    if not -limit <= distance < limit:
        return None
    return opcode + distance.to_bytes(width, "little", signed=True)


def _short_field(branch: _Branch) -> Field:
    """The relocated field of a jump that shrank: one byte, whose place is three bytes further
    from what the addend was made for."""
    field = branch.field
    assert field is not None
    # Offsets of the pre object still: the opcode's second byte, before the cut.
    return replace(field, offset=branch.offset + 1, size=1, addend=field.addend + 3)
