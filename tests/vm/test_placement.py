# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of nothing but where something is in memory, through the whole builder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.vm import real
from tests.vm.case import OLD_RELEASE

TOP = Path(__file__).parents[2]
pytestmark = pytest.mark.vm


def run(folder: Path, verb: str, file: str, *edits: tuple[str, str]) -> tuple[int, Any]:
    """Plan or build an upgrade that makes some edits in a file; the exit code and the JSON."""
    new = folder / "new"
    shutil.copytree(real.tree(), new, symlinks=True, copy_function=os.link)
    path = new / file
    text = path.read_text()
    for before, after in edits:
        assert text.count(before) == 1
        text = text.replace(before, after)
    path.unlink()
    path.write_text(text)
    targets = folder / "targets"
    targets.write_text("vmlinux\next4\n")
    command = [sys.executable, "-m", "kspliced.cli", verb, "--json", "--targets", str(targets)]
    command += ["--from", str(real.tree()), "--to", str(new), "--headers", str(real.kernel())]
    command += ["--config", str(real.kernel() / f"boot/config-{OLD_RELEASE}")]
    command += ["--policy", "normal"]
    command += ["-o", str(folder / "pack")] if verb == "build" else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TOP)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("verb", ["plan", "build"])
def test_a_function_that_only_loses_init_is_not_nothing_to_do(tmp_path: Path, verb: str) -> None:
    edit = ("static __init int gigantic_pages_init", "static int gigantic_pages_init")
    status, said = run(tmp_path, verb, "arch/x86/mm/hugetlbpage.c", edit)
    assert status == 4
    if verb == "build":
        (refused,) = said["refused"]
        assert refused["code"] == "section_class_changed"
        assert refused["symbol"] == "gigantic_pages_init"
        assert refused["evidence"].startswith("init text (.init.text) before, text (.text.")
    else:
        (component,) = said["components"]
        assert component["decision"] == "reboot"
        assert [reason["code"] for reason in component["reasons"]] == ["section_class_changed"]


def test_a_function_that_start_up_shares_from_now_on_goes_live(tmp_path: Path) -> None:
    """Who calls it at start-up has other code, too, but does what it did: its text says so."""
    status, said = run(
        tmp_path,
        "build",
        "fs/ext4/super.c",
        ("static int __init init_inodecache", "static noinline int init_inodecache"),
        (
            "\text4_fsblk_t overhead = 0, resv_blocks;\n\ts64 bfree;\n",
            "\text4_fsblk_t overhead = 0, resv_blocks;\n\ts64 bfree;\n\n"
            "\tif (sb->s_count == 12345)\n\t\treturn init_inodecache();\n",
        ),
    )
    assert status == 0, said["refused"]
    assert {(f["name"], f["kind"]) for f in said["functions"]} == {
        ("ext4_statfs", "changed"),
        ("init_inodecache", "new"),
    }
    assert said["refused"] == []
