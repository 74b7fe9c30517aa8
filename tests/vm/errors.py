# SPDX-License-Identifier: GPL-2.0-or-later
"""What can go wrong in the harness itself, as opposed to in what it tests."""

from __future__ import annotations


class HarnessError(Exception):
    """The harness cannot do its work: a tool, a package or a guest is missing or broken."""


class GuestLost(HarnessError):
    """The guest does not answer any more. An error of the test, not a failed expectation."""


class GuestTimeout(HarnessError):
    """A condition that was waited for did not come true in its time."""
