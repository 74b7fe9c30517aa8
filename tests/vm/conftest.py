# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the guest tests, and how a lost guest is reported."""

from __future__ import annotations

import pytest

from tests.vm import image
from tests.vm.errors import HarnessError


@pytest.fixture(scope="session")
def guest_image() -> image.Image:
    """The base image; made first where it is not in the cache."""
    return image.base()


# Of the report, as that travels from the process that runs a test to the one that counts.
_LOST = ("lost", "the harness let it down")


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Mark a test that the harness let down, which says nothing about the code under test."""
    if call.excinfo is not None and call.excinfo.errisinstance(HarnessError):
        item.user_properties.append(_LOST)


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Such a test counts as an error, not as a failed expectation."""
    if report.failed and _LOST in map(tuple, report.user_properties):
        return "error", "E", "ERROR"
    return None
