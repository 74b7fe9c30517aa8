# SPDX-License-Identifier: GPL-2.0-or-later
"""What is told of a type by all places of the old tree that name it; each is told once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from kspliced.plan.edits import SourceText
from kspliced.plan.reach import Mentions

# Files that may name a type, or what leads to it.
MOST = 200


class ToldTypes(ABC):
    """Something that is so of a ``struct`` or not.

    :param mentions: the built files of the old tree that mention each of some names.
    :param text: gives the old text of a file.
    """

    def __init__(self, mentions: Mentions, text: Callable[[str], SourceText]) -> None:
        self._mentions, self._text = mentions, text
        self._known: dict[str, bool] = {}

    def __call__(self, tag: str) -> bool:
        """Whether it is so of ``struct tag``."""
        if tag not in self._known:
            self._known[tag] = self._told(tag)
        return self._known[tag]

    @abstractmethod
    def _told(self, tag: str) -> bool:
        """The same, not told before."""
