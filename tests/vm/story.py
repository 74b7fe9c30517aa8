# SPDX-License-Identifier: GPL-2.0-or-later
"""The story: an ordinary upgrade mends a running ext4, no reboot. `make demo` and tests run this.

Each step does what its title says to a real guest, raises StoryError where the step is not true,
and returns what it found.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Protocol

from kspliced.engine.journal import Event
from tests.vm import case, findings, repo, scenario_build, trigger
from tests.vm.errors import GuestTimeout
from tests.vm.guest import Guest
from tests.vm.world import DEBIAN, Repository, World

LIVE_TIMEOUT = 2400.0
BINFMT = "proc-sys-fs-binfmt_misc"  # a file system of a module
# What unattended-upgrades 2.9 has in /etc/kernel/postinst.d.
ASKS = """#!/bin/sh
touch /var/run/reboot-required
echo "$DPKG_MAINTSCRIPT_PACKAGE" >> /var/run/reboot-required.pkgs
"""
LOAD = "load"  # the transient unit that hammers the file system


class StoryError(AssertionError):
    """A step of the story is not true."""


class Teller(Protocol):
    """Who tells the story while it happens."""

    def say(self, text: str) -> None:
        """One line about what just came true."""

    def progress(self, phase: str, fraction: float, message: str) -> None:
        """How far the daemon says it is."""


class Printer:
    """Tells the story to pytest's captured output."""

    def say(self, text: str) -> None:
        """Print a line."""
        print(text)

    def progress(self, phase: str, fraction: float, message: str) -> None:
        """Print where the daemon is."""
        print(f"{phase} {fraction:.0%} {message}")


def require(condition: object, what: str, seen: object = "") -> None:
    """StoryError with ``what`` unless ``condition``."""
    if not condition:
        raise StoryError(f"{what}; seen: {seen}" if seen != "" else what)


