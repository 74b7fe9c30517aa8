# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the kernel may rewrite a pre object's code, and to what: from its own special sections.

Source, all under arch/x86/kernel: alternative.c (apply_paravirt, apply_retpolines,
apply_returns, apply_alternatives, apply_ibt_endbr, alternatives_smp_unlock), jump_label.c,
static_call.c, ftrace.c. module_finalize() and alternative_instructions() give their order:
paravirt, retpolines, returns, alternatives; a later one may overwrite an earlier one's work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kspliced.elf.object import Relocation
from kspliced.elf.special import TABLES, SpecialEntry, SpecialTable, special_entries
from kspliced.match.nops import NOPS, nops, optimized, skipped
from kspliced.match.pattern import (
    REGISTERS,
    Allowed,
    Bound,
    Destination,
    Field,
    Site,
    SiteKind,
    Thunked,
    Variant,
    Want,
)

if TYPE_CHECKING:
    from kspliced.match.unit import Unit

_CALL, _JMP32, _JMP8, _INT3, _RET = b"\xe8", b"\xe9", b"\xeb", b"\xcc", b"\xc3"
_CALL_MEMORY = b"\xff\x15"
_CS = b"\x2e"
_LFENCE = bytes.fromhex("0faee8")
_XOR5RAX = bytes.fromhex("2e2e2e31c0")
_ENDBR64 = bytes.fromhex("f30f1efa")
# gen_endbr_poison() (asm/ibt.h), up to 6.14 and after.
_ENDBR_POISONS = (bytes.fromhex("660f1f00"), bytes.fromhex("0f1f40d6"))
_RUNTIME = ("runtime_ptr_", "runtime_shift_")
_DIRECT_CALL = 2  # ALT_FLAG_DIRECT_CALL, in struct alt_instr's flags
_MOST_VARIANTS = 256
_THUNK = "__x86_indirect_thunk_"


@dataclass(frozen=True)
class _Edit:
    """What one rewriter may do to ``size`` bytes at ``offset``: leave them, or write one of
    ``options``. ``pads``: it then turns single no-ops into long ones."""

    offset: int
    size: int
    kind: SiteKind
    options: tuple[Variant, ...]
    keeps: bool = True
    pads: bool = False


def find_sites(unit: Unit) -> dict[int, list[Site]]:
    """The sites of each section, in order; overlapping ones are merged into one.

    :raises ValueError: a special section is malformed.
    """
    edits: dict[int, list[_Edit]] = {}
    tables = {table.name: table for table in TABLES}
    for name, maker in _makers(unit):
        table = tables.get(name, SpecialTable(name, 1, False))
        for entry in special_entries(unit.object, table):
            section, offset = _place(unit, entry.relocations[0])
            for edit in maker(unit, entry, section, offset, edits):
                edits.setdefault(section, []).append(edit)
    for symbol in unit.object.symbols:
        if symbol.name.startswith("__SCT__") and symbol.section in unit.sections:
            edit = _trampoline(symbol.name, symbol.value)
            edits.setdefault(symbol.section, []).append(edit)
    return {s: [_site(unit, s, group) for group in _groups(edits[s])] for s in edits}


def _place(unit: Unit, relocation: Relocation) -> tuple[int, int]:
    """The place in this object that a table's relocation points to."""
    symbol = unit.object.symbols[relocation.symbol]
    if symbol.section not in unit.sections:
        raise ValueError("a table of code places points outside the object")
    return symbol.section, symbol.value + relocation.addend


def _groups(edits: list[_Edit]) -> Iterator[list[_Edit]]:
    """Edits that overlap, in the order they are applied within each group."""
    order = {id(edit): number for number, edit in enumerate(edits)}
    group: list[_Edit] = []
    end = 0
    for edit in sorted(edits, key=lambda e: e.offset):
        if group and edit.offset >= end:
            yield sorted(group, key=lambda e: order[id(e)])
            group = []
        end = max(end, edit.offset + edit.size) if group else edit.offset + edit.size
        group.append(edit)
    if group:
        yield sorted(group, key=lambda e: order[id(e)])


