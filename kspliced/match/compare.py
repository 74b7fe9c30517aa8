# SPDX-License-Identifier: GPL-2.0-or-later
"""Compare one function of a pre object with the kernel's bytes at one address.

A trial collects where the code shows symbols to be. It holds when all bytes are as compiled,
each site has an allowed encoding, each symbol is shown at one place only, here and in everything
matched before, and the constants it reaches have the compiled content.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from kspliced.elf.section_class import disagree, section_class
from kspliced.errors import KernelError
from kspliced.kernel.image import KernelImage
from kspliced.match.oracle import Oracle
from kspliced.match.pattern import (
    ADDRESS_MASK,
    VOLATILE,
    Bound,
    Constant,
    Content,
    Destination,
    Field,
    Recipe,
    Site,
    Thunked,
    Variant,
)
from kspliced.match.report import Cause, Discrepancy
from kspliced.match.shorten import Cuts, shorten
from kspliced.match.unit import Function, Unit
from kspliced.model import VMLINUX

_SHOWN = 16
_INT3 = b"\xcc"
# A batch of sites is rewritten in some milliseconds, tens of them on a slow machine.
_PATIENCE, _PAUSE = 10, 0.01


@dataclass(frozen=True)
class Failure:
    """Why a range is not the compiled one; ``offset`` from its start. ``evidence``, like the bytes,
    is for root."""

    offset: int
    expected: bytes
    found: bytes
    cause: Cause
    reason: str
    evidence: str = ""


@dataclass
class Bindings:
    """Where matched code shows things to be: ``externs`` for a target's undefined names,
    ``sections`` run-time bases of one unit's sections, ``cuts`` where their code is shorter.
    Changed by committing trials only."""

    externs: dict[str, int]
    sections: dict[int, int] = field(default_factory=dict)
    cuts: dict[int, Cuts] = field(default_factory=dict)

    def get(self, key: int | str) -> int | None:
        """The address bound to ``key``."""
        return self.externs.get(key) if isinstance(key, str) else self.sections.get(key)

    def put(self, key: int | str, address: int) -> None:
        """Bind ``key``."""
        if isinstance(key, str):
            self.externs[key] = address
        else:
            self.sections[key] = address


class Trial:
    """An attempt to match; :meth:`commit` makes what it showed binding."""

    def __init__(self, unit: Unit, kernel: KernelImage, oracle: Oracle, bound: Bindings) -> None:
        self._unit = unit
        self._kernel = kernel
        self._oracle = oracle
        self._bound = bound
        self._shown: dict[int | str, int] = {}
        self._cuts: dict[int, Cuts] = {}
        self.recipe = Recipe(b"", (), ())
        self.found = b""
        self.fields = 0
        self.sites = 0

    def function(self, function: Function, address: int) -> Failure | None:
        """Try ``function`` at run-time ``address``; None when it is there."""
        base = (address - function.value) & ADDRESS_MASK
        own = Bound(function.section, 0, function.name)
        why = self._bind(own, base)
        if why:
            return Failure(0, b"", b"", Cause.OTHER_REFERENCE, why.text, why.evidence)
        self.recipe = self._unit.recipe(function.section, function.value, function.size)
        try:
            self.found = self._kernel.read(address, function.size)
        except KernelError as error:
            return _unreadable(error)
        try:
            failure = self._range(self.recipe, address, self.found)
        except KernelError as error:
            return _unreadable(error)
        if failure is None or failure.cause is not Cause.OTHER_CODE:
            return failure
        shortened = shorten(self._unit, function, self.found)
        if shortened is None:
            return failure
        self._shown = {function.section: base}
        self._cuts = {function.section: shortened.cuts}
        self.recipe, self.fields, self.sites = shortened.recipe, 0, 0
        found = self.found[: len(self.recipe.data)]
        if self._range(self.recipe, address, found):
            return failure
        self.found = found
        return None

    def datum(self, section: int, base: int) -> Discrepancy | None:
        """Why data ``section`` cannot be at run-time ``base``, or None."""
        return self._bind(Bound(section, 0, self._unit.sections[section].name), base)

    def leads(self, section: int, base: int) -> Discrepancy | None:
        """The same for data that may be written; they must lead where they did as compiled."""
        why = self.datum(section, base)
        size = self._unit.sections[section].size
        try:
            found = self._kernel.read(base, size)
        except KernelError as error:
            return why or _hidden("it", error)
        fields = self._unit.recipe(section, 0, size).fields
        return why or next(filter(None, (self._field(f, found, base, 0) for f in fields)), None)

    def commit(self) -> None:
        """Make what this trial showed binding for later ones."""
        for key, address in self._shown.items():
            self._bound.put(key, address)
        self._bound.cuts.update(self._cuts)

    def _range(self, recipe: Recipe, address: int, found: bytes) -> Failure | None:
        at = recipe.first_difference(found)
        if at is not None:
            return Failure(
                at,
                recipe.data[at : at + _SHOWN],
                found[at : at + _SHOWN],
                Cause.OTHER_CODE,
                "the code is not as compiled",
            )
        for item in recipe.fields:
            why = self._field(item, found, address, 0)
            if why:
                cause = Cause.OTHER_REFERENCE
                return Failure(item.offset, b"", b"", cause, why.text, why.evidence)
        for site in recipe.sites:
            failure = self._site(site, found, address)
            if failure:
                return failure
        self.fields += len(recipe.fields)
        self.sites += len(recipe.sites)
        return None

    def _site(self, site: Site, found: bytes, address: int) -> Failure | None:
        here = found[site.offset : site.offset + site.size]
        if site.kind in VOLATILE and here[:1] == _INT3:
            here = self._poked(site, address)
        why = Discrepancy(f"no encoding that the kernel writes at this {site.kind.value} site")
        for variant in site.variants:
            with self._attempt() as attempt:
                fits, reason = self._variant(variant, here, address + site.offset)
                attempt.kept = fits
            if fits:
                return None
            why = reason or why
        expected = site.variants[0].data
        return Failure(site.offset, expected, here, Cause.OTHER_CODE, why.text, why.evidence)

    def _poked(self, site: Site, address: int) -> bytes:
        """The site once the kernel has finished rewriting it.

        text_poke_bp() puts a breakpoint there for that time; a kprobe may not stand there.
        """
        here = _INT3
        for _ in range(_PATIENCE):
            time.sleep(_PAUSE)
            here = self._kernel.read(address + site.offset, site.size)
            if here[:1] != _INT3:
                break
        return here

    def _variant(
        self, variant: Variant, here: bytes, address: int
    ) -> tuple[bool, Discrepancy | None]:
        masked = bytearray(here)
        for item in variant.fields:
            masked[item.offset : item.offset + item.size] = bytes(item.size)
        if masked != variant.data:
            return False, None
        for item in variant.fields:
            why = self._field(item, here, address, 0)
            if why:
                return False, why
        return True, None

    @contextmanager
    def _attempt(self) -> Iterator[_Attempt]:
        """Forget what was shown meanwhile unless it is kept."""
        before = len(self._shown)
        attempt = _Attempt()
        yield attempt
        if not attempt.kept:
            for key in list(self._shown)[before:]:
                del self._shown[key]

    def _field(self, item: Field, found: bytes, base: int, at: int) -> Discrepancy | None:
        """Why what ``item`` shows cannot be, or None."""
        shown = item.shown(found, base, at)
        want = item.want
        if isinstance(want, Bound):
            return self._bind(want, (shown - want.offset + self._nearer(item, want)) & ADDRESS_MASK)
        if isinstance(want, Destination):
            if self._oracle.allows(want, shown):
                return None
            return self._shows(f"the {want.allowed.value} leads to", shown)
        if isinstance(want, Thunked):
            size = self._oracle.thunk_size(shown)
            if not size:
                return self._shows("there is no call thunk at", shown)
            return self._bind(want.function, (shown + size - want.function.offset) & ADDRESS_MASK)
        if isinstance(want, Constant):
            if shown == want.value & ADDRESS_MASK:
                return None
            text = "an absolute value is not as compiled"
            return Discrepancy(text, f"{shown:#x}, not {want.value:#x}")
        return self._content(want, shown)

    def _nearer(self, item: Field, want: Bound) -> int:
        """How much nearer the place is that ``item`` refers to, as code before it is shorter."""
        if not isinstance(want.key, int):
            return 0
        # A branch counts from its end, which is the end of its field.
        place = want.offset + item.addend + (item.size if item.relative else 0)
        return self._lost(want.key, place)

    def _lost(self, section: int, offset: int) -> int:
        """How many bytes the kernel's code of ``section`` is shorter before ``offset``."""
        cuts = self._cuts.get(section) or self._bound.cuts.get(section)
        return cuts.shift(offset) if cuts else 0

    def _content(self, want: Content, shown: int) -> Discrepancy | None:
        address = (shown + want.shift) & ADDRESS_MASK
        try:
            found = self._kernel.read(address, len(want.data))
        except KernelError as error:
            return _hidden("a constant", error)
        if found == want.data:
            return None
        seen = f"at {address:#x} is {found[:40]!r}, not {want.data[:40]!r}"
        return Discrepancy("a constant is not as compiled", seen)

    def _bind(self, want: Bound, base: int) -> Discrepancy | None:
        known = self._shown.get(want.key)
        if known is None:
            known = self._bound.get(want.key)
        if known == base:
            return None
        if known is not None:
            here, there = base + want.offset, known + want.offset
            text = f"{want.label} is shown at {self._name(here)}, elsewhere at {self._name(there)}"
            return Discrepancy(text, f"{here:#x}, {there:#x}")
        self._shown[want.key] = base
        if isinstance(want.key, str):
            return self._extern(want.key, base)
        return self._section(want.key, base)

    def _extern(self, name: str, address: int) -> Discrepancy | None:
        symbols, target = self._kernel.symbols, self._unit.target
        if any(s.address == address for s in symbols.named(name, target)):
            return None
        if target != VMLINUX and any(s.address == address for s in symbols.exported(name)):
            return None
        return self._shows(f"{name} is shown at", address, ", which has another name")

    def _section(self, section: int, base: int) -> Discrepancy | None:
        """Constants must have the compiled content, functions and data the compiled name.

        A function's own content is compared when it is that function's turn.
        """
        unit = self._unit
        kind = unit.sections[section]
        compiled, lies = section_class(kind), self._kernel.memory(base, unit.target)
        if kind.size and lies is not None and disagree(compiled, lies):
            text = f"{kind.name} is {compiled.value} memory, but lies in {lies.value} memory"
            return Discrepancy(text)
        if not kind.executable and kind.size and unit.constant(section):
            recipe = unit.recipe(section, 0, kind.size)
            try:
                found = self._kernel.read(base, kind.size)
            except KernelError as error:
                return _hidden(kind.name, error)
            failure = self._range(recipe, base, found)
            if failure:
                text = f"{kind.name}+{failure.offset:#x}: {failure.reason}"
                return Discrepancy(text, failure.evidence)
        return self._names(section, base)

    def _names(self, section: int, base: int) -> Discrepancy | None:
        """What kallsyms knows by name must be where kallsyms has something of that name."""
        symbols, target = self._kernel.symbols, self._unit.target
        for symbol in self._unit.names.get(section, ()):
            stem = stem_of(symbol.name)
            candidates = symbols.stem(stem, target)
            address = base + symbol.value - self._lost(section, symbol.value)
            if candidates and all(c.address != address for c in candidates):
                text = f"{symbol.name} is shown at"
                return self._shows(text, address, ", which has another name")
        return None

    def _shows(self, before: str, address: int, behind: str = "") -> Discrepancy:
        """A text with the symbol at ``address`` in it; the address itself is evidence."""
        return Discrepancy(f"{before} {self._name(address)}{behind}", f"{address:#x}")

    def _name(self, address: int) -> str:
        symbol = self._kernel.symbols.nearest(address)
        if symbol is None:
            return "a place without a symbol"
        return f"{symbol.name}+{address - symbol.address:#x} [{symbol.target}]"


def _hidden(what: str, error: KernelError) -> Discrepancy:
    return Discrepancy(f"{what} cannot be read: {error.message}", "; ".join(error.evidence))


def _unreadable(error: KernelError) -> Failure:
    evidence = "; ".join(error.evidence)
    return Failure(0, b"", b"", Cause.UNREADABLE, error.message, evidence)


@dataclass
class _Attempt:
    kept: bool = False


def stem_of(name: str) -> str:
    """``name`` without the suffixes that compilers number (.isra.0, .constprop.1, .cold, .5)."""
    dot = name.find(".", 1)
    return name if dot < 0 else name[:dot]
