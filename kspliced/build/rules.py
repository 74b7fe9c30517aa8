# SPDX-License-Identifier: GPL-2.0-or-later
"""What an object difference may not contain. Each rule answers with refusals, never by raising.

The codes are listed with their meaning in docs/refusals.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from kspliced.build.body import Bodies
from kspliced.build.closure import Carried
from kspliced.build.constants import callback, obstacle
from kspliced.build.diff import ChangedFunction, UnitDiff
from kspliced.build.layout import Entity, EntityKind
from kspliced.build.module_info import information_changes
from kspliced.build.moves import alignment_changes, registered_changes, why_not
from kspliced.build.pairing import message_state
from kspliced.elf.section_class import SectionClass
from kspliced.elf.special import runtime_constant
from kspliced.elf.x86 import R_X86_64_PC8
from kspliced.model import Refusal

JUMP_SIZE = 5
# A share of PERCPU_MODULE_RESERVE (include/linux/percpu.h), which all modules have in common.
_PERCPU_ROOM = 2048
_ENDBR64 = b"\xf3\x0f\x1e\xfa"

# What the module loader gives an update as it gives it to any module.
_PLAIN = frozenset({
    SectionClass.READ_ONLY, SectionClass.RO_AFTER_INIT, SectionClass.WRITTEN, SectionClass.PER_CPU,
})  # fmt: skip
_DECRYPTED = "..decrypted"
# Where notrace says that code runs on other page tables, before or after the kernel proper.
_EARLY = ("arch/x86/", "drivers/firmware/efi/")
# Written once, at start-up, or by the build.
_NOT_STATE = (".data..ro_after_init", ".init", ".exit", ".data.rel.ro", "__dyndbg", "__param")
_EXPORT_TABLES = ("___ksymtab", "___kcrctab", "__ksymtab", ".export_symbol")
_NOINSTR = (".noinstr.text", ".entry.text", ".cpuidle.text")
# What runs between a breakpoint and the core's handler, or while it stops the machine and looks at
# stacks (kmod/poke.c): who is sent there by a breakpoint would be sent there again.
_SWITCHING = (
    "arch/x86/kernel/nmi", "arch/x86/kernel/kgdb", "arch/x86/kernel/unwind",
    "arch/x86/kernel/stacktrace", "arch/x86/kernel/dumpstack", "arch/x86/kernel/alternative",
    "arch/x86/kernel/traps", "arch/x86/kernel/kprobes/", "arch/x86/mm/fault", "kernel/rcu/",
    "kernel/time/timekeeping", "kernel/stop_machine",
)  # fmt: skip
_NO_BREAKPOINTS, _KPROBES = "_kprobe_blacklist", ".kprobes.text"

Rule = Callable[[UnitDiff, Carried, str], Iterator[Refusal]]


def check(diff: UnitDiff, carried: Carried, unit: str) -> tuple[Refusal, ...]:
    """Every reason why this difference cannot go live, in the order of the rules."""
    return tuple(refusal for rule in RULES for refusal in rule(diff, carried, unit))


def jump_offset(bodies: Bodies, function: Entity) -> int:
    """Where a jump goes in ``function``: behind endbr64 and the fentry slot, if it has them.

    Nearly all functions without a slot are inline functions that the compiler did not inline, or
    belong to a unit that is not traced (lib/). What the caller assumes of registers does not
    depend on the slot: a caller that assumes something else differs, too.
    """
    for relocation, target in bodies.references(function):
        if target.name == "__fentry__":
            return relocation.offset + 4
    content = bodies.layout.content(function)
    return len(_ENDBR64) if content.startswith(_ENDBR64) else 0


def _traced(bodies: Bodies, function: Entity) -> bool:
    return any(target.name == "__fentry__" for _, target in bodies.references(function))


def _data(diff: UnitDiff, carried: Carried, unit: str) -> Iterator[Refusal]:
    for datum in diff.data:
        name = datum.post.name
        if datum.writable and callback(diff, datum) >= 0:
            continue
        if datum.writable:
            evidence = f"{datum.pre.size} bytes before, {datum.post.size} after"
            reason = "the initial content of a variable changes, and the running kernel uses it"
            yield Refusal("writable_data_changed", unit, name, reason, evidence)
            continue
        evidence = obstacle(diff, datum)
        if evidence:
            reason = "a constant changes that cannot be written over"
            yield Refusal("const_data_changed", unit, name, reason, evidence)


def _sections(diff: UnitDiff, carried: Carried, unit: str) -> Iterator[Refusal]:
    for name in diff.sections:
        if name.startswith(_EXPORT_TABLES):
            continue
        reason = "a table that only start-up or the module loader reads changes"
        yield Refusal("section_changed", unit, name, reason)


def _information(diff: UnitDiff, carried: Carried, unit: str) -> Iterator[Refusal]:
    """What is read off a module's file."""
    for change in information_changes(diff):
        reason = "what is read off a module's file to find and load it changes"
        yield Refusal("section_changed", unit, change.symbol, reason, change.evidence)