def _site(unit: Unit, section: int, edits: list[_Edit]) -> Site:
    start = min(e.offset for e in edits)
    size = max(e.offset + e.size for e in edits) - start
    variants = _rewritten(unit.original(section, start, size), start, edits)
    # The most volatile kind names the site.
    kind = min((e.kind for e in edits), key=list(SiteKind).index)
    return Site(start, size, kind, variants)


def _rewritten(original: Variant, start: int, edits: list[_Edit]) -> tuple[Variant, ...]:
    """Every encoding that ``edits``, each made or not, can leave."""
    variants = [original] if all(e.keeps for e in edits) else []
    current = [original]
    for edit in edits:
        at = edit.offset - start
        after = list(current) if edit.keeps else []
        after += [v.spliced(at, option) for v in current for option in edit.options]
        if edit.pads:
            after = [p for v in after for p in _padded(v, at, edit.size)]
        current = list(dict.fromkeys(after))
        if len(current) > _MOST_VARIANTS:
            raise ValueError("an instruction has more alternatives than can be checked")
    return tuple(dict.fromkeys([*current, *variants]))


def _padded(variant: Variant, at: int, size: int) -> list[Variant]:
    code = variant.data[at : at + size]
    fixed = frozenset(n - at for f in variant.fields for n in range(f.offset, f.offset + f.size))
    return [
        Variant(variant.data[:at] + new + variant.data[at + size :], variant.fields)
        for new in optimized(code, fixed)
    ]


def _branch(opcode: bytes, want: Want, addend: int = -4) -> Variant:
    """A direct call or jump with a 32-bit displacement, or with 8 bits for jmp8."""
    size = 1 if opcode == _JMP8 else 4
    field = Field(len(opcode), size, True, True, addend, want)
    return Variant(opcode + bytes(size), (field,))


def _ftrace(
    unit: Unit, entry: SpecialEntry, section: int, offset: int, _: dict[int, list[_Edit]]
) -> Iterator[_Edit]:
    call = _branch(_CALL, Destination(Allowed.FTRACE, ""))
    yield _Edit(offset, 5, SiteKind.FTRACE, (Variant(NOPS[5]), call), keeps=False)


def _jump_label(
    unit: Unit, entry: SpecialEntry, section: int, offset: int, _: dict[int, list[_Edit]]
) -> Iterator[_Edit]:
    code = unit.sections[section].data[offset : offset + 5]
    short = code[:1] == _JMP8 or code[:2] == NOPS[2]
    if not short and code[:1] != _JMP32 and code != NOPS[5]:
        raise ValueError("a jump label is neither a jump nor a no-op")
    target_section, target = _place(unit, entry.relocations[1])
    label = unit.sections[target_section].name
    want = Bound(target_section, 0, label)
    size = 2 if short else 5
    jump = _branch(_JMP8 if short else _JMP32, want, target - (1 if short else 4))
    yield _Edit(offset, size, SiteKind.JUMP_LABEL, (Variant(NOPS[size]), jump), keeps=False)


def _static_call(
    unit: Unit, entry: SpecialEntry, section: int, offset: int, _: dict[int, list[_Edit]]
) -> Iterator[_Edit]:
    opcode = unit.original(section, offset, 5).data[:1]
    key = unit.object.symbols[entry.relocations[1].symbol].name
    name = key.removeprefix("__SCK__").removeprefix("__SCT__")
    if opcode == _CALL:
        call = _branch(_CALL, Destination(Allowed.STATIC_CALL, name))
        options = [call, Variant(NOPS[5]), Variant(_XOR5RAX)]
    elif opcode == _JMP32:
        jump = _branch(_JMP32, Destination(Allowed.STATIC_TAIL_CALL, name))
        options = [jump, Variant(_RET + _INT3 * 4)]
    else:
        raise ValueError("a static call is neither a call nor a jump")
    yield _Edit(offset, 5, SiteKind.STATIC_CALL, tuple(options), keeps=False)


def _trampoline(name: str, offset: int) -> _Edit:
    """A static call's trampoline, of which the first instruction follows the call's function."""
    jump = _branch(_JMP32, Destination(Allowed.STATIC_TAIL_CALL, name.removeprefix("__SCT__")))
    options = (jump, Variant(_RET + _INT3 * 4))
    return _Edit(offset, 5, SiteKind.STATIC_CALL, options, keeps=False)


