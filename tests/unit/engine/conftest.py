# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine fixture."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.engine.fakes import NEWER, Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine that runs 6.1.192-1 and has 6.1.192-2 installed."""
    return Machine(tmp_path, NEWER)
