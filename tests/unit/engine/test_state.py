# SPDX-License-Identifier: GPL-2.0-or-later
"""The durable state: round trip, refusal of anything else, and power cuts at any moment."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from kspliced.engine import state as states
from kspliced.engine.paths import Paths
from kspliced.engine.state import (
    Guard,
    Problem,
    ReplayGuard,
    Stage,
    State,
    UpdateRecord,
    load_state,
    save_state,
)
from kspliced.engine.store import record_of
from kspliced.errors import Code, StateError
from kspliced.pack import parse_pack
from tests.unit.engine.fakes import NEWEST, manifest, pack_content, refusal


def record() -> UpdateRecord:
    made = record_of(parse_pack(pack_content(manifest(new=True)), "test"))
    problem = Problem(Code.CODE_BUSY, "busy", "later", ("dd",), 5)
    return replace(made, stage=Stage.FAILED, refused=(refusal(),), problem=problem)


def full_state() -> State:
    problem = Problem(Code.NO_SPACE, "full", "free some", (), 7)
    guard = ReplayGuard("boot-1", Guard.REPLAYING)
    return State(history=(record(),), problem=problem, guard=guard, installed="6.1.192-2")


def test_round_trip(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    assert load_state(paths) == State()
    save_state(paths, full_state())
    assert load_state(paths) == full_state()
    assert [f.name for f in paths.lib.iterdir()] == ["state.json"]


def test_any_truncation_is_malformed(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    save_state(paths, full_state())
    content = paths.state.read_bytes()
    for length in range(len(content) - 1):  # without the newline at its end it is still whole
        paths.state.write_bytes(content[:length])
        with pytest.raises(StateError) as caught:
            load_state(paths)
        assert caught.value.code is Code.STATE_MALFORMED
    assert paths.state.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b'{"schema":2}',
        b'{"schema":0}',
        b'{"schema":"1"}',
        b'{"schema":true}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"schema":1,"history":[],"problem":null,"guard":null,"installed":"","more":1}',
    ],
)
def test_malformed(tmp_path: Path, content: bytes) -> None:
    paths = Paths(tmp_path)
    paths.lib.mkdir(parents=True)
    paths.state.write_bytes(content)
    with pytest.raises(StateError) as caught:
        load_state(paths)
    assert caught.value.code is Code.STATE_MALFORMED and caught.value.remedy


def test_an_older_schema_migrates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = Paths(tmp_path)
    save_state(paths, State(installed="6.1.192-2"))

    def step(value: dict[str, Any]) -> dict[str, Any]:
        return {**value, "schema": 3, "installed": value["installed"] + "+migrated"}

    monkeypatch.setattr(states, "SCHEMA", 3)
    monkeypatch.setattr(states, "_MIGRATIONS", {2: step})
    migrated = load_state(paths)
    assert (migrated.schema, migrated.installed) == (3, "6.1.192-2+migrated")


def test_a_record_of_schema_1_waited_for_nothing(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    save_state(paths, State(history=(record_of(parse_pack(pack_content(manifest()), "p")),)))
    value = json.loads(paths.state.read_text())
    value["schema"] = 1
    for name in ("waiting", "held"):
        del value["history"][0][name]
    paths.state.write_text(json.dumps(value))
    (record,) = load_state(paths).history
    assert (record.waiting, record.held) == ((), ())
    value["history"] = [7]
    paths.state.write_text(json.dumps(value))
    with pytest.raises(StateError) as caught:
        load_state(paths)
    assert caught.value.code is Code.STATE_MALFORMED


def test_an_unreadable_state_is_an_io_error(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.state.mkdir(parents=True)
    with pytest.raises(StateError) as caught:
        load_state(paths)
    assert caught.value.code is Code.IO


def test_history_is_bounded() -> None:
    state = State()
    for number in range(states.MAX_HISTORY + 5):
        state = state.put(replace(record(), digest=f"{number:064x}"))
    assert len(state.history) == states.MAX_HISTORY
    assert state.history[-1].digest.endswith(f"{states.MAX_HISTORY + 4:x}")


def test_a_failure_without_a_pack_does_not_replace_a_live_record() -> None:
    live = replace(record(), stage=Stage.LIVE)
    failed = replace(live, update="", digest="", stage=Stage.FAILED)
    assert State(history=(live,)).put(failed).history == (live, failed)
    assert State(history=(failed,)).put(live).history == (live,)
    other = replace(failed, to_version=NEWEST.version)
    assert State(history=(failed,)).put(other).history == (failed, other)


@dataclass
class Inode:
    """A file's bytes in memory and on the disk."""

    volatile: bytes = b""
    durable: bytes = b""


