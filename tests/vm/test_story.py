# SPDX-License-Identifier: GPL-2.0-or-later
"""The story of the first live upgrade, one test a step; a step needs the ones before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.vm.findings import Finding
from tests.vm.story import Printer, Story

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with Story(Printer()) as told:
        yield told


@pytest.fixture(scope="module")
def failed() -> list[str]:
    return []


@pytest.mark.parametrize("step", Story.STEPS, ids=lambda step: step.__name__)
def test_step(story: Story, failed: list[str], step: Callable[[Story], Finding]) -> None:
    if failed:
        pytest.fail(f"the step {failed[0]} before it failed")
    failed.append(step.__name__)
    print(step(story))
    failed.clear()
