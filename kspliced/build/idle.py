# SPDX-License-Identifier: GPL-2.0-or-later
"""Edits of Kbuild files that change nothing of what this configuration builds.

Only what can be told from the changed lines by themselves is called so: what is added to, or taken
from, a list that an unset option selects; how units are watched by an option that is unset; and
options that are unset and depend on one that is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from posixpath import basename
from typing import TypeVar

from kspliced.lines import split_lines
from kspliced.plan.conditions import Configuration

_T = TypeVar("_T")

# Lists named for an option; and the options that say how units are watched while they run.
_LIST = re.compile(r"[\w-]+-\$\((CONFIG_\w+)\)\s*[+:]?=")
_WATCHED = re.compile(
    r"(KCOV|KASAN|KCSAN|KMSAN|UBSAN|GCOV)_(?:INSTRUMENT|SANITIZE|PROFILE)[\w.]*\s*:?="
)
_OPTION_OF = {"GCOV": "CONFIG_GCOV_KERNEL"}
_CONFIG = re.compile(r"(?:menu)?config\s+(\w+)$")
# What begins an entry of a Kconfig file.
_BEGINS = re.compile(
    r"\s*(?:config|menuconfig|choice|endchoice|comment|menu|endmenu|if|endif|source|mainmenu)\b"
)
_DEPENDS = re.compile(r"depends on ([\w\s&]+)$")
_CONSTANTS = frozenset({"y", "m", "n"})
_HELP = re.compile(r"(\s*)(?:---)?help(?:---)?$")


@dataclass(frozen=True)
class _Entry:
    """``head`` is a line like ``config X``; ``lines`` what it says, without the help."""

    head: str
    lines: tuple[str, ...]


def changes_nothing(path: str, old: Path, new: Path, configuration: Configuration) -> bool:
    """Whether the edit of a Kbuild file, by its old and its new version, changes nothing that is
    built; False where a version is missing."""
    if not (old.is_file() and new.is_file()):
        return False
    texts = [place.read_text("utf-8", "replace") for place in (old, new)]
    if basename(path).startswith("Kconfig"):
        before, after = (tuple(_entries(text)) for text in texts)
        gone, came = _differing(before, after)
        removed = {one.head for one in gone} - {one.head for one in after}
        return all(_unset(one, removed, configuration) for one in (*gone, *came))
    lines, others = (tuple(_statements(text)) for text in texts)
    gone_lines, came_lines = _differing(lines, others)
    return all(_unused(line, configuration) for line in (*gone_lines, *came_lines))


def _differing(
    before: tuple[_T, ...], after: tuple[_T, ...]
) -> tuple[tuple[_T, ...], tuple[_T, ...]]:
    """What is only in one of two sequences."""
    gone: list[_T] = []
    came: list[_T] = []
    for kind, i, j, k, m in SequenceMatcher(None, before, after, False).get_opcodes():
        if kind != "equal":
            gone += before[i:j]
            came += after[k:m]
    return tuple(gone), tuple(came)


def _statements(text: str) -> Iterator[str]:
    """The logical lines of a makefile, without comments."""
    for line in split_lines(re.sub(r"\\\n\s*", " ", text)):
        code = line.partition("#")[0].strip()
        if code:
            yield code


def _unused(line: str, configuration: Configuration) -> bool:
    found, watched = _LIST.match(line), _WATCHED.match(line)
    if found is not None:
        return found.group(1) not in configuration.options
    if watched is None:
        return False
    option = _OPTION_OF.get(watched.group(1), f"CONFIG_{watched.group(1)}")
    return option not in configuration.options


def _entries(text: str) -> Iterator[_Entry]:
    head, lines = "", list[str]()
    for line in _without_help(split_lines(text)):
        if _BEGINS.match(line):
            yield _Entry(head, tuple(lines))
            head, lines = line.strip(), []
        else:
            lines.append(" ".join(line.split()))
    yield _Entry(head, tuple(lines))


def _without_help(lines: Iterable[str]) -> Iterator[str]:
    """Lines without comments and blank ones, and without help: what is indented deeper."""
    depth = -1
    for line in lines:
        code = line.expandtabs()
        indent = len(code) - len(code.lstrip())
        if not code.strip():
            continue
        if depth >= 0 and indent > depth:
            continue
        depth = -1
        help_line = _HELP.match(code)
        if help_line is not None:
            depth = len(help_line.group(1))
        elif not code.lstrip().startswith("#"):
            yield code


def _unset(entry: _Entry, removed: set[str], configuration: Configuration) -> bool:
    """Whether an entry is of an option that is unset and cannot be set: it is gone, or depends on
    one that is unset."""
    found = _CONFIG.match(entry.head)
    if found is None or f"CONFIG_{found.group(1)}" in configuration.options:
        return False
    needed = (m.group(1) for line in entry.lines if (m := _DEPENDS.match(line)) is not None)
    options = {word for some in needed for word in some.replace("&&", " ").split()} - _CONSTANTS
    return entry.head in removed or any(
        f"CONFIG_{option}" not in configuration.options for option in options
    )
