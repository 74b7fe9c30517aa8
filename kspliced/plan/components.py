# SPDX-License-Identifier: GPL-2.0-or-later
"""Which changes must go together, and which need which: nodes, joins and needs.

A node is a changed source file, whole or a part of it (parts.py), or an edit of a header. Sources
are joined where one changes a function that other files can call and the changed lines of the other
mention it: such changes were made for each other. So are those that use what a header changes, and
those that one changelog entry is about (attribution.py). A source needs a header's edit when its
changed lines mention what the edit declares. What needs a refused node is refused with it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kspliced.model import Refusal
from kspliced.plan.conditions import Configuration
from kspliced.plan.constant_types import Constant
from kspliced.plan.declarations import Declaration, DeclarationKind, declarations
from kspliced.plan.edits import Edit, SourceText, Spot, edits, read_text
from kspliced.plan.headers import HeaderChange, HeaderEdit, classify
from kspliced.plan.local_types import changed_local_types
from kspliced.plan.makers import Makers
from kspliced.plan.parts import cut, divide, first_uses
from kspliced.plan.reach import Mentions, Reach, settle
from kspliced.plan.stores import handed_over
from kspliced.plan.text import identifiers
from kspliced.plan.touched import Headers
from kspliced.plan.zeroed import Zeroed

_WORD = re.compile(r"\w+|[^\w\s]")
_INCLUDE = re.compile(r'#\s*include\s*[<"]([^>"]+)[>"]')

Reads = Callable[[str], frozenset[str]]
Divide = Callable[[tuple[Edit, ...], SourceText, SourceText, Makers], tuple[tuple[Edit, ...], ...]]


@dataclass(frozen=True)
class SourceNode:
    """A changed source file, a part of one, or one that a header's change concerns (no edits then).

    ``id`` is the path, for a part with what it begins with, for a header's change with what that
    changes. ``functions`` of the new file are
    changed or added; ``mentioned`` is what the changed lines of both sides use, ``used`` those of
    the new one; ``added`` names new functions for others; ``refused`` says what its text alone
    rules out."""

    id: str
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
    component cannot go live, if that is known without compiling it; ``nodes`` are the changed
    files, or what of them is in it, ``divided`` those of ``files`` of which it has a part."""

    id: str
    files: tuple[str, ...]
    headers: tuple[HeaderEdit, ...]
    needs: tuple[str, ...]
    refused: tuple[Refusal, ...]
    nodes: tuple[SourceNode, ...] = ()
    divided: tuple[str, ...] = ()

    def edits(self, path: str) -> tuple[Edit, ...]:
        """What of a source file's change is in it."""
        return tuple(edit for node in self.nodes if node.path == path for edit in node.edits)


@dataclass(frozen=True)
class Decomposition:
    """``comments`` are changed files of which what is compiled is the same, but for inlining;
    ``headers`` all judged edits."""

    components: tuple[Component, ...]
    comments: tuple[str, ...]
    headers: tuple[HeaderEdit, ...]
    sources: tuple[SourceNode, ...]


class Texts:
    """The old and the new text of changed files, each parsed once.

    :param configuration: the kernel's, if what it leaves out is not to count.
    """

    def __init__(
        self,
        old: Path,
        new: Path,
        paths: Iterable[str],
        configuration: Configuration | None = None,
    ) -> None:
        self.old_top, self.new_top = old, new
        self._configuration = configuration
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
        return read_text(self.old_top, path, self._found[0][path], self._configuration)

    def new(self, path: str) -> SourceText:
        """The new file."""
        return read_text(self.new_top, path, self._found[1][path], self._configuration)

    def around(self, path: str) -> SourceText:
        """The old version of a file that need not change; an empty one where there is none."""
        if path not in self._found[0]:
            self._found[0][path] = list(declarations(self.old_top, (path,)))
        return self.old(path)

    def known(self, path: str) -> bool:
        """Whether there is an old version of the file."""
        return (self.old_top / path).is_file()

    def changed(self, path: str) -> bool:
        """Whether there is a new version of the file."""
        return (self.new_top / path).is_file()

    def edits(self, path: str) -> tuple[Edit, ...]:
        """What makes the new file of the old one."""
        return edits(path, self.old_top, self.new_top, self.old(path), self.new(path))


