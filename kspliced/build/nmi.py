# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions that a non-maskable interrupt may run.

Those come while the machine is stopped for the switch. No such interrupt sees half of a jump (the
core's kmod/poke.c), but one that is inside a changed function then may call another, which
is new already: where two functions change for each other, that must not be. Where neither can call
the other, the interrupt is like a thread, which may call one before the switch and one after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kspliced.build.body import Bodies
from kspliced.build.diff import UnitDiff
from kspliced.build.layout import Entity, EntityKind
from kspliced.elf.disasm import branches_indirectly
from kspliced.elf.object import Binding

# Units with code that a non-maskable interrupt may run: its handlers and what they call (perf,
# machine checks, the watchdogs, tracing, BPF, printk).
_MAY_RUN = (
    "arch/x86/events/", "arch/x86/kernel/cpu/mce/", "arch/x86/kernel/apic/",
    "arch/x86/kernel/reboot", "kernel/events/", "kernel/watchdog", "kernel/printk/",
    "kernel/trace/", "kernel/bpf/", "kernel/panic", "kernel/kexec", "lib/nmi_backtrace",
    "lib/vsprintf", "mm/maccess", "drivers/acpi/apei/", "drivers/edac/", "drivers/watchdog/",
)  # fmt: skip
# Those of them whose functions do not sleep sometimes only, as printk's and panic's do.
_STEADY = ("kernel/bpf/", "kernel/trace/", "kernel/events/")
# Who calls these may sleep, which an interrupt may not: mutexes, semaphores, memory that is mapped,
# user space, waiting. might_sleep() of a kernel that may be preempted calls the first two.
_SLEEPS = frozenset({
    "__SCT__might_resched", "__SCT__cond_resched", "__might_sleep", "__cond_resched",
    "mutex_lock", "mutex_lock_interruptible", "mutex_lock_killable", "down_read", "down_write",
    "schedule", "wait_for_completion", "synchronize_rcu", "synchronize_srcu",
    "synchronize_rcu_tasks", "vmalloc", "vzalloc", "__vmalloc", "kvmalloc_node", "copy_from_user",
    "copy_to_user", "_copy_from_user", "_copy_to_user", "strndup_user", "memdup_user",
    "vmemdup_user", "get_unused_fd_flags", "anon_inode_getfd", "bpf_map_area_alloc",
    "bpf_map_area_mmapable_alloc",
})  # fmt: skip
# Where preempt_count() is: code that asks whether it runs in an interrupt may do either.
_ASKS = frozenset({"__preempt_count", "pcpu_hot"})
# Functions of other units that call nothing of anybody's, and so lead nowhere.
_LEAVES = frozenset({
    "__fentry__", "__x86_return_thunk", "__stack_chk_fail", "memcpy", "memmove", "memset", "memcmp",
    "__memcpy", "__memmove", "__memset", "strlen", "strnlen", "strcmp", "strncmp", "strchr",
})  # fmt: skip
# What a static call goes through is written at run time.
_STATIC_CALL = "__SCT__"


@dataclass(frozen=True)
class Exposed:
    """A changed function that a non-maskable interrupt may run. ``calls``: the functions of its
    unit that the old one may call, directly or not; None if it may call anything."""

    unit: str
    name: str
    calls: frozenset[str] | None

    def may_call(self, other: Exposed) -> bool:
        """Whether an interrupt that is in this one may come to the other."""
        return self.calls is None or (self.unit == other.unit and other.name in self.calls)


def interruptible(diff: UnitDiff, unit: str) -> tuple[Exposed, ...]:
    """The changed functions of a unit that a non-maskable interrupt may run."""
    if not unit.startswith(_MAY_RUN):
        return ()
    sleeping = _sleeping(diff.pre) if unit.startswith(_STEADY) else frozenset()
    awake = (changed.pre for changed in diff.changed if changed.pre not in sleeping)
    return tuple(Exposed(unit, one.name, _calls(diff.pre, one)) for one in awake)


def entangled(some: Iterable[Exposed]) -> tuple[Exposed, ...]:
    """Those of which an interrupt may run two in one, one of them old and one new."""
    every = tuple(some)
    return tuple(
        one for one in every if any(one.may_call(o) or o.may_call(one) for o in every if o != one)
    )


def _calls(bodies: Bodies, function: Entity) -> frozenset[str] | None:
    reached, waiting = {function}, [function]
    while waiting:
        one = waiting.pop()
        if any(branches_indirectly(bodies.layout.content(part)) for part in bodies.parts(one)):
            return None
        for entity, name, call in _refers(bodies, one):
            leads = call and entity is None and name not in _LEAVES
            if leads or name.startswith(_STATIC_CALL):
                return None
            if entity is not None and entity.kind is EntityKind.FUNCTION and entity not in reached:
                reached.add(entity)
                waiting.append(entity)
    return frozenset(entity.name for entity in reached)


def _sleeping(bodies: Bodies) -> frozenset[Entity]:
    """The functions that may sleep, or that only such functions of the unit call."""
    functions = [f for f in bodies.layout.functions() if not f.parent]
    refers = {f: tuple(_refers(bodies, f)) for f in functions}
    found = {
        f
        for f, targets in refers.items()
        if any(name in _SLEEPS for _, name, _ in targets)
        and not any(name in _ASKS for _, name, _ in targets)
    }
    callers = _callers(bodies, refers)
    while more := {f for f, by in callers.items() if by and by <= found} - found:
        found |= more
    return frozenset(found)


def _callers(
    bodies: Bodies, refers: dict[Entity, tuple[tuple[Entity | None, str, bool], ...]]
) -> dict[Entity, set[Entity]]:
    """By local function that is called and nothing else, the functions that call it."""
    symbols = bodies.layout.object.symbols
    local = (f for f in refers if symbols[f.symbol].binding is Binding.LOCAL)
    callers: dict[Entity, set[Entity]] = {f: set() for f in local}
    for caller, targets in refers.items():
        for entity, _, call in targets:
            if entity is None or entity not in callers or entity == caller:
                continue
            if call:
                callers[entity].add(caller)
            else:
                del callers[entity]
    parts = {part for f in refers for part in bodies.parts(f)}
    for other in bodies.layout.entities():
        if other not in parts:
            for _, target in bodies.references(other):
                if target.entity is not None:
                    callers.pop(target.entity, None)
    return callers


def _refers(bodies: Bodies, function: Entity) -> Iterator[tuple[Entity | None, str, bool]]:
    """What a function with all its parts refers to, and whether it is a call or a jump."""
    for part in bodies.parts(function):
        for _, target in bodies.references(part):
            yield target.entity, target.name, target.branch
        for site in bodies.sites(part):
            for target in site.targets:
                yield target.entity, target.name, target.branch