@dataclass
class Disk:
    """What a power cut may leave: file data and names reach the disk when they are synced, or
    at any earlier moment, in any order."""

    names: dict[str, Inode] = field(default_factory=dict)
    durable_names: dict[str, Inode] = field(default_factory=dict)

    def replay(self, log: list[tuple[str, str, Any]]) -> None:
        for operation, path, argument in log:
            if operation == "create":
                self.names[path] = Inode()
            elif operation == "write":
                self.names[path].volatile += argument
            elif operation == "rename":
                self.names[argument] = self.names.pop(path)
            elif path in self.names:
                self.names[path].durable = self.names[path].volatile
            else:
                self.durable_names = dict(self.names)

    def after_power_cut(self, path: str) -> Iterator[bytes | None]:
        """Every content that ``path`` may have; None for no such file."""
        for names in (self.names, self.durable_names):
            inode = names.get(path)
            if inode is None:
                yield None
            elif inode.durable == inode.volatile:
                yield inode.durable
            else:
                half = inode.volatile[: len(inode.volatile) // 2]
                yield from (inode.durable, b"", half, bytes(len(inode.volatile)), inode.volatile)


def record_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    """Log what reaches the file system from here on."""
    log: list[tuple[str, str, Any]] = []
    real_open, real_write, real_fsync, real_rename = os.open, os.write, os.fsync, os.rename

    def path_of(descriptor: int) -> str:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())

    def fake_open(path: Any, flags: int, mode: int = 0o777) -> int:
        descriptor = real_open(path, flags, mode)
        if flags & os.O_CREAT:
            log.append(("create", path_of(descriptor), None))
        return descriptor

    def fake_write(descriptor: int, data: bytes) -> int:
        # Short writes are allowed to happen.
        count = real_write(descriptor, bytes(data)[:1000])
        log.append(("write", path_of(descriptor), bytes(data)[:count]))
        return count

    def fake_fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        log.append(("fsync", path_of(descriptor), None))

    def fake_rename(source: Any, target: Any) -> None:
        real_rename(source, target)
        log.append(("rename", str(source), str(target)))

    monkeypatch.setattr(os, "open", fake_open)
    monkeypatch.setattr(os, "write", fake_write)
    monkeypatch.setattr(os, "fsync", fake_fsync)
    monkeypatch.setattr(os, "rename", fake_rename)
    return log


def test_a_power_cut_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = Paths(tmp_path.resolve())
    old, new = State(installed="6.1.192-1"), full_state()
    save_state(paths, old)
    before = paths.state.read_bytes()
    with monkeypatch.context() as patch:
        log = record_calls(patch)
        save_state(paths, new)
    assert [entry[0] for entry in log if entry[0] == "write"] != ["write"]
    seen = set()
    for moment in range(len(log) + 1):
        disk = Disk()
        disk.names[str(paths.state)] = Inode(before, before)
        disk.durable_names = dict(disk.names)
        disk.replay(log[:moment])
        for content in disk.after_power_cut(str(paths.state)):
            assert content is not None, f"the state is lost after {log[:moment]}"
            paths.state.write_bytes(content)
            loaded = load_state(paths)
            assert loaded in (old, new)
            seen.add(loaded.installed)
            if moment == len(log):
                assert loaded == new, "save_state() returned before the state was durable"
    assert seen == {"6.1.192-1", "6.1.192-2"}


@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failing_call_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    paths = Paths(tmp_path)
    old = State(installed="old")
    save_state(paths, old)

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError):
            save_state(paths, full_state())
    assert load_state(paths) == old
    assert [f.name for f in paths.lib.iterdir()] == ["state.json"]


_WRITER = """
import itertools, sys
from pathlib import Path
from kspliced.engine.paths import Paths
from kspliced.engine.state import State, save_state
print("ready", flush=True)
for number in itertools.count():
    save_state(Paths(Path(sys.argv[1])), State(installed=str(number) * 2000))
"""


def test_a_killed_writer(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    save_state(paths, State())
    for milliseconds in itertools.islice(itertools.count(1, 3), 8):
        command = [sys.executable, "-c", _WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            time.sleep(milliseconds / 1000)
            process.send_signal(signal.SIGKILL)
        load_state(paths)
    assert load_state(paths) != State()