def _smp_lock(
    unit: Unit, entry: SpecialEntry, section: int, offset: int, _: dict[int, list[_Edit]]
) -> Iterator[_Edit]:
    if unit.original(section, offset, 1).data not in (b"\xf0", b"\x3e"):
        raise ValueError("an SMP lock is no lock prefix")
    options = (Variant(b"\xf0"), Variant(b"\x3e"))
    yield _Edit(offset, 1, SiteKind.SMP_LOCK, options, keeps=False)


def _paravirt(
    unit: Unit, entry: SpecialEntry, section: int, offset: int, _: dict[int, list[_Edit]]
) -> Iterator[_Edit]:
    if len(entry.data) < 10 or entry.data[9] < 5:
        raise ValueError("a paravirt site is too short for a call")
    operation, size = str(entry.data[8]), entry.data[9]
    call = _branch(_CALL, Destination(Allowed.PARAVIRT, operation))
    options = (Variant(call.data + nops(size - 5), call.fields), Variant(nops(size)))
    yield _Edit(offset, size, SiteKind.PARAVIRT, options)


def _retpoline(
    unit: Unit, entry: SpecialEntry, section: int, offset: int, _: dict[int, list[_Edit]]
) -> Iterator[_Edit]:
    prefix = _CS if unit.sections[section].data[offset : offset + 1] == _CS else b""
    size = 5 + len(prefix)
    original = unit.original(section, offset, size)
    opcode = original.data[len(prefix) : len(prefix) + 1]
    want = original.fields[0].want if len(original.fields) == 1 else None
    if opcode not in (_CALL, _JMP32) or not isinstance(want, Bound):
        raise ValueError("a retpoline site is neither a call nor a jump to a thunk")
    register = want.label.removeprefix(_THUNK)
    if register not in REGISTERS:
        raise ValueError(f"a retpoline site leads to {want.label}")
    number = REGISTERS.index(register)
    its = _branch(prefix + opcode, Destination(Allowed.INDIRECT_THUNK, register))
    options = [its]
    indirect = _indirect(opcode, number)
    for code in (indirect, _LFENCE + indirect):
        if opcode == _JMP32 and len(code) < size:
            code += _INT3
        if len(code) <= size:
            padded = optimized(code + NOPS[1] * (size - len(code)))
            options += [Variant(p) for p in padded]
    yield _Edit(offset, size, SiteKind.RETPOLINE, tuple(options), keeps=False)


def _indirect(opcode: bytes, register: int) -> bytes:
    """``call *%reg`` or ``jmp *%reg``, as emit_indirect() does."""
    rex = b"\x41" if register >= 8 else b""
    base = 0xD0 if opcode == _CALL else 0xE0
    return rex + bytes((0xFF, base + (register & 7)))


def _return(
    unit: Unit, entry: SpecialEntry, section: int, offset: int, _: dict[int, list[_Edit]]
) -> Iterator[_Edit]:
    if unit.original(section, offset, 5).data[:1] != _JMP32:
        raise ValueError("a return site is no jump")
    jump = _branch(_JMP32, Destination(Allowed.RETURN_THUNK, ""))
    options = (jump, Variant(_RET + _INT3 * 4))
    yield _Edit(offset, 5, SiteKind.RETURN, options, keeps=False)


def _alternative(
    unit: Unit, entry: SpecialEntry, section: int, offset: int, edits: dict[int, list[_Edit]]
) -> Iterator[_Edit]:
    size, length = entry.data[-2], entry.data[-1]
    if length > size:
        raise ValueError("an alternative is longer than what it replaces")
    if not size:
        return
    if not length:
        yield _Edit(offset, size, SiteKind.ALTERNATIVE, (Variant(NOPS[1] * size),), pads=True)
        return
    if len(entry.data) == 14 and entry.data[10] & _DIRECT_CALL:
        yield _Edit(offset, size, SiteKind.PARAVIRT, _direct_call(unit, section, offset, size))
        return
    at_section, at = _place(unit, entry.relocations[1])
    # Returns and retpolines inside the replacement were rewritten before it is copied.
    inside = [e for e in edits.get(at_section, ()) if at <= e.offset < at + length]
    replacement = unit.original(at_section, at, length)
    options: list[Variant] = []
    for variant in _rewritten(replacement, at, inside):
        options.append(variant)
        if length == 5 and variant.data[:1] == _JMP32 and len(variant.fields) == 1:
            field = variant.fields[0]
            short = _branch(_JMP8, field.want, field.addend + 3)
            # What is left is no-ops, or int3 since 6.5.
            options += [Variant(short.data + rest, short.fields) for rest in (nops(3), _INT3 * 3)]
    padded = tuple(Variant(v.data + NOPS[1] * (size - length), v.fields) for v in options)
    yield _Edit(offset, size, SiteKind.ALTERNATIVE, padded, pads=True)


