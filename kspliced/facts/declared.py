# SPDX-License-Identifier: GPL-2.0-or-later
"""The functions that a unit declares and defines: what GCC's ``-aux-info FILE`` writes.

A line for each of them, of headers too, in the order of the source (gcc(1), -aux-info)::

    /* a.c:9:NF */ static int my_open (struct foo *f, int x); /* (f, x) struct foo *f; int x; */

``F`` is a definition, ``C`` a declaration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kspliced.facts.model import Place

_LINE = re.compile(
    r"^/\* (?P<file>.+?):(?P<line>[0-9]{1,9}):[A-Z](?P<what>[CF]) \*/ "
    r"(?P<storage>\w+) (?P<rest>.*)$",
    re.MULTILINE,
)
# The name is before the parameters, which are the first parenthesis unless the function returns a
# pointer to a function: then it is inside of that.
_NAME = re.compile(r"([A-Za-z_$][\w$]*) \(")


@dataclass(frozen=True)
class Definition:
    """Where a function is defined, and whether it is static."""

    place: Place
    static: bool


@dataclass(frozen=True)
class Declared:
    """What a unit declares: every function's name, and the definitions by name."""

    names: frozenset[str]
    definitions: tuple[tuple[str, Definition], ...]


def read_declared(text: str, top: str = "") -> Declared:
    """The functions of ``-aux-info``'s file; lines of another form are left out.

    :param top: the source tree, which paths in it are told without.
    """
    names, found = set(), {}
    prefix = f"{top}/" if top else ""
    for line in _LINE.finditer(text):
        name = _NAME.search(line["rest"])
        if name is None:
            continue
        names.add(name[1])
        if line["what"] == "F":
            place = Place(line["file"].removeprefix(prefix), int(line["line"]))
            found[name[1]] = Definition(place, line["storage"] == "static")
    return Declared(frozenset(names), tuple(sorted(found.items())))
