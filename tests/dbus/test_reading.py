# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading is for everybody: properties, objects, introspection."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any
from xml.etree import ElementTree

import pytest
from dbus_next.message import Message
from dbus_next.signature import Variant

from kspliced.client import ROOT, parse_status
from kspliced.engine.state import Stage, State, UpdateRecord, save_state
from kspliced.errors import Code, KsplicedError
from kspliced.model import ChangeKind, ChangelogEntry, FunctionChange, KernelId, Refusal
from kspliced.record import encode
from tests.dbus.harness import JOB, MANAGER, NOBODY, REPOSITORY, Caller, Machine

UPDATE = "org.kspliced1.Update"
_UID = NOBODY if os.geteuid() == 0 else -1
RUNNING = KernelId("6.1.0-55-amd64", "6.1.192-1", os.uname().machine)
_UNIT = "fs/ext4/mballoc.o"


def record(update: str = "ks_0123456789ab", **changes: Any) -> UpdateRecord:
    """An update that was live."""
    values: dict[str, Any] = {
        "update": update,
        "digest": "ab" * 32,
        "kernel": RUNNING,
        "to_version": "6.1.192-2",
        "stage": Stage.LIVE,
        "wanted": True,
        "functions": (
            FunctionChange("ext4", _UNIT, "ext4_mb_load_buddy_gfp", ChangeKind.CHANGED, "source"),
        ),
        "entries": (ChangelogEntry("6.1.192-2", "ext4: fix a crash", (), ("1140001",)),),
        "refused": (),
        "pause_us": 812,
        "applied_at": 1_700_000_000,
        "boot_id": "b",
        "made_by": "0.1.0",
        "pinned": False,
        "waiting": (),
        "held": (),
        "problem": None,
        **changes,
    }
    return UpdateRecord(**values)


def core_says(machine: Machine, update: str, stage: str) -> None:
    """Have the core report an update."""
    directory = machine.paths.core / "updates" / update
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "stage").write_text(stage + "\n", "ascii")


def test_anybody_reads_the_status(machine: Machine) -> None:
    save_state(machine.paths, State(history=(record(),)))
    core_says(machine, "ks_0123456789ab", "applied")
    machine.start()

    async def read(caller: Caller) -> tuple[dict[str, Any], dict[str, Any]]:
        objects = await caller.standard(ROOT, "ObjectManager", "GetManagedObjects")
        (path,) = [p for p in objects if "/update/" in p]
        return await caller.get_all(ROOT, MANAGER), await caller.get_all(path, UPDATE)

    manager, update = machine.ask(read, _UID)
    assert manager["Running"] == "6.1.192-1"
    assert manager["Effective"] == manager["Installed"] == "6.1.192-2"
    assert manager["State"] == "live"
    assert manager["RebootRequired"] is False
    assert manager["CurrentJob"] == "/"
    status = parse_status(manager["StatusJson"])
    assert status.update is not None
    assert (status.update.live, status.update.summary) == (True, "1 of 1 change live")
    assert update["Functions"] == [["ext4", _UNIT, "ext4_mb_load_buddy_gfp", "source"]]
    assert update["Entries"] == [["6.1.192-2", "ext4: fix a crash", [], ["1140001"]]]
    assert (update["PauseMicroseconds"], update["Stage"]) == (812, "live")


def test_what_a_live_patch_redirects_is_not_live(machine: Machine) -> None:
    save_state(machine.paths, State(history=(record(),)))
    core_says(machine, "ks_0123456789ab", "applied")
    redirected = machine.paths.core / "updates/ks_0123456789ab/redirected"
    redirected.write_text("")
    machine.start()

    async def read(caller: Caller) -> dict[str, Any]:
        return await caller.get_all(ROOT, MANAGER)

    assert machine.ask(read, _UID)["State"] == "live"
    # A live patch comes later, without a word to us.
    redirected.write_text("ext4\text4_mb_load_buddy_gfp\n")
    manager = machine.ask(read, _UID)
    assert (manager["State"], manager["Effective"]) == ("partly", "6.1.192-1")
    assert manager["RebootRequired"] is True
    status = parse_status(manager["StatusJson"])
    assert status.update is not None
    assert status.update.summary == "0 of 1 change live"
    (refusal,) = status.update.refused
    assert (refusal.code, refusal.unit) == ("redirected", _UNIT)
    redirected.write_text("")
    assert machine.ask(read, _UID)["State"] == "live"


