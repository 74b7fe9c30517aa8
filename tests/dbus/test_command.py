# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line against the daemon."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kspliced.engine.state import Stage, State, save_state
from kspliced.model import Refusal
from tests.dbus.harness import NOBODY, REPOSITORY, Machine, eventually
from tests.dbus.test_reading import core_says, record

UPDATE = "ks_0123456789ab"


def live(machine: Machine, **changes: Any) -> None:
    """Have an update applied."""
    save_state(machine.paths, State(history=(record(UPDATE, **changes),)))
    core_says(machine, UPDATE, "applied")
    machine.paths.packs.mkdir(exist_ok=True)
    machine.paths.pack(record().digest).touch()


def test_status_tells_the_whole_story(machine: Machine) -> None:
    live(machine)
    machine.start()
    done = machine.kspliced("status")
    assert done.returncode == 0 and done.stderr == ""
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines == [
        "running 6.1.192-1 (6.1.0-55-amd64)",
        "effective 6.1.192-2",
        "installed 6.1.192-2",
        "state live",
        f"update {UPDATE}: 6.1.192-1 to 6.1.192-2, live",
        "changes 1 of 1 change live, 1 function replaced",
        "pause 812 microseconds",
        "target unit function kind why",
        "ext4 fs/ext4/mballoc.o ext4_mb_load_buddy_gfp changed source",
        "changelog",
        "* ext4: fix a crash (#1140001)",
        "reboot no reboot needed for this upgrade",
    ]


def test_memory_that_stays_is_in_the_status(machine: Machine) -> None:
    live(machine)
    machine.start()
    assert "resident" not in machine.kspliced("status").stdout
    (machine.paths.core / "resident").write_text("3145728\n")
    (machine.paths.core / "updates" / UPDATE / "resident").write_text("3145728\n")
    lines = [" ".join(line.split()) for line in machine.kspliced("status").stdout.splitlines()]
    assert "resident 3.0 MiB of 256.0 MiB: 1 update module, until the reboot" in lines
    value = json.loads(machine.kspliced("status", "--json").stdout)["resident"]
    assert value == {
        "bytes": 3145728,
        "limit_bytes": 256 << 20,
        "updates": [{"module": UPDATE, "bytes": 3145728, "stage": "applied"}],
    }


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_status_in_a_terminal_of_another_encoding(machine: Machine, encoding: str) -> None:
    refused = Refusal("asm", "arch/x86/a.o", "f", "was a → is b 漢", "")
    live(machine, refused=(refused,))
    machine.start()
    environment = {**machine.environment, "PYTHONIOENCODING": encoding}
    machine_environment = {"env": environment, "encoding": encoding}
    done = machine.kspliced("status", **machine_environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "was a -> is b \\u6f22" in done.stdout
    # What comes last is there, too.
    assert done.stdout.splitlines()[-1].startswith("reboot")
    value = json.loads(machine.kspliced("status", "--json", **machine_environment).stdout)
    assert value["update"]["refused"][0]["reason"] == refused.reason


def test_status_as_json(machine: Machine) -> None:
    live(machine)
    machine.start()
    value = json.loads(machine.kspliced("status", "--json").stdout)
    assert (value["running"], value["effective"]) == ("6.1.192-1", "6.1.192-2")
    assert value["reboot_required"] == {"verdict": "no", "reasons": []}
    assert value["job"] is None
    assert value["update"]["functions"][0]["name"] == "ext4_mb_load_buddy_gfp"


def test_hostile_text_does_not_reach_the_terminal(machine: Machine) -> None:
    refusal = Refusal("asm", "a\x1b[2J.o", "x\ny", "\x07because\x00", "")
    live(machine, stage=Stage.LIVE, refused=(refusal,))
    machine.start()
    text = machine.kspliced("status").stdout
    assert "because" in text
    assert not {c for c in text if not c.isprintable()} - {"\n"}


def test_uname_and_reboot_required(machine: Machine) -> None:
    machine.start()
    assert machine.kspliced("uname").stdout == "6.1.192-1\n"
    assert machine.kspliced("reboot-required", "--check").returncode == 6
    live(machine)
    assert machine.kspliced("uname").stdout == "6.1.192-2\n"
    text = machine.kspliced("uname", "-a").stdout
    assert text == "6.1.0-55-amd64 6.1.192-2 (booted 6.1.192-1)\n"
    assert machine.kspliced("reboot-required").stdout == "no\n"
    check = machine.kspliced("reboot-required", "-q")
    assert (check.returncode, check.stdout) == (3, "")
    live(machine, refused=(Refusal("asm", "a.o", "f", "assembly", ""),))
    done = machine.kspliced("reboot-required")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "yes")
    assert "assembly" in done.stdout
    assert machine.kspliced("reboot-required", "--check").returncode == 0


def test_apply_and_undo_wait_and_tell(machine: Machine) -> None:
    machine.script("apply", ["progress", "compile", 0.5, "fs/ext4/mballoc.o"])
    machine.start()
    done = machine.kspliced("apply")
    assert (done.returncode, done.stdout) == (0, "apply is done\n")
    value = json.loads(machine.kspliced("undo", "--json").stdout)
    assert value["verb"] == "undo" and value["result"]["message"] == "undo is done"


