# SPDX-License-Identifier: GPL-2.0-or-later
"""The bug is real: without kspliced, the trigger oopses the old kernel."""

from __future__ import annotations

import pytest

from tests.vm import case, story
from tests.vm.guest import Guest
from tests.vm.image import Image


@pytest.mark.vm
def test_trigger_oopses_the_unpatched_kernel(guest_image: Image) -> None:
    with Guest("bug", guest_image) as guest:
        oops = story.show_bug(guest)
    assert case.FAULTY_FUNCTION in oops.where
    assert any("NULL pointer dereference" in line for line in oops.lines)
