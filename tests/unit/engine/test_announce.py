# SPDX-License-Identifier: GPL-2.0-or-later
"""The line that apt's and dnf's hooks end with: what is so at that moment."""

from __future__ import annotations

import pytest

from kspliced.engine.announce import announcement, main
from kspliced.errors import Code, KsplicedError
from tests.unit.engine.fakes import NEWER, RUNNING, Machine

MINE = """
Package: linux-image-6.1.200-amd64
Status: install ok installed
Architecture: amd64
Source: linux-upstream (6.1.200-1)
Version: 6.1.200-1
"""


def test_an_update_that_will_be_made(machine: Machine) -> None:
    expected = f"making linux {NEWER.version} live in the background; see kspliced status"
    assert announcement(machine.paths) == expected


def test_a_precondition_that_fails(machine: Machine) -> None:
    (machine.paths.proc / "sys/kernel/modules_disabled").write_text("1\n")
    line = announcement(machine.paths)
    assert line.startswith(f"linux {NEWER.version} will not go live by itself: kernel.modules")
    assert line.endswith("; see kspliced doctor") and "\n" not in line


def test_a_kernel_that_somebody_else_made(machine: Machine) -> None:
    machine.install(RUNNING)
    with (machine.paths.dpkg / "status").open("a") as file:
        file.write(MINE)
    expected = "linux-image-6.1.200-amd64 6.1.200-1 is not the distribution's, and is left alone"
    assert announcement(machine.paths) == expected


def test_nothing_came(machine: Machine) -> None:
    machine.install(RUNNING)
    assert announcement(machine.paths) == ""


def test_another_kernel_runs(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    (machine.paths.proc / "sys/kernel/version").write_text("#45-Ubuntu SMP\n")
    with pytest.raises(KsplicedError) as caught:
        announcement(machine.paths)
    assert caught.value.code is Code.FOREIGN_KERNEL
    assert main(["--root", str(machine.paths.root)]) == 0
    assert capsys.readouterr().out == ""
