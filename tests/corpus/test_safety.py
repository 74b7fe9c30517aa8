# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes live by itself against what a person said of it."""

from __future__ import annotations

import pytest

from kspliced.plan.safety import Policy
from tests.corpus import safety


@pytest.fixture(scope="module")
def judged() -> list[safety.Judged]:
    return safety.judge(safety.labelled() + safety.labelled(safety.UNSEEN))


def test_every_component_has_a_label_and_a_reason() -> None:
    found = safety.labelled()
    assert len({component.component for component in found}) == len(found) == 150
    assert all(component.component in component.files for component in found)
    assert {component.label for component in found} == {"safe", "person", "unsafe", "cannot"}
    assert all(component.reason for component in found)


@pytest.mark.parametrize("policy", Policy)
def test_nothing_unsafe_goes_live(judged: list[safety.Judged], policy: Policy) -> None:
    passing = safety.passing(judged, policy, "unsafe")
    assert [found.labelled.component for found in passing] == []


@pytest.mark.parametrize(
    ("policy", "least"), [(Policy.CONSERVATIVE, 0.9), (Policy.NORMAL, 0.95), (Policy.MANUAL, 0)]
)
def test_few_false_alarms(judged: list[safety.Judged], policy: Policy, least: float) -> None:
    safe = [found for found in judged if found.labelled.label == "safe"]
    assert len(safety.passing(judged, policy, "safe")) >= least * len(safe)
