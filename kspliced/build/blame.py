# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of the components that share a unit, each with a part of its source, a failure is due to.

Where that cannot be told it is due to all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from kspliced.build.kbuild import Unit
from kspliced.build.nmi import Exposed
from kspliced.build.workspace import source_of
from kspliced.model import Refusal
from kspliced.plan.components import Component, Texts
from kspliced.plan.declarations import DeclarationKind
from kspliced.plan.edits import Edit, SourceText
from kspliced.plan.text import identifiers
from kspliced.source.lines import Hunk

_NAME = re.compile(r"[A-Za-z_]\w*")
# What may be part of a function, once it is compiled.
INLINED = frozenset({DeclarationKind.FUNCTION, DeclarationKind.MACRO})
# include/linux/module.h: the symbols that module_init() and module_exit() give a function.
_HOOKS = {
    symbol: re.compile(rf"\s*{macro}\s*\(\s*(\w+)\s*\)")
    for symbol, macro in (("init_module", "module_init"), ("cleanup_module", "module_exit"))
}

# What the macros that say something of a module begin with: MODULE_ALIAS_FS() is a MODULE_ALIAS().
_OF_MODULE = "MODULE_"


def of_words(
    words: str, source: str, components: tuple[Component, ...], text: SourceText
) -> tuple[Component, ...]:
    """Those that the compiler's first error about ``source`` is due to, by the line, or by what a
    header that they change declares: it is named by the error, or else by the line, as where a
    member is initialised. If it is due to others it remains when these are dropped.

    :param text: the old source, which has the lines that nobody changed under their numbers.
    """
    found = re.search(rf"\b{re.escape(source)}:(\d+):", words)
    line = int(found.group(1)) if found is not None else 0
    written = identifiers(text.lines(line, 1))

    def declaring(names: frozenset[str]) -> tuple[Component, ...]:
        return tuple(c for c in components if any(h.concerns & names for h in c.headers))

    return (
        _those(components, source, lambda edit: any(_holds(hunk, line) for hunk in edit.hunks))
        or _those(components, source, lambda edit: _around(edit, line))
        or declaring(frozenset(_NAME.findall(words)))
        or declaring(written)
        or components
    )


def of_symbol(
    symbol: str,
    source: str,
    components: tuple[Component, ...],
    reached: frozenset[str] = frozenset(),
) -> tuple[Component, ...]:
    """Those that change the function, type or datum ``symbol`` in ``source``, or else what may be
    inlined into it, here or from a header, or else those whose changed lines mention it, as where
    it is exported. Of a macro that says something of the module (MODULE_VERSION) it is what its
    arguments are made of.

    :param reached: what it mentions through what may be ``INLINED``, see :func:`reached`.
    """

    def mentions(edit: Edit) -> bool:
        return _mentions(identifiers((*edit.old_lines, *edit.new_lines)), symbol)

    def within(component: Component) -> bool:
        edits = component.edits(source)
        headers = component.headers
        return any(e.names & reached for e in edits) or any(h.names & reached for h in headers)

    return (
        _naming(symbol, source, components)
        or tuple(component for component in components if within(component))
        or _those(components, source, mentions)
        or components
    )


def of_import(
    symbol: str,
    functions: Iterable[str],
    source: str,
    components: tuple[Component, ...],
    texts: Texts,
) -> tuple[Component, ...]:
    """Those whose new lines, or a header's that they change, use the symbol ``symbol`` which the
    code of ``source`` did not use before; or else those that the ``functions`` are due to."""

    def uses(component: Component) -> bool:
        edits = (*component.edits(source), *(header.edit for header in component.headers))
        return any(symbol in identifiers(edit.new_lines) for edit in edits)

    found = tuple(component for component in components if uses(component))
    if found:
        return found
    for name in functions:
        found += of_symbol(name, source, components, reached(texts, source, name, INLINED))
    return tuple(dict.fromkeys(found)) or components


