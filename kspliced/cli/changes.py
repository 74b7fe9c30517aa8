# SPDX-License-Identifier: GPL-2.0-or-later
"""What an update changes, counted in one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from kspliced.cli import output
from kspliced.model import ChangeKind, FunctionChange


def counted(changes: Iterable[FunctionChange]) -> str:
    """``2 functions replaced, 1 added, 1 constant changed``."""
    kinds = Counter(change.kind for change in changes)
    counts = [f"{output.plural(kinds[ChangeKind.CHANGED], 'function')} replaced"]
    if kinds[ChangeKind.NEW]:
        counts.append(f"{kinds[ChangeKind.NEW]} added")
    if kinds[ChangeKind.DATA]:
        counts.append(f"{output.plural(kinds[ChangeKind.DATA], 'datum')} added")
    if kinds[ChangeKind.CONSTANT]:
        counts.append(f"{output.plural(kinds[ChangeKind.CONSTANT], 'constant')} changed")
    return ", ".join(counts)
