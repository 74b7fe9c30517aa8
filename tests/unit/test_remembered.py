# SPDX-License-Identifier: GPL-2.0-or-later
"""What is kept of a search, and what is not believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kspliced.build.fates import Decision
from kspliced.build.remembered import GivenUp, Remembered, State
from kspliced.model import Refusal


def state(evidence: str = "a.c:1:1: error: no such member") -> State:
    refusal = Refusal("does_not_compile", "a.c", "", "why", evidence)
    return State(("b.c",), (GivenUp("a.c", Decision.REBOOT, (refusal,)),), True)


def test_a_state_comes_back(tmp_path: Path) -> None:
    Remembered(tmp_path / "searches", "key").write(state())
    assert Remembered(tmp_path / "searches", "key").read() == state()
    assert Remembered(tmp_path / "searches", "other").read() == State()
    nowhere = Remembered(None, "key")
    nowhere.write(state())
    assert nowhere.read() == State()


def test_what_is_cut_short_is_not_believed(tmp_path: Path) -> None:
    Remembered(tmp_path, "key").write(state())
    path = tmp_path / "key.json"
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert Remembered(tmp_path, "key").read() == State()


@pytest.mark.parametrize(
    "words",
    [
        "gcc: fatal error: Killed signal terminated program cc1",
        "a.c:9:1: fatal error: error writing to /tmp/x.s: No space left on device",
        "cc1: out of memory: Cannot allocate memory",
    ],
)
def test_what_the_machine_did_is_tried_again(tmp_path: Path, words: str) -> None:
    Remembered(tmp_path, "key").write(state(words))
    assert Remembered(tmp_path, "key").read() == State()


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    for number in range(20):
        Remembered(tmp_path, f"{number}").write(state())
        os.utime(tmp_path / f"{number}.json", (number, number))
    names = {path.stem for path in tmp_path.iterdir()}
    assert names == {str(number) for number in range(4, 20)}
