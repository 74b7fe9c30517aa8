# SPDX-License-Identifier: GPL-2.0-or-later
"""Which functions a difference touches, by the kernel's own coding style.

Used only to say *why* a function changed, never to decide whether it did.
"""

from __future__ import annotations

import re
from pathlib import Path

from kspliced.source.lines import hunks

_NAME = re.compile(r"([A-Za-z_]\w*)\s*\(")
# include/linux/syscalls.h, compat.h: the function that holds the body of a system call.
_SYSCALL = re.compile(r"\b(?:(COMPAT)_)?SYSCALL_DEFINE\d\s*\(\s*(\w+)")


def touched_functions(old: Path, new: Path) -> tuple[str, ...]:
    """Names of the functions of the file ``new`` in which it differs from ``old``."""
    names: list[str] = []
    spans = function_lines(new.read_text("utf-8", "replace"))
    for hunk in hunks(old, new):
        last = hunk.new_start + max(hunk.new_count, 1) - 1
        for name, start, end in spans:
            if start <= last and hunk.new_start <= end and name not in names:
                names.append(name)
    return tuple(names)


def function_lines(text: str) -> list[tuple[str, int, int]]:
    """(name, first line, last line) of each function: a '{' in column 0 up to its '}'."""
    found: list[tuple[str, int, int]] = []
    head: list[str] = []
    start = 0
    name = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if name:
            if line.startswith("}"):
                found.append((name, start, number))
                name, head = "", []
        elif line.startswith("{") and head:
            name, start = _name(" ".join(head)), number - len(head)
        elif not line.strip() or line.startswith(("#", "/", " *", "}")) or line.endswith(";"):
            head = []
        else:
            head.append(line)
    return found


def _name(head: str) -> str:
    call = _SYSCALL.search(head)
    if call is not None:
        return f"__do_{'compat_' if call.group(1) else ''}sys_{call.group(2)}"
    match = _NAME.search(head)
    return match.group(1) if match else ""
