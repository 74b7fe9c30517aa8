# SPDX-License-Identifier: GPL-2.0-or-later
"""A live update that the state does not tell of: the daemon's answer, and a real worker's undo."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kspliced.client import ROOT
from kspliced.engine.paths import Paths
from kspliced.engine.state import Stage, State, load_state, save_state
from kspliced.model import CORE_ABI
from tests.dbus.harness import MANAGER, Caller, Machine
from tests.dbus.test_reading import UPDATE, record
from tests.unit.engine.fakes import UPDATE as NAME
from tests.unit.engine.fakes import manifest, pack_content

CORE_FILES = {
    "stage": "applied\n",
    "control": "",
    "pause_ns": "812000\n",
    "spans": "0x10\t9\t4\t0x20\text4\text4_mb_init_group\n",
    "data": "",
}


def applied(paths: Paths) -> None:
    """Have the core report an update, with all its files."""
    folder = paths.core / "updates" / NAME
    folder.mkdir(parents=True, exist_ok=True)
    (paths.core / "abi").write_text(f"{CORE_ABI}\n")
    for name, text in CORE_FILES.items():
        (folder / name).write_text(text)


def lose(paths: Paths, how: str) -> None:
    """What a rollback of /var, or worse, leaves of the state."""
    paths.lib.mkdir(parents=True, exist_ok=True)
    if how == "gone":
        paths.state.unlink(missing_ok=True)
    elif how == "garbled":
        paths.state.write_text('{"schema":2,"history":[{"upd')
    else:
        save_state(paths, State(history=(record(),)))  # another update was live


def answer(machine: Machine) -> tuple[dict[str, Any], dict[str, Any]]:
    """The daemon's status, and its object of the update."""

    async def read(caller: Caller) -> tuple[dict[str, Any], dict[str, Any]]:
        manager = await caller.get_all(ROOT, MANAGER)
        return manager, await caller.get_all(f"{ROOT}/update/{NAME}", UPDATE)

    manager, update = machine.ask(read)
    return json.loads(manager["StatusJson"]), update


def check(machine: Machine) -> None:
    """What is live is told, and that nothing tells which version it is."""
    status, update = answer(machine)
    assert status["update"]["update"] == NAME and status["update"]["live"]
    assert (status["effective"], status["state"]) == ("6.1.192-1", "partly")
    assert status["update"]["problem"]["code"] == "pack_missing"
    assert (update["Stage"], update["To"]) == ("live", "")
    text = machine.kspliced("status").stdout
    assert f"{NAME}: 6.1.192-1 to an unknown version, live" in text
    assert "did not apply it" not in text


@pytest.mark.parametrize("how", ["gone", "garbled", "old"])
@pytest.mark.parametrize("when", ["before the daemon started", "while the daemon runs"])
def test_a_rollback_is_seen_through_and_undone(machine: Machine, how: str, when: str) -> None:
    paths = machine.paths
    applied(paths)
    if when.startswith("before"):
        lose(paths, how)
        machine.start(real_worker=True)
    else:
        machine.start(real_worker=True)
        check(machine)
        lose(paths, how)
    check(machine)
    done = machine.kspliced("undo")
    assert done.returncode == 0, done.stderr
    assert (paths.core / "updates" / NAME / "control").read_text() == "reverse"
    records = {r.update: r.stage for r in load_state(paths).history}
    assert records.pop(NAME) is Stage.UNDONE
    assert records == ({record().update: Stage.REPLACED} if how == "old" else {})


def test_its_pack_tells_what_it_is(machine: Machine) -> None:
    content = pack_content(manifest())
    machine.paths.packs.mkdir(parents=True)
    applied(machine.paths)
    machine.start(real_worker=True)
    check(machine)
    # The header has the digest.
    (machine.paths.packs / f"{content[24:56].hex()}.kspack").write_bytes(content)
    status, update = answer(machine)
    assert status["update"]["to_version"] == update["To"] == "6.1.192-2"
    assert status["update"]["problem"] is None