class Decomposer:
    """Takes the changed ``sources`` and ``headers``, paths in both trees, apart.

    :param mentions: gives the files of the old tree that mention each of some identifiers.
    :param reads: gives the headers that a source file includes, directly or not.
    :param together: groups of hunks that one commit made.
    :param makers: tells which changelog entries made a hunk.
    :param included: .c files among the ``headers``, with the sources that include each.
    :param foreign: modules that run and of which there is no source.
    :raises SourceError: TOOL_MISSING, SOURCE_UNREADABLE.
    """

    def __init__(
        self,
        texts: Texts,
        sources: Iterable[str],
        headers: Iterable[str],
        mentions: Mentions,
        reads: Reads,
        together: Iterable[tuple[Spot, ...]] = (),
        makers: Makers | None = None,
        included: Mapping[str, frozenset[str]] | None = None,
        foreign: frozenset[str] = frozenset(),
    ) -> None:
        self._texts, self._reads, self._makers = texts, reads, makers or Makers()
        self._included = included or {}
        self._together = tuple(together)
        self._comments: list[str] = []
        self._whole: dict[str, SourceNode] = {}
        for path in sources:
            node = _node(texts, path, path, texts.edits(path))
            if node.edits:
                self._whole[path] = node
                known = {declaration.name for declaration in texts.old(path).declarations}
                for user, maker in first_uses(node.edits, known):
                    self._makers.tie(user, maker)
            else:
                self._comments.append(path)
        judged: list[HeaderEdit] = []
        paths = tuple(headers)
        # Objects that other modules make are in no source.
        room = () if foreign else (Zeroed(mentions, texts.around), Constant(mentions, texts.around))
        changed = Headers(paths, texts.old, texts.new, *room)
        for path in paths:
            found = tuple(edit for edit in texts.edits(path) if not _inlining_only(edit))
            judged += (_judged(texts, edit, changed) for edit in found)
            if not found:
                self._comments.append(path)
        self._reached = settle(judged, texts.around, mentions, self._included, foreign)
        self._concerned = frozenset().union(*(reach.sources for reach in self._reached))
        self._parts: dict[tuple[str, bool], tuple[SourceNode, ...]] = {}
        self._inside = {
            path: _node(texts, path, path, texts.edits(path)) for path in sorted(self._included)
        }

    def parts(self, path: str, between: bool = False) -> tuple[SourceNode, ...]:
        """What a source file can be divided into, or cut into ``between`` commits; nothing if it is
        not changed."""
        key = path, between
        if key not in self._parts:
            self._parts[key] = tuple(self._divided(path, cut if between else divide))
        return self._parts[key]

    def divisible(self, path: str) -> bool:
        """Whether parts of a source file may have different fates: edits of different commits, or
        edits and, for what a header changes, all of the file."""
        return len(self.parts(path)) > 1 or (path in self._concerned and bool(self.parts(path)))

    def severable(self, path: str) -> bool:
        """Whether a source file can be cut into more than it is divided into."""
        return len(self.parts(path, between=True)) > max(1, len(self.parts(path)))

    def decompose(
        self, divided: frozenset[str] = frozenset(), severed: frozenset[str] = frozenset()
    ) -> Decomposition:
        """Find the components, with the sources ``divided`` in parts, those of them that are
        ``severed`` between commits, and the others whole."""
        nodes = [
            part
            for path, node in self._whole.items()
            for part in (self.parts(path, path in severed) if path in divided else (node,))
        ]
        whole = frozenset(node.id for node in nodes)
        users = tuple(self._users(reach, whole) for reach in self._reached)
        nodes += dict.fromkeys(node for some in users for node in some if node.id not in whole)
        nodes = [self._with_inside(node) if node.id == node.path else node for node in nodes]
        together = self._together + tuple(self._commits(divided))
        groups = _Grouping(nodes, self._reached, users, self._reads, divided)
        groups.join(together, self._header_commits(divided))
        settled = tuple(reach.header for reach in self._reached)
        return Decomposition(groups.components(), tuple(self._comments), settled, tuple(nodes))

    def _users(self, reach: Reach, whole: frozenset[str]) -> tuple[SourceNode, ...]:
        """The sources that mention what a header's edit changes: those that are ``whole``, and what
        is not changed, or not in a part, of the others, for this edit alone; for all edits of a
        source that they include."""
        none: frozenset[str] = frozenset()
        path = reach.header.edit.path
        inside = self._inside.get(path, SourceNode("", "", (), (), none, none, none))
        name = path if inside.path else min(reach.header.concerns, default="")
        return tuple(
            replace(inside, id=host if host in whole else f"{host}:{name}", path=host, edits=())
            for host in sorted(reach.sources)
        )

    def _with_inside(self, node: SourceNode) -> SourceNode:
        """A whole source, with what the sources that it includes do."""
        for path, hosts in sorted(self._included.items()):
            if node.path in hosts:
                inside = self._inside[path]
                node = replace(
                    node,
                    functions=node.functions + inside.functions,
                    mentioned=node.mentioned | inside.mentioned,
                    used=node.used | inside.used,
                    added=node.added | inside.added,
                )
        return node

    def _commits(self, divided: Iterable[str]) -> Iterator[tuple[Spot, ...]]:
        """What the makers of a divided file's hunks made elsewhere."""
        for path in sorted(divided):
            for edit in self._whole[path].edits:
                # What includes headers is in every part.
                for spot in edit.spots if edit.names else ():
                    yield (spot, *sorted(self._makers.commit(spot)))

    def _header_commits(self, divided: frozenset[str]) -> Iterator[tuple[int, tuple[Spot, ...]]]:
        """The headers' edits that concern divided sources, by their place, with what their makers
        made elsewhere."""
        for number, reach in enumerate(self._reached):
            if reach.sources & divided:
                spots = (self._makers.commit(spot) for spot in reach.header.edit.spots)
                yield number, tuple(sorted(frozenset().union(*spots)))

    def _divided(self, path: str, into: Divide) -> Iterator[SourceNode]:
        whole = self._whole.get(path)
        if whole is None or not (self._texts.known(path) and self._texts.changed(path)):
            return
        old, new = self._texts.old(path), self._texts.new(path)
        taken: set[str] = set()
        for some in into(whole.edits, old, new, self._makers):
            name = next((name for edit in some for name in sorted(edit.names)), "")
            if name in taken:
                name = f"{name}@{next(e.hunks[0].old_start for e in some if name in e.names)}"
            taken.add(name)
            yield _node(self._texts, f"{path}:{name}", path, some)