def test_introspection_is_what_is_shipped(machine: Machine) -> None:
    save_state(machine.paths, State(history=(record(),)))
    machine.script("apply")
    machine.start()

    async def read(caller: Caller) -> dict[str, str]:
        job = await caller.manager("Apply")
        paths = {MANAGER: ROOT, JOB: job, UPDATE: f"{ROOT}/update/ks_0123456789ab"}
        return {
            name: await caller.standard(path, "Introspectable", "Introspect")
            for name, path in paths.items()
        }

    for name, text in machine.ask(read).items():
        told = ElementTree.fromstring(text)
        shipped = ElementTree.parse(REPOSITORY / f"data/{name}.xml").getroot()
        interfaces = {i.get("name"): _members(i) for i in told.findall("interface")}
        (ours,) = shipped.findall("interface")
        assert interfaces[name] == _members(ours)
        assert "org.freedesktop.DBus.Properties" in interfaces


def _members(interface: ElementTree.Element) -> list[Any]:
    return [
        (
            member.tag,
            sorted(member.attrib.items()),
            [(child.tag, sorted(child.attrib.items())) for child in member],
        )
        for member in interface
    ]


def test_introspection_leads_from_the_root_to_every_object(machine: Machine) -> None:
    save_state(machine.paths, State(history=(record(),)))
    machine.start()

    async def walk(caller: Caller) -> list[str]:
        found, todo = [], ["/"]
        while todo:
            path = todo.pop()
            found.append(path)
            text = await caller.standard(path, "Introspectable", "Introspect")
            for node in ElementTree.fromstring(text).findall("node"):
                todo.append(f"{path.rstrip('/')}/{node.get('name')}")
        return found

    found = machine.ask(walk, _UID)
    assert f"{ROOT}/update/ks_0123456789ab" in found
    assert f"{ROOT}/update" in found


async def changed(caller: Caller, path: str, name: str, value: str) -> list[Any]:
    """The first PropertiesChanged of an object in which a property has a value."""
    while True:
        for body in await caller.heard("PropertiesChanged", path):
            if name in body[1] and body[1][name].value == value:
                return list(body)
        await asyncio.sleep(0.02)


def test_the_state_on_the_disk_is_followed(machine: Machine) -> None:
    machine.start()

    async def follow(caller: Caller) -> tuple[list[Any], list[Any]]:
        await caller.listen()
        path = f"{ROOT}/update/ks_0123456789ab"
        save_state(machine.paths, State(history=(record(stage=Stage.APPLYING),)))
        added = await caller.heard("InterfacesAdded", ROOT)
        core_says(machine, "ks_0123456789ab", "applied")
        save_state(machine.paths, State(history=(record(),)))
        live = await changed(caller, ROOT, "Effective", "6.1.192-2")
        core_says(machine, "ks_0123456789ab", "reversed")
        save_state(machine.paths, State(history=(record(stage=Stage.UNDONE, wanted=False),)))
        stage = await changed(caller, path, "Stage", "undone")
        assert set(stage[1]) == {"Stage"}
        save_state(machine.paths, State())
        removed = await caller.heard("InterfacesRemoved", ROOT)
        assert removed[0] == [path, [UPDATE]]
        return added[0], live

    added, live = machine.ask(follow)
    assert added[1][UPDATE]["To"].value == "6.1.192-2"
    assert live[0] == MANAGER
    assert live[1]["State"].value == "live"
    assert "StatusJson" in live[2] and "StatusJson" not in live[1]


