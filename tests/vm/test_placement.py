# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of nothing but where something is in memory, through the whole builder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.vm import real
from tests.vm.case import OLD_RELEASE

TOP = Path(__file__).parents[2]
pytestmark = pytest.mark.vm


@pytest.mark.parametrize("verb", ["plan", "build"])
def test_a_function_that_only_loses_init_is_not_nothing_to_do(tmp_path: Path, verb: str) -> None:
    new = tmp_path / "new"
    shutil.copytree(real.tree(), new, symlinks=True, copy_function=os.link)
    path = new / "arch/x86/mm/hugetlbpage.c"
    text = path.read_text()
    assert text.count("static __init int gigantic_pages_init") == 1
    path.unlink()
    path.write_text(
        text.replace("static __init int gigantic_pages_init", "static int gigantic_pages_init")
    )
    targets = tmp_path / "targets"
    targets.write_text("vmlinux\next4\n")
    command = [sys.executable, "-m", "kspliced.cli", verb, "--json", "--targets", str(targets)]
    command += ["--from", str(real.tree()), "--to", str(new), "--headers", str(real.kernel())]
    command += ["--config", str(real.kernel() / f"boot/config-{OLD_RELEASE}")]
    command += ["-o", str(tmp_path / "pack")] if verb == "build" else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TOP)
    assert done.returncode == 4, done.stderr
    said = json.loads(done.stdout)
    if verb == "build":
        (refused,) = said["refused"]
        assert refused["code"] == "section_class_changed"
        assert refused["symbol"] == "gigantic_pages_init"
        assert refused["evidence"].startswith("init text (.init.text) before, text (.text.")
    else:
        (component,) = said["components"]
        assert component["decision"] == "reboot"
        assert [reason["code"] for reason in component["reasons"]] == ["section_class_changed"]