class Story:
    """The guests of the story and its steps, in order.

    ``baseline``: the same upgrade is timed first in a guest without kspliced.
    """

    def __init__(self, teller: Teller, world: World = DEBIAN, baseline: bool = False) -> None:
        self._teller = teller
        self._world = world
        self._baseline = baseline
        self._stack = ExitStack()
        self._repository: Repository | None = None
        self._guest: Guest | None = None
        self._mark = 0

    def __enter__(self) -> Story:
        self._repository = self._stack.enter_context(self._world.repository())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    # -- the steps ----------------------------------------------------------------------------

    def bug(self) -> findings.Bug:
        """The bug is real: without kspliced this kernel oopses"""
        assert self._repository is not None
        seconds = None
        name = f"{self._world.name}-bug"
        with Guest(name, self._world.image(), (self._repository.disk,)) as guest:
            if self._baseline:
                self._teller.say("a guest without kspliced: the same upgrade, timed")
                self._repository.attach(guest)
                repo.offer(guest, "after")
                seconds = self._upgrade(guest)
                self._teller.say(f"{self._world.upgrade} took {seconds:.0f} s")
            lines = provoke(guest)
        self._teller.say(lines[0])
        self._teller.say(next(line for line in lines if case.FAULTY_FUNCTION in line))
        return findings.Bug(tuple(lines), seconds)

    def install(self) -> findings.Installed:
        """A fresh guest: kspliced comes from our own packages"""
        assert self._repository is not None
        world, disks = self._world, (self._repository.disk,)
        self._guest = self._stack.enter_context(Guest(world.name, world.image(), disks))
        guest = self._guest
        require(world.old.version in guest.run("cat /proc/version").stdout, "the old kernel runs")
        root = guest.run("findmnt -no FSTYPE /").stdout.strip()
        require(root == "ext4", "the root file system is ext4", root)
        self._teller.say(f"booted {world.old.release} in {guest.boot_seconds:.0f} s, root on ext4")
        self._repository.attach(guest)
        guest.run(world.refresh, timeout=120)
        took = guest.run(world.install, timeout=1500).seconds
        dkms = guest.run(f"dkms status -m kspliced -k {world.old.release}").stdout
        require("installed" in dkms, "DKMS built and installed the core", dkms)
        self._teller.say(f"{world.install}: {took:.0f} s; {dkms.strip()}")
        status = self._status()
        require(status["running"] == world.old.version, "status: running", status)
        require(status["effective"] == world.old.version, "status: effective", status)
        require(status["reboot_required"]["verdict"] == "no", "no reboot needed yet", status)
        self._wait_idle(600)  # what the daemon fetches ahead counts
        doctor = guest.run("kspliced doctor", timeout=120).stdout
        require("failed" not in doctor and "nothing stands in" in doctor, "all is well", doctor)
        return findings.Installed(took, guest.boot_seconds)

    def upgrade(self) -> findings.Upgraded:
        """The ordinary upgrade: apt upgrade, dnf update"""
        guest = self._running()
        # What the daemon fetches ahead must not compete with apt for the two CPUs.
        self._wait_idle(600)
        self._mark = len(guest.console())
        repo.offer(guest, "after")
        guest.run("sysctl -w kernel.kptr_restrict=2")
        if self._world is DEBIAN:
            hook = "/etc/kernel/postinst.d/unattended-upgrades"
            guest.run(f"cat >{hook} <<'EOF'\n{ASKS}EOF\nchmod 755 {hook}")
        seconds = self._upgrade(guest)
        self._refused_until_mended(guest)
        release = guest.run("uname -r").stdout.strip()
        require(release == self._world.old.release, "no reboot happened", release)
        said = f"{self._world.upgrade} exited 0 after {seconds:.0f} s"
        self._teller.say(f"{said}; /boot has the new kernel")
        return findings.Upgraded(seconds)

    def live(self) -> findings.Live:
        """The daemon builds the update and applies it"""
        guest = self._running()
        started = time.monotonic()
        phases: dict[str, float] = {}

        def settled() -> dict[str, Any] | None:
            status = self._status()
            job = status["job"]
            if job is not None:
                phases.setdefault(job["phase"], round(time.monotonic() - started, 1))
                self._teller.progress(job["phase"], job["fraction"], job["message"])
                return None
            return None if status["state"] in ("pending", "busy") else status

        try:
            status = guest.wait_for(settled, LIVE_TIMEOUT, "the update to be live", poll=2.0)
        except GuestTimeout as error:
            raise StoryError(f"{error}\n{self._evidence()}") from error
        seconds = time.monotonic() - started
        require(status["state"] == "live", f"the update is live\n{self._evidence()}", status)
        found = findings.live(status, seconds, phases, self._journal(Event.LIVE))
        require(found.running == self._world.old.version, "status: running", found)
        require(found.effective == self._world.new.version, "status: effective", found)
        require(found.summary == "1 of 1 change live", "status: changes", found.summary)
        require(len(found.functions) == 2, "2 functions are replaced", found.functions)
        require(case.FAULTY_FUNCTION in " ".join(found.functions), "the faulty one", found)
        require(found.bugs, "the changelog entry's bug number is known", found.entries)
        require(found.pause_us > 0, "the pause was measured", found.pause_us)
        require(found.reboot_required == "no", "no reboot is needed", found)
        require(found.journal_entries == 1, "the journal tells of it once", found)
        self._require_reboot_flag(False)
        self._require_clean()
        for line in found.lines():
            self._teller.say(line)
        return found

    def survives(self) -> findings.Survived:
        """The trigger again, in a loop, with writers beside it"""
        guest = self._running()
        trigger.prepare(guest)
        writer = "while :; do dd if=/dev/urandom of={} bs=256k count=40 status=none; done"
        for number in (1, 2):
            place = f"{trigger.PLACE}/writer{number}"
            guest.background(f"writer{number}", writer.format(place))
        rounds = 5
        result = trigger.pull(guest, rounds, timeout=600)
        guest.run("systemctl stop writer1 writer2", timeout=60)
        require(result.ok, f"{rounds} rounds of the trigger pass\n{self._evidence()}", result)
        self._require_clean()
        release = guest.run("uname -r").stdout.strip()
        effective = guest.run("kspliced uname").stdout.strip()
        require(release == self._world.old.release, "uname -r is unchanged", release)
        require(self._world.new.version in effective, "kspliced uname has the version", effective)
        self._teller.say(f"{rounds} rounds passed; the kernel log is clean")
        self._teller.say(f"uname -r: {release}; kspliced uname: {effective}")
        self._wait_idle(600)
        return findings.Survived(rounds, release, effective, *_idle_daemon(guest))

    def undo(self) -> findings.Reverted:
        """kspliced undo and kspliced apply, while stress-ng hammers the file system"""
        guest = self._running()
        trigger.make_safe(guest)
        guest.background(
            LOAD,
            f"cd {trigger.PLACE} && exec stress-ng --hdd 1 --hdd-bytes 16m --fallocate 1 "
            "--fallocate-bytes 16m --dir 1 --timeout 900",
        )
        guest.wait_for(lambda: guest.run("pgrep -c stress-ng", check=False).ok, 30, "stress-ng")
        undone = guest.run("kspliced undo", timeout=300).seconds
        status = self._status()
        require(status["effective"] == self._world.old.version, "undone: the old code runs", status)
        require(status["state"] == "undone", "undone: status says so", status)
        require(self._applied() == 0, "undone: the core has nothing applied")
        self._require_reboot_flag(True)
        self._teller.say(
            f"kspliced undo under load: {undone:.1f} s; effective {self._world.old.version}"
        )
        applied = guest.run("kspliced apply", timeout=600).seconds
        status = self._status()
        require(status["effective"] == self._world.new.version, "applied again", status)
        require(self._applied() == 1, "applied again: the core says so")
        self._require_reboot_flag(False)
        self._teller.say(f"kspliced apply under load: {applied:.1f} s")
        pause = int(status["update"]["pause_us"])
        require(guest.run(f"systemctl is-active {LOAD}", check=False).ok, "the load still runs")
        guest.run(f"systemctl stop {LOAD}", timeout=60)
        self._require_clean()
        return findings.Reverted(undone, applied, pause)

    def power_cut(self) -> findings.Replayed:
        """Power cut; the same kernel boots and is mended before the network is up"""
        guest = self._running()
        guest.reset()
        require(
            self._world.old.version in guest.run("cat /proc/version").stdout, "the old kernel again"
        )
        status = self._status()
        require(status["state"] == "live", f"replay made it live\n{self._evidence()}", status)
        require(self._applied() == 1, "the core has it applied")
        require(self._journal(Event.REPLAYED, "-b"), "the journal tells of the replay")
        replayed = _moment(guest, "kspliced-replay.service", "ExecMainExitTimestampMonotonic")
        network = _moment(guest, "systemd-networkd.service", "ActiveEnterTimestampMonotonic")
        require(0 < replayed < network, "replay ends before the network", (replayed, network))
        cpu = guest.run("systemctl show -P CPUUsageNSec kspliced-replay").stdout.strip()
        trigger.remount(guest)
        result = trigger.pull(guest, 1, timeout=300)
        require(result.ok, "the trigger passes after the replay", result)
        self._require_clean()
        self._teller.say(f"replayed {replayed:.1f} s after power-on, network at {network:.1f} s")
        return findings.Replayed(replayed, network, int(cpu) / 1e9 if cpu.isdigit() else 0.0)

    def removal(self) -> findings.Removed:
        """An orderly reboot right after; then the package is removed, and comes back"""
        guest = self._running()
        guest.stop()
        guest.start()
        status = self._status()
        require(status["state"] == "live", f"replayed again\n{self._evidence()}", status)
        said = guest.run(f"{self._world.remove} 2>&1", timeout=300).stdout
        require("stays live in the running kernel" in said, "the removal says so", said)
        require(self._applied() == 1, "the kernel keeps what is live")
        self._teller.say("rebooted in order before the boot was healthy: replayed all the same")
        guest.run(self._world.again, timeout=300)
        status = self._status()
        require(status["state"] == "live", "the package finds its update live again", status)
        require(status["effective"] == self._world.new.version, "status: effective", status)
        self._require_clean()
        self._teller.say("kspliced removed and installed again: the update stayed live")
        return findings.Removed(status["state"])

    def late_module(self) -> findings.Joined:
        """An update of a module that is not loaded waits for it, over a boot, too"""
        guest = self._running()
        trigger.make_safe(guest)
        guest.run("kspliced undo", timeout=300)
        guest.run(f"systemctl stop {BINFMT}.mount; rmmod binfmt_misc || true")
        guest.put(scenario_build.pack_file("module"), "/root/module.kspack")
        said = guest.run("kspliced apply /root/module.kspack", timeout=300).stdout
        require("waits for binfmt_misc" in said, "the update waits", said)
        require(self._applied() == 0, "nothing is applied yet")
        loaded = time.monotonic()
        guest.run("modprobe binfmt_misc")
        guest.wait_for(lambda: self._applied() == 1, 120, "the module's update", poll=0.5)
        seconds = time.monotonic() - loaded
        shown = guest.run("cat /proc/sys/fs/binfmt_misc/status").stdout
        require(shown == "yes\n", "the module runs its new code", shown)
        require(self._journal(Event.LIVE, "-b"), "the journal tells of it")
        guest.stop()
        guest.start()
        guest.run("modprobe binfmt_misc")
        guest.wait_for(lambda: self._applied() == 1, 120, "the update after a boot", poll=0.5)
        shown = guest.run("cat /proc/sys/fs/binfmt_misc/status").stdout
        require(shown == "yes\n", "and after a boot", shown)
        self._require_clean()
        self._teller.say(f"binfmt_misc was patched {seconds:.1f} s after it was loaded")
        return findings.Joined(round(seconds, 1))

    def next_kernel(self) -> findings.Retired:
        """The new kernel boots: nothing is applied, the pack is retired"""
        guest = self._running()
        boot = guest.boot_files(self._world.new.release)
        guest.stop()
        guest.start(boot)
        status = self._status()
        require(status["running"] == self._world.new.version, "the new kernel runs", status)
        require(status["effective"] == self._world.new.version, "effective is what runs", status)
        require(status["state"] == "retired", "status says retired", status)
        require(self._applied() == 0, "nothing is applied")
        require(self._journal(Event.RETIRED), "the journal tells of the retirement")
        packs = guest.run("find /var/lib/kspliced/packs -type f | wc -l").stdout.strip()
        require(packs == "0", "the pack is gone", packs)
        trigger.remount(guest)
        require(trigger.pull(guest, 1, timeout=300).ok, "the new kernel has the fix built in")
        self._require_clean()
        self._teller.say(
            f"{self._world.new.release} runs; status: {status['state']}; no pack is left"
        )
        return findings.Retired(str(status["state"]))

    STEPS: tuple[Callable[[Story], findings.Finding], ...] = (
        bug,
        install,
        upgrade,
        live,
        survives,
        undo,
        power_cut,
        removal,
        late_module,
        next_kernel,
    )

    def _refused_until_mended(self, guest: Guest) -> None:
        """What is in the way is said before anything is built; mended, the upgrade goes on."""

        def refused() -> dict[str, Any] | None:
            status = self._status()
            return status if status["job"] is None and status["problem"] else None

        status = guest.wait_for(refused, 600, "the refusal", poll=2.0)
        code = status["problem"]["code"]
        require(code == "symbols_hidden", "refused for kptr_restrict", status["problem"])
        reasons = [r["code"] for r in status["reboot_required"]["reasons"]]
        require(reasons == ["symbols_hidden"], "the verdict says why", status["reboot_required"])
        doctor = guest.run("kspliced doctor", timeout=120, check=False)
        require(doctor.status == 4, "doctor fails", doctor)
        require("[symbols_hidden]" in doctor.stdout, "doctor says why", doctor.stdout)
        units = guest.run("journalctl -q -o cat -u 'kspliced-build-*' | wc -l").stdout.strip()
        require(units == "0", "nothing was built", units)
        self._require_reboot_flag(True)
        guest.run("sysctl -w kernel.kptr_restrict=0")
        guest.wait_for(lambda: self._status()["state"] != "failed", 300, "another try", poll=1.0)
        self._teller.say("kptr_restrict=2: refused before the build, and taken up when mended")

    def _require_reboot_flag(self, there: bool) -> None:
        """/run/reboot-required follows the verdict, where something makes it."""
        if self._world is not DEBIAN:
            return
        said = self._running().run("cat /run/reboot-required.pkgs || true")
        image = f"linux-image-{self._world.new.release}\n"
        require(said.stdout.endswith(image) is there, f"reboot-required: {there}", said.stdout)

    # -- what the steps ask of the guest --------------------------------------------------------

    def _upgrade(self, guest: Guest) -> float:
        """The upgrade, with new indexes; the seconds that it took."""
        guest.run(self._world.refresh, timeout=180)
        result = guest.run(self._world.upgrade, timeout=1500)
        version = guest.run(self._world.newest).stdout
        require(version == self._world.new.version, "the upgrade brought the new kernel", version)
        guest.run(f"test -e /boot/vmlinuz-{self._world.new.release}")
        return result.seconds

    def _running(self) -> Guest:
        require(self._guest is not None, "the story's guest runs; an earlier step failed")
        assert self._guest is not None
        return self._guest

    def _status(self) -> dict[str, Any]:
        text = self._running().run("kspliced status --json", timeout=90).stdout
        status = json.loads(text)
        require(isinstance(status, dict), "kspliced status --json prints an object", text)
        return dict(status)

    def _wait_idle(self, timeout: float) -> None:
        self._running().wait_for(
            lambda: self._status()["job"] is None, timeout, "the daemon to be idle", poll=2.0
        )

    def _applied(self) -> int:
        script = "cat /sys/kernel/kspliced/updates/*/stage 2>/dev/null | grep -cx applied"
        return int(self._running().run(script, check=False).stdout)

    def _journal(self, event: Event, options: str = "") -> int:
        script = f"journalctl -q {options} -o cat MESSAGE_ID={event.value.id} | wc -l"
        return int(self._running().run(script).stdout)

    def _require_clean(self) -> None:
        faults = self._running().faults(self._mark)
        require(not faults, "the kernel log is clean", faults)

    def _evidence(self) -> str:
        script = (
            "kspliced status; journalctl -b -u 'kspliced*' -t kspliced --no-pager | tail -n 60; "
            "dmesg | tail -n 15; grep . /sys/kernel/kspliced/updates/*/{conflicts,mismatch}"
        )
        return self._running().run(script, timeout=120, check=False).stdout


