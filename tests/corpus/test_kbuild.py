# SPDX-License-Identifier: GPL-2.0-or-later
"""Units that take more than a compiler and the headers package."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kspliced.build.kbuild import Kbuild, Unit, compile_error, find_unit, reached
from kspliced.build.pipeline import build
from kspliced.build.request import BuildRequest
from kspliced.errors import Code, KsplicedError
from kspliced.model import no_progress
from tests.corpus import kernels, stages
from tests.vm import real
from tests.vm.case import OLD_RELEASE, OLD_VERSION


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


def test_directories_that_only_the_top_makefile_enters(tmp_path: Path) -> None:
    """lib.a and the PCI code of the architecture are there, its FPU emulator is not."""
    tree, headers = kernels.source(OLD_VERSION), kernels.headers(OLD_VERSION)
    kbuild = Kbuild(tree, tmp_path / "objects", headers, stages.jobs())
    names = ("arch/x86", "arch/x86/lib", "arch/x86/pci", "arch/x86/math-emu", "arch/x86/kernel")
    found = kbuild.list_directories(names)
    assert [name for name in names if reached(name, found)] == [
        "arch/x86", "arch/x86/lib", "arch/x86/pci", "arch/x86/kernel",
    ]  # fmt: skip
    assert [u.path for u in find_unit("arch/x86/lib/delay.c", found)] == ["arch/x86/lib/delay.o"]
    assert find_unit("arch/x86/math-emu/errors.c", found) == ()


def test_what_is_built_for_symbol_versions(tmp_path: Path) -> None:
    """They are not made, which is no word about the code that checks them."""
    tree, headers = kernels.source(OLD_VERSION), kernels.headers(OLD_VERSION)
    kbuild = Kbuild(tree, tmp_path / "objects", headers, stages.jobs())
    unit = Unit("kernel/module/version.o", "kernel/module", "vmlinux")
    assert find_unit("kernel/module/version.c", kbuild.list_directories((unit.directory,))) == (
        unit,
    )
    assert kbuild.compile((unit,)) == {}


def test_thousands_of_directories(tmp_path: Path) -> None:
    """More than fit in a command."""
    tree, headers = kernels.source(OLD_VERSION), kernels.headers(OLD_VERSION)
    kbuild = Kbuild(tree, tmp_path / "objects", headers, stages.jobs())
    makefiles = (path.parent for path in (tree / "drivers").rglob("Makefile"))
    directories = sorted(str(path.relative_to(tree)) for path in makefiles)
    assert sum(map(len, directories)) > 20_000
    assert len(kbuild.list_directories(directories)) > len(directories) * 0.9


@pytest.fixture
def noexec(tmp_path: Path) -> Iterator[Path]:
    """As systemd 257 mounts the cache of a dynamic user, and an administrator may."""
    place = tmp_path / "noexec"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_place_where_no_program_runs(noexec: Path) -> None:
    kernel = real.kernel()
    config = kernel / f"boot/config-{OLD_RELEASE}"
    request = BuildRequest(real.tree(), real.tree(), config, kernel, (), (), 1, noexec)
    with pytest.raises(KsplicedError) as caught:
        build(request, no_progress)
    error = caught.value
    assert error.code is Code.NO_EXEC and error.transient
    assert str(noexec) in error.message and "noexec" in error.message and error.remedy
    assert list(noexec.iterdir()) == []


def test_why_a_host_program_does_not_run_is_said(noexec: Path) -> None:
    tree, headers = kernels.source(OLD_VERSION), kernels.headers(OLD_VERSION)
    kbuild = Kbuild(tree, noexec / "objects", headers, stages.jobs())
    unit = Unit("security/selinux/ss/services.o", "security/selinux", "vmlinux")
    (said,) = kbuild.compile((unit,)).values()
    assert "genheaders: Permission denied" in said
    error = compile_error(f"it does not compile: {said}", said, ())
    assert (error.code, error.transient) == (Code.NO_EXEC, True)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("cc1: fatal error: error writing to x.s: No space left on device", Code.NO_SPACE),
        ("ar: x.a: Disk quota exceeded", Code.NO_SPACE),
        ("gcc-12: fatal error: Killed signal terminated program cc1", Code.NO_MEMORY),
        ("cc1: out of memory: Cannot allocate memory", Code.NO_MEMORY),
        ("/bin/sh: 1: scripts/check-local-export: Permission denied", Code.NO_EXEC),
        ("make: /bin/sh: Operation not permitted", Code.NO_EXEC),
        ("a.c:1:1: error: expected ';' before 'int'", Code.COMPILE_FAILED),
    ],
)
def test_what_the_machine_did_is_no_word_about_the_source(said: str, code: Code) -> None:
    error = compile_error(f"compiling failed: {said}", said, (said,))
    assert (error.code, error.transient) == (code, code is not Code.COMPILE_FAILED)
    assert said in error.message and error.remedy
