# SPDX-License-Identifier: GPL-2.0-or-later
"""The arrows of ARCHITECTURE.md: who may import whom, also inside functions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2] / "kspliced"
EVERYBODY = {"errors", "model", "record", "oserror", "public", "limits", "lines", "named", ""}
ARROWS = {
    "errors": set(),
    "model": set(),
    "record": set(),
    "public": set(),
    "limits": set(),
    "lines": set(),
    "named": set(),
    "oserror": set(),
    "pack": set(),
    "worker": set(),
    "elf": set(),
    "facts": set(),
    "source": set(),
    "series": {"source"},
    "plan": {"source", "series"},
    "build": {"plan", "source", "series", "elf", "facts", "pack"},
    "kernel": {"elf"},
    "match": {"kernel", "elf", "pack"},
    "engine": {"match", "kernel", "pack", "worker"},
    "service": {
        "engine.status",
        "engine.state",
        "engine.paths",
        "engine.queue",
        "engine.files",
        "engine.budget",
        "engine.preconditions",
        "engine.reboot_flag",
        "engine.view",
        "pack",
        "worker",
    },
    "client": {"service.api", "worker"},
    # What a machine lacks is told without a daemon, too.
    "cli": {
        *("client", "build", "plan", "match", "kernel", "pack", "worker", "source", "elf"),
        *("engine.preconditions", "engine.view", "engine.paths"),
    },
}


def imports(path: Path) -> set[str]:
    """Modules of kspliced that the file imports, relative to the package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "kspliced":
                names = [f"kspliced.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {n.partition(".")[2] for n in names if n.partition(".")[0] == "kspliced"}
    return found


def part(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("path", sorted(TOP.rglob("*.py")), ids=lambda p: str(p.relative_to(TOP)))
def test_imports_follow_the_arrows(path: Path) -> None:
    relative = path.relative_to(TOP).with_suffix("").parts
    mine = relative[0]
    if mine == "__init__":
        assert not imports(path)
        return
    for module in imports(path):
        if module.startswith("__") or part(module) in EVERYBODY | {mine}:
            continue
        allowed = ARROWS[mine]
        assert part(module) in allowed or module in allowed, f"{path} imports {module}"