def provoke(guest: Guest) -> tuple[str, ...]:
    """Pull the trigger where it is known to oops; the console's lines about it."""
    trigger.prepare(guest)
    mark = len(guest.console())
    guest.background("trigger", trigger.ROUND)
    guest.wait_for(lambda: guest.faults(mark), 120, "the oops")
    guest.wait_for(lambda: "end trace" in guest.console()[mark:], 30, "the end of the oops")
    lines = [line.strip() for line in guest.console()[mark:].splitlines()]
    interesting = [line for line in lines if "BUG:" in line or "RIP: 0010" in line]
    require(any(case.FAULTY_FUNCTION in line for line in interesting), "the known oops", lines)
    return tuple(interesting)


def _idle_daemon(guest: Guest) -> tuple[float, int]:
    """Resident memory of the daemon in MB, and how often it wakes up in 30 s of idleness."""
    pid = guest.run("systemctl show -P MainPID kspliced.service").stdout.strip()
    require(pid != "0", "the daemon runs", pid)
    kib = guest.run(f"awk '/^VmRSS/ {{print $2}}' /proc/{pid}/status").stdout
    switches = f"cat /proc/{pid}/task/*/status | awk '/^voluntary/ {{n += $2}} END {{print n}}'"
    first, last = guest.run(f"{switches}; sleep 30; {switches}").stdout.split()
    return int(kib) / 1000, int(last) - int(first)


def _moment(guest: Guest, unit: str, which: str) -> float:
    """A time stamp of a unit, in seconds since the kernel started."""
    text = guest.run(f"systemctl show -P {which} {unit}").stdout.strip()
    require(text.isdigit(), f"{unit} has run", text)
    return int(text) / 1e6
