# SPDX-License-Identifier: GPL-2.0-or-later
"""`kspliced plan` tells the machine's preconditions where it plans for the kernel that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.build.request import BuildRequest
from kspliced.cli import plan
from kspliced.engine.preconditions import ALL
from kspliced.errors import Code
from tests.unit.engine.fakes import NEWER, RUNNING, Machine


def request(root: Path, release: str, version: str) -> BuildRequest:
    """A plan for the kernel whose headers package these are."""
    headers = root / f"headers-{release}"
    files = {
        ".config": 'CONFIG_X86=y\nCONFIG_CC_VERSION_TEXT="gcc-12 (Debian 12.2.0-14) 12.2.0"\n',
        "tools/x": "",
        "include/generated/utsrelease.h": f'#define UTS_RELEASE "{release}"\n',
        "include/generated/package.h": f'#define LINUX_PACKAGE_ID " Debian {version}"\n',
    }
    for name, content in files.items():
        (headers / name).parent.mkdir(parents=True, exist_ok=True)
        (headers / name).write_text(content)
    config = headers / ".config"
    return BuildRequest(root, root, config, headers, (), only=(), jobs=1, workdir=None)


def test_of_the_running_kernel_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path / "root", NEWER)
    (machine.paths.proc / "sys/kernel/modules_disabled").write_text("1\n")
    monkeypatch.setattr(plan, "Paths", lambda: machine.paths)
    found = plan._blocked(request(tmp_path, RUNNING.release, RUNNING.version))
    assert found is not None and len(found) == len(ALL)
    assert [p.code for p in found if p.state.value == "failed"] == [Code.MODULES_DISABLED]
    assert plan._blocked(request(tmp_path, NEWER.release, NEWER.version)) is None
    (machine.paths.proc / "sys/kernel/version").write_text("#45-Ubuntu SMP\n")
    assert plan._blocked(request(tmp_path, RUNNING.release, RUNNING.version)) is None