@pytest.mark.parametrize(
    ("code", "status"),
    [("nothing_to_do", 3), ("refused", 4), ("no_match", 4), ("code_busy", 6), ("no_space", 1)],
)
def test_how_a_job_ends_is_the_exit_code(machine: Machine, code: str, status: int) -> None:
    details = ["1234 dd: ext4_mb_load_buddy_gfp+0x40"]
    machine.script("apply", ["fail", code, "it cannot be", "try this", details])
    machine.start()
    done = machine.kspliced("apply")
    assert done.returncode == status
    assert "kspliced: it cannot be; try this\n" in done.stderr
    assert "  1234 dd: ext4_mb_load_buddy_gfp+0x40\n" in done.stderr
    error = json.loads(machine.kspliced("apply", "--json").stdout)["error"]
    expected = {"code": code, "message": "it cannot be", "remedy": "try this"}
    assert error == {**expected, "details": details}


def test_a_pack_is_opened_by_the_caller(machine: Machine, tmp_path: Path) -> None:
    machine.start()
    pack = tmp_path / "some.kspack"
    pack.write_text("the pack", "utf-8")
    assert machine.kspliced("apply", str(pack)).returncode == 0
    assert machine.calls() == [["apply", "the pack"]]
    done = machine.kspliced("apply", str(tmp_path / "none"))
    assert done.returncode == 1
    assert done.stderr.endswith("none: No such file or directory; name a readable pack\n")


def test_an_interrupt_cancels_the_job(machine: Machine) -> None:
    machine.script("apply", ["progress", "compile", 0.5, ""], ["until", "never"])
    machine.start()
    command = [sys.executable, "-m", "kspliced.cli", "apply"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=machine.environment, stderr=subprocess.PIPE, text=True
    ) as process:
        eventually(lambda: machine.calls("apply"), "the job")
        assert process.stderr is not None
        while "compile" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 1
    assert rest.endswith("kspliced: cancelled; nothing was changed\n")


def test_waiting_for_a_job_of_somebody_else(machine: Machine) -> None:
    steps = ["progress", "compile", 0.5, "fs/ext4/mballoc.o"], ["take_queue"], ["until", "go"]
    machine.script("upgrade", *steps)
    machine.start()
    command = [sys.executable, "-m", "kspliced.cli", "status", "--wait"]
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=machine.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        machine.request("apt-1")
        assert process.stdout is not None and process.stderr is not None
        while "compile" not in process.stderr.readline():
            pass
        machine.touch("go")
        text = process.stdout.read()
    assert process.returncode == 0
    assert "busy" not in text and "pending" in text


def test_starting_without_waiting(machine: Machine) -> None:
    machine.script("apply", ["until", "go"])
    machine.start()
    done = machine.kspliced("apply", "--no-wait", "--json")
    assert json.loads(done.stdout) == {"job": "/org/kspliced1/job/1"}
    busy = machine.kspliced("undo")
    assert busy.returncode == 6 and "status --wait" in busy.stderr
    machine.touch("go")


def test_no_daemon_and_no_right(machine: Machine) -> None:
    done = machine.kspliced("status")
    assert done.returncode == 5 and done.stdout == ""
    assert done.stderr.startswith("kspliced: the daemon cannot be reached")
    assert "systemctl start kspliced.service" in done.stderr
    error = json.loads(machine.kspliced("uname", "--json").stdout)["error"]
    assert error["code"] == "no_daemon" and error["remedy"]
    if os.geteuid() == 0:
        machine.start()
        done = machine.kspliced("undo", user=NOBODY, group=NOBODY, extra_groups=[])
        assert done.returncode == 5
        assert "org.kspliced1.undo" in done.stderr and "root" in done.stderr


def test_the_daemon_dies_while_we_wait(machine: Machine) -> None:
    machine.script("apply", ["until", "never"])
    machine.start()
    command = [sys.executable, "-m", "kspliced.cli", "apply"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=machine.environment, stderr=subprocess.PIPE, text=True
    ) as process:
        eventually(lambda: machine.calls("apply"), "the job")
        assert machine.daemon is not None
        machine.daemon.kill()
        assert process.stderr is not None
        text = process.stderr.read()
    assert process.returncode == 5
    assert text.splitlines()[-1].startswith("kspliced: the daemon ended")


def test_on_a_terminal_there_is_colour_and_nothing_hostile(machine: Machine) -> None:
    refusal = Refusal("asm", "a\x1b[2J.o", "[bold]x[/bold]", "\x07because\x9b31m", "")
    live(machine, refused=(refusal,))
    machine.start()
    controller, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "kspliced.cli", "status"],
        cwd=REPOSITORY,
        env={**machine.environment, "TERM": "xterm", "COLUMNS": "200"},
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    text = b""
    # The end of a terminal that nobody holds open is an error.
    with suppress(OSError):
        while piece := os.read(controller, 4096):
            text += piece
    os.close(controller)
    assert process.wait() == 0
    assert b"\x1b[33mpartly\x1b[0m" in text
    assert b"[bold]x[/bold]" in text and b"because" in text
    plain = re.sub(rb"\x1b\[[0-9;]*m", b"", text).decode("utf-8")
    assert not {c for c in plain if not c.isprintable()} - {"\r", "\n"}
