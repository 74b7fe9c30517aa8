# SPDX-License-Identifier: GPL-2.0-or-later
"""The hot tree: the old one with the edits of what may go live.

Headers keep the edits of what was dropped until they are told to forget: whoever mentions what
they change was dropped with it, and half of the tree includes them, which would be compiled again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from kspliced.plan.components import Component, Texts
from kspliced.plan.edits import Edit, apply_edits


class HotTree:
    """``write`` puts files over the old tree's; None stands for the new file."""

    def __init__(self, texts: Texts, write: Callable[[Mapping[str, bytes | None]], None]) -> None:
        self._texts, self._write = texts, write
        self._heated: dict[str, Component] = {}

    def heat(self, live: Iterable[Component]) -> None:
        """Make the tree that of some components."""
        files: dict[str, bytes | None] = {}
        edits: dict[str, list[Edit]] = {}
        for component in live:
            self._heated[component.id] = component
            for path in component.files:
                if path in component.divided:
                    edits.setdefault(path, []).extend(component.edits(path))
                elif self._texts.changed(path):
                    files[path] = None
        for component in self._heated.values():
            for header in component.headers:
                edits.setdefault(header.edit.path, []).append(header.edit)
        for path, accepted in edits.items():
            files[path] = apply_edits(self._texts.old(path), self._texts.new(path), accepted)
        self._write(files)

    def forget(self) -> None:
        """Let headers have the edits of what goes live only, from now on."""
        self._heated.clear()

    def cool(self, live: Iterable[Component], headers: Collection[str]) -> bool:
        """Take what was dropped out of some headers. Whether there was any."""
        ids = {component.id for component in live}
        stale = [
            name
            for name, component in self._heated.items()
            if name not in ids and any(h.edit.path in headers for h in component.headers)
        ]
        for name in stale:
            del self._heated[name]
        return bool(stale)


def around_headers(live: Iterable[Component]) -> list[Component]:
    """The components that change headers, and all that have a file in common with one of these."""
    left = list(live)
    found = [component for component in left if component.headers]
    more = found
    while more:
        files = {path for component in more for path in component.files}
        left = [component for component in left if component not in found]
        more = [component for component in left if files.intersection(component.files)]
        found = found + more
    return sorted(found, key=lambda component: component.id)
