# SPDX-License-Identifier: GPL-2.0-or-later
"""Explain a mismatch to people: expected and found code, disassembled, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from kspliced.errors import BuildError, KernelError, PackError
from kspliced.kernel.image import KernelImage
from kspliced.match.pattern import Bound, Content, Recipe
from kspliced.match.report import REMEDIES, Mismatch
from kspliced.match.unit import Unit
from kspliced.pack import Pack

_BEFORE, _BEHIND = 3, 6


@dataclass(frozen=True)
class Instruction:
    """One instruction at ``offset`` of its function; ``note`` names what it refers to.

    ``differs``: it is not the same on the other side.
    """

    offset: int
    code: bytes
    text: str
    note: str
    differs: bool

    def line(self) -> str:
        """One line for people."""
        mark = ">" if self.differs else " "
        note = f"  # {self.note}" if self.note else ""
        return f"{mark} +{self.offset:#06x}  {self.code.hex():<22} {self.text}{note}"


@dataclass(frozen=True)
class Explanation:
    """A mismatch with the code on both sides around it; no code where none was compared."""

    mismatch: Mismatch
    remedy: str
    expected: tuple[Instruction, ...]
    found: tuple[Instruction, ...]

    def lines(self) -> tuple[str, ...]:
        """For people: what, why, expected, found, what to do."""
        m = self.mismatch
        result = [m.line(), f"  likely cause: {m.cause.value}"]
        if self.expected or self.found:
            result += ["  expected:", *(f"    {i.line()}" for i in self.expected)]
            result += ["  found:", *(f"    {i.line()}" for i in self.found)]
        if self.remedy:
            result.append(f"  remedy: {self.remedy}")
        return tuple(result)


def explain(pack: Pack, kernel: KernelImage, mismatch: Mismatch) -> Explanation:
    """``mismatch``, which matching ``pack`` against ``kernel`` gave, in terms of instructions.

    Never raises for a kernel that changed meanwhile or cannot be read: then there is no code.
    """
    remedy = REMEDIES.get(mismatch.cause, "")
    nothing = Explanation(mismatch, remedy, (), ())
    if not mismatch.address:
        return nothing
    try:
        pre = next(u for u in pack.manifest.units if u.unit == mismatch.unit)
        unit = Unit(pre.target, pre.unit, pack.blob(pre.blob))
        function = next(f for f in unit.functions if f.name == mismatch.function)
        found = kernel.read(mismatch.address, function.size)
        recipe = unit.recipe(function.section, function.value, function.size)
    except (StopIteration, BuildError, PackError, KernelError, ValueError):
        return nothing
    compiled = unit.sections[function.section].data
    expected = bytearray(compiled[function.value : function.value + function.size])
    # Where the kernel may have put what it likes, it did; but for the place that is wrong.
    holes = [(f.offset, f.size) for f in recipe.fields]
    holes += [(s.offset, s.size) for s in recipe.sites]
    for at, size in holes:
        if at != mismatch.offset:
            expected[at : at + size] = found[at : at + size]
    left = _decode(bytes(expected), mismatch.address)
    right = _decode(found, mismatch.address)
    return Explanation(
        mismatch,
        remedy,
        _window(left, right, mismatch.offset, _notes(recipe)),
        _window(right, left, mismatch.offset, {}),
    )


@dataclass(frozen=True)
class _Decoded:
    offset: int
    code: bytes
    text: str


def _decode(code: bytes, address: int) -> tuple[_Decoded, ...]:
    import capstone  # costs more than matching itself, so only when there is something to explain

    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.skipdata = True
    return tuple(
        _Decoded(at - address, code[at - address : at - address + size], f"{name} {rest}".strip())
        for at, size, name, rest in decoder.disasm_lite(code, address)
    )


def _window(
    code: tuple[_Decoded, ...], other: tuple[_Decoded, ...], offset: int, notes: dict[int, str]
) -> tuple[Instruction, ...]:
    """The instructions around the one that holds ``offset``."""
    at = next((n for n, i in enumerate(code) if i.offset + len(i.code) > offset), len(code))
    same = set(other)
    return tuple(
        Instruction(one.offset, one.code, one.text, _note(one, notes), one not in same)
        for one in code[max(0, at - _BEFORE) : at + _BEHIND]
    )


def _note(one: _Decoded, notes: dict[int, str]) -> str:
    inside = range(one.offset, one.offset + len(one.code))
    return ", ".join(text for at, text in sorted(notes.items()) if at in inside)


def _notes(recipe: Recipe) -> dict[int, str]:
    """What each field refers to, by the field's offset."""
    notes = {}
    for field in recipe.fields:
        if isinstance(field.want, Bound):
            notes[field.offset] = field.want.label
        elif isinstance(field.want, Content):
            notes[field.offset] = repr(field.want.data[:40])[1:]
    return notes
