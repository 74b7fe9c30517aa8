# SPDX-License-Identifier: GPL-2.0-or-later
"""Changing is for those whom polkit lets, and for root."""

from __future__ import annotations

import asyncio
import hashlib
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from kspliced.errors import Code, KsplicedError
from kspliced.model import ChangelogEntry
from kspliced.pack import FORMAT, Blob, write_pack
from tests.dbus.harness import ANOTHER, NOBODY, Caller, Machine, eventually
from tests.unit.engine.fakes import manifest

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
        assert first[2:] == [action, 0, {}]
        assert second == ["system-bus-name", name, action, 1, {}]


async def _allowed(method: str, caller: Caller) -> str:
    job = await caller.manager(method, interactive=True)
    if job is not None:
        await caller.end_of(job)
    return str(caller.bus.unique_name)


_APPLY_PACK = "org.kspliced1.apply-pack"
_ENTRY = ChangelogEntry("6.1.192-2", 'a "to_version":"1" in a text', (), ())
_MANIFEST = replace(manifest(), entries=(_ENTRY,))


def _offer(machine: Machine, pack: Path) -> str:
    """Have nobody offer a pack, which it cannot open itself."""
    with pack.open("rb") as file:

        async def call(caller: Caller) -> str:
            return str(await caller.manager("ApplyPack", "h", 0, fds=(file.fileno(),)))

        return machine.ask(call, NOBODY)


def test_a_pack_has_an_action_of_its_own_that_tells_what_it_is(
    machine: Machine, tmp_path: Path
) -> None:
    pack = tmp_path / "any.kspack"
    digest = write_pack(pack, _MANIFEST, (Blob("x", b"y"),))
    machine.start_polkit("org.kspliced1.apply")
    machine.start()
    with pytest.raises(KsplicedError) as raised:
        _offer(machine, pack)
    assert raised.value.code is Code.NOT_AUTHORIZED
    assert _APPLY_PACK in raised.value.message
    machine.allow(_APPLY_PACK)
    _offer(machine, pack)
    for _, _, action, _, details in machine.asked():
        assert action == _APPLY_PACK
        assert (details["digest"], details["version"]) == (digest, "6.1.192-2")
        assert "$(digest)" in details["polkit.message"]
        assert "$(version)" in details["polkit.message"]
    assert len(machine.asked()) == 2
    eventually(lambda: len(machine.calls("apply")) == 1, "only what is allowed is applied")


def test_what_is_applied_is_what_was_asked_about(machine: Machine, tmp_path: Path) -> None:
    pack, another = tmp_path / "any.kspack", tmp_path / "another.kspack"
    write_pack(pack, _MANIFEST, (Blob("x", b"good"),))
    write_pack(another, _MANIFEST, (Blob("x", b"evil"),))
    machine.start_polkit(_APPLY_PACK, "patience")
    machine.start()

    def change() -> None:
        eventually(machine.asked, "the question")
        pack.write_bytes(another.read_bytes())
        machine.touch("polkit/answer")

    with ThreadPoolExecutor() as pool:
        changed = pool.submit(change)
        with pytest.raises(KsplicedError) as raised:
            _offer(machine, pack)
        changed.result()
    error = raised.value
    assert error.code is Code.PACK_MALFORMED and "changed" in error.message and error.remedy
    assert machine.calls() == []
    assert not list(machine.paths.run.glob("*.kspack"))


def _sealed(manifest_bytes: bytes) -> bytes:
    """A pack without blobs, of these bytes."""
    sizes = (len(manifest_bytes), 56 + len(manifest_bytes))
    head = struct.pack("<8sIIQ", b"KSPLPACK", FORMAT, *sizes)
    digest = hashlib.sha256(head + bytes(32) + manifest_bytes).digest()
    return head + digest + manifest_bytes


def test_what_is_no_pack_is_not_asked_about(machine: Machine, tmp_path: Path) -> None:
    machine.start_polkit(_APPLY_PACK)
    machine.start()
    good = tmp_path / "good"
    write_pack(good, _MANIFEST, ())
    content = good.read_bytes()
    two = _sealed(content[56:].replace(b'"update":', b'"to_version":"9","update":'))
    for number, wrong in enumerate((b"", b"KSPLPACK", content[:-1], content + b"x", two)):
        pack = tmp_path / f"wrong{number}"
        pack.write_bytes(wrong)
        with pytest.raises(KsplicedError) as raised:
            _offer(machine, pack)
        assert raised.value.code is Code.PACK_MALFORMED
    assert machine.asked() == [] and machine.calls() == []


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
