# SPDX-License-Identifier: GPL-2.0-or-later
"""/run/reboot-required follows our verdict, and no file of others is lost on the way."""

from __future__ import annotations

import pytest

from kspliced.engine import transactions
from kspliced.engine.reboot_flag import RebootFlag
from kspliced.engine.status import JobStatus, StatusState, Verdict, current_status
from kspliced.model import Progress
from tests.unit.engine.fakes import NEWER, NEWEST, RUNNING, Machine

IMAGE = f"linux-image-{NEWER.release}"
JOB = JobStatus("upgrade", Progress("build", 0.5, ""))


class Flag:
    """The files, made as unattended-upgrades' hook makes them."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.flag = machine.paths.root / "run/reboot-required"
        self.packages = machine.paths.root / "run/reboot-required.pkgs"
        self.ours = RebootFlag(machine.paths)
        self.flag.parent.mkdir(parents=True, exist_ok=True)

    def ask(self, *names: str) -> None:
        self.flag.touch()
        with self.packages.open("a") as file:
            file.write("".join(f"{name}\n" for name in names))

    def follow(self, job: JobStatus | None = None) -> str:
        return self.ours.follow(current_status(self.machine.paths, job))

    def asks(self) -> list[str] | None:
        """Who asks for a reboot; None where nobody does."""
        if not self.flag.exists():
            assert not self.packages.exists()
            return None
        return self.packages.read_text().split() if self.packages.exists() else []


@pytest.fixture
def flag(machine: Machine) -> Flag:
    return Flag(machine)


def test_it_goes_when_all_is_live_and_comes_with_an_undo(flag: Flag) -> None:
    flag.ask(IMAGE)
    flag.flag.write_text("*** System restart required ***\n")
    transactions.upgrade(flag.machine.context)
    assert IMAGE in flag.follow() and flag.asks() is None
    assert flag.follow() == "", "once"
    transactions.undo(flag.machine.context)
    assert flag.follow() and flag.asks() == [IMAGE]
    assert flag.flag.read_text() == "*** System restart required ***\n"
    assert flag.follow() == "" and flag.asks() == [IMAGE]
    transactions.apply(flag.machine.context, None)
    flag.follow()
    assert flag.asks() is None


@pytest.mark.parametrize(
    "others",
    [
        ["libc6"],
        ["dbus"],
        ["linux-image-6.1.200-amd64"],
        ["linux-image-6.1.0-56-cloud-amd64"],
        ["linux-image-amd64"],
    ],
)
def test_what_others_ask_for_is_not_touched(flag: Flag, others: list[str]) -> None:
    transactions.upgrade(flag.machine.context)
    flag.ask(IMAGE, *others)
    assert flag.follow() == "" and flag.asks() == [IMAGE, *others]


def test_a_library_that_comes_later(flag: Flag) -> None:
    transactions.upgrade(flag.machine.context)
    flag.ask(IMAGE)
    flag.follow()
    flag.ask("libc6")
    assert flag.follow() == "" and flag.asks() == ["libc6"]
    transactions.undo(flag.machine.context)
    flag.follow()
    assert flag.asks() == ["libc6", IMAGE]


def test_without_a_list_nobody_knows_who_asks(flag: Flag) -> None:
    transactions.upgrade(flag.machine.context)
    flag.flag.touch()
    assert flag.follow() == "" and flag.asks() == []


def test_one_who_adds_a_package_while_it_is_moved(flag: Flag) -> None:
    """Its script touched the file before our move, and adds its line after it."""
    transactions.upgrade(flag.machine.context)
    flag.ask(IMAGE)
    flag.follow()
    flag.packages.write_text("libc6\n")
    flag.follow()
    assert flag.asks() == ["libc6"]


def test_a_verdict_that_needs_a_reboot_leaves_it(flag: Flag) -> None:
    flag.ask(IMAGE)
    proc = flag.machine.paths.proc
    (proc / "sys/kernel/modules_disabled").write_text("1")
    status = current_status(flag.machine.paths)
    assert status.reboot_required.verdict is Verdict.YES
    assert flag.follow() == "" and flag.asks() == [IMAGE]


def test_it_waits_for_a_job_that_is_under_way(flag: Flag) -> None:
    """Automatic-Reboot asks at the end of the very run that brought the kernel."""
    flag.ask(IMAGE)
    assert flag.follow() == "" and flag.asks() == [IMAGE], "nobody works on it"
    flag.machine.paths.queue.mkdir(parents=True)
    request = flag.machine.paths.queue / "apt-1.json"
    request.write_text("{}")
    flag.follow()
    assert flag.asks() is None
    request.unlink()
    assert current_status(flag.machine.paths, JOB).state is StatusState.BUSY
    assert flag.follow(JOB) == "" and flag.asks() is None
    assert flag.follow() and flag.asks() == [IMAGE], "it ended without an answer"


def test_a_daemon_that_ends_before_the_answer(flag: Flag) -> None:
    flag.ask(IMAGE)
    flag.follow(JOB)
    assert flag.asks() is None
    assert flag.ours.abandon() and flag.asks() == [IMAGE]
    transactions.upgrade(flag.machine.context)
    flag.follow()
    assert flag.ours.abandon() == "" and flag.asks() is None, "that answer stays true"


def test_the_next_kernel_is_another_question(flag: Flag) -> None:
    flag.ask(IMAGE)
    transactions.upgrade(flag.machine.context)
    flag.follow()
    flag.machine.install(RUNNING, NEWER, NEWEST)
    newest = f"linux-image-{NEWEST.release}"
    flag.ask(newest)
    flag.follow()
    assert flag.asks() == [newest, IMAGE]


def test_a_record_that_is_garbled(flag: Flag) -> None:
    flag.ask(IMAGE)
    transactions.upgrade(flag.machine.context)
    flag.follow()
    (flag.machine.paths.run / "reboot-required.json").write_text("{")
    transactions.undo(flag.machine.context)
    assert flag.follow() and flag.asks() == [], "a reboot too many rather than one too few"


@pytest.mark.parametrize("what", ["link", "directory"])
def test_what_is_no_file_is_not_believed(flag: Flag, what: str) -> None:
    transactions.upgrade(flag.machine.context)
    flag.flag.touch()
    secret = flag.machine.paths.root / "secret"
    secret.write_text(IMAGE)
    if what == "link":
        flag.packages.symlink_to(secret)
    else:
        flag.packages.mkdir()
    with pytest.raises(OSError):
        flag.follow()
    assert flag.flag.exists()
