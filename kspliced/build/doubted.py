# SPDX-License-Identifier: GPL-2.0-or-later
"""What is in doubt about a component that compiles and differs as it may (plan/safety.py), and the
functions that no thread ever leaves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from kspliced.model import Refusal
from kspliced.plan.components import Component, Texts
from kspliced.plan.makers import Makers
from kspliced.plan.safety import Doubt, doubts, never_leaves

_UNTOLD = "which commit made this part of a file, of which another cannot go live, is not known"


def doubts_about(component: Component, texts: Texts, makers: Makers) -> tuple[Doubt, ...]:
    """All doubts about what a component does, in its headers, too."""
    edits = (
        *(edit for node in component.nodes for edit in node.edits),
        *(header.edit for header in component.headers),
    )
    return (*doubts(edits, texts), *_untold(component, makers))


def _untold(component: Component, makers: Makers) -> Iterator[Doubt]:
    """Parts of files of which no changelog entry is known to have made them: they may be half of
    what was done."""
    for path in component.divided:
        edits = (edit for edit in component.edits(path) if edit.names)
        unknown = [e for e in edits if not all(map(makers.known, e.spots))]
        if unknown:
            name = min(unknown[0].names)
            yield Doubt(Refusal("part_untold", path, name, _UNTOLD), strong=False)


def loops(texts: Texts, paths: Iterable[str], changed: Collection[str]) -> Iterator[Refusal]:
    """The changed functions of a unit that a kernel thread never returns from.

    :param paths: the unit's source, and sources that this includes.
    :param changed: the names of the functions whose code changes.
    """
    first, *_ = found = tuple(paths)
    for text in (texts.new(path) for path in found if texts.changed(path)):
        for function in text.declarations:
            lines = text.lines(function.start, function.end - function.start + 1)
            if function.name in changed and never_leaves(lines):
                reason = "a kernel thread is in this function as long as it lives"
                yield Refusal("never_leaves", first, function.name, reason)
