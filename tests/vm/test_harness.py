# SPDX-License-Identifier: GPL-2.0-or-later
"""The harness keeps its own promises: exit codes, timeouts, files, power cuts, lost guests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import guest as guests
from tests.vm import kmod_build
from tests.vm.errors import GuestLost, GuestTimeout
from tests.vm.guest import CommandFailed, Guest
from tests.vm.image import Image
from tests.vm.initramfs import BOOTS, Initramfs

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def guest(guest_image: Image) -> Iterator[Guest]:
    with Guest("harness", guest_image, memory="2G") as machine:
        yield machine


def test_exit_codes_and_streams(guest: Guest) -> None:
    result = guest.run("echo out; echo err >&2; cat; exit 7", check=False, stdin="in")
    assert (result.status, result.stdout, result.stderr) == (7, "out\nin", "err\n")
    assert guest.run("kill -9 $$", check=False).status == -9
    with pytest.raises(CommandFailed, match="exited 3"):
        guest.run("exit 3")
    assert guest.run("id -un", user="somebody").stdout == "somebody\n"


def test_long_output_keeps_its_end(guest: Guest) -> None:
    result = guest.run("seq 300000")
    assert len(result.stdout) == 1 << 20
    assert result.stdout.endswith("\n300000\n")


def test_a_command_that_takes_too_long_is_killed_with_its_children(guest: Guest) -> None:
    result = guest.run("sleep 4321 & sleep 4321", timeout=2, check=False)
    assert result.timed_out
    assert not guest.run("pgrep -f 'sleep [4]321'", check=False).ok


def test_a_command_that_leaves_a_process_behind_returns(guest: Guest) -> None:
    assert guest.run("setsid sleep 30 & echo left").stdout == "left\n"


def test_files_travel_unchanged(guest: Guest, tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    guest.put(data, "/root/data")
    guest.get("/root/data", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_waiting_is_bounded(guest: Guest) -> None:
    with pytest.raises(GuestTimeout, match="1 s for never"):
        guest.wait_for(lambda: False, 1, "never")


def test_faults_are_seen(guest: Guest) -> None:
    before = len(guest.console())
    guest.run("echo 'WARNING: CPU: 0 made up' > /dev/kmsg")
    guest.wait_for(lambda: guest.faults(before), 10, "the line on the console")


def test_a_power_cut_loses_what_was_not_synced(guest: Guest) -> None:
    guest.run("echo kept > /root/kept; sync")
    guest.run("echo lost > /root/lost")
    guest.reset()
    assert guest.run("cat /root/kept").stdout == "kept\n"
    assert not guest.run("test -s /root/lost", check=False).ok


def test_two_guests_at_once_share_nothing(guest: Guest, guest_image: Image) -> None:
    guest.run("touch /root/first")
    with Guest("second", guest_image, memory="1G") as second:
        assert not second.run("test -e /root/first", check=False).ok
        second.cut()
        with pytest.raises(GuestLost):
            second.run("true")
    assert guest.run("uname -r").ok


@pytest.mark.parametrize(
    ("line", "deaths", "boots"),
    [("rdinit=/none", 1, 2), ("rdinit=/none", BOOTS, BOOTS), ("init=/sbin/swapon", 1, 1)],
    ids=["once", "always", "its-programs-have-run"],
)
def test_a_system_that_dies_while_it_boots(
    monkeypatch: pytest.MonkeyPatch, guest_image: Image, line: str, deaths: int, boots: int
) -> None:
    """It is booted again where no program on its disk has run, but not for ever."""
    command_line, begun = Guest._command_line, 0

    def dying(machine: Guest, folder: Path) -> list[str]:
        nonlocal begun
        begun += 1
        added = f"{good} {line}" if begun <= deaths else good
        monkeypatch.setattr(guests, "KERNEL_LINE", added)
        return command_line(machine, folder)

    good = guests.KERNEL_LINE
    monkeypatch.setattr(Guest, "_command_line", dying)
    machine = Guest("dying-system", guest_image, memory="1G")
    if boots > deaths:
        with machine:
            assert machine.run("echo alive").stdout == "alive\n"
    else:
        with pytest.raises(GuestLost, match="the kernel has died"), machine:
            pass
    assert begun == boots
    assert machine.console().count("] Kernel panic - not syncing") == min(deaths, boots)


@pytest.mark.parametrize("deaths", [BOOTS - 1, BOOTS])
def test_a_kernel_that_dies_while_it_boots(monkeypatch: pytest.MonkeyPatch, deaths: int) -> None:
    """It is booted again, but not for ever."""
    start, boots = Initramfs._start, iter(range(BOOTS))

    def dying(machine: Initramfs, folder: Path) -> None:
        dies = next(boots) < deaths
        machine.arguments = ("-append", "console=ttyS0 panic=-1 rdinit=/none") if dies else ()
        start(machine, folder)

    monkeypatch.setattr(Initramfs, "_start", dying)
    machine = Initramfs("dying", kmod_build.image(kmod_build.KERNELS[0]), {})
    if deaths == BOOTS:
        with pytest.raises(GuestLost, match="the kernel has died"), machine:
            pass
    else:
        with machine:
            assert machine.check("echo alive") == "alive\n"
    logs = sorted(path.name for path in machine.console_path.parent.glob("console*.log"))
    assert logs == ["console.1.log", "console.2.log", "console.log"]
    assert "Kernel panic" in machine.console_path.with_suffix(".1.log").read_text()


def test_a_kernel_that_does_not_answer_tells_what_it_does() -> None:
    with Initramfs("hanging", kmod_build.image(kmod_build.KERNELS[0]), {}) as machine:
        with pytest.raises(GuestTimeout, match=r"the processors were at .*halt"):
            machine.run("sleep 1000", 1)
        with pytest.raises(GuestLost):
            machine.run("true")
    assert "unknown" in machine.console_path.read_text().partition("Kernel panic")[2].casefold()
