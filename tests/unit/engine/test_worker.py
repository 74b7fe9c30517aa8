# SPDX-License-Identifier: GPL-2.0-or-later
"""The worker protocol, both ends, with real processes; and the engine as a worker."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kspliced.engine.edges import Cancel
from kspliced.errors import Code, KsplicedError
from kspliced.model import Progress
from kspliced.worker import Failure, Reporter, Result, clean, parse_line, run_worker
from tests.unit.engine.fakes import NEWER, Machine


def script(body: str) -> list[str]:
    return [sys.executable, "-c", "import sys, time, signal, json\n" + body]


def test_both_ends_agree() -> None:
    stream = io.BytesIO()
    reporter = Reporter(stream)
    step = Progress("compile", 0.4, "fs/ext4/mballoc.o")
    reporter.progress(step)
    reporter.failure(KsplicedError(Code.NO_SPACE, "full", "free some", ("a", "b")))
    reporter.result(NEWER)
    lines = stream.getvalue().splitlines()
    assert parse_line(lines[0]) == step
    assert parse_line(lines[1]) == Failure(Code.NO_SPACE, "full", "free some", ("a", "b"))
    last = parse_line(lines[2])
    assert isinstance(last, Result) and last.value == json.loads(lines[2])["result"]


def test_a_reader_that_went_away_does_not_stop_the_work() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as stream:
        reporter = Reporter(stream)
        for _ in range(3):
            reporter.progress(Progress("apply", 0.5, "switching"))
        reporter.result(NEWER)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b"[]",
        b"{}",
        b'{"progress":{}}',
        b'{"progress":{"phase":1,"fraction":0,"message":""}}',
        b'{"result":1,"error":2}',
        b'{"error":{"code":"no_such_code","message":"","remedy":"","details":[]}}',
        b'{"shell":"rm"}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_lines_that_are_not_of_the_protocol(line: bytes) -> None:
    with pytest.raises(KsplicedError) as caught:
        parse_line(line)
    assert caught.value.code is Code.FAILED


def test_text_of_a_worker_commands_no_terminal() -> None:
    progress = {"phase": "a\x1b[2J", "fraction": 7.0, "message": "é\x00\u202e"}
    step = parse_line(json.dumps({"progress": progress}).encode())
    assert step == Progress("a\ufffd[2J", 1.0, "é\ufffd\ufffd")
    assert len(clean("x" * 100_000)) < 5000


def test_a_worker_that_succeeds() -> None:
    steps: list[Progress] = []
    body = (
        'print(json.dumps({"progress":{"phase":"a","fraction":0.5,"message":"m"}}))\n'
        'print(json.dumps({"result":{"x":1}}))\nprint("noise", file=sys.stderr)'
    )
    assert run_worker(script(body), steps.append) == {"x": 1}
    assert steps == [Progress("a", 0.5, "m")]


def test_a_worker_that_fails_says_why() -> None:
    body = (
        'print(json.dumps({"error":{"code":"compiler_missing","message":"no gcc-12",'
        '"remedy":"install gcc-12","details":[]}}))\nsys.exit(1)'
    )
    with pytest.raises(KsplicedError) as caught:
        run_worker(script(body))
    assert (caught.value.code, caught.value.remedy) == (Code.COMPILER_MISSING, "install gcc-12")


@pytest.mark.parametrize(
    "body",
    [
        'print("Segmentation fault", file=sys.stderr); sys.exit(3)',
        'print("Segmentation fault", file=sys.stderr)',
        'print(json.dumps({"result":1}))\nsys.exit("Segmentation fault")',
    ],
)
def test_a_worker_that_dies_without_a_result(body: str) -> None:
    with pytest.raises(KsplicedError) as caught:
        run_worker(script(body))
    assert caught.value.code is Code.FAILED
    assert caught.value.details == ("Segmentation fault",)


def test_a_worker_that_babbles_is_ended() -> None:
    start = time.monotonic()
    with pytest.raises(KsplicedError) as caught:
        run_worker(script('print("hello", flush=True); time.sleep(60)'))
    assert caught.value.code is Code.FAILED and time.monotonic() - start < 30


def test_a_worker_whose_line_has_no_end_is_ended() -> None:
    with pytest.raises(KsplicedError) as caught:
        run_worker(script('while True: sys.stdout.write("x" * 65536)'))
    assert "over" in caught.value.message


def test_a_worker_that_is_not_there() -> None:
    with pytest.raises(KsplicedError) as caught:
        run_worker(["/nonexistent/tool"])
    assert caught.value.code is Code.TOOL_MISSING


def test_cancel_reaches_the_worker() -> None:
    cancel = Cancel()

    def sink(_: Progress) -> None:
        cancel.wanted = True

    body = (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n"
        'print(json.dumps({"progress":{"phase":"a","fraction":0,"message":""}}), flush=True)\n'
        "time.sleep(60)"
    )
    start = time.monotonic()
    with pytest.raises(KsplicedError) as caught:
        run_worker(script(body), sink, lambda: cancel.wanted)
    assert caught.value.code is Code.CANCELLED and time.monotonic() - start < 30


def engine(root: Path, *arguments: str) -> tuple[int, dict[str, object], str]:
    """Run the engine as the daemon does; its status, last line and stderr."""
    finished = subprocess.run(
        [sys.executable, "-m", "kspliced.engine", "--root", str(root), *arguments],
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": ""},
    )
    lines = finished.stdout.splitlines()
    for line in lines:
        parse_line(line)
    return finished.returncode, json.loads(lines[-1]), finished.stderr.decode()


def failure(value: dict[str, object]) -> dict[str, object]:
    error = value["error"]
    assert isinstance(error, dict)
    return error


def test_the_engine_as_a_process(machine: Machine) -> None:
    status, last, errors = engine(machine.paths.root, "replay")
    assert (status, errors) == (0, "")
    assert "result" in last and "Traceback" not in errors


def test_the_engine_names_its_verbs(tmp_path: Path) -> None:
    for arguments in ((), ("dance",), ("undo", "x"), ("match",)):
        status, last, _ = engine(tmp_path, *arguments)
        assert status == 2 and failure(last)["code"] == "usage"


def test_the_engine_without_a_kernel(tmp_path: Path) -> None:
    status, last, errors = engine(tmp_path, "upgrade")
    assert status == 1 and failure(last)["code"] == "kernel_unreadable"
    assert "Traceback" not in errors


def test_the_engine_on_a_disk_that_fails(machine: Machine) -> None:
    machine.paths.lib.mkdir(parents=True)
    machine.paths.run.mkdir(parents=True)
    machine.paths.run.joinpath("lock").mkdir()
    status, last, errors = engine(machine.paths.root, "upgrade")
    assert status == 1 and failure(last)["code"] == "io"
    assert "Traceback" not in errors


def test_a_mistake_of_ours_is_a_line_of_the_protocol(machine: Machine) -> None:
    code = (
        "import sys\nfrom kspliced.engine import __main__ as m, transactions\n"
        "def broken(context): raise ZeroDivisionError('oops')\n"
        "m._PLAIN['upgrade'] = broken\n"
        f"sys.exit(m.main(['--root', {str(machine.paths.root)!r}, 'upgrade']))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, text=True
    )
    error = failure(json.loads(finished.stdout.splitlines()[-1]))
    assert finished.returncode == 1 and error["code"] == "failed"
    assert "ZeroDivisionError" in str(error["message"])
    assert "Traceback" not in finished.stderr
