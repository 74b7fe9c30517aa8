# SPDX-License-Identifier: GPL-2.0-or-later
"""The largest set of components that compiles, differs as it may, and stands by itself.

The hot tree is the old tree with the accepted components only. What does not compile in it, or
differs in a way that a rule forbids, is charged to its component. Its files are taken apart
(plan/parts.py), or it is dropped with all that needs it; then everything that remains is tried
again, until nothing is dropped. Each file is divided once and dropping only ever makes the set
smaller, so the search ends, and its order is that of the names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kspliced.build import blame
from kspliced.build.closed import Listed, Proofs, charges_for_missing
from kspliced.build.doubted import doubts_about, loops
from kspliced.build.enumerators import EnumeratorProofs
from kspliced.build.fates import LATER, Decision, Fate, each, header_fates, header_paths
from kspliced.build.hot import HotTree, around_headers
from kspliced.build.kbuild import Kbuild, Unit
from kspliced.build.late import Compiled, Olds, strangers, with_more
from kspliced.build.neighbours import Neighbours
from kspliced.build.nmi import entangled
from kspliced.build.remembered import GivenUp, Remembered, State
from kspliced.build.select import Irrelevant, Selection
from kspliced.build.types import Room
from kspliced.build.unit import DiffedUnit, PlainProofs, diff_unit, join_units
from kspliced.build.wish import Wish, wanted
from kspliced.build.workspace import Workspace, source_of
from kspliced.errors import BuildError, Code
from kspliced.model import Refusal
from kspliced.plan.components import Component, Decomposer, Texts
from kspliced.plan.conditions import Configuration
from kspliced.plan.makers import Makers
from kspliced.plan.placement import only_placed
from kspliced.plan.safety import Doubt, Policy, passes
from kspliced.source.functions import touched_functions
from kspliced.source.snapshot import Snapshot


@dataclass(frozen=True)
class Found:
    """``diffed`` are the units of the live components that have something to replace; ``same``
    are files whose code is the same."""

    fates: tuple[Fate, ...]
    diffed: tuple[DiffedUnit, ...]
    same: tuple[Irrelevant, ...] = ()


def search(
    selection: Selection,
    old: Snapshot,
    workspace: Workspace,
    kbuild: Callable[[str], Kbuild],
    neighbours: Neighbours,
    configuration: Configuration,
    wish: Wish,
    compiled: Compiled,
    listed: Callable[[], Listed],
    remembered: Remembered,
    say: Callable[[str], None],
) -> Found:
    """Decompose what was selected and find what of it may go live.

    :raises BuildError: what compiling raises but for units that do not compile.
    """
    odd = {r.unit for r in selection.refused if r.unit.endswith(".c")}
    sources = sorted({*map(source_of, selection.units + selection.later), *odd})
    paths = (*sources, *selection.headers)
    texts = Texts(workspace.old.top, workspace.changed.top, paths, configuration)

    def reads(path: str) -> frozenset[str]:
        # What is not compiled does not go live, whatever it reads.
        return compiled.first().reads.get(path, frozenset())

    def mentions(names: frozenset[str]) -> Mapping[str, frozenset[str]]:
        # A source that is not built is not concerned.
        return neighbours.built_only(old.mentions(names))

    together = tuple(group for told in wish.told for group in told.together)
    makers = Makers(wish.told)
    included = {one.path: one.hosts for one in selection.included}
    decomposer = Decomposer(
        texts, sources, selection.headers, mentions, reads, together, makers, included, wish.foreign
    )
    whole = wanted(decomposer.decompose(), wish)
    concerned = {n.path for n in whole.sources if not n.edits} - set(sources)
    found = neighbours.units(concerned)
    units, later = selection.units + found.units, selection.later + found.later
    selection = replace(selection, units=units, later=later)

    first = with_more(compiled, found.units) if found.units else compiled.first
    pre = Olds(first, later, compiled.more)
    workspace.make_hot()
    return _Search(
        selection,
        neighbours,
        decomposer,
        makers,
        texts,
        workspace,
        kbuild,
        wish,
        pre,
        listed,
        remembered,
        say,
    ).run()


class _Search:
    def __init__(
        self,
        selection: Selection,
        neighbours: Neighbours,
        decomposer: Decomposer,
        makers: Makers,
        texts: Texts,
        workspace: Workspace,
        kbuild: Callable[[str], Kbuild],
        wish: Wish,
        pre: Olds,
        listed: Callable[[], Listed],
        remembered: Remembered,
        say: Callable[[str], None],
    ) -> None:
        self._neighbours, self._decomposer, self._makers = neighbours, decomposer, makers
        self._texts, self._workspace, self._kbuild = texts, workspace, kbuild
        self._post = kbuild("post")
        self._units = {source_of(unit): unit for unit in selection.units}
        self._later = {source_of(unit): unit for unit in selection.later}
        self._known = {**self._later, **self._units}
        self._odd = {refusal.unit: refusal for refusal in selection.refused}
        self._idle, self._included = selection.idle_headers, selection.included
        self._wish, self._pre, self._say = wish, pre, say
        self._remembered, self._before = remembered, remembered.read()
        self._dropped: dict[str, Fate] = {}
        self._divided = frozenset(self._before.divided)
        self._severed = frozenset(self._before.severed)
        self._to_divide: set[str] = set()
        self._completed: set[str] = set()
        self._settled = self._surveyed = self._before.settled
        self._hot = HotTree(texts, workspace.heat)
        self._plain = PlainProofs(self._compile_plain)
        self._proofs = Proofs(listed, self._olds)
        self._enumerators = EnumeratorProofs(kbuild, texts, pre)
        self._doubted: dict[str, tuple[Component, tuple[Doubt, ...]]] = {}
        self._diffs: dict[tuple[str, int, int, tuple[str, ...]], DiffedUnit] = {}

    def run(self) -> Found:
        self._decompose()
        for component in self._before.given_up:
            if component.name in self._components:
                self._drop(component.name, component.decision, component.reasons)
        while True:
            self._drop_dependents()
            self._remember()
            live = self._live()
            if self._settled:
                self._hot.forget()
            self._hot.heat(live)
            # What drops out with an edit of a header is found before half of the tree is compiled.
            live = live if self._surveyed else around_headers(live)
            units = self._units_of(live)
            self._say(f"{len(live)} components, {len(units)} units")
            failed = self._compile(units)
            if self._cool(live, failed):
                continue
            if self._charge_failures(live, failed):
                self._decompose()
                continue
            headers = header_paths(live)
            diffed = list(join_units(self._diff(u, headers[source_of(u)]) for u in units))
            # All that can be said of this tree, so that it takes fewer of them.
            charges = (self._charge_refusals, self._charge_late, self._doubt)
            charged = [charge(live, diffed) for charge in charges]
            # What a part uses may be of one that is not compiled yet, or was just given up.
            if any(charged) or (self._surveyed and self._charge_missing(live, diffed)):
                self._decompose()
                continue
            if not self._settled:
                self._settled, self._surveyed = self._surveyed, True
                self._hot.forget()
                continue
            diffed = list(self._enumerators.prove(self._plain.prove(diffed), live))
            if not self._charge_refusals(live, diffed):
                return self._found(live, diffed)
            self._decompose()

    def _remember(self) -> None:
        given_up = (GivenUp(n, f.decision, f.reasons) for n, f in sorted(self._dropped.items()))
        divided, severed = (tuple(sorted(some)) for some in (self._divided, self._severed))
        self._remembered.write(State(divided, tuple(given_up), self._settled, severed))

    def _decompose(self) -> None:
        """Take apart what is to be divided, and judge all components by their text, until none
        is to be divided any more."""
        while True:
            self._severed |= self._to_divide & self._divided
            self._divided |= self._to_divide
            self._to_divide.clear()
            found = self._decomposer.decompose(self._divided, self._severed)
            self._decomposition = wanted(found, self._wish)
            self._components = {c.id: c for c in self._decomposition.components}
            headers = self._decomposition.headers
            self._room = Room(
                frozenset(tag for header in headers for tag in header.carved),
                frozenset(tag for header in headers for tag in header.padded),
            )
            self._dropped = {
                name: fate
                for name, fate in self._dropped.items()
                if self._components.get(name) == fate.component
            }
            for component in self._components.values():
                if component.id not in self._dropped:
                    self._judge(component)
            if not self._to_divide:
                return

    def _give_up(
        self, component: Component, decision: Decision, reasons: tuple[Refusal, ...]
    ) -> None:
        """Divide the files of a component if they can be, else drop it."""
        apart = {
            path
            for path in component.files
            if path not in self._divided and self._decomposer.divisible(path)
        }
        if not apart and self._wish.policy is Policy.NORMAL:
            apart = set(filter(self._severable, component.files))
            self._divided |= apart
        if apart:
            self._to_divide |= apart
        else:
            self._drop(component.id, decision, reasons)

    def _severable(self, path: str) -> bool:
        return path not in self._severed and self._decomposer.severable(path)

    def _compile(self, units: tuple[Unit, ...]) -> dict[str, str]:
        """Compile the hot tree; what does not compile before or after the change."""
        if self._pre.want(units):
            self._workspace.make_hot()
        failed = self._post.compile(units) if units else {}
        before = self._pre().failed
        missing = {path for path, text in failed.items() if "No such file" in text}
        if missing - self._completed:
            # Compiling the old tree may have laid out more of it.
            self._completed |= missing
            self._workspace.make_hot()
            failed = self._post.compile(units)
        return {**before, **failed}

    def _olds(self) -> Iterator[tuple[Unit, Path]]:
        """The old objects that are compiled."""
        top = self._workspace.objtree("pre")
        paths = ((unit, top / unit.path) for unit in self._known.values())
        return ((unit, path) for unit, path in paths if path.is_file())

    def _compile_plain(self, units: tuple[Unit, ...]) -> dict[str, bytes]:
        """The old units as the kernel was compiled, by path.

        :raises BuildError: COMPILE_FAILED when one compiles in sections only.
        """
        self._say(f"{len(units)} units as the kernel was compiled")
        plain = self._kbuild("plain")
        failed = plain.compile(units)
        if failed:
            path, words = next(iter(failed.items()))
            text = f"{path} compiles with a section for each function only: {words}"
            raise BuildError(Code.COMPILE_FAILED, text, "report this", tuple(failed.values())[:20])
        return {unit.path: plain.object_path(unit).read_bytes() for unit in units}

    def _judge(self, component: Component) -> None:
        """Drop what is refused, or late, without compiling it."""
        later = self._late_files(component)
        odd = tuple(self._odd[path] for path in component.files if path in self._odd)
        left_out = [path for path in component.files if self._left_out(path)]
        halved = [path for path in component.files if self._halved(path)]
        unknown = [p for p in component.files if p not in self._units and p not in self._later]
        if len(later) == len(component.files):
            self._drop(component.id, Decision.LATER, each("module_not_loaded", later, LATER))
        elif odd:
            self._drop(component.id, Decision.REBOOT, component.refused + odd)
        elif component.refused:
            self._give_up(component, Decision.REBOOT, component.refused)
        elif left_out:
            reason = "it was left out: the running code differs, or threads are always in it"
            self._drop(component.id, Decision.REBOOT, each("left_out", left_out, reason))
        elif halved:
            reason = "it changes together with what is asked for, and is not asked for"
            self._drop(component.id, Decision.REBOOT, each("left_out", halved, reason))
        elif unknown:
            reason = "what a header changes concerns this file, which is built in another way"
            self._drop(component.id, Decision.REBOOT, each("unit_unknown", unknown, reason))

    def _late_files(self, component: Component) -> tuple[str, ...]:
        return tuple(p for p in component.files if p in self._later or self._rests(p))

    def _rests(self, path: str) -> bool:
        """Whether a file that is no unit is included by those of modules that are not loaded."""
        return path not in self._units and self._neighbours.rest(path)

    def _left_out(self, path: str) -> bool:
        unit = self._known.get(path)
        return unit is not None and self._wish.leaves_out(unit.path)

    def _halved(self, path: str) -> bool:
        """Whether it is here for what a header changes, and its own change was not selected."""
        return not self._wish.takes(path) and self._texts.changed(path)

    def _drop(self, name: str, decision: Decision, reasons: tuple[Refusal, ...]) -> None:
        self._dropped.setdefault(name, self._fate(self._components[name], decision, reasons))

    def _fate(self, component: Component, decision: Decision, reasons: tuple[Refusal, ...]) -> Fate:
        known = self._known
        targets = sorted({known[path].target for path in component.files if path in known})
        return Fate(component, decision, reasons, tuple(targets), self._late_files(component))

    def _drop_dependents(self) -> None:
        again = True
        while again:
            dropped = len(self._dropped)
            for component in self._live():
                missing = [name for name in component.needs if name in self._dropped]
                if missing:
                    reason = f"it calls what {missing[0]} adds, which is not live"
                    refusal = Refusal("needs_refused", component.id, "", reason)
                    self._give_up(component, Decision.REBOOT, (refusal,))
            again = len(self._dropped) > dropped or bool(self._to_divide)
            if self._to_divide:
                self._decompose()

    def _live(self) -> list[Component]:
        return [c for name, c in sorted(self._components.items()) if name not in self._dropped]

    def _units_of(self, components: Iterable[Component]) -> tuple[Unit, ...]:
        paths = sorted({path for component in components for path in component.files})
        return tuple(self._known[path] for path in paths)

    def _cool(self, live: list[Component], failed: Mapping[str, str]) -> bool:
        """Take what was dropped out of the headers that units read which do not compile: it may be
        why. Whether there was any."""
        pre = self._pre()
        read: set[str] = set()
        for unit in self._units_of(live):
            if unit.path in failed.keys() - pre.failed.keys():
                read |= pre.reads.get(source_of(unit), frozenset())
        return self._hot.cool(self._live(), read)

    def _charge_failures(self, live: list[Component], failed: Mapping[str, str]) -> bool:
        before = self._pre().failed
        guilty: dict[str, list[Refusal]] = {}
        for unit, users in self._users(live):
            if unit.path in failed:
                source, words = source_of(unit), failed[unit.path]
                if unit.path not in before:
                    users = blame.of_words(words, source, users, self._texts.around(source))
                blame.charge(
                    guilty, users, Refusal("does_not_compile", source, "", _COMPILE, words)
                )
        return self._give_up_all(live, guilty)

    def _charge_refusals(self, live: list[Component], diffed: list[DiffedUnit]) -> bool:
        refused = {d.unit.path: d.refused for d in diffed if d.refused}
        guilty: dict[str, list[Refusal]] = {}
        for unit, users in self._users(live):
            source = source_of(unit)
            for refusal in refused.get(unit.path, ()):
                mentioned = blame.reached(self._texts, source, refusal.symbol, blame.INLINED)
                to_blame = blame.of_symbol(refusal.symbol, source, users, mentioned)
                blame.charge(guilty, to_blame, refusal)
        exposed = {d.unit.path: d.interruptible for d in diffed}
        for name, some in blame.of_interrupts(exposed, self._users(live), self._texts).items():
            refusals = [Refusal("nmi", one.unit, one.name, _NMI) for one in entangled(some)]
            guilty.setdefault(name, []).extend(refusals)
        return self._give_up_all(live, {name: some for name, some in guilty.items() if some})

    def _charge_late(self, live: list[Component], diffed: list[DiffedUnit]) -> bool:
        """Give up what of modules that are not loaded cannot go live with what runs, or need not
        wait for it; whether there was any."""
        changed = {source_of(d.unit) for d in diffed if d.functions}
        dropped = len(self._dropped)
        for component in live:
            later = [path for path in component.files if path in self._later]
            if later and not changed & (set(component.files) - set(later)):
                reasons = each("module_not_loaded", later, LATER)
                self._drop(component.id, Decision.LATER, reasons)
        guilty: dict[str, list[Refusal]] = {}
        refused = tuple(strangers(diffed, {unit.target for unit in self._later.values()}))
        for unit, users in self._users(live):
            for refusal in refused:
                if refusal.unit == source_of(unit):
                    blame.charge(guilty, users, refusal)
        return self._give_up_all(live, guilty) or len(self._dropped) > dropped

    def _charge_missing(self, live: list[Component], diffed: list[DiffedUnit]) -> bool:
        """Give up what uses symbols that nothing shows its target to have; whether it was any."""
        missing = self._proofs.missing(diffed)
        users, every = self._users(live), self._components.values()
        guilty = charges_for_missing(missing, users, self._texts, every, self._dropped)
        return self._give_up_all(live, guilty)

    def _users(self, live: list[Component]) -> Iterator[tuple[Unit, tuple[Component, ...]]]:
        """Each unit with the components that share it."""
        users: dict[str, list[Component]] = {}
        for component in live:
            for path in component.files:
                users.setdefault(path, []).append(component)
        for path, some in sorted(users.items()):
            yield self._known[path], tuple(some)

    def _give_up_all(self, live: list[Component], guilty: Mapping[str, list[Refusal]]) -> bool:
        for component in live:
            if component.id in guilty:
                reasons = tuple(dict.fromkeys(guilty[component.id]))
                self._give_up(component, Decision.REBOOT, reasons)
        return bool(guilty)

    def _doubt(self, live: list[Component], diffed: list[DiffedUnit]) -> bool:
        """Give up what the policy does not let go live by itself; whether there was any."""
        changed = {d.unit.path: {f.name for f in d.functions} for d in diffed if d.functions}
        guilty: dict[str, list[Refusal]] = {}
        for unit, users in self._users(live):
            source = source_of(unit)
            inside = (one.path for one in self._included if source in one.hosts)
            for loop in loops(self._texts, (source, *inside), changed.get(unit.path, set())):
                blame.charge(guilty, blame.of_symbol(loop.symbol, source, users), loop)
        asked = False
        for component in live:
            units = [u for u in self._units_of([component]) if u.path in changed]
            if not units or component.id in guilty:
                continue
            found = self._doubts_about(component)
            if not passes(self._wish.policy, found):
                manual = Refusal(
                    "manual", component.id, "", "the policy is to ask about everything"
                )
                reasons = tuple(doubt.refusal for doubt in found) or (manual,)
                self._give_up(component, Decision.ASK, reasons)
                asked = True
        return self._give_up_all(live, guilty) or asked

    def _doubts_about(self, component: Component) -> tuple[Doubt, ...]:
        known = self._doubted.get(component.id)
        if known is None or known[0] != component:
            known = component, doubts_about(component, self._texts, self._makers)
            self._doubted[component.id] = known
        return known[1]

    def _diff(self, unit: Unit, headers: tuple[str, ...]) -> DiffedUnit:
        workspace, source = self._workspace, source_of(unit)
        pre = (workspace.objtree("pre") / unit.path).read_bytes()
        post = (workspace.objtree("post") / unit.path).read_bytes()
        key = (unit.path, hash(pre), hash(post), headers)
        if key not in self._diffs:
            self._say(unit.path)
            touched: tuple[str, ...] = ()
            if self._texts.changed(source):
                touched = touched_functions(workspace.old.top / source, workspace.made(source))
            # What a header changes may be part of anything.
            placed = partial(self._only_placed, source, not headers)
            self._diffs[key] = diff_unit(unit, pre, post, touched, headers, self._room, placed)
        return self._diffs[key]

    def _only_placed(self, source: str, alone: bool, symbol: str) -> bool:
        if not alone:
            return False
        name = blame.in_source(symbol, self._texts.new(source))
        return only_placed(self._texts, source, name)

    def _found(self, live: list[Component], diffed: list[DiffedUnit]) -> Found:
        changed = {d.unit.path for d in diffed if d.functions}
        fates = dict(self._dropped)
        for component in live:
            same = all(unit.path not in changed for unit in self._units_of([component]))
            decision = Decision.IRRELEVANT if same else Decision.LIVE
            fates[component.id] = self._fate(component, decision, ())
        headers = header_fates(self._decomposition.headers, fates.values(), self._idle)
        fates.update((fate.component.id, fate) for fate in tuple(headers))
        used = tuple(d for d in diffed if d.live)
        return Found(
            fates=tuple(fate for _, fate in sorted(fates.items())),
            diffed=used,
            same=tuple(
                Irrelevant(path, "only comments, what is not configured, or what to inline")
                for path in self._decomposition.comments
            ),
        )


_NMI = "a non-maskable interrupt that is in one of these functions may call another, new one"
_COMPILE = "it does not compile without changes that cannot go live"
