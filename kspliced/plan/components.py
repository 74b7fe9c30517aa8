# SPDX-License-Identifier: GPL-2.0-or-later
"""Which changes must go together, and which need which: nodes, joins and needs.

A node is a changed source file, whole, or one edit of a header. Sources are joined where one
changes a function that other files can call and the changed lines of the other mention it: such
changes were made for each other. So are those that use what a header changes, and those that one
changelog entry is about (attribution.py). A source needs a
header's edit when its changed lines mention what the edit declares. What needs a refused node is
refused with it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from kspliced.model import Refusal
from kspliced.plan.declarations import Declaration, DeclarationKind, declarations
from kspliced.plan.edits import Edit, SourceText, edits, read_text
from kspliced.plan.headers import HeaderChange, HeaderEdit, classify
from kspliced.plan.local_types import changed_local_types
from kspliced.plan.reach import Mentions, Reach, settle
from kspliced.plan.text import identifiers

_WORD = re.compile(r"\w+|[^\w\s]")
_INCLUDE = re.compile(r'#\s*include\s*[<"]([^>"]+)[>"]')

Reads = Callable[[str], frozenset[str]]


@dataclass(frozen=True)
class SourceNode:
    """A changed source file, or one that a header's change concerns (no edits then).

    ``functions`` of the new file are changed or added; ``mentioned`` is what the changed lines of
    both sides use, ``used`` those of the new one; ``added`` names new functions for others;
    ``refused`` says what its text alone rules out."""

    path: str
    edits: tuple[Edit, ...]
    functions: tuple[Declaration, ...]
    mentioned: frozenset[str]
    used: frozenset[str]
    added: frozenset[str]
    refused: tuple[Refusal, ...] = ()


@dataclass(frozen=True)
class Component:
    """Source files whose changes go together. ``headers`` are the header edits they need;
    ``needs`` the ids of components whose new functions they call; ``refused`` says why the
    component cannot go live, if that is known without compiling it."""

    id: str
    files: tuple[str, ...]
    headers: tuple[HeaderEdit, ...]
    needs: tuple[str, ...]
    refused: tuple[Refusal, ...]


@dataclass(frozen=True)
class Decomposition:
    """``comments`` are changed files whose code is the same, but for how it is inlined;
    ``headers`` all judged edits."""

    components: tuple[Component, ...]
    comments: tuple[str, ...]
    headers: tuple[HeaderEdit, ...]
    sources: tuple[SourceNode, ...]


class Texts:
    """The old and the new text of changed files, each parsed once."""

    def __init__(self, old: Path, new: Path, paths: Iterable[str]) -> None:
        self.old_top, self.new_top = old, new
        wanted = tuple(paths)
        self._found = (self._parse(old, wanted), self._parse(new, wanted))

    @staticmethod
    def _parse(top: Path, paths: tuple[str, ...]) -> dict[str, list[Declaration]]:
        found: dict[str, list[Declaration]] = defaultdict(list)
        for declaration in declarations(top, paths):
            found[declaration.path].append(declaration)
        return found

    def old(self, path: str) -> SourceText:
        """The old file."""
        return read_text(self.old_top, path, self._found[0][path])

    def new(self, path: str) -> SourceText:
        """The new file."""
        return read_text(self.new_top, path, self._found[1][path])

    def known(self, path: str) -> bool:
        """Whether there is an old version of the file."""
        return (self.old_top / path).is_file()

    def changed(self, path: str) -> bool:
        """Whether there is a new version of the file."""
        return (self.new_top / path).is_file()

    def edits(self, path: str) -> tuple[Edit, ...]:
        """What makes the new file of the old one."""
        return edits(path, self.old_top, self.new_top, self.old(path), self.new(path))


def decompose(
    texts: Texts,
    sources: Iterable[str],
    headers: Iterable[str],
    mentions: Mentions,
    reads: Reads,
    together: Iterable[tuple[str, ...]] = (),
) -> Decomposition:
    """Take the changed ``sources`` and ``headers``, paths in both trees, apart.

    :param mentions: gives the files of the old tree that mention each of some identifiers.
    :param reads: gives the headers that a source file includes, directly or not.
    :param together: groups of sources that one commit changed.
    :raises SourceError: TOOL_MISSING, SOURCE_UNREADABLE.
    """
    comments: list[str] = []
    nodes: list[SourceNode] = []
    for path in sources:
        node = _source(texts, path)
        if node.edits:
            nodes.append(node)
        else:
            comments.append(path)
    judged: list[HeaderEdit] = []
    for path in headers:
        found = tuple(edit for edit in texts.edits(path) if not _inlining_only(edit))
        judged += (_judged(texts, edit) for edit in found)
        if not found:
            comments.append(path)
    reached = settle(judged, texts.old, mentions)
    nodes += _concerned(reached, {node.path for node in nodes})
    components = _Grouping(nodes, reached, reads, together).components()
    settled = tuple(reach.header for reach in reached)
    return Decomposition(components, tuple(comments), settled, tuple(nodes))


def _inlining_only(edit: Edit) -> bool:
    """Whether an edit only tells the compiler how much to inline: the old header does as well."""

    def words(lines: tuple[str, ...]) -> list[str]:
        found = _WORD.findall(" ".join(lines))
        return ["inline" if word == "__always_inline" else word for word in found]

    return words(edit.old_lines) == words(edit.new_lines)


def _judged(texts: Texts, edit: Edit) -> HeaderEdit:
    found = classify(edit, not texts.known(edit.path))
    local = changed_local_types(edit, texts.old(edit.path), texts.new(edit.path))
    if local and found.refusal is None:
        return replace(found, change=HeaderChange.REFUSED, refusal=local[0])
    return found


def _concerned(reached: tuple[Reach, ...], known: set[str]) -> list[SourceNode]:
    """Nodes for unchanged sources that mention what a header changes."""
    paths = sorted({path for reach in reached for path in reach.sources} - known)
    none: frozenset[str] = frozenset()
    return [SourceNode(path, (), (), none, none, none) for path in paths]


def _source(texts: Texts, path: str) -> SourceNode:
    found = texts.edits(path)
    known = {d.name for d in texts.old(path).declarations if d.kind is DeclarationKind.FUNCTION}
    functions = tuple(dict.fromkeys(f for edit in found for f in edit.changed_functions))
    new_lines = tuple(line for edit in found for line in edit.new_lines)
    old_lines = tuple(line for edit in found for line in edit.old_lines)
    used = identifiers(new_lines)
    added = frozenset(f.name for f in functions if not f.local and f.name not in known)
    mentioned = used | identifiers(old_lines)
    old, new = texts.old(path), texts.new(path)
    refused = tuple(r for edit in found for r in changed_local_types(edit, old, new))
    return SourceNode(path, found, functions, mentioned, used, added, refused)


def _included(edits: Iterable[Edit]) -> tuple[str, ...]:
    """The ends of the paths of headers that the new lines include."""
    found = (_INCLUDE.match(line) for edit in edits for line in edit.new_lines)
    return tuple(f"/{match.group(1).lstrip('./')}" for match in found if match is not None)


def _includers(headers: list[HeaderEdit]) -> dict[str, frozenset[str]]:
    """By new header, the changed ones that include it."""
    ends = {header.edit.path: _included((header.edit,)) for header in headers}
    for header in headers:
        ends[header.edit.path] += _included((header.edit,))
    return {
        path: frozenset(by for by, some in ends.items() if f"/{path}".endswith(some))
        for path in {header.edit.path for header in headers if header.new}
    }


class _Grouping:
    def __init__(
        self,
        nodes: list[SourceNode],
        reached: tuple[Reach, ...],
        reads: Reads,
        together: Iterable[tuple[str, ...]],
    ) -> None:
        self._nodes, self._reached, self._reads = nodes, reached, reads
        self._together = tuple(together)
        self._headers = [reach.header for reach in reached]
        self._parent = {node.path: node.path for node in nodes}
        self._declared: dict[str, list[int]] = defaultdict(list)
        for number, header in enumerate(self._headers):
            for name in header.names:
                self._declared[name].append(number)
        self._includers = _includers(self._headers)

    def components(self) -> tuple[Component, ...]:
        self._join()
        groups: dict[str, list[SourceNode]] = defaultdict(list)
        for node in self._nodes:
            groups[self._find(node.path)].append(node)
        makers = {name: self._find(node.path) for node in self._nodes for name in node.added}
        return tuple(self._component(root, groups[root], makers) for root in sorted(groups))

    def _component(self, root: str, members: list[SourceNode], makers: dict[str, str]) -> Component:
        used = frozenset().union(*(node.used for node in members))
        numbers = sorted({number for node in members for number in self._needed(node)})
        headers = tuple(self._headers[number] for number in numbers)
        needs = sorted({makers[name] for name in used if name in makers} - {root})
        return Component(
            id=root,
            files=tuple(node.path for node in members),
            headers=tuple(h for h in headers if h.change is not HeaderChange.REFUSED),
            needs=tuple(needs),
            refused=(
                *(refusal for node in members for refusal in node.refused),
                *(h.refusal for h in headers if h.refusal is not None),
            ),
        )

    def _needed(self, node: SourceNode) -> set[int]:
        """The header edits that what the node mentions comes from, and those that these need."""
        if not self._headers:
            return set()  # without waiting for what is read
        included = _included(node.edits)
        near = [n for n, h in enumerate(self._headers) if f"/{h.edit.path}".endswith(included)]
        read = self._brought(
            self._reads(node.path) | {self._headers[number].edit.path for number in near}
        )
        found: set[int] = set()
        waiting = [number for number in near if self._headers[number].new]
        waiting += (
            number
            for name in node.mentioned
            for number in self._declared.get(name, ())
            if name not in self._headers[number].proven
            if self._headers[number].edit.path in read
        )
        waiting += (n for n, reach in enumerate(self._reached) if node.path in reach.sources)
        while waiting:
            number = waiting.pop()
            if number in found:
                continue
            found.add(number)
            used = identifiers(self._headers[number].edit.new_lines)
            waiting += (n for name in used for n in self._declared.get(name, ()))
        return found

    def _brought(self, read: frozenset[str]) -> frozenset[str]:
        """``read``, with the new headers that these include from now on."""
        while more := {path for path, by in self._includers.items() if by & read} - read:
            read |= more
        return read

    def _join(self) -> None:
        changed: dict[str, list[str]] = defaultdict(list)
        for node in self._nodes:
            for function in node.functions:
                if not function.local:
                    changed[function.name].append(node.path)
        for node in self._nodes:
            for name in node.mentioned & changed.keys():
                for other in changed[name]:
                    self._unite(node.path, other)
        for node in self._nodes:
            for number in self._needed(node):
                # A change is half made until all who use it have it.
                for source in sorted(self._reached[number].sources):
                    self._unite(source, node.path)
        for group in self._together:
            known = [path for path in group if path in self._parent]
            for path in known[1:]:
                self._unite(known[0], path)

    def _unite(self, one: str, other: str) -> None:
        self._parent[self._find(other)] = self._find(one)

    def _find(self, path: str) -> str:
        while self._parent[path] != path:
            self._parent[path] = self._parent[self._parent[path]]
            path = self._parent[path]
        return path