def _inlining_only(edit: Edit) -> bool:
    """Whether an edit only tells the compiler how much to inline: the old header does as well."""

    def words(lines: tuple[str, ...]) -> list[str]:
        found = _WORD.findall(" ".join(lines))
        return ["inline" if word == "__always_inline" else word for word in found]

    return words(edit.old_lines) == words(edit.new_lines)


def _judged(texts: Texts, edit: Edit, headers: Headers) -> HeaderEdit:
    found = classify(edit, not texts.known(edit.path), headers)
    local = changed_local_types(edit, texts.old(edit.path), texts.new(edit.path))
    if local and found.refusal is None:
        return replace(found, change=HeaderChange.REFUSED, refusal=local[0])
    return found


def _node(texts: Texts, name: str, path: str, found: tuple[Edit, ...]) -> SourceNode:
    known = {d.name for d in texts.old(path).declarations if d.kind is DeclarationKind.FUNCTION}
    functions = tuple(dict.fromkeys(f for edit in found for f in edit.changed_functions))
    new_lines = tuple(line for edit in found for line in edit.new_lines)
    old_lines = tuple(line for edit in found for line in edit.old_lines)
    used = identifiers(new_lines)
    added = frozenset(f.name for f in functions if not f.local and f.name not in known)
    mentioned = used | identifiers(old_lines)
    old, new = texts.old(path), texts.new(path)
    refused = tuple(r for edit in found for r in changed_local_types(edit, old, new))
    return SourceNode(name, path, found, functions, mentioned, used, added, refused)


def _included(edits: Iterable[Edit]) -> tuple[str, ...]:
    """The ends of the paths of headers that the new lines include."""
    found = (_INCLUDE.match(line) for edit in edits for line in edit.new_lines)
    return tuple(f"/{match.group(1).lstrip('./')}" for match in found if match is not None)


def _includers(headers: list[HeaderEdit]) -> dict[str, frozenset[str]]:
    """By changed header, those that include it from now on."""
    ends = {header.edit.path: _included((header.edit,)) for header in headers}
    for header in headers:
        ends[header.edit.path] += _included((header.edit,))
    return {
        path: frozenset(by for by, some in ends.items() if f"/{path}".endswith(some))
        for path in {header.edit.path for header in headers}
    }


