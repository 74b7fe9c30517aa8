# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions in tables of operations, which static initialisers store, and no function's code."""

from __future__ import annotations

from dataclasses import dataclass

from kspliced.facts.model import AccessPath


@dataclass(frozen=True)
class Step:
    """A member of a type, which is named as the compiler names it (``struct file_operations``);
    without a name it is empty."""

    type: str
    member: str


@dataclass(frozen=True)
class TableSlot:
    """``function`` is stored in the variable ``table`` when the unit is loaded.

    :param steps: the members that lead to it, outermost first, members without a name left out;
        empty where the variable itself is the pointer, None where it is not known.
    """

    table: str
    steps: tuple[Step, ...] | None
    function: str

    def may_be(self, path: AccessPath) -> bool:
        """Whether what is read from ``path`` may be this function.

        By the types' names only: a pointer to another type that is converted is not seen.
        """
        if self.steps is None:
            return path.variable in ("", self.table)
        members = tuple(step.member for step in self.steps)
        if path.variable:
            return path.variable == self.table and path.members in ((), members)
        if not path.type or not self.steps:
            return not path.type or "(*" in path.type or path.type == "void *"
        return any(
            (step.type == path.type if step.type else "{" in path.type)
            and path.members in ((), members[at:])
            for at, step in enumerate(self.steps)
        )
