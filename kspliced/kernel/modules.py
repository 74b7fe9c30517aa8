# SPDX-License-Identifier: GPL-2.0-or-later
"""The loaded modules, as /proc/modules lists them.

Source: m_show() and print_unload_info() in kernel/module/procfs.c: NAME SIZE REFS USERS STATE
ADDRESS, and where there are any, the module's taints in parentheses.
"""

from __future__ import annotations

from dataclasses import dataclass

from kspliced.lines import split_lines

# Documentation/admin-guide/tainted-kernels.rst: not of the kernel's own tree.
_OUT_OF_TREE = "O"


@dataclass(frozen=True)
class Modules:
    """``names`` of the loaded modules, and which of them are ``foreign``: not of the kernel's own
    tree. Ours are in neither."""

    names: tuple[str, ...]
    foreign: tuple[str, ...]


def read_modules(text: str) -> Modules:
    """What the content of /proc/modules says; also lines of names alone, or of names and taints."""
    rows = [line.split() for line in split_lines(text) if line.strip()]
    rows = [row for row in rows if row[0] != "kspliced" and not row[0].startswith("ks_")]
    foreign = (row[0] for row in rows if _tainted(row[-1]))
    return Modules(tuple(row[0] for row in rows), tuple(foreign))


def _tainted(word: str) -> bool:
    return word.startswith("(") and word.endswith(")") and _OUT_OF_TREE in word


def listed(targets: tuple[str, ...], foreign: tuple[str, ...]) -> str:
    """Targets, one a line, as :func:`read_modules` reads them."""
    return "".join(f"{t} ({_OUT_OF_TREE})\n" if t in foreign else f"{t}\n" for t in targets)
