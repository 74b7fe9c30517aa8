# SPDX-License-Identifier: GPL-2.0-or-later
"""Units that take more than a compiler and the headers package."""

from __future__ import annotations

from pathlib import Path

from kspliced.build.kbuild import Kbuild, Unit
from tests.corpus import kernels, stages
from tests.vm.case import OLD_VERSION


def test_a_header_that_a_host_program_makes(tmp_path: Path) -> None:
    """security/selinux/flask.h, which every unit of that directory reads."""
    tree, headers = kernels.source(OLD_VERSION), kernels.headers(OLD_VERSION)
    kbuild = Kbuild(tree, tmp_path / "objects", headers, stages.jobs())
    unit = Unit("security/selinux/ss/services.o", "security/selinux", "vmlinux")
    assert kbuild.compile((unit,)) == {}
    made = kbuild.object_path(unit)
    time = made.stat().st_mtime_ns
    assert kbuild.compile((unit,)) == {}
    assert made.stat().st_mtime_ns == time, "it is compiled again"


def test_a_makefile_that_includes_others(tmp_path: Path) -> None:
    """By paths from the top of the source, which is not where make runs."""
    tree, headers = kernels.source(OLD_VERSION), kernels.headers(OLD_VERSION)
    kbuild = Kbuild(tree, tmp_path / "objects", headers, stages.jobs())
    directories = ("drivers/gpu/drm/i915", "drivers/misc/habanalabs")
    found = kbuild.list_directories(directories)
    assert "drivers/gpu/drm/i915/i915_pci.o" in found[directories[0]].modular
    assert directories[1] in found