def _direct_call(unit: Unit, section: int, offset: int, size: int) -> tuple[Variant, ...]:
    """What becomes of an indirect call of a paravirt operation, as alt_replace_call() does it."""
    original = unit.original(section, offset, size)
    (field,) = original.fields or (None,)
    if size != 6 or field is None or original.data[:2] != _CALL_MEMORY:
        raise ValueError("a paravirt site is no indirect call")
    want = field.want
    if not isinstance(want, Bound) or want.label != "pv_ops":
        raise ValueError("an indirect call that becomes a direct one is none of pv_ops")
    operation = (want.offset + field.addend + 4) // 8
    call = _branch(_CALL, Destination(Allowed.PARAVIRT, str(operation)))
    return Variant(call.data + NOPS[1], call.fields), Variant(skipped(size))


def _call_site(
    unit: Unit, entry: SpecialEntry, section: int, offset: int, _: dict[int, list[_Edit]]
) -> Iterator[_Edit]:
    """A direct call, which may go through the thunk before its function (callthunks.c)."""
    original = unit.original(section, offset, 5)
    if original.data[:1] != _CALL:
        raise ValueError("a call site is no call")
    if not original.fields:
        # A call within the section, which the assembler has resolved.
        target = offset + 5 + int.from_bytes(original.data[1:], "little", signed=True)
        own = Bound(section, target, unit.sections[section].name)
        yield _Edit(offset, 5, SiteKind.CALL_THUNK, (_branch(_CALL, Thunked(own)),))
        return
    field = original.fields[0]
    if isinstance(field.want, Bound):
        thunk = _branch(_CALL, Thunked(field.want), field.addend)
        yield _Edit(offset, 5, SiteKind.CALL_THUNK, (thunk,))


def _runtime(name: str) -> _Maker:
    """Immediates that the kernel sets to a variable's value when it boots (asm/runtime-const.h)."""
    _, kind, variable = name.split("_", 2)
    size = 8 if kind == "ptr" else 1
    allowed = Allowed.RUNTIME_POINTER if kind == "ptr" else Allowed.RUNTIME_SHIFT

    def make(
        unit: Unit, entry: SpecialEntry, section: int, offset: int, _: dict[int, list[_Edit]]
    ) -> Iterator[_Edit]:
        field = Field(0, size, False, False, 0, Destination(allowed, variable))
        options = (Variant(bytes(size), (field,)),)
        yield _Edit(offset, size, SiteKind.RUNTIME_CONST, options, keeps=False)

    return make


def _makers(unit: Unit) -> Iterator[tuple[str, _Maker]]:
    yield from _MAKERS
    for section in unit.object.sections:
        if section.name.startswith(_RUNTIME):
            yield section.name, _runtime(section.name)


def _endbr(
    unit: Unit, entry: SpecialEntry, section: int, offset: int, _: dict[int, list[_Edit]]
) -> Iterator[_Edit]:
    options = tuple(Variant(code) for code in (_ENDBR64, *_ENDBR_POISONS))
    yield _Edit(offset, 4, SiteKind.ENDBR, options, keeps=False)


_Maker = Callable[
    ["Unit", SpecialEntry, int, int, dict[int, list[_Edit]]],
    Iterator[_Edit],
]

# In the order in which the kernel applies them.
_MAKERS: tuple[tuple[str, _Maker], ...] = (
    (".parainstructions", _paravirt),
    (".retpoline_sites", _retpoline),
    (".return_sites", _return),
    (".altinstructions", _alternative),
    (".call_sites", _call_site),
    (".ibt_endbr_seal", _endbr),
    (".smp_locks", _smp_lock),
    ("__mcount_loc", _ftrace),
    ("__jump_table", _jump_label),
    (".static_call_sites", _static_call),
)