def _registered(diff: UnitDiff, carried: Carried, unit: str) -> Iterator[Refusal]:
    """What was entered into a table of the kernel's, or is not any more."""
    for name, section in registered_changes(diff.pre, diff.post, diff.pairing):
        if not section.startswith(_EXPORT_TABLES):
            reason = "an entry of a table that start-up or the module loader reads comes or goes"
            yield Refusal("section_changed", unit, name, reason, section)


def _classes(diff: UnitDiff, carried: Carried, unit: str) -> Iterator[Refusal]:
    """What is in memory of another kind, and cannot be brought to those who use it."""
    brought = frozenset((*carried.code, *carried.data))
    for change in diff.moved:
        reason = change.obstacle
        if change.carried and not reason and change.post not in brought:
            reason = "nothing that runs now is seen to use it"
        if reason or not change.carried:
            reason = f"{why_not(change.before[0], change.after[0])}{reason and f': {reason}'}"
            yield Refusal("section_class_changed", unit, change.post.name, reason, change.evidence)


def _alignment(diff: UnitDiff, carried: Carried, unit: str) -> Iterator[Refusal]:
    for entity, before, after in alignment_changes(diff.pre, diff.post, diff.pairing):
        reason = (
            "it has to be aligned to more bytes, and the running kernel's lies where it was put"
        )
        evidence = f"{before} bytes before, {after} after"
        yield Refusal("alignment_changed", unit, entity.name, reason, evidence)


def _gone(diff: UnitDiff, carried: Carried, unit: str) -> Iterator[Refusal]:
    """New code that refers to what start-up has freed: it would run into that."""
    post = diff.post
    found: dict[tuple[str, str], None] = {}
    for entity in (*carried.code, *carried.data):
        if post.layout.passing(entity):
            continue
        targets = [target.entity for _, target in post.references(entity)]
        targets += [t.entity for site in post.sites(entity) for t in site.targets]
        used = (diff.pairing.pre_of(target) for target in targets if target is not None)
        names = (pre.name for pre in used if pre is not None and diff.pre.layout.passing(pre))
        found |= dict.fromkeys((entity.parent or entity.name, name) for name in names)
    for user, name in found:
        reason = "new code uses what is there for start-up only, or for a module's end"
        yield Refusal("gone_after_init", unit, user, reason, name)


def _exports(diff: UnitDiff, carried: Carried, unit: str) -> Iterator[Refusal]:
    for name in diff.removed_exports:
        reason = "an exported symbol is gone: other modules link by the export table"
        yield Refusal("export_changed", unit, name, reason)


def _where(diff: UnitDiff, carried: Carried, unit: str) -> Iterator[Refusal]:
    """Code that may not be replaced because of the section it is in."""
    for changed in diff.changed:
        section = diff.pre.layout.section(changed.pre.section).name
        name = changed.pre.name
        if diff.pre.layout.passing(changed.pre):
            reason = "the function runs only at start-up or removal, which is over or never comes"
            yield Refusal("init_only", unit, name, reason, section)
        elif section.startswith(_NOINSTR):
            reason = "code that may not be instrumented is not replaced"
            yield Refusal("noinstr", unit, name, reason, section)


def _breakpoint(diff: UnitDiff, carried: Carried, unit: str) -> Iterator[Refusal]:
    """Code that must not run into a breakpoint, as a switch puts one where its jump will be."""
    table = diff.pre.layout.object.section_named(_NO_BREAKPOINTS)
    relocations = table.relocations if table is not None else ()
    listed = {diff.pre.layout.target(table, r).entity for r in relocations if table is not None}
    for changed in diff.changed:
        apart = diff.pre.layout.section(changed.pre.section).name == _KPROBES
        if unit.startswith(_SWITCHING) or changed.pre in listed or apart:
            reason = "handling a breakpoint runs this, and the switch puts one there"
            yield Refusal("breakpoint", unit, changed.pre.name, reason)


def _entry(diff: UnitDiff, carried: Carried, unit: str) -> Iterator[Refusal]:
    """Functions whose start cannot take a jump."""
    for changed in diff.changed:
        name = changed.pre.name
        place = jump_offset(diff.pre, changed.pre)
        if diff.pre.layout.section(changed.pre.section).name.startswith(_NOINSTR):
            continue
        if unit.startswith(_EARLY) and not _traced(diff.pre, changed.pre):
            reason = "untraced code of the architecture may run without the kernel's page tables"
            yield Refusal("notrace", unit, name, reason)
        elif changed.pre.size < place + JUMP_SIZE:
            reason = "the function is too short for a jump"
            yield Refusal("too_short", unit, name, reason, f"{changed.pre.size} bytes")
        else:
            yield from _patched_entry(diff, changed, place, unit)


