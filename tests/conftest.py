# SPDX-License-Identifier: GPL-2.0-or-later
"""What all tests share."""

import pytest
from hypothesis import settings

# Emulated and shared machines have no use for a deadline; speed belongs in bench/.
settings.register_profile("kspliced", deadline=None)
settings.load_profile("kspliced")

# Files that take minutes, the longest first: where several processes take files by turns, none is
# left alone with a long one at the end.
_LONGEST = (
    "vm/test_story.py",
    "vm/test_interop.py",
    "vm/test_scenarios.py",
    "vm/test_scenarios612.py",
    "vm/test_kmod_core.py",
    "vm/test_builder.py",
    "vm/test_late_module.py",
    "vm/test_upgrade.py",
    "vm/test_sleepers.py",
    "vm/test_kmod_hold.py",
    "corpus/match/test_real.py",
    "vm/test_harness.py",
    "vm/test_soak.py",
)
_PLACES = {name: place for place, name in enumerate(_LONGEST)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the longest files first."""
    items.sort(key=lambda item: _PLACES.get(_file(item), len(_PLACES)))


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0].removeprefix("tests/")
