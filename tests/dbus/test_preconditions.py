# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon tells of the machine's preconditions, and what it does when they change."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.dbus.harness import Machine, eventually

_LOCKDOWN = "sys/kernel/security/lockdown"


def write(machine: Machine, name: str, content: str) -> None:
    file = machine.root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def status(machine: Machine) -> dict[str, Any]:
    value = json.loads(machine.kspliced("status", "--json").stdout)
    assert isinstance(value, dict)
    return value


def failed(machine: Machine) -> list[str]:
    return [row["code"] for row in status(machine)["preconditions"] if row["state"] == "failed"]


def test_the_status_tells_what_is_in_the_way(machine: Machine) -> None:
    machine.start()
    assert failed(machine) == []
    assert status(machine)["reboot_required"]["verdict"] == "pending"
    write(machine, _LOCKDOWN, "none [integrity] confidentiality\n")
    assert failed(machine) == ["signature_required"], "it is noticed without a restart"
    assert status(machine)["reboot_required"]["reasons"][0]["code"] == "signature_required"
    (line,) = (
        line
        for line in machine.kspliced("status").stdout.splitlines()
        if line.startswith("blocked")
    )
    assert "locked down (integrity)" in line and line.endswith("[signature_required]")


def test_what_was_deferred_is_tried_when_it_is_mended(machine: Machine) -> None:
    """Not only when a retry is due: that may be in six hours."""
    write(machine, "proc/sys/kernel/kptr_restrict", "2\n")
    failure = ["fail", "symbols_hidden", "hidden", "show them", []]
    machine.script("upgrade", ["defer"], failure)
    machine.script("fetch", ["resume"])
    machine.request("apt-1")
    machine.start()
    eventually(lambda: machine.calls("upgrade"), "the first try")
    eventually(lambda: (machine.paths.queue / "later/apt-1.json").exists(), "the deferral")
    eventually(lambda: failed(machine) == ["symbols_hidden"], "the status")
    machine.script("upgrade", ["take_queue"])
    write(machine, "proc/sys/kernel/kptr_restrict", "1\n")
    assert failed(machine) == []
    eventually(lambda: len(machine.calls("upgrade")) == 2, "the second try")
    eventually(lambda: not (machine.paths.queue / "later/apt-1.json").exists(), "the queue's end")


def test_in_a_container_the_daemon_starts_nothing(machine: Machine) -> None:
    write(machine, "run/systemd/container", "lxc")
    (machine.paths.sources / "source-6.1.192-1/linux-source.deb").unlink()
    (machine.paths.sources / "source-6.1.192-1").rmdir()
    machine.start()
    assert failed(machine) == ["container"]
    time.sleep(1)
    assert machine.calls() == [], "no source is fetched for a kernel that is the host's"


def test_a_kernel_that_is_left_alone_is_one_plain_line(machine: Machine) -> None:
    write(machine, "proc/sys/kernel/osrelease", "6.8.12-4-pve\n")
    write(machine, "proc/sys/kernel/version", "#1 SMP PREEMPT_DYNAMIC PMX 6.8.12-4\n")
    machine.start()
    done = machine.kspliced("status")
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr == (
        "kspliced: the running kernel 6.8.12-4-pve is not the distribution's, and is left alone; "
        "boot a kernel of the distribution\n"
    )
    time.sleep(1)
    assert machine.calls() == []


def test_a_self_built_kernel_is_ignored_with_a_word(machine: Machine) -> None:
    with (machine.paths.dpkg / "status").open("a") as file:
        file.write(
            "\nPackage: linux-image-6.1.200-amd64\nStatus: install ok installed\n"
            "Architecture: amd64\nSource: linux-upstream\nVersion: 6.1.200-1\n"
        )
    machine.start()
    assert status(machine)["installed"] == "6.1.192-2"
    text = machine.kspliced("status").stdout
    assert "linux-image-6.1.200-amd64 6.1.200-1 is not the distribution's kernel\n" in text


def test_reboot_required_follows_the_daemons_verdict(machine: Machine) -> None:
    flag = machine.root / "run/reboot-required"
    packages = machine.root / "run/reboot-required.pkgs"
    flag.parent.mkdir(exist_ok=True)
    flag.touch()
    packages.write_text("linux-image-6.1.0-56-amd64\n")
    machine.script("upgrade", ["until", "go"], ["fail", "failed", "no", "", []])
    machine.request("apt-1")
    machine.start()
    eventually(lambda: not flag.exists(), "the file set aside while the job runs")
    assert machine.stop() == 0
    assert flag.exists() and packages.read_text() == "linux-image-6.1.0-56-amd64\n"
    machine.start()
    eventually(lambda: not flag.exists(), "the file set aside again")
    machine.script("upgrade", ["take_queue"], ["fail", "failed", "no", "", []])
    machine.touch("go")
    eventually(flag.exists, "the file, as the job failed")
