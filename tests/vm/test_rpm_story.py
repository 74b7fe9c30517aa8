# SPDX-License-Identifier: GPL-2.0-or-later
"""The story where dnf upgrades, one test a step; a step needs the ones before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.vm.findings import Finding
from tests.vm.rpm_world import RPM
from tests.vm.story import Printer, Story

pytestmark = [pytest.mark.vm, pytest.mark.full]
# The pack that waits for a module is one for Debian's kernel.
STEPS = tuple(step for step in Story.STEPS if step is not Story.late_module)


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with Story(Printer(), RPM) as told:
        yield told


@pytest.fixture(scope="module")
def failed() -> list[str]:
    return []


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_step(story: Story, failed: list[str], step: Callable[[Story], Finding]) -> None:
    if failed:
        pytest.fail(f"the step {failed[0]} before it failed")
    failed.append(step.__name__)
    print(step(story))
    failed.clear()
