# SPDX-License-Identifier: GPL-2.0-or-later
"""A short soak; `make soak` is the long one."""

from __future__ import annotations

import pytest

from tests.vm.soak import HOT, soak

pytestmark = pytest.mark.vm

CYCLES = 25


def test_a_short_soak() -> None:
    result = soak(CYCLES)
    print(result.line())
    assert result.functions >= sum(len(names) for names in HOT.values())
    for phase in (result.loaded, result.quiet):
        assert phase.cycles == CYCLES
        assert phase.switches == 2 * CYCLES + phase.replacements
        assert phase.replacements == CYCLES // 2
        assert phase.reloads == CYCLES // 10
        assert phase.attempts == phase.switches + phase.refused
        assert phase.named >= phase.refused
        assert phase.calls > 0
    assert result.builds.resident > result.builds.builds * 4096
    # Each of these met a process that sleeps in code that would change.
    assert result.quiet.refused >= CYCLES
    assert result.quiet.functions["pipe_read"] >= CYCLES
