# SPDX-License-Identifier: GPL-2.0-or-later
"""A power cut before each durable step of a worker, and the boot after it.

The same in a guest, with the real core and a real power cut: ``make torture``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from kspliced.engine import transactions
from kspliced.engine.edges import CoreStage
from kspliced.engine.queue import SCHEMA, Package, Request
from kspliced.engine.replay import healthy, replay
from kspliced.engine.state import load_state
from kspliced.engine.status import StatusState, current_status
from kspliced.errors import Code, KsplicedError
from kspliced.record import dumps
from tests.unit.engine.fakes import NEWER, RUNNING, UPDATE, Machine

STEPS = ("fsync", "rename", "replace", "unlink")
MOST = 60  # durable steps of one worker
REQUEST = Request(SCHEMA, "apt", (Package("linux-image-6.1.0-56-amd64", "", "6.1.192-2"),), 1.0)


class PowerCut(BaseException):
    """Nobody handles it."""


@contextmanager
def cut_before(monkeypatch: pytest.MonkeyPatch, number: int) -> Iterator[list[str]]:
    """Cut the power before durable step ``number``, counted from 1; from then on nothing is
    written, also by whoever cleans up. The list says what was reached."""
    reached: list[str] = []

    def watched(step: str, original: Any) -> Any:
        def call(*arguments: Any, **words: Any) -> Any:
            reached.append(step)
            if len(reached) >= number:
                raise PowerCut
            return original(*arguments, **words)

        return call

    with monkeypatch.context() as patches:
        for step in STEPS:
            patches.setattr(os, step, watched(step, getattr(os, step)))
        with suppress(PowerCut):
            yield reached


def ask(machine: Machine) -> None:
    """What apt's hook leaves."""
    machine.paths.queue.mkdir(parents=True, exist_ok=True)
    (machine.paths.queue / "1-apt.json").write_bytes(dumps(REQUEST))


def booted(machine: Machine) -> None:
    """The boot after it: the replay, and the daemon that finds a request. Errors are reported."""
    machine.boot(RUNNING)
    consistent(machine)
    for verb in (replay, transactions.upgrade):
        if verb is transactions.upgrade and not list(machine.paths.queue.glob("*.json")):
            continue
        with suppress(KsplicedError):
            verb(machine.context)
    healthy(machine.context)


def consistent(machine: Machine) -> None:
    """The record can be read, and nothing is called live that is not."""
    load_state(machine.paths)
    live = machine.kernel.loaded.get(UPDATE) is CoreStage.APPLIED
    assert (current_status(machine.paths).state is StatusState.LIVE) == live


def mended(machine: Machine) -> None:
    """It is live, or becomes so when the administrator asks, and is so after a boot more."""
    consistent(machine)
    if machine.kernel.loaded.get(UPDATE) is not CoreStage.APPLIED:
        transactions.apply(machine.context, None)
    consistent(machine)
    assert machine.kernel.loaded[UPDATE] is CoreStage.APPLIED
    healthy(machine.context)
    machine.boot(RUNNING)
    replay(machine.context)
    assert machine.kernel.loaded[UPDATE] is CoreStage.APPLIED
    consistent(machine)


def each_cut(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ready: Callable[[Machine], object], verb: Any
) -> Iterator[tuple[Machine, bool]]:
    """A machine for each durable step of ``verb``, cut before it; and one that was not cut."""
    for number in range(1, MOST):
        machine = Machine(tmp_path / str(number), NEWER)
        ready(machine)
        with cut_before(monkeypatch, number) as reached:
            verb(machine.context)
        was_cut = len(reached) >= number
        yield machine, was_cut
        if not was_cut:
            assert number > 3, "there is hardly anything durable"
            return
    raise AssertionError(f"more than {MOST} durable steps")


def test_an_upgrade(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for machine, _ in each_cut(monkeypatch, tmp_path, ask, transactions.upgrade):
        booted(machine)
        # Mended by itself, unless the machine went down over the switch itself.
        if machine.kernel.loaded.get(UPDATE) is not CoreStage.APPLIED:
            problem = load_state(machine.paths).history[-1].problem
            assert problem is not None and problem.code is Code.BOOT_LOOP
        assert not list(machine.paths.queue.glob("*.json"))
        mended(machine)


def test_an_undo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was asked for is done, or not begun; never is what was undone live again unasked."""
    for machine, was_cut in each_cut(
        monkeypatch, tmp_path, lambda m: transactions.upgrade(m.context), transactions.undo
    ):
        wanted = load_state(machine.paths).history[-1].wanted
        booted(machine)
        assert (machine.kernel.loaded.get(UPDATE) is CoreStage.APPLIED) == wanted
        assert was_cut or not wanted
        mended(machine)


def test_a_replay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def ready(machine: Machine) -> None:
        transactions.upgrade(machine.context)
        healthy(machine.context)
        machine.boot(RUNNING)

    for machine, _ in each_cut(monkeypatch, tmp_path, ready, replay):
        booted(machine)
        mended(machine)
