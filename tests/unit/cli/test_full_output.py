# SPDX-License-Identifier: GPL-2.0-or-later
"""What a command says where its answer cannot be written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("--version",),
        ("show", "--help"),
        ("show", "--json", "/nonexistent"),
        ("doctor", "--json", "--root", "/nonexistent"),
    ],
    ids=" ".join,
)
def test_a_full_disk_is_one_clear_error(words: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "kspliced.cli", *words]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, cwd=TREE, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("words", [("--help",), ("show", "--json", "/nonexistent")], ids=" ".join)
def test_a_reader_that_has_enough(words: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "kspliced.cli", *words]
    with subprocess.Popen(
        command, cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 1
    assert said == ""
