# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/refusals.md lists exactly the codes that the builder gives."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parents[2]
FILES = ("select.py", "rules.py", "unit.py")


def test_every_code_is_documented() -> None:
    text = "".join((TOP / "kspliced/build" / name).read_text() for name in FILES)
    given = set(re.findall(r'(?:Refusal|_refuse)\(\s*"([a-z_]+)"', text))
    given |= set(re.findall(r'code = "([a-z_]+)" if .* else "([a-z_]+)"', text)[0])
    documented = re.findall(r"^\| `([a-z_]+)` \|", (TOP / "docs/refusals.md").read_text(), re.M)
    assert set(documented) == given
    assert len(documented) == len(given)