def test_a_record_that_is_too_large_for_the_bus(machine: Machine) -> None:
    """As an older version may have left it: the bus disconnects who sends over 32 MiB."""
    refused = tuple(Refusal("type_changed", f"fs/{n}.o", "s", "r" * 4000, "") for n in range(9000))
    content = json.dumps(encode(State(history=(record(refused=refused),))))
    assert len(content) > 34 << 20
    machine.paths.lib.mkdir(parents=True, exist_ok=True)
    machine.paths.state.write_text(content, "utf-8")
    core_says(machine, "ks_0123456789ab", "applied")
    machine.start()

    async def read(caller: Caller) -> tuple[str, list[Any]]:
        manager = await caller.get_all(ROOT, MANAGER)
        managed = await caller.standard(ROOT, "ObjectManager", "GetManagedObjects")
        (update,) = managed.values()
        return manager["StatusJson"], update[UPDATE]["Refused"].value

    text, shown = machine.ask(read, _UID)
    status = json.loads(text)["update"]
    assert len(text) < 4 << 20 and sum(map(len, map(str, shown))) < 128 << 10
    for code, missing, listed in (
        (status["refused"][-1]["code"], status["refused"][-1]["evidence"], status["refused"]),
        (shown[-1][0], shown[-1][4], shown),
    ):
        assert code == "more" and int(missing) > 0
        assert len(listed) - 1 + int(missing) == 9000
    assert status["changes"]["total"] == 9001
    assert machine.daemon is not None and machine.daemon.poll() is None


def test_an_update_without_a_pack_has_an_object_too(machine: Machine) -> None:
    refusal = Refusal("asm", "arch/x86/entry/entry_64.o", "", "assembly", "")
    refused = record("", digest="", stage=Stage.REFUSED, functions=(), refused=(refusal,))
    save_state(machine.paths, State(history=(refused,)))
    machine.start()

    async def read(caller: Caller) -> dict[str, Any]:
        objects = await caller.standard(ROOT, "ObjectManager", "GetManagedObjects")
        (path,) = [p for p in objects if "/update/" in p]
        return await caller.get_all(path, UPDATE)

    update = machine.ask(read, _UID)
    assert update["Id"] == "6.1.192-1..6.1.192-2"
    assert update["Refused"] == [["asm", "arch/x86/entry/entry_64.o", "", "assembly", ""]]


def test_a_malformed_state_is_told_not_fatal(machine: Machine) -> None:
    machine.paths.state.write_text('{"schema": 99}', "utf-8")
    machine.start()

    async def read(caller: Caller) -> dict[str, Any]:
        return await caller.get_all(ROOT, MANAGER)

    status = parse_status(machine.ask(read, _UID)["StatusJson"])
    assert status.problem is not None and status.problem.code is Code.STATE_MALFORMED


def test_a_kernel_that_is_not_the_distributions(machine: Machine) -> None:
    (machine.paths.proc / "sys/kernel/version").write_text("#1 SMP mine\n", "ascii")
    machine.start()

    async def read(caller: Caller) -> dict[str, Any]:
        values = await caller.get_all(ROOT, MANAGER)
        with pytest.raises(KsplicedError) as raised:
            await caller.standard(ROOT, "Properties", "Get", MANAGER, "StatusJson")
        assert raised.value.code is Code.FOREIGN_KERNEL and raised.value.remedy
        return values

    values = machine.ask(read)
    assert (values["State"], values["Running"]) == ("failed", "")
    assert "StatusJson" not in values


def test_nothing_can_be_set(machine: Machine) -> None:
    machine.start()

    async def write(caller: Caller) -> str:
        reply = await caller.raw(
            Message(
                destination="org.kspliced1",
                path=ROOT,
                interface="org.freedesktop.DBus.Properties",
                member="Set",
                signature="ssv",
                body=[MANAGER, "State", Variant("s", "live")],
            )
        )
        return str(reply.error_name)

    assert machine.ask(write) == "org.freedesktop.DBus.Error.PropertyReadOnly"