def of_change(
    name: str, source: str, components: tuple[Component, ...], reached: frozenset[str]
) -> tuple[Component, ...]:
    """Those that change the function ``name``, or else may be why it is another one: what they
    change is in what it mentions, or in a header. Where it is none, the compiler chose anew what
    to inline, and the function does the same as before.

    :param reached: what it mentions, as :func:`reached` has it.
    """
    own = _naming(name, source, components)
    if own or not reached:
        return own or components

    def shown(component: Component) -> bool:
        names = [edit.names for edit in component.edits(source)]
        return bool(component.headers) or any(not some or some & reached for some in names)

    return tuple(component for component in components if shown(component))


def reached(
    texts: Texts,
    source: str,
    name: str,
    through: frozenset[DeclarationKind] = frozenset(DeclarationKind),
) -> frozenset[str]:
    """What a function mentions, directly or through others of its source, before or after; empty
    if it is not one of the source's.

    :param through: the kinds of these others.
    """
    if not texts.changed(source):
        return frozenset()
    old, new = texts.old(source), texts.new(source)
    if name.startswith(_OF_MODULE):
        return _arguments(old, name) | _arguments(new, name)
    before, after = (text.reached(in_source(name, text), through) for text in (old, new))
    return before | after if before and after else frozenset()


def _mentions(words: frozenset[str], symbol: str) -> bool:
    if symbol.startswith(_OF_MODULE):
        return any(word.startswith(symbol) for word in words)
    return symbol in words


def _arguments(text: SourceText, macro: str) -> frozenset[str]:
    """What the arguments of a macro outside of functions mention."""
    found: frozenset[str] = frozenset()
    inside = False
    for line in text.code:
        if inside or line.startswith(macro):
            found |= identifiers([line])
            inside = not line.endswith(";")
    return frozenset(word for word in found if not word.startswith(macro))


def in_source(name: str, text: SourceText) -> str:
    """What a function is called in its source: not by what the compiler appends, and not by what a
    module calls its first and last function."""
    hook = _HOOKS.get(name)
    found = (hook.match(line) for line in text.code) if hook is not None else ()
    return next((match.group(1) for match in found if match), name.partition(".")[0])


def of_interrupts(
    exposed: Mapping[str, tuple[Exposed, ...]],
    users: Iterable[tuple[Unit, tuple[Component, ...]]],
    texts: Texts,
) -> dict[str, list[Exposed]]:
    """By component, those of the ``exposed`` functions of each unit that it changes."""
    found: dict[str, list[Exposed]] = {}
    for unit, components in users:
        source = source_of(unit)
        for one in exposed.get(unit.path, ()):
            mentioned = reached(texts, source, one.name)
            for component in of_change(one.name, source, components, mentioned):
                found.setdefault(component.id, []).append(one)
    return found


def charge(
    guilty: dict[str, list[Refusal]], components: Iterable[Component], refusal: Refusal
) -> None:
    """Add a refusal to what is said of each of ``components``, by name."""
    for component in components:
        guilty.setdefault(component.id, []).append(refusal)


def _naming(symbol: str, source: str, components: tuple[Component, ...]) -> tuple[Component, ...]:
    words = {word.partition(".")[0] for word in symbol.split()}
    return _those(components, source, lambda edit: bool(edit.names & words))


def _those(
    components: tuple[Component, ...], source: str, guilty: Callable[[Edit], bool]
) -> tuple[Component, ...]:
    return tuple(c for c in components if any(guilty(edit) for edit in c.edits(source)))


def _holds(hunk: Hunk, line: int) -> bool:
    """Unchanged lines keep their old numbers (source/lines.py), new ones go on from those."""
    first = hunk.old_start + (hunk.old_count == 0)
    return first <= line < first + max(hunk.new_count, 1)


def _around(edit: Edit, line: int) -> bool:
    return any(d.start <= line <= d.end for d in edit.removed)
