# SPDX-License-Identifier: GPL-2.0-or-later
"""Which lines of a file the kernel's configuration leaves out of every unit.

A condition is decided only if all that it asks for are options (CONFIG_…, IS_ENABLED, defined);
lines under any other count as compiled.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_TOKEN = re.compile(r"\w+|&&|\|\||[!()]|\S")
_DIRECTIVE = re.compile(r"#\s*(if|ifdef|ifndef|elif|else|endif)\b(.*)")
_REDEFINED = re.compile(r"#\s*(?:define|undef)\s+(CONFIG_\w+)")
_SET = re.compile(r"^(CONFIG_\w+)=(.*)$", re.MULTILINE)
_ASKS = frozenset({"IS_ENABLED", "IS_BUILTIN", "IS_MODULE", "defined"})


class _Undecided(Exception):
    """A condition asks for more than options."""


@dataclass(frozen=True)
class Resolved:
    """``lines`` of code, those blank that are never compiled; ``decided`` are the numbers, from 1,
    of directives that always go the same way."""

    lines: list[str]
    decided: frozenset[int]


@dataclass(frozen=True)
class Configuration:
    """``options`` that are set: ``y``, ``m``, or a value."""

    options: Mapping[str, str]

    @staticmethod
    def parse(text: str) -> Configuration:
        """That of a .config."""
        return Configuration(dict(_SET.findall(text)))

    def compiled(self, code: list[str]) -> Resolved:
        """What of ``code``, lines without comments, may be compiled."""
        own = frozenset(match.group(1) for line in code if (match := _REDEFINED.match(line)))
        levels: list[_Level] = []
        lines: list[str] = []
        decided: set[int] = set()
        for line in _joined(code):
            kept, sure = self._keeps(line, levels, own)
            lines.append(line if kept else "")
            if sure:
                decided.add(len(lines))
        return Resolved(lines, frozenset(decided))

    def _keeps(self, line: str, levels: list[_Level], own: frozenset[str]) -> tuple[bool, bool]:
        """Whether a line may be compiled, and whether it is a directive that is decided."""
        found = _DIRECTIVE.match(line)
        if found is None:
            return all(level.active for level in levels), False
        word, condition = found.groups()
        if word.startswith("if"):
            levels.append(_Level())
        if not levels:
            return True, False
        outside = all(level.active for level in levels[:-1])
        if word == "endif":
            return outside, levels.pop().decided
        text = f"defined({condition})" if word in ("ifdef", "ifndef") else condition
        truth = True if word == "else" else self._decide(text, own)
        if word == "ifndef" and truth is not None:
            truth = not truth
        levels[-1] = levels[-1].next(truth)
        return outside, levels[-1].decided

    def _decide(self, condition: str, own: frozenset[str]) -> bool | None:
        words = _TOKEN.findall(condition)
        if own & set(words):
            return None
        try:
            parser = _Condition(words, self.options)
            truth = parser.either()
        except (_Undecided, IndexError):
            return None
        return truth if not parser.words else None


@dataclass(frozen=True)
class _Level:
    """Of one #if: whether its present branch may be compiled, one before certainly is, and all
    conditions so far are decided."""

    active: bool = True
    done: bool = False
    decided: bool = True

    def next(self, truth: bool | None) -> _Level:
        """The branch that begins with a condition."""
        active = not self.done and truth is not False
        return _Level(active, self.done or truth is True, self.decided and truth is not None)


def _joined(code: list[str]) -> Iterator[str]:
    """The lines, the rest of a directive that goes on with it: its number of lines stays."""
    place = 0
    while place < len(code):
        line = code[place]
        more = 0
        while _DIRECTIVE.match(line) and line.endswith("\\") and place + more + 1 < len(code):
            more += 1
            line = line[:-1] + code[place + more]
        yield line
        yield from [""] * more
        place += more + 1


class _Condition:
    """Evaluates the words of one; 0 and 1 are the only numbers that it knows."""

    def __init__(self, words: list[str], options: Mapping[str, str]) -> None:
        self.words, self._options = words, options

    def either(self) -> bool:
        """``a || b``; takes its words."""
        truth = self._both()
        while self.words[:1] == ["||"]:
            self.words.pop(0)
            truth = self._both() or truth
        return truth

    def _both(self) -> bool:
        truth = self._one()
        while self.words[:1] == ["&&"]:
            self.words.pop(0)
            truth = self._one() and truth
        return truth

    def _one(self) -> bool:
        word = self.words.pop(0)
        if word == "!":
            return not self._one()
        if word == "(":
            truth = self.either()
            self._take(")")
            return truth
        if word in ("0", "1"):
            return word == "1"
        if word in _ASKS:
            return self._asked(word)
        if word.startswith("CONFIG_"):
            return self._value(word)
        raise _Undecided

    def _asked(self, what: str) -> bool:
        bracket = self.words[:1] == ["("]
        if bracket:
            self.words.pop(0)
        name = self.words.pop(0)
        if bracket:
            self._take(")")
        if not name.startswith("CONFIG_"):
            raise _Undecided
        value = self._options.get(name, "")
        if what == "defined":
            module = self._options.get(name.removesuffix("_MODULE"), "") == "m"
            return value not in ("", "m") or (name.endswith("_MODULE") and module)
        return value in {"IS_ENABLED": ("y", "m"), "IS_BUILTIN": ("y",)}.get(what, ("m",))

    def _value(self, name: str) -> bool:
        value = self._options.get(name, "")
        if value in ("y", "", "m"):
            return value == "y"
        raise _Undecided

    def _take(self, word: str) -> None:
        if self.words.pop(0) != word:
            raise _Undecided
