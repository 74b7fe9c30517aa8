# SPDX-License-Identifier: GPL-2.0-or-later
"""A changed file as edits: hunks, joined where they touch the same top-level declaration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kspliced.lines import split_lines
from kspliced.plan.conditions import Configuration, Resolved
from kspliced.plan.declarations import Declaration, DeclarationKind
from kspliced.plan.text import code_lines, identifiers
from kspliced.source.lines import Hunk, hunks


@dataclass(frozen=True, order=True)
class Spot:
    """A hunk of a changed file."""

    path: str
    hunk: Hunk


@dataclass(frozen=True)
class Edit:
    """``added`` and ``removed`` are the declarations of the new and of the old file that the
    hunks lie in; ``new_lines`` and ``old_lines`` the code on either side, comments left out."""

    path: str
    hunks: tuple[Hunk, ...]
    removed: tuple[Declaration, ...]
    added: tuple[Declaration, ...]
    old_lines: tuple[str, ...]
    new_lines: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """The declarations it concerns."""
        return frozenset(d.name for d in self.removed + self.added)

    @property
    def spots(self) -> tuple[Spot, ...]:
        """Where it is."""
        return tuple(Spot(self.path, hunk) for hunk in self.hunks)

    @property
    def changed_functions(self) -> tuple[Declaration, ...]:
        """The functions of the new file that it changes or adds."""
        return tuple(d for d in self.added if d.kind is DeclarationKind.FUNCTION)

    @property
    def identifiers(self) -> frozenset[str]:
        """What the lines on both sides use."""
        return identifiers(self.old_lines + self.new_lines)


@dataclass(frozen=True)
class SourceText:
    """A file's lines, as they are and as code, and its declarations; ``decided`` are the numbers
    of the lines with directives that go the same way in every unit."""

    raw: list[bytes]
    code: list[str]
    declarations: tuple[Declaration, ...]
    decided: frozenset[int] = frozenset()

    def owners(self, start: int, count: int) -> tuple[Declaration, ...]:
        """The declarations that lines ``start`` .. + ``count`` (from 1) lie in."""
        last = start + count - 1
        return tuple(d for d in self.declarations if self.head(d) <= last and start <= d.end)

    def lines(self, start: int, count: int) -> list[str]:
        """Lines of code, empty ones left out."""
        return [line for line in self.code[start - 1 : start - 1 + count] if line]

    def reached(
        self, name: str, through: frozenset[DeclarationKind] = frozenset(DeclarationKind)
    ) -> frozenset[str]:
        """All that the declarations of ``name`` mention, directly or through others of the file of
        the kinds ``through``, and the name; nothing where the file declares none."""
        found: frozenset[str] = frozenset()
        waiting = frozenset({name})
        known = [d for d in self.declarations if d.kind in through]
        while mine := [d for d in known if d.name in waiting]:
            found |= waiting
            lines = (line for d in mine for line in self.code[self.head(d) - 1 : d.end])
            waiting = identifiers(lines) - found
        return found | waiting if found else found

    def head(self, declaration: Declaration) -> int:
        """The first line of a declaration whose type stands on the lines above its name."""
        line = declaration.start
        while line > 1:
            above = self.code[line - 2]
            if not above or above.endswith((";", "}", ",", "\\")) or above.startswith("#"):
                break
            line -= 1
        return line


def read_text(
    top: Path, path: str, found: Iterable[Declaration], configuration: Configuration | None = None
) -> SourceText:
    """The file ``path`` below ``top`` with its declarations; an empty one where there is none.

    :param configuration: says which lines are never compiled and count as blank, if it is known.
    """
    file = top / path
    data = file.read_bytes() if file.is_file() else b""
    code = code_lines(data.decode("utf-8", "replace"))
    compiled = (
        Resolved(code, frozenset()) if configuration is None else configuration.compiled(code)
    )
    raw = split_lines(data, keepends=True)
    return SourceText(raw, compiled.lines, tuple(found), compiled.decided)


def edits(
    path: str, old_top: Path, new_top: Path, old: SourceText, new: SourceText
) -> tuple[Edit, ...]:
    """The edits that make ``new`` of ``old``; those that change nothing but comments, or
    what is never compiled, left out."""
    found = (_edit(path, hunk, old, new) for hunk in hunks(old_top / path, new_top / path))
    return joined(edit for edit in found if edit.old_lines != edit.new_lines)


def split(edit: Edit, old: SourceText, new: SourceText) -> tuple[Edit, ...]:
    """Each hunk of an edit as an edit of its own, without those that change no code."""
    found = (_edit(edit.path, hunk, old, new) for hunk in edit.hunks)
    return tuple(one for one in found if one.old_lines != one.new_lines)


def joined(some: Iterable[Edit]) -> tuple[Edit, ...]:
    """Edits of one file, joined where they touch the same declaration."""
    groups: list[Edit] = []
    for edit in some:
        related = [group for group in groups if group.names & edit.names]
        groups = [group for group in groups if group not in related]
        groups.append(_joined([*related, edit]))
    return tuple(groups)


def _edit(path: str, hunk: Hunk, old: SourceText, new: SourceText) -> Edit:
    return Edit(
        path,
        (hunk,),
        old.owners(hunk.old_start, hunk.old_count) if hunk.old_count else (),
        new.owners(hunk.new_start, hunk.new_count) if hunk.new_count else (),
        tuple(old.lines(hunk.old_start, hunk.old_count)),
        tuple(new.lines(hunk.new_start, hunk.new_count)),
    )


def _joined(parts: list[Edit]) -> Edit:
    return Edit(
        parts[0].path,
        tuple(hunk for part in parts for hunk in part.hunks),
        tuple(dict.fromkeys(d for part in parts for d in part.removed)),
        tuple(dict.fromkeys(d for part in parts for d in part.added)),
        tuple(line for part in parts for line in part.old_lines),
        tuple(line for part in parts for line in part.new_lines),
    )


def apply_edits(old: SourceText, new: SourceText, accepted: Iterable[Edit]) -> bytes:
    """The old file with only the hunks of the ``accepted`` edits."""
    made: list[bytes] = []
    position = 0
    chosen = sorted({h for edit in accepted for h in edit.hunks}, key=lambda hunk: hunk.old_start)
    for hunk in chosen:
        # With a count of 0, diff -U0 names the line behind which there is nothing.
        start = hunk.old_start - (hunk.old_count > 0)
        made += old.raw[position:start]
        first = hunk.new_start - (hunk.new_count > 0)
        made += new.raw[first : first + hunk.new_count]
        position = start + hunk.old_count
    return b"".join(made + old.raw[position:])
