# SPDX-License-Identifier: GPL-2.0-or-later
"""Doubts about a component that compiles and differs as it may: what only reading it can settle.

Objects that exist when the switch comes were made by the old code. Each rule looks for one way in
which new code may be wrong about them. A doubt is not a proof; who asks decides by policy. What the
rules find is measured against components labelled by hand (tests/corpus/safety.py).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from kspliced.model import Refusal
from kspliced.plan.components import Texts
from kspliced.plan.declarations import TYPES, Declaration, DeclarationKind
from kspliced.plan.edits import Edit, SourceText
from kspliced.plan.neutral import carved
from kspliced.plan.stores import filled, kept, set_up
from kspliced.plan.text import identifiers


class Policy(str, Enum):
    """What goes live by itself: ``conservative`` only what is beyond doubt, ``normal`` also what
    is in weak doubt, ``manual`` nothing."""

    CONSERVATIVE = "conservative"
    NORMAL = "normal"
    MANUAL = "manual"


@dataclass(frozen=True)
class Doubt:
    """``strong``: normal policy does not pass over it either."""

    refusal: Refusal
    strong: bool


@dataclass(frozen=True)
class _Part:
    """An edit with the name of its function, what it calls ``more`` and ``less`` often than before,
    and ``uses``, the identifiers of the whole new bodies of the functions it changes.

    ``lives_on``: old objects have gone through such a function, and more will; ``bits`` are new
    bit-fields where nobody used the bits; ``set`` are members that a variable which is no constant
    begins with and did not."""

    edit: Edit
    name: str
    more: Counter[str]
    less: Counter[str]
    uses: frozenset[str]
    lives_on: bool
    bits: frozenset[str]
    set: frozenset[str]


Rule = Callable[[tuple[_Part, ...]], Iterator[Doubt]]

# What one function does to an object and another undoes: (does, undoes), by the end of the name.
_PAIRS = (
    ("get", "put"), ("hold", "put"), ("get", "release"), ("inc", "dec"), ("grab", "put"),
    ("lock", "unlock"), ("trylock", "unlock"), ("down", "up"), ("read", "up"), ("write", "up"),
    ("alloc", "free"), ("malloc", "free"), ("zalloc", "free"), ("create", "destroy"),
    ("init", "destroy"), ("init", "exit"), ("init", "cleanup"), ("setup", "teardown"),
    ("register", "unregister"), ("add", "del"), ("add", "remove"), ("enable", "disable"),
    ("attach", "detach"), ("start", "stop"), ("open", "close"), ("map", "unmap"),
    ("set", "clear"), ("queue", "cancel"), ("link", "unlink"), ("insert", "erase"),
    ("enter", "exit"), ("begin", "end"), ("pin", "unpin"), ("charge", "uncharge"),
)  # fmt: skip
_CALL = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
_LOCK = re.compile(
    r"\b((?:mutex_lock|mutex_lock_\w+|(?:raw_)?(?:spin|read|write)_lock(?!dep)\w*|rtnl_lock"
    r"|down_(?:read|write)\w*|lock_sock\w*|inode_lock\w*|device_lock\w*|bh_lock_sock\w*)\s*\("
    r"|(?:scoped_)?guard\s*\(\s*(?:mutex|rwsem|(?:raw_)?spinlock)\w*\s*[,)]\s*\(?)\s*([^(),;]*)"
)
_GUARD = re.compile(r"^(?:scoped_)?guard\s*\(\s*")
_SET_BIT = re.compile(r"\b(?:set|clear)_bit\s*\(\s*([A-Z][A-Z0-9_]+)")
_NEW_LOCK = re.compile(r"\bDEFINE_(?:\w*SPINLOCK|MUTEX|RWLOCK|RWSEM)\s*\(\s*(\w+)")
_MAKER = re.compile(
    r"(?:^|_)(?:probe|create|alloc|new|init|setup|open|attach|register|bind|mount|fill_super)(?:_|$)"
)
_ALLOCATES = re.compile(r"^(?:k[vmzc]*alloc(?:_\w+)?|kmem_cache_z?alloc\w*|kmemdup\w*)$")
_FILLS = re.compile(r"(?:^|_)(?:fill|init|setup)(?:_|$)|^INIT_")
_LARGE = re.compile(r"^(?:kv[mzc]*alloc\w*|v[mz]alloc\w*)$")
_SMALL = re.compile(r"^k[mzc]alloc\w*$")
_FREES_LARGE = frozenset({"kvfree", "vfree"})
# Moving what is done to an object matters if it may be done twice or never, as freeing it; a lock
# is released by who took it, and a bit may be set or cleared again.
_STEADY = frozenset({
    "lock", "trylock", "unlock", "down", "up", "read", "write", "set", "clear", "enter", "exit",
    "begin", "end", "start", "stop", "alloc", "malloc", "zalloc", "init", "map", "unmap",
})  # fmt: skip
_ONCE = frozenset(word for pair in _PAIRS for word in pair) - _STEADY
# A variable that is counted up or down, or has something added or set.
_COUNTED = re.compile(r"(?<![\w.>])([A-Za-z_]\w*)\s*(?:\+\+|--|[-+|&^]=)")
# How a constant is declared, and a member of a variable that begins with something.
_CONST = re.compile(r"\bconst\b")
_SET = re.compile(r"^\s*\.(\w+)\s*=", re.MULTILINE)
_CONSTANTS = frozenset({DeclarationKind.MACRO, DeclarationKind.ENUMERATOR})
_NEVER_LEAVES = re.compile(r"\bkthread_(?:freezable_)?should_(?:stop|park)\b")


def doubts(edits: tuple[Edit, ...], texts: Texts) -> tuple[Doubt, ...]:
    """Every doubt about the edits of one component, in the order of the rules."""
    old, new = ({edit.path: read(edit.path) for edit in edits} for read in (texts.old, texts.new))
    parts = tuple(_part(edit, old[edit.path], new[edit.path]) for edit in edits)
    return tuple(doubt for rule in RULES for doubt in rule(parts))


def passes(policy: Policy, found: tuple[Doubt, ...]) -> bool:
    """Whether a component with these doubts goes live by itself."""
    if policy is Policy.MANUAL:
        return False
    if policy is Policy.NORMAL:
        return not any(doubt.strong for doubt in found)
    return not found


def _part(edit: Edit, old: SourceText, new: SourceText) -> _Part:
    # A hunk that only adds or only removes lies in a declaration of one side alone.
    changed = [f for f in new.declarations if _is_function(f) and f.name in edit.names]
    known = {f.name for f in old.declarations if _is_function(f)}
    after, before = _calls(edit, edit.new_lines), _calls(edit, edit.old_lines)
    bodies = (new.lines(f.start, f.end - f.start + 1) for f in changed)
    uses = identifiers(line for body in bodies for line in body)
    lives_on = any(function.name in known for function in changed)
    first = next(iter(changed or edit.removed), None)
    name = "" if first is None else first.name
    bits, members = _new_bits(edit, old, new), _set(edit, old, new)
    return _Part(edit, name, after - before, before - after, uses, lives_on, bits, members)


def _new_bits(edit: Edit, old: SourceText, new: SourceText) -> frozenset[str]:
    before, after = (
        {d.name: text.lines(d.start, d.end - d.start + 1) for d in some if d.kind in TYPES}
        for text, some in ((old, edit.removed), (new, edit.added))
    )
    both = before.keys() & after.keys()
    return frozenset().union(*(carved(before[name], after[name]) for name in both))


def _set(edit: Edit, old: SourceText, new: SourceText) -> frozenset[str]:
    known = {d.name for d in old.declarations if d.kind is DeclarationKind.VARIABLE}
    kept = [d for d in edit.added if d.kind is DeclarationKind.VARIABLE and d.name in known]
    heads = (new.lines(new.head(d), d.start - new.head(d) + 1) for d in kept)
    if all(_CONST.search(" ".join(lines)) for lines in heads):
        return frozenset()
    before, after = (
        frozenset(_SET.findall("\n".join(some))) for some in (edit.old_lines, edit.new_lines)
    )
    return after - before


def _is_function(declaration: Declaration) -> bool:
    return declaration.kind is DeclarationKind.FUNCTION


def _calls(edit: Edit, lines: tuple[str, ...]) -> Counter[str]:
    """What lines call; where a function is defined it is not called."""
    found = (name for line in lines for name in _CALL.findall(line))
    return Counter(name for name in found if name not in edit.names)


def _doubt(code: str, part: _Part, reason: str, evidence: str, *, strong: bool = True) -> Doubt:
    return Doubt(Refusal(code, part.edit.path, part.name, reason, evidence), strong)


def _ends(name: str, word: str) -> bool:
    return word in name.lower().split("_") or name.lower().endswith(word)


def _akin(one: str, other: str) -> bool:
    """Whether two functions are of one family: their names begin alike."""
    return one[:3].lower() == other[:3].lower()


def _pairs(parts: tuple[_Part, ...]) -> Iterator[Doubt]:
    """One changed function now does something that another now undoes; or neither does now."""
    more = sum((part.more for part in parts), Counter[str]())
    less = sum((part.less for part in parts), Counter[str]())
    begun = "objects of before the switch miss what the new code undoes"
    ended = "the new code no longer undoes what the old did to objects that exist"
    for does, undoes in _PAIRS:
        found = _halves(parts, does, undoes, more - less, lambda part: part.more)
        if found is not None:
            yield _doubt("invariant", found[0], begun, f"{_names(found)}")
            return
        found = _halves(parts, does, undoes, less - more, lambda part: part.less)
        if found is not None and found[0].lives_on and found[2].lives_on:
            yield _doubt("invariant", found[0], ended, f"no longer: {_names(found)}")
            return


_Found = tuple[_Part, str, _Part, str]


def _names(found: _Found) -> str:
    one, does, other, undoes = found
    return f"{one.name} calls {does}, {other.name} calls {undoes}"


def _halves(
    parts: tuple[_Part, ...],
    does: str,
    undoes: str,
    net: Counter[str],
    calls: Callable[[_Part], Counter[str]],
) -> _Found | None:
    """Two functions of which one only does and the other only undoes; each is counted in ``net``,
    so that what merely moved between functions is no change."""

    def only(part: _Part, word: str, opposite: str) -> list[str]:
        names = [name for name in calls(part) if _ends(name, word) and net[name] > 0]
        against = [name for name in calls(part) if _ends(name, opposite)]
        return [name for name in names if not any(_akin(name, other) for other in against)]

    doing = [(part, name) for part in parts for name in only(part, does, undoes)]
    undoing = [(part, name) for part in parts for name in only(part, undoes, does)]
    for part, name in doing:
        for other, undone in undoing:
            if other is not part and _akin(name, undone):
                return part, name, other, undone
    return None


def _moved(parts: tuple[_Part, ...]) -> Iterator[Doubt]:
    """What has to be done once to an object is done by another function than before. It is the same
    act if one of them runs within the other, which nobody is inside of when the switch comes."""
    within = _callees(parts)
    for part in parts:
        for name in part.less:
            if not part.lives_on or not any(_ends(name, word) for word in _ONCE):
                continue
            for other in parts:
                if other is part or name not in other.more or _related(within, part, other):
                    continue
                reason = "to an object between the two it is done twice, or never"
                evidence = f"{name} moves from {part.name} to {other.name}"
                yield _doubt("moved", part, reason, evidence)
                return


def _callees(parts: tuple[_Part, ...]) -> dict[str, set[str]]:
    """The changed functions that each changed function reaches through changed ones."""
    names = {part.name for part in parts}
    within = {part.name: set(part.uses & names) for part in parts}
    for _ in parts:
        for reached in within.values():
            reached |= {far for near in tuple(reached) for far in within.get(near, ())}
    return within


def _related(within: dict[str, set[str]], one: _Part, other: _Part) -> bool:
    return other.name in within.get(one.name, ()) or one.name in within.get(other.name, ())


def _state(parts: tuple[_Part, ...]) -> Iterator[Doubt]:
    """A function that makes objects now sets up what other changed lines rely on."""
    reason = "objects that exist already were made without this"
    before = frozenset().union(*(filled(part.edit.old_lines) for part in parts))
    for part in parts:
        made = any(_ALLOCATES.match(name) for name in part.uses)
        if not (made or _MAKER.search(part.name)):
            continue
        for member in dict.fromkeys(set_up(part.edit.new_lines)):
            user = _user(parts, part, member)
            if member not in before and user is not None:
                evidence = f"{part.name} sets {member}, {user.name} uses it"
                yield _doubt("existing_objects", part, reason, evidence)
                return
        for name in part.more:
            stem = re.sub(r"_(?:setup|init)$", "_", name)
            user = None if stem == name else _user(parts, part, stem)
            if user is not None:
                evidence = f"{part.name} calls {name}, {user.name} uses {stem}..."
                yield _doubt("existing_objects", part, reason, evidence)
                return


def _user(parts: tuple[_Part, ...], maker: _Part, member: str) -> _Part | None:
    """Who else newly uses a member, or calls a function if ``member`` ends in ``_``."""
    for part in parts:
        if part is maker:
            continue
        if member.endswith("_") and any(name.startswith(member) for name in part.more):
            return part
        if member in identifiers(part.edit.new_lines):
            return part
    return None


def _dropped(parts: tuple[_Part, ...]) -> Iterator[Doubt]:
    """A function no longer stores what it kept in objects, and no other changed one does."""
    named = identifiers(line for part in parts for line in part.edit.new_lines)
    more = sum((part.more for part in parts), Counter[str]())
    for part in parts:
        if not part.lives_on:
            continue
        gone = [m for m in kept(part.edit.old_lines) if m not in named]
        gone += [name for name in part.less if _FILLS.search(name) and name not in more]
        if gone:
            reason = "who relies on it may not have been changed with it"
            yield _doubt("no_longer_stored", part, reason, ", ".join(gone))
            return


def _counters(parts: tuple[_Part, ...]) -> Iterator[Doubt]:
    """A variable of the file goes that functions kept up to date: after an undo they go on from a
    value that the new code did not keep."""
    before = {
        d.name for part in parts for d in part.edit.removed if d.kind is DeclarationKind.VARIABLE
    }
    after = {
        d.name for part in parts for d in part.edit.added if d.kind is DeclarationKind.VARIABLE
    }
    for part in parts:
        counted = set(_COUNTED.findall("\n".join(part.edit.old_lines)))
        gone = sorted(counted & before - after)
        if gone and part.lives_on:
            reason = "after an undo it goes on from a value that the new code did not keep"
            yield _doubt("not_undone", part, reason, ", ".join(gone), strong=False)
            return


def _allocators(parts: tuple[_Part, ...]) -> Iterator[Doubt]:
    """Memory comes from where kfree may not return it."""
    if any(part.more.keys() & _FREES_LARGE for part in parts):
        return
    for part in parts:
        large = next(filter(_LARGE.match, part.more), "")
        small = next(filter(_SMALL.match, part.less), "")
        if large and small:
            reason = "what frees it has not been changed with it"
            yield _doubt("allocator", part, reason, f"{large} for {small}")
            return


def _locks(parts: tuple[_Part, ...]) -> Iterator[Doubt]:
    """A function takes a lock that it did not take: another one in place of the old, which old
    code elsewhere may go by; or one more, and the order of locks may change. A lock that comes with
    the component is taken by nobody else."""
    own = {name for p in parts for line in p.edit.new_lines for name in _NEW_LOCK.findall(line)}
    for part in parts:
        new, old = (
            {what for _, what in _taken(lines)}
            for lines in (part.edit.new_lines, part.edit.old_lines)
        )
        came, went = new - old, old - new
        if part.lives_on and came and went:
            reason = "unchanged code guards the same by the old lock"
            evidence = f"{min(came)} in place of {min(went)}"
            yield _doubt("lock_changed", part, reason, evidence)
            return
    for part in parts:
        if _only_pointed_to(part, parts):
            continue
        before, after = (
            Counter(how for how, what in _taken(lines) if what not in own)
            for lines in (part.edit.old_lines, part.edit.new_lines)
        )
        more = sorted(after - before)
        if more:
            reason = "it takes a lock that it did not take, and who waits holds others"
            yield _doubt("lock_order", part, reason, more[0], strong=False)
            return


def _only_pointed_to(part: _Part, parts: tuple[_Part, ...]) -> bool:
    """Whether a function is new and nothing that changes calls it: it is for objects that changed
    code makes from now on, which have it from the beginning, as in the new kernel."""
    others = [other for other in parts if other is not part]
    data = (other.edit.new_lines for other in others if not other.edit.changed_functions)
    named = {name for lines in data for name in identifiers(lines)}
    called = {name for other in others for name in other.more}
    return not part.lives_on and not part.edit.names & (called | named)


def _taken(lines: tuple[str, ...]) -> list[tuple[str, str]]:
    """How each lock is taken, and which: of ``mutex_lock(&a->b.c)`` that is ``b.c``."""
    found = _LOCK.findall("\n".join(lines))
    return [(_how(spelt), _last(what)) for spelt, what in found]


def _how(spelt: str) -> str:
    """The function that takes a lock, also of a guard."""
    if "guard" not in spelt:
        return spelt.strip("( ")
    kind = _GUARD.sub("", spelt).strip("( ,)")
    return kind.replace("spinlock", "spin_lock").replace("mutex", "mutex_lock")


def _last(expression: str) -> str:
    return expression.split("->")[-1].strip("&* ")


def _flags(parts: tuple[_Part, ...]) -> Iterator[Doubt]:
    """A flag that comes with the component is set, and nobody here asks for it: the other half is
    elsewhere. What obeys a flag that was there before is there as well."""
    given = {d.name for p in parts for d in p.edit.added if d.kind in _CONSTANTS}
    given -= {d.name for part in parts for d in part.edit.removed}
    code = [line for p in parts if p.edit.changed_functions for line in p.edit.new_lines]
    asked = identifiers(line for line in code if not _SET_BIT.search(line))
    for part in parts:
        for flag in _SET_BIT.findall("\n".join(part.edit.new_lines)):
            if flag in given and flag not in asked:
                reason = "what obeys the flag is not changed with it"
                yield _doubt("flag_unread", part, reason, flag, strong=False)
                return


def _bits(parts: tuple[_Part, ...]) -> Iterator[Doubt]:
    """A bit that nobody used has a meaning now. Objects that exist do not have it set, whatever
    happened to them; what only leaves early where it is set does with them what the old code did.
    """
    for name in sorted(frozenset().union(*(part.bits for part in parts))):
        word = re.compile(rf"\b{name}\b")
        known = re.compile(
            rf"[\w.>()-]*(?:->|\.){name}\s*=\s*(?:1|true)\s*;"
            rf"|\bif\s*\(\s*[\w.>-]*(?:->|\.){name}\s*\)\s*\{{?\s*(?:return\b[^;]*|goto\s+\w+|break|continue)\s*;"
        )
        for part in parts:
            if part.bits:
                continue
            if word.search(known.sub("", "\n".join(part.edit.new_lines))):
                reason = "objects that exist already do not have this bit set"
                yield _doubt("existing_objects", part, reason, name, strong=False)
                return


def _callbacks(parts: tuple[_Part, ...]) -> Iterator[Doubt]:
    """What was registered begins to have a callback. One that makes objects has not been called for
    those that exist."""
    for part in parts:
        for member in sorted(part.set):
            made = _MAKER.search(member) is not None
            reason = "what exists already was set up without this callback"
            yield _doubt("existing_objects", part, reason, member, strong=made)
            return


RULES: tuple[Rule, ...] = (
    *(_pairs, _moved, _state, _dropped, _counters, _allocators, _locks, _flags, _bits, _callbacks),
)


def never_leaves(lines: list[str]) -> bool:
    """Whether a function is a kernel thread's loop, which is on its stack all the time."""
    return any(_NEVER_LEAVES.search(line) for line in lines)
