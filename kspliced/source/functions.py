# SPDX-License-Identifier: GPL-2.0-or-later
"""Which functions a difference touches, as the preprocessor has not seen them yet.

Used only to say *why* a function changed, never to decide whether it did.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kspliced.source.lines import hunks

# What is no code: comments, literals, and directives with the lines that continue them.
_NO_CODE = re.compile(
    r"""/\*.*?\*/ | //[^\n]* | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*'
    | ^[ \t]*\#(?:\\\r?\n|/\*.*?\*/|[^\n])*""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
_TOKEN = re.compile(r"[A-Za-z_]\w*|[(){};=*,]|\n")
# Declarators may have these on either side (include/linux/compiler_attributes.h and
# compiler_types.h, sparse's among them); typeof() is a type.
_ATTRIBUTE = re.compile(
    r"__(?:attribute(?:__)?|printf|scanf|aligned|section|alias|alloc_size|assume_aligned|mode|"
    r"acquires?|releases?|cond_acquires|must_hold|cond_lock|no_sanitize\w*|malloc|copy|"
    r"compiletime_error|compiletime_warning|typeof(?:__)?|declspec)$|typeof(?:_unqual)?$"
)
# include/linux/syscalls.h, compat.h: the function that holds the body of a system call.
_SYSCALL = re.compile(r"(?:\w+_)??(COMPAT_)?SYSCALL_DEFINE\d$")
_STATEMENTS = frozenset(["if", "else", "for", "while", "do", "switch", "return", "sizeof"])
_TAGGED = frozenset(["struct", "union", "enum"])
_TYPES = frozenset(
    {"void", "int", "char", "long", "short", "unsigned", "signed", "float", "double"}
)


@dataclass(frozen=True)
class _Token:
    """``line`` counts from 1; ``first`` is whether it stands at the very start of its line."""

    text: str
    line: int
    first: bool


@dataclass(frozen=True)
class _Call:
    """``name(arguments)`` outside all other parentheses; ``bound`` if a type is before it."""

    name: str
    arguments: tuple[str, ...]
    bound: bool
    line: int


def touched_functions(old: Path, new: Path) -> tuple[str, ...]:
    """Names of the functions of the file ``new`` in which it differs from ``old``."""
    names: list[str] = []
    spans = function_lines(new.read_bytes().decode("utf-8", "replace"))
    for hunk in hunks(old, new):
        last = hunk.new_start + max(hunk.new_count, 1) - 1
        for name, start, end in spans:
            if start <= last and hunk.new_start <= end and name not in names:
                names.append(name)
    return tuple(names)


def function_lines(text: str) -> list[tuple[str, int, int]]:
    """(name, first line, last line) of each function.

    One that is made by a macro has the name that the macro is given. A body whose '{' is in column
    0 ends at the next '}' there, whatever #if makes of the braces between.
    """
    found: list[tuple[str, int, int]] = []
    tokens = _tokens(text)
    head: list[_Token] = []
    depth = 0
    for token in tokens:
        if token.text in "{}" and (token.first or not depth):
            name, start = _function(head) if token.text == "{" else ("", 0)
            end = _skip(tokens, token) if token.text == "{" else 0
            if name:
                found.append((name, start, end or token.line))
            head, depth = [], 0
        elif token.text == ";" and not depth:
            head = []
        else:
            depth = max(0, depth + (token.text == "(") - (token.text == ")"))
            head.append(token)
    return found


def _tokens(text: str) -> Iterator[_Token]:
    code = _NO_CODE.sub(lambda match: " " + "\n" * match.group().count("\n"), text)
    line, start = 1, 0
    for match in _TOKEN.finditer(code):
        if match.group() == "\n":
            line, start = line + 1, match.end()
        else:
            yield _Token(match.group(), line, match.start() == start)


def _skip(tokens: Iterator[_Token], opening: _Token) -> int:
    """Leave a block behind; returns its last line, 0 if it does not end."""
    depth = 1
    for token in tokens:
        depth += (token.text == "{") - (token.text == "}")
        balanced = not depth and (not opening.first or token.line == opening.line)
        if token.text == "}" and (token.first or balanced):
            return token.line
    return 0


def _function(head: list[_Token]) -> tuple[str, int]:
    """The function that the tokens before a '{' begin, and in which line; "" if they do not."""
    calls = [call for call in _calls(head) if call.name not in _STATEMENTS]
    # What has a type before it, unless its name is that of a macro.
    own = [call for call in calls if call.bound and not call.name.isupper()] or calls
    if not own:
        return "", 0
    return _named(own[-1]), own[-1].line


def _named(call: _Call) -> str:
    syscall, given = _SYSCALL.match(call.name), call.arguments[0]
    if syscall is not None:
        return f"__do_{'compat_' if syscall.group(1) else ''}sys_{given}"
    if given == "*":
        # int (*name(int))(int): a function that returns a pointer to one.
        return next((word for word in call.arguments if word.isidentifier()), "")
    single = call.arguments[1] in ",)" and given.isidentifier() and given not in _TYPES
    made = single and (call.name.isupper() or not call.bound)
    return given if made else call.name


def _calls(head: list[_Token]) -> Iterator[_Call]:
    """What is called or declared in ``head``, but attributes; nothing if a value is assigned, or if
    a type is all that stands behind the last one."""
    found: list[_Call] = []
    before, line, index, tagged = "", 0, 0, False
    while index < len(head):
        token, after = head[index], head[index + 1 : index + 2]
        if token.text == "=":
            return
        line = line or token.line
        tagged = tagged or token.text in _TAGGED
        if token.text == "(" or not (after and after[0].text == "("):
            end = _closing(head, index) if token.text == "(" else index
            before = token.text if token.text != "(" else before
            index = end + 1
            continue
        end = _closing(head, index + 1)
        words = (*(inner.text for inner in head[index + 2 : end + 1]), ")", ")")
        if not _ATTRIBUTE.match(token.text):
            found.append(_Call(token.text, words, bool(before), line))
            before, line, tagged = "", 0, False
        elif "typeof" in token.text:
            before = token.text
        index = end + 1
    yield from () if tagged else found


def _closing(head: list[_Token], index: int) -> int:
    """Where the parenthesis at ``index`` is closed, or the last token."""
    depth = 0
    for place in range(index, len(head)):
        depth += (head[place].text == "(") - (head[place].text == ")")
        if not depth:
            return place
    return len(head) - 1
