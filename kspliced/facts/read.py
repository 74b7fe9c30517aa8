# SPDX-License-Identifier: GPL-2.0-or-later
"""The facts of a unit, read from what GCC writes beside the object."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kspliced.facts.declared import Declared
from kspliced.facts.dump import OPTION, bodies, clipped, outside
from kspliced.facts.function import read_function
from kspliced.facts.model import Place, UnitFacts, Unread, UnreadKind


def options(dump: Path, declared: Path) -> tuple[str, ...]:
    """The options that make the compiler write what facts are read from, beside the same object."""
    return (f"{OPTION}{dump}", "-aux-info", str(declared))


def read_facts(
    dump: str,
    declared: Declared | None = None,
    top: str = "",
    wanted: Callable[[str], bool] = lambda _: True,
) -> UnitFacts:
    """The facts of a unit's functions, those of headers that are used among them.

    What cannot be read is in the facts as unread; nothing is raised, whatever the texts hold.

    :param dump: what ``-fdump-tree-ssa-raw-lineno`` wrote.
    :param declared: what the unit declares; without it facts say less (:func:`read_function`).
    :param top: the source tree, which paths in the facts are told without.
    :param wanted: of a function's name, whether its facts are needed.
    """
    functions = tuple(
        read_function(body, declared) for body in bodies(dump, top) if wanted(body.name)
    )
    before = outside(dump)
    unread = (Unread(UnreadKind.STATEMENT, clipped(before), Place("", 0)),) if before else ()
    return UnitFacts(functions, unread)
