# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/refusals.md lists exactly the codes that the builder gives."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parents[2]
FILES = (
    "build/select.py", "build/rules.py", "build/unit.py", "build/join.py",
    "build/closed.py", "build/doubted.py", "build/fates.py", "build/late.py", "build/search.py",
    "plan/headers.py", "plan/reach.py", "plan/safety.py",
    "engine/status.py",
)  # fmt: skip


def test_every_code_is_documented() -> None:
    text = "".join((TOP / "kspliced" / name).read_text() for name in FILES)
    given = set(re.findall(r'(?:Refusal|_refuse|each|_doubt)\(\s*"([a-z_]+)"', text))
    documented = re.findall(r"^\| `([a-z_]+)` \|", (TOP / "docs/refusals.md").read_text(), re.M)
    assert set(documented) == given
    assert len(documented) == len(given)
