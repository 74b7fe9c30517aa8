# SPDX-License-Identifier: GPL-2.0-or-later
"""The queue against lying, garbled and vanishing files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kspliced.engine.paths import Paths
from kspliced.engine.queue import (
    MAX_BYTES,
    Package,
    defer,
    discard,
    pending,
    put_aside,
    read_queue,
    resume,
)

GOOD = (
    '{"schema":1,"source":"apt","packages":[{"name":"linux-image-6.1.0-56-amd64",'
    '"old":"","new":"6.1.192-2"}],"time":%d}\n'
)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """An empty queue."""
    made = Paths(tmp_path)
    made.queue.mkdir(parents=True)
    return made


def test_requests_come_oldest_first(paths: Paths) -> None:
    (paths.queue / "a.json").write_text(GOOD % 20)
    (paths.queue / "b.json").write_text(GOOD % 10)
    (paths.queue / ".c.json").write_text(GOOD % 5)  # still being written
    queue = read_queue(paths)
    assert [queued.request.time for queued in queue.requests] == [10, 20]
    package = Package("linux-image-6.1.0-56-amd64", "", "6.1.192-2")
    assert queue.requests[0].request.packages == (package,)
    assert pending(paths)
    discard(paths, queue)
    assert not pending(paths) and (paths.queue / ".c.json").exists()


def test_a_request_that_comes_meanwhile_stays(paths: Paths) -> None:
    (paths.queue / "a.json").write_text(GOOD % 1)
    queue = read_queue(paths)
    (paths.queue / "b.json").write_text(GOOD % 2)
    discard(paths, queue)
    assert [file.name for file in paths.queue.iterdir()] == ["b.json"]


def test_no_queue_at_all(tmp_path: Path) -> None:
    assert not pending(Paths(tmp_path))
    assert read_queue(Paths(tmp_path)).requests == ()
    assert not resume(Paths(tmp_path))


def test_deferred_requests_come_back(paths: Paths) -> None:
    (paths.queue / "a.json").write_text(GOOD % 1)
    defer(paths, read_queue(paths))
    assert not pending(paths) and read_queue(paths).requests == ()
    assert resume(paths) and pending(paths)
    assert len(read_queue(paths).requests) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        b"[]",
        b"{}",
        GOOD.replace('"schema":1', '"schema":2').encode(),
        GOOD.replace('"time":%d', '"time":"now"').encode(),
        GOOD.replace('"name":', '"more":').encode(),
        GOOD.replace("}\n", ',"more":1}\n').encode(),
        (GOOD % 1).encode()[:-3],
        b"[" * 100_000,
        b" " * (MAX_BYTES + 1),
    ],
)
def test_garbled(paths: Paths, content: bytes) -> None:
    file = paths.queue / "bad.json"
    file.write_bytes(content)
    queue = read_queue(paths)
    assert queue.requests == () and [bad.file for bad in queue.bad] == [file]
    assert queue.bad[0].reason
    kept = put_aside(paths, queue.bad[0])
    assert kept is not None and kept.read_bytes() == content
    assert not pending(paths)


def test_things_that_are_no_files(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "target").write_text(GOOD % 1)
    (paths.queue / "link.json").symlink_to(tmp_path / "target")
    (paths.queue / "directory.json").mkdir()
    os.mkfifo(paths.queue / "fifo.json")
    queue = read_queue(paths)
    assert queue.requests == () and len(queue.bad) == 3
    for bad in queue.bad:
        put_aside(paths, bad)
    assert list(paths.queue.iterdir()) == [] and (tmp_path / "target").exists()


def test_files_aside_do_not_overwrite_each_other(paths: Paths) -> None:
    for content in ("one", "two", "three"):
        (paths.queue / "bad.json").write_text(content)
        put_aside(paths, read_queue(paths).bad[0])
    assert sorted(file.read_text() for file in paths.aside.iterdir()) == ["one", "three", "two"]


def test_a_bad_file_that_went_meanwhile(paths: Paths) -> None:
    (paths.queue / "bad.json").write_text("x")
    queue = read_queue(paths)
    (paths.queue / "bad.json").unlink()
    assert put_aside(paths, queue.bad[0]) is None