class _Grouping:
    def __init__(
        self,
        nodes: list[SourceNode],
        reached: tuple[Reach, ...],
        users: tuple[tuple[SourceNode, ...], ...],
        reads: Reads,
        divided: frozenset[str],
    ) -> None:
        self._nodes, self._reached, self._reads = nodes, reached, reads
        self._users, self._divided = users, divided
        self._wants: dict[str, set[str]] = defaultdict(set)
        self._concern: dict[str, list[int]] = defaultdict(list)
        for number, some in enumerate(users):
            for node in some:
                self._concern[node.id].append(number)
        self._headers = [reach.header for reach in reached]
        self._parent = {node.id: node.id for node in nodes}
        self._declared: dict[str, list[int]] = defaultdict(list)
        for number, header in enumerate(self._headers):
            for name in header.names:
                self._declared[name].append(number)
        self._prepare: dict[str, list[int]] = defaultdict(list)
        for number, header in enumerate(self._headers):
            if header.prepares:
                self._prepare[header.edit.path].append(number)
        self._includers = _includers(self._headers)

    def components(self) -> tuple[Component, ...]:
        groups: dict[str, list[SourceNode]] = defaultdict(list)
        for node in self._nodes:
            groups[self._find(node.id)].append(node)
        makers = {name: self._find(node.id) for node in self._nodes for name in node.added}
        return tuple(self._component(root, groups[root], makers) for root in sorted(groups))

    def _component(self, root: str, members: list[SourceNode], makers: dict[str, str]) -> Component:
        used = frozenset().union(*(node.used for node in members))
        numbers = sorted({number for node in members for number in self._needed(node)})
        headers = tuple(self._headers[number] for number in numbers)
        wanted = {self._find(name) for node in members for name in self._wants[node.id]}
        needs = sorted(({makers[name] for name in used if name in makers} | wanted) - {root})
        files = tuple(dict.fromkeys(node.path for node in members))
        return Component(
            id=root,
            files=files,
            headers=tuple(h for h in headers if h.change is not HeaderChange.REFUSED),
            needs=tuple(needs),
            refused=(
                *(refusal for node in members for refusal in node.refused),
                *(h.refusal for h in headers if h.refusal is not None),
            ),
            nodes=tuple(members),
            divided=tuple(path for path in files if path in self._divided),
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
        waiting += self._meant(node.mentioned, read)
        waiting += self._concern[node.id]
        while waiting:
            number = waiting.pop()
            if number not in found:
                found.add(number)
                edit = self._headers[number].edit
                # A header that means a new member compiles in nobody's unit without it.
                waiting += self._meant(identifiers(edit.new_lines), read, proven=True)
                waiting += self._prepare[edit.path]
                waiting += self._new_from(edit)
        return found

    def _meant(
        self, names: frozenset[str], read: frozenset[str], proven: bool = False
    ) -> Iterator[int]:
        """The header edits that ``names`` may come from, in code that reads these headers; if it
        does not matter what compiling proves, with ``proven``."""
        for name in names:
            for number in self._declared.get(name, ()):
                header = self._headers[number]
                if header.edit.path in read and (proven or name not in header.proven):
                    yield number

    def _new_from(self, edit: Edit) -> Iterator[int]:
        """The edits that make the new headers which an edit includes."""
        included = _included((edit,))
        for number, header in enumerate(self._headers if included else ()):
            if header.new and f"/{header.edit.path}".endswith(included):
                yield number

    def _brought(self, read: frozenset[str]) -> frozenset[str]:
        """``read``, with the changed headers that these include from now on."""
        while more := {path for path, by in self._includers.items() if by & read} - read:
            read |= more
        return read

    def join(
        self,
        together: Iterable[tuple[Spot, ...]],
        commits: Iterable[tuple[int, tuple[Spot, ...]]],
    ) -> None:
        """Join the nodes.

        :param together: groups of hunks that one commit made.
        :param commits: headers' edits by their place, with hunks of the same commit.
        """
        changed: dict[str, list[str]] = defaultdict(list)
        for node in self._nodes:
            for function in node.functions:
                if not function.local:
                    changed[function.name].append(node.id)
        for node in self._nodes:
            for name in node.mentioned & changed.keys():
                for other in changed[name]:
                    self._unite(node.id, other)
        for one, other in handed_over((node.id, node.path, node.edits) for node in self._nodes):
            self._unite(one, other)
        for node in self._nodes:
            for number in self._needed(node):
                self._join_users(node, number)
        edits = ((node, edit) for node in self._nodes for edit in node.edits)
        homes = {spot: node.id for node, edit in edits if edit.names for spot in edit.spots}
        for group in together:
            known = [homes[spot] for spot in group if spot in homes]
            for name in known[1:]:
                self._unite(known[0], name)
        for number, group in commits:
            for spot in group:
                if spot in homes:
                    self._unite(self._users[number][0].id, homes[spot])

    def _join_users(self, node: SourceNode, number: int) -> None:
        """Join those whom a header's edit that ``node`` needs concerns: a change is half made until
        all who use it have it. A part of a file needs them, and is of another commit, or it will
        be joined as of the same."""
        users = [user.id for user in self._users[number]]
        if users and node.id != node.path and node.id not in users:
            self._wants[node.id].add(users[0])
            users = users[1:] + users[:1]
        else:
            users.append(node.id)
        for user in users[1:]:
            self._unite(users[0], user)

    def _unite(self, one: str, other: str) -> None:
        self._parent[self._find(other)] = self._find(one)

    def _find(self, name: str) -> str:
        while self._parent[name] != name:
            self._parent[name] = self._parent[self._parent[name]]
            name = self._parent[name]
        return name