def _patched_entry(
    diff: UnitDiff, changed: ChangedFunction, place: int, unit: str
) -> Iterator[Refusal]:
    for site in diff.pre.sites(changed.pre):
        name = site.entry.table.name
        start, end = site.offset, site.offset + _site_size(site.entry.data, name)
        if not site.entry.table.compared or name in ("__ex_table", "__bug_table"):
            continue
        if runtime_constant(name) is not None:
            continue  # set at boot
        if start < place + JUMP_SIZE and end > place:
            reason = "the kernel itself rewrites the bytes where the jump would go"
            yield Refusal("patched_entry", unit, changed.pre.name, reason, f"{name} at +{start:#x}")


def _site_size(entry: bytes, table: str) -> int:
    """Bytes of code an entry speaks of: struct alt_instr and paravirt_patch_site say it."""
    if table == ".altinstructions":
        return entry[-2]
    if table == ".parainstructions":
        return entry[9]
    return 1 if table == ".smp_locks" else JUMP_SIZE


def _new_data(diff: UnitDiff, carried: Carried, unit: str) -> Iterator[Refusal]:
    percpu = 0
    for entity in carried.data:
        section = diff.post.layout.section(entity.section)
        kind, _ = diff.post.layout.place(entity)
        plain = kind in _PLAIN and not section.name.endswith(_DECRYPTED)
        if kind is SectionClass.PER_CPU:
            percpu += entity.size
        if not plain and not message_state(diff.post, entity):
            reason = "new data in a section that the kernel gives a meaning"
            yield Refusal("special_data", unit, entity.name, reason, section.name)
    if percpu > _PERCPU_ROOM:
        reason = "new per-CPU variables do not fit into what the kernel keeps for modules"
        yield Refusal("new_percpu", unit, "", reason, f"{percpu} bytes")


def _short_jumps(diff: UnitDiff, carried: Carried, unit: str) -> Iterator[Refusal]:
    for entity in carried.code:
        if any(r.type == R_X86_64_PC8 for r, _ in diff.post.references(entity)):
            reason = "new code jumps to its neighbour by 8 bits, which do not reach from elsewhere"
            yield Refusal("short_jump", unit, entity.name, reason)


def _ambiguous_state(diff: UnitDiff, carried: Carried, unit: str) -> Iterator[Refusal]:
    """New variables that may be old ones under another number or name: their state is lost."""
    gone = [e for e in diff.pre.layout.entities() if _variable(diff.pre, e)]
    gone = [e for e in gone if diff.pairing.post_of(e) is None]
    for entity in carried.new_data:
        if not _variable(diff.post, entity):
            continue
        if any(entity.stem == old.stem for old in gone):
            reason = "a static variable may be one that the running kernel has under another number"
            yield Refusal("static_ambiguous", unit, entity.name, reason)
            continue
        renamed = [old.name for old in gone if old.size == entity.size]
        if renamed:
            reason = "a new variable may be an old one that was renamed: its state would be lost"
            yield Refusal("static_ambiguous", unit, entity.name, reason, ", ".join(renamed))


def _variable(bodies: Bodies, entity: Entity) -> bool:
    """Whether an entity is data whose state matters."""
    if entity.kind is not EntityKind.DATA or not entity.size or message_state(bodies, entity):
        return False
    section = bodies.layout.section(entity.section)
    return section.writable and not section.name.startswith(_NOT_STATE)


def _clones(diff: UnitDiff, carried: Carried, unit: str) -> Iterator[Refusal]:
    """A new clone that may be a renumbered old one, whose callers nobody compared."""
    names = {e.stem for e in diff.pre.layout.functions()}
    for entity in carried.new_functions:
        if entity.kind is EntityKind.FUNCTION and entity.stem in names and "." in entity.name:
            if _paired_twin(diff, entity):
                continue
            reason = "clones of one function cannot be told apart"
            yield Refusal("clone_ambiguous", unit, entity.name, reason)


def _paired_twin(diff: UnitDiff, entity: Entity) -> bool:
    """Whether every old clone of that stem has its counterpart, so that this one is really new."""
    olds: Iterable[Entity] = (e for e in diff.pre.layout.functions() if e.stem == entity.stem)
    return all(diff.pairing.post_of(old) is not None for old in olds)


RULES: tuple[Rule, ...] = (
    _data,
    _sections,
    _information,
    _registered,
    _classes,
    _alignment,
    _gone,
    _exports,
    _where,
    _breakpoint,
    _entry,
    _new_data,
    _short_jumps,
    _ambiguous_state,
    _clones,
)
