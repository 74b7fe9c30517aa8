# SPDX-License-Identifier: GPL-2.0-or-later
"""Changing is for those whom polkit lets, and for root."""

from __future__ import annotations

import asyncio
import os
from functools import partial

import pytest

from kspliced.errors import Code, KsplicedError
from tests.dbus.harness import ANOTHER, NOBODY, Caller, Machine, eventually

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two users")
METHODS = {
    "Apply": "org.kspliced1.apply",
    "Undo": "org.kspliced1.undo",
    "Build": "org.kspliced1.build",
    "Plan": "org.kspliced1.build",
    "Refresh": "org.kspliced1.refresh",
}


def _denied(machine: Machine, method: str) -> KsplicedError:
    async def call(caller: Caller) -> None:
        await caller.manager(method)

    with pytest.raises(KsplicedError) as raised:
        machine.ask(call, NOBODY)
    return raised.value


def test_without_polkit_only_root_may(machine: Machine) -> None:
    machine.start()
    for method in METHODS:
        error = _denied(machine, method)
        assert error.code is Code.NOT_AUTHORIZED
        assert "root" in error.remedy
    assert machine.calls() == []

    async def call(caller: Caller) -> None:
        for method in ("Apply", "Undo", "Build", "Plan"):
            await caller.end_of(await caller.manager(method))
        await caller.manager("Refresh")

    machine.ask(call)
    assert machine.calls() == [["apply"], ["undo"], ["build"], ["plan"]]


def test_polkit_is_asked_about_the_caller(machine: Machine) -> None:
    machine.start_polkit()
    machine.start()
    for method, action in METHODS.items():
        machine.allow(*(a for a in METHODS.values() if a != action))
        assert _denied(machine, method).code is Code.NOT_AUTHORIZED
        machine.allow(action)
        name = machine.ask(partial(_allowed, method), NOBODY)
        first, second = machine.asked()[-2:]
        assert first[2:] == [action, 0]
        assert second == ["system-bus-name", name, action, 1]


async def _allowed(method: str, caller: Caller) -> str:
    job = await caller.manager(method, interactive=True)
    if job is not None:
        await caller.end_of(job)
    return str(caller.bus.unique_name)


def test_who_started_a_job_may_cancel_it_and_no_other_user(machine: Machine) -> None:
    machine.start_polkit("org.kspliced1.apply")
    machine.script("apply", ["until", "go"])
    machine.start()

    async def start(caller: Caller) -> str:
        return str(await caller.manager("Apply"))

    async def cancel(caller: Caller) -> None:
        await caller.cancel(job)

    async def end(caller: Caller) -> str:
        return str((await caller.end_of(job))["State"])

    job = machine.ask(start, NOBODY)
    with pytest.raises(KsplicedError) as raised:
        machine.ask(cancel, ANOTHER)
    assert raised.value.code is Code.NOT_AUTHORIZED
    machine.ask(cancel, NOBODY)
    assert machine.ask(end, NOBODY) == "cancelled"

    job = machine.ask(start, NOBODY)
    machine.allow("org.kspliced1.cancel")
    machine.ask(cancel, ANOTHER)
    assert machine.ask(end) == "cancelled"


def test_a_user_cannot_use_up_the_questions(machine: Machine) -> None:
    machine.start_polkit("silence")
    machine.start()

    async def flood(caller: Caller) -> Code:
        calls = [asyncio.ensure_future(caller.manager("Apply")) for _ in range(8)]
        done, pending = await asyncio.wait(calls, return_when=asyncio.FIRST_EXCEPTION)
        for call in pending:
            call.cancel()
        error = done.pop().exception()
        assert isinstance(error, KsplicedError)
        return error.code

    assert machine.ask(flood, NOBODY) is Code.BUSY
    eventually(lambda: len(machine.asked()) == 4, "polkit has all the questions it gets")
    machine.allow("org.kspliced1.apply")

    async def other(caller: Caller) -> str:
        return str(await caller.manager("Apply"))

    assert machine.ask(other, ANOTHER).startswith("/org/kspliced1/job/")


def test_the_name_is_for_root_only(machine: Machine) -> None:
    async def own(caller: Caller) -> None:
        await caller.bus_call("RequestName", "su", "org.kspliced1", 0)

    with pytest.raises(KsplicedError) as raised:
        machine.ask(own, NOBODY)
    assert raised.value.code is Code.NOT_AUTHORIZED
