# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels that the core's tests run on, as parameters of a fixture."""

from __future__ import annotations

from functools import partial

import pytest

from tests.vm import debug_kernel, kmod_build

TREES = (
    *(pytest.param(partial(kmod_build.tree, k), id=k.release) for k in kmod_build.KERNELS),
    # Lock order, sleeping and memory are watched there.
    pytest.param(debug_kernel.tree, id="debug", marks=pytest.mark.full),
)
