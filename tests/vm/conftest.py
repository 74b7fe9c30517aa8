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


_lost: set[str] = set()


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Remember a test that the harness let down, which says nothing about the code under test."""
    if call.excinfo is not None and call.excinfo.errisinstance(HarnessError):
        _lost.add(item.nodeid)


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Such a test counts as an error, not as a failed expectation."""
    if report.failed and report.nodeid in _lost:
        return "error", "E", "ERROR"
    return None
