# SPDX-License-Identifier: GPL-2.0-or-later
"""What compiler, sparse and the kernel's own scripts say about kmod/: nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.vm import kmod_build, real
from tests.vm.kmod_build import Kernel

SOURCES = sorted((kmod_build.TREE / "kmod").glob("*.[ch]"))
COMPLAINT = re.compile(r"\b(?:warning|error):")


def scripts(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the kernel's source on every file of kmod/."""
    script = real.tree() / "scripts" / name
    return subprocess.run(
        ["perl", script, *words, *SOURCES],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("kernel", kmod_build.KERNELS, ids=lambda kernel: kernel.release)
def test_compiler_and_sparse(kernel: Kernel, tmp_path: Path) -> None:
    said = kmod_build.build_core(kmod_build.headers(kernel), tmp_path / "core", "-j2", "W=1", "C=2")
    checked = set(re.findall(r"CHECK +\S*/(\w+\.c)$", said, re.MULTILINE))
    assert checked == {path.name for path in SOURCES if path.suffix == ".c"}
    assert not [line for line in said.splitlines() if COMPLAINT.search(line)]


def test_the_newest_kernel_of_the_archive(tmp_path: Path) -> None:
    """What changed in the kernel's interface is probed for in its headers (kmod/Kbuild)."""
    kernel = kmod_build.newest()
    # The next release's compiler sees this tree only.
    place = kmod_build.TREE / "build/kmod-newest" / os.environ.get("PYTEST_XDIST_WORKER", "alone")
    shutil.rmtree(place, ignore_errors=True)
    said = kmod_build.build_core(kmod_build.headers(kernel), place, "-j2", "W=1")
    assert not [line for line in said.splitlines() if COMPLAINT.search(line)]
    assert (place / "kspliced.ko").exists()


def test_style() -> None:
    done = scripts("checkpatch.pl", "--strict", "--no-tree", "--terse", "--show-types", "-f")
    assert (done.returncode, done.stdout) == (0, "")


def test_comments_describe_what_is_there() -> None:
    """Every parameter, member and return value of a kernel-doc comment."""
    done = scripts("kernel-doc", "-none", "-v", "-Werror")
    said = [line for line in done.stdout.splitlines() if ": info: " not in line]
    assert (done.returncode, said) == (0, [])
    assert done.stdout.count("Scanning doc for") > 40


def test_a_file_knows_of_those_below_it_only() -> None:
    """By the order in which docs/kernel-core.md names them; each has a header, but the first."""
    page = (kmod_build.TREE / "docs/kernel-core.md").read_text()
    order = re.findall(r"^\| `(\w+)\.c` \|", page, re.MULTILINE)
    assert sorted(order) == [path.stem for path in SOURCES if path.suffix == ".c"]
    places = {name: place for place, name in enumerate(order)}
    for path in SOURCES:
        for name in re.findall(r'^#include "(\w+)\.h"$', path.read_text(), re.MULTILINE):
            if name != "kspliced_abi":
                assert places[name] >= places.get(path.stem, 0), f"{path.name} includes {name}.h"
