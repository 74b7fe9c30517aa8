# SPDX-License-Identifier: GPL-2.0-or-later
"""Proof that an update is closed: each symbol that its code imports by name is one that the target
has while it runs. What nothing shows is charged to what uses it, before anything is emitted.

What shows that a target has a symbol, the first that does:

- a unit that goes live with it adds it, or knows where it is (build/join.py);
- the export table that the headers package ships (Module.symvers): of the kernel proper, or of a
  module that the target's old objects link by already, so that it stays as long as the target;
- the target's old objects define it, or use it in code or data that stay after start-up. A weak
  reference shows nothing, as what it means may be NULL;
- for what modules newly use of the kernel proper, the latter's old objects;
- the running kernel's own list of symbols, where there is one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kspliced.build import blame
from kspliced.build.fates import Fate
from kspliced.build.kbuild import Unit
from kspliced.build.unit import DiffedUnit
from kspliced.build.workspace import source_of
from kspliced.elf.object import SHN_UNDEF, Binding, Object
from kspliced.elf.read import read_object
from kspliced.elf.section_class import is_start_up_table, is_transient
from kspliced.lines import split_lines
from kspliced.model import VMLINUX, Refusal
from kspliced.plan.components import Component, Texts

Users = Iterable[tuple[Unit, tuple[Component, ...]]]


@dataclass(frozen=True)
class Listed:
    """Symbols that the kernel is said to have: ``exports`` by symbol the target that exports it,
    ``running`` those of external linkage that the running vmlinux has after start-up."""

    exports: Mapping[str, str]
    running: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Missing:
    """A symbol that ``functions`` of a unit's new code use, and nothing shows the target to have.
    ``exporter`` is a module that exports it, and that the target does not link by; ``gone`` says
    that it is there for start-up only."""

    unit: Unit
    symbol: str
    functions: tuple[str, ...]
    exporter: str = ""
    gone: bool = False


@dataclass(frozen=True)
class _Shown:
    """What an old object says of symbols of external linkage: it ``defined`` those, ``gone`` those
    that are not there after start-up, ``used`` those in what stays, ``linked`` those anywhere."""

    defined: frozenset[str]
    gone: frozenset[str]
    used: frozenset[str]
    linked: frozenset[str]


def read_exports(path: Path) -> dict[str, str]:
    """The targets that export each symbol, as Module.symvers at ``path`` has it; none without one.

    A line has checksum, symbol, exporter, kind and namespace (scripts/mod/modpost.c, write_dump()).
    New code is linked by address, so that neither licence nor namespace is asked for.
    """
    if not path.is_file():
        return {}
    rows = (line.split("\t") for line in split_lines(path.read_text("utf-8", "replace")))
    return {row[1]: _target(row[2]) for row in rows if len(row) > 3}


def _target(exporter: str) -> str:
    return exporter.rpartition("/")[2].removesuffix(".ko").replace("-", "_")


def read_running(path: Path | None) -> frozenset[str]:
    """The symbols of external linkage that vmlinux has after start-up, of a list as /proc/kallsyms
    has it, or one without its addresses; none without one. It is in the order of addresses."""
    if path is None or not path.is_file():
        return frozenset()
    found: set[str] = set()
    passing = False
    for line in split_lines(path.read_text("utf-8", "replace")):
        words = line.split()
        if len(words) not in (2, 3):
            continue  # a module's
        kind, name = words[-2:]
        passing = name == "__init_begin" or (passing and name != "__init_end")
        if not passing and kind.isupper():
            found.add(name)
    return frozenset(found)


class Proofs:
    """What is known of which target has which symbol. What was shown once stays so.

    :param listed: gives what is listed.
    :param olds: gives the old objects that are compiled.
    """

    def __init__(
        self,
        listed: Callable[[], Listed],
        olds: Callable[[], Iterable[tuple[Unit, Path]]],
    ) -> None:
        self._read_listed, self._olds = listed, olds
        self._listed: Listed | None = None
        self._shown: dict[str, _Shown] = {}
        self._proved: set[tuple[str, str]] = set()

    def missing(self, diffed: Iterable[DiffedUnit]) -> tuple[Missing, ...]:
        """What the units that go live import and nothing shows, by unit and symbol."""
        units = tuple(d for d in diffed if d.live)
        wanted = [(d, name) for d in units for name in _imports(d)]
        wanted = [(d, name) for d, name in wanted if (d.unit.target, name) not in self._proved]
        if not wanted:
            return ()
        if self._listed is None:
            self._listed = self._read_listed()
        for d in units:
            if d.part is not None and d.unit.path not in self._shown:
                self._shown[d.unit.path] = _shown(d.part.diff.pre.layout.object)
        look = _Look(self._listed, self._olds(), self._shown)
        missing = []
        for d, name in wanted:
            if look.has(d.unit.target, name):
                self._proved.add((d.unit.target, name))
            else:
                missing.append(look.missing(d, name))
        return tuple(missing)


def _imports(diffed: DiffedUnit) -> list[str]:
    """The names that a unit's new code means something by that is not of the update."""
    assert diffed.part is not None
    closure = diffed.part.closure
    return sorted(name for name in closure.externs if not closure.lent(name))


class _Look:
    """One look at the old objects. Each is read once, when it first has a name that is looked for;
    ``shown`` has those that were, by unit."""

    def __init__(
        self, listed: Listed, olds: Iterable[tuple[Unit, Path]], shown: dict[str, _Shown]
    ) -> None:
        self._listed, self._shown = listed, shown
        self._olds: dict[str, dict[str, Path]] = defaultdict(dict)
        for unit, path in olds:
            self._olds[unit.target][unit.path] = path

    def has(self, target: str, name: str) -> bool:
        """Whether a target is shown to have a symbol for as long as it runs."""
        owner = self._listed.exports.get(name, "")
        if owner in (VMLINUX, target) or self._own(target, name):
            return True
        if target == VMLINUX:
            return name in self._listed.running
        if owner:
            return self._links(target, owner)
        proper = self._about(VMLINUX, name)
        return name in self._listed.running or any(name in one.defined for one in proper)

    def missing(self, diffed: DiffedUnit, name: str) -> Missing:
        """What is to be said of a symbol that is not shown."""
        assert diffed.part is not None
        gone = any(name in one.gone for one in self._about(diffed.unit.target, name))
        functions = diffed.part.closure.users(name)
        exporter = self._listed.exports.get(name, "")
        return Missing(diffed.unit, name, functions, exporter, gone)

    def _own(self, target: str, name: str) -> bool:
        """Whether a target's old objects define or use a symbol, and it is not for start-up."""
        known = [self._shown[u] for u in self._olds[target] if u in self._shown]
        if not any(name in one.defined or name in one.used for one in known):
            known = list(self._about(target, name))
        has = any(name in one.defined or name in one.used for one in known)
        return has and not any(name in one.gone for one in known)

    def _links(self, target: str, owner: str) -> bool:
        """Whether a module's old objects use what another one exports."""
        linked = (self._read(u, path).linked for u, path in self._olds[target].items())
        return any(self._listed.exports.get(name) == owner for some in linked for name in some)

    def _about(self, target: str, name: str) -> Iterator[_Shown]:
        """What the old objects of a target that name a symbol show."""
        key = b"\0" + name.encode() + b"\0"
        for unit, path in self._olds[target].items():
            if unit in self._shown or key in path.read_bytes():
                yield self._read(unit, path)

    def _read(self, unit: str, path: Path) -> _Shown:
        if unit not in self._shown:
            self._shown[unit] = _shown(read_object(path.read_bytes(), unit))
        return self._shown[unit]


def _shown(obj: Object) -> _Shown:
    passing = {s.index for s in obj.sections if is_transient(s.name)}
    named = [s for s in obj.symbols if s.name and s.binding is not Binding.LOCAL]
    defined = [s for s in named if s.section != SHN_UNDEF]
    linked = {s.index: s.name for s in named if s.section == SHN_UNDEF}
    linked = {n: name for n, name in linked.items() if obj.symbols[n].binding is not Binding.WEAK}
    staying = (
        s for s in obj.sections if s.alloc and s.index not in passing and not _starting(s.name)
    )
    referred = {r.symbol for section in staying for r in section.relocations}
    return _Shown(
        frozenset(s.name for s in defined if s.section not in passing),
        frozenset(s.name for s in defined if s.section in passing),
        frozenset(name for index, name in linked.items() if index in referred),
        frozenset(linked.values()),
    )


def _starting(name: str) -> bool:
    return is_start_up_table(name) or name.startswith(".discard")


def charges_for_missing(
    missing: Iterable[Missing],
    users: Users,
    texts: Texts,
    components: Iterable[Component],
    dropped: Mapping[str, Fate],
) -> dict[str, list[Refusal]]:
    """By component, what its new code uses that its target does not have.

    :param components: all, of which those ``dropped`` are not live.
    """
    found: dict[str, list[Missing]] = defaultdict(list)
    for one in missing:
        found[one.unit.path].append(one)
    adders = _adders({one.symbol for some in found.values() for one in some}, components, texts)
    guilty: dict[str, list[Refusal]] = {}
    for unit, some in users:
        source = source_of(unit)
        for one in found.get(unit.path, ()):
            refusal = _refusal(one, source, adders.get(one.symbol, ()), dropped)
            due = blame.of_import(one.symbol, one.functions, source, some, texts)
            blame.charge(guilty, due, refusal)
    return guilty


def _adders(
    names: set[str], components: Iterable[Component], texts: Texts
) -> dict[str, tuple[str, ...]]:
    """The components that add the definition of each name."""
    found: dict[str, list[str]] = defaultdict(list)
    for component in components:
        for node in component.nodes:
            here = {name for edit in node.edits for name in edit.names & names}
            if here:
                here -= {declaration.name for declaration in texts.old(node.path).declarations}
            for name in sorted(here):
                found[name].append(component.id)
    return {name: tuple(dict.fromkeys(some)) for name, some in found.items()}


def _refusal(
    one: Missing, source: str, adders: tuple[str, ...], dropped: Mapping[str, Fate]
) -> Refusal:
    """Why a symbol cannot be used."""
    symbol, target = one.symbol, one.unit.target
    if one.gone:
        reason = f"new code uses {symbol}, which {target} has for start-up only"
        return Refusal("symbol_missing", source, symbol, reason)
    if one.exporter not in ("", target):
        reason = f"new code uses {symbol} of {one.exporter}, by which {target} does not link"
        return Refusal("new_dependency", source, symbol, reason)
    if adders:
        why = {r.code for name in adders if name in dropped for r in dropped[name].reasons}
        fate = f"does not go live: {', '.join(sorted(why))}" if why else "is not known there"
        reason = f"new code uses {symbol}, which {', '.join(adders)} adds, and that {fate}"
        return Refusal("symbol_missing", source, symbol, reason)
    reason = f"new code uses {symbol}, and nothing shows that {target} has it"
    return Refusal("symbol_missing", source, symbol, reason)
