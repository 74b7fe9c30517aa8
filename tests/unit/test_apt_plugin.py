# SPDX-License-Identifier: GPL-2.0-or-later
"""The hooks that apt and kernel packages run: what they leave in the queue; they never fail."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kspliced.engine.paths import Paths
from kspliced.engine.queue import Package, read_queue

APT = Path(__file__).parents[2] / "plugins" / "apt"
HOOK = APT / "package-hook"
RELEASE = "6.1.0-56-amd64"
IMAGE = Package(f"linux-image-{RELEASE}", "", "6.1.192-2")
HEAD = "VERSION 3\nAPT::Architecture=amd64\nDir::Log=var/log/apt\n\n"
UNPACK = f"{IMAGE.name} - - none < 6.1.192-2 amd64 none /var/cache/apt/archives/i.deb\n"
CONFIGURE = f"{IMAGE.name} - - none < 6.1.192-2 amd64 none **CONFIGURE**\n"
META = "linux-image-amd64 6.1.176-1 amd64 none < 6.1.192-2 amd64 none /var/cache/m.deb\n"
OTHER = "libc6 2.36-9 amd64 same < 2.36-10 amd64 same /var/cache/apt/archives/libc6.deb\n"
# The hook promises a second; a loaded test machine may take a process that long to start.
PROMISED = 5.0
# As long it may take where it is patient.
GUARD = 20.0
# What the hook left behind after half a second is not there yet for a test to see.
PATIENT = """\
[ "$1 $2" != "--foreground 0.5" ] || { shift 2; set -- --foreground 15 "$@"; }
[ "$1" != 0.3 ] || { shift; set -- 15 "$@"; }
exec /usr/bin/timeout "$@"
"""


class Machine:
    """A root directory with a running kernel, systemd, and a systemctl that notes its calls."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = Paths(root)
        for directory in ("run/systemd/system", "proc/sys/kernel", "usr/bin", "var/lib/dpkg"):
            (root / directory).mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        (root / "proc/cmdline").write_text("root=/dev/vda quiet\n")
        self.runs("6.1.0-55-amd64")
        build = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-11-14)\n"
        (root / "proc/sys/kernel/version").write_text(build)
        self.program("systemctl", f'echo "$@" >>{root}/calls')
        self.program("logger", f'echo "$@" >>{root}/journal')
        self.program("timeout", PATIENT)
        # The package's modules, for the hook's python3.
        self.program("python3", f'PYTHONPATH={APT.parents[1]} exec {sys.executable} "$@"')
        modules = root / "lib/modules/6.1.0-55-amd64/modules.dep"
        modules.parent.mkdir(parents=True)
        modules.write_text("updates/dkms/kspliced.ko:\n")
        self.within = GUARD

    def impatient(self) -> None:
        """Have the hook leave work behind when it should."""
        (self.root / "usr/bin/timeout").unlink()
        self.within = PROMISED

    def runs(self, release: str) -> None:
        (self.root / "proc/sys/kernel/osrelease").write_text(release + "\n")

    def program(self, name: str, script: str) -> None:
        file = self.root / "usr/bin" / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def hook(
        self, *words: str, given: bytes = b"", stdin: int | None = None, under_apt: bool = True
    ) -> str:
        """Run the hook as apt does; its output. It must succeed, soon, in one line at most."""
        environment = {"PATH": "/usr/bin:/bin"}
        if under_apt:
            environment["DPKG_FRONTEND_LOCKED"] = "true"
        begin = time.monotonic()
        done = subprocess.run(
            [HOOK, "--root", self.root, *words],
            input=given if stdin is None else None,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=60,
        )
        assert time.monotonic() - begin < self.within
        assert done.returncode == 0
        assert done.stdout.count(b"\n") <= 1
        return done.stdout.decode()

    def plan(self, text: str) -> list[str]:
        """What the hook notes of a plan."""
        assert self.hook("plan", given=text.encode("utf-8", "surrogateescape")) == ""
        try:
            return (self.root / "run/kspliced-apt/planned").read_text().splitlines()
        except FileNotFoundError:
            return []

    def requests(self) -> list[tuple[Package, ...]]:
        """What the daemon's own reader finds in the queue."""
        queue = read_queue(self.paths)
        assert queue.bad == ()
        return [queued.request.packages for queued in queue.requests]

    def noted(self, name: str) -> str:
        """What a program noted, once it did."""
        file, deadline = self.root / name, time.monotonic() + GUARD
        while not (file.exists() and file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return file.read_text()

    def pokes(self) -> list[str]:
        """How systemd was called, once it was."""
        return self.noted("calls").splitlines()

    def unpoked(self) -> bool:
        return not (self.root / "calls").exists()

    def dpkg_has(self, status: str, version: str, source: str = "linux") -> None:
        (self.root / "var/lib/dpkg/status").write_text(
            f"Package: {IMAGE.name}\nStatus: install ok {status}\nVersion: {version}\n"
            f"Source: {source}\n"
            "Architecture: amd64\nMaintainer: x\nDescription: x\n\n"
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An idle machine that runs 6.1.0-55-amd64."""
    return Machine(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine for properties, whose examples only replace the plan."""
    yield Machine(tmp_path_factory.mktemp("machine"))


def test_upgrade_by_apt_leaves_one_request(machine: Machine) -> None:
    assert machine.plan(HEAD + OTHER + META + UNPACK + CONFIGURE) == [f"{IMAGE.name}==6.1.192-2"]
    machine.hook("installed", RELEASE)
    assert machine.requests() == [], "nothing is built while dpkg works"
    assert len(list(machine.paths.queue.glob(".held-*"))) == 1, "but the fact is on the disk"
    assert machine.unpoked()
    assert machine.hook("done") == "", "no terminal"
    assert machine.requests() == [(IMAGE,)]
    assert machine.pokes() == ["--no-block --quiet start kspliced.service"]
    assert [file.name for file in machine.paths.queue.glob(".*")] == []
    assert not (machine.root / "run/kspliced-apt").exists()
    machine.hook("done")
    assert machine.requests() == [(IMAGE,)], "the end of the next transaction adds nothing"


def test_upgrade_by_dpkg_reports_at_once(machine: Machine) -> None:
    machine.hook("installed", RELEASE, under_apt=False)
    assert machine.requests() == [(Package(IMAGE.name, "", ""),)]
    assert len(machine.pokes()) == 1


def test_removal_is_reported(machine: Machine) -> None:
    machine.hook("removed", RELEASE, under_apt=False)
    assert machine.requests() == [(Package(IMAGE.name, "", ""),)]


@pytest.mark.parametrize("status", ["installed", "unpacked", "half-configured"])
def test_kernel_whose_script_never_came_to_us(machine: Machine, status: str) -> None:
    machine.plan(HEAD + UNPACK)
    machine.dpkg_has(status, "6.1.192-2")
    machine.hook("done")
    assert machine.requests() == [(IMAGE,)]
    assert len(machine.pokes()) == 1


@pytest.mark.parametrize(
    ("status", "version"),
    [("half-installed", "6.1.192-2"), ("config-files", "6.1.192-2"), ("installed", "6.1.192-1")],
)
def test_plan_that_dpkg_did_not_carry_out(machine: Machine, status: str, version: str) -> None:
    machine.plan(HEAD + UNPACK)
    machine.dpkg_has(status, version)
    machine.hook("done")
    assert machine.requests() == []
    assert machine.unpoked()


def test_transaction_that_was_killed_is_made_up_for(machine: Machine) -> None:
    machine.plan(HEAD + UNPACK)
    machine.hook("installed", RELEASE)
    machine.hook("release")
    assert machine.requests() == [(IMAGE,)]


def test_next_transaction_releases_too(machine: Machine) -> None:
    machine.plan(HEAD + UNPACK)
    machine.hook("installed", RELEASE)
    machine.plan(HEAD + OTHER)
    assert machine.requests() == [(IMAGE,)]


@pytest.mark.parametrize(
    "line",
    [
        OTHER,
        META,
        "linux-image-6.1.0-56-amd64-dbg - - none < 6.1.192-2 amd64 none /i.deb\n",
        "linux-image-6.1.0-56-amd64-unsigned - - none < 6.1.192-2 amd64 none /i.deb\n",
        "linux-image-6.1.0-56-cloud-amd64 - - none < 6.1.192-2 amd64 none /i.deb\n",
        "linux-image-6.1.0-56-rt-amd64 - - none < 6.1.192-2 amd64 none /i.deb\n",
        "linux-headers-6.1.0-56-amd64 - - none < 6.1.192-2 amd64 none /i.deb\n",
        "linux-image-6.1.0-54-amd64 6.1.190-1 amd64 none > - - none **REMOVE**\n",
        "linux-image-6.1.0-54-amd64 6.1.190-1 amd64 none < 6.1.192-2 amd64 none **REMOVE**\n",
        "linux-image-6.1.0-55-amd64 6.1.192-1 amd64 none = 6.1.192-1 amd64 none /i.deb\n",
        "linux-image-6.1.0-56-amd64 6.1.192-2 amd64 none > 6.1.190-1 amd64 none /i.deb\n",
        "linux-image-6.1.0-56-amd64 - - none < 6.1.192-2 amd64 none\n",
        'linux-image-6.1.0-56"-amd64 - - none < 6.1.192-2 amd64 none /i.deb\n',
        'linux-image-6.1.0-56-amd64 - - none < 6.1"} amd64 none /i.deb\n',
    ],
)
def test_what_is_no_upgrade_of_this_kernel(machine: Machine, line: str) -> None:
    assert machine.plan(HEAD + line) == []
    machine.hook("done")
    assert machine.requests() == []
    assert machine.unpoked()


@pytest.mark.parametrize(
    ("running", "installed"),
    [
        ("6.1.0-55-amd64", "6.1.0-56-amd64"),
        ("6.1.0-55-cloud-amd64", "6.1.0-56-cloud-amd64"),
        ("6.1.0-0.deb11.55-amd64", "6.1.0-0.deb11.56-amd64"),
        ("6.12.94+deb13-amd64", "6.12.117+deb13-amd64"),
        ("6.1.0-56-amd64", "6.12.117+deb13-amd64"),
    ],
)
def test_flavours(machine: Machine, running: str, installed: str) -> None:
    machine.runs(running)
    line = f"linux-image-{installed} - - none < 1:6.9~rc1-1 amd64 none /i.deb\n"
    assert machine.plan(HEAD + line) == [f"linux-image-{installed}==1:6.9~rc1-1"]
    machine.hook("installed", installed)
    machine.hook("done")
    assert machine.requests() == [(Package(f"linux-image-{installed}", "", "1:6.9~rc1-1"),)]


@pytest.mark.parametrize("release", ["", "mine", "6.1", "6.1.0-55", "6.1.0-custom", "x y"])
def test_kernels_of_another_make(machine: Machine, release: str) -> None:
    machine.hook("installed", release, under_apt=False)
    machine.runs(release)
    machine.hook("installed", RELEASE, under_apt=False)
    assert machine.requests() == []


def test_same_name_new_version(machine: Machine) -> None:
    line = "linux-image-6.1.0-55-amd64 6.1.192-1 amd64 none < 6.1.192-1.1 amd64 none /i.deb\n"
    assert machine.plan(HEAD + line) == ["linux-image-6.1.0-55-amd64=6.1.192-1=6.1.192-1.1"]


@pytest.mark.parametrize(
    "head", ["", "VERSION 2\n\n", "VERSION 4\n\n", "VERSION 3\n", "\n", "\n\n"]
)
def test_other_protocols_are_ignored(machine: Machine, head: str) -> None:
    assert machine.plan(head + UNPACK) == []


def test_configuration_is_not_taken_for_an_action(machine: Machine) -> None:
    assert machine.plan("VERSION 3\n" + UNPACK + "\n") == []


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=2000))
def test_garbage(shared: Machine, garbage: bytes) -> None:
    shared.hook("plan", given=garbage)
    shared.hook("plan", given=HEAD.encode() + garbage)
    shared.hook("plan", given=garbage + HEAD.encode() + UNPACK.encode())
    shared.hook("done")
    assert shared.requests() == []
    assert shared.unpoked()


FIELD = st.text(st.characters(blacklist_characters="\n ", blacklist_categories=("Cs",)), max_size=8)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([IMAGE.name, "linux-image-6.1.0-57-amd64"]), st.lists(FIELD, max_size=9))
def test_hostile_fields_never_break_the_request(
    shared: Machine, name: str, fields: list[str]
) -> None:
    # Whatever is taken for an upgrade is a request that the daemon's strict reader accepts.
    planned = shared.plan(HEAD + " ".join([name, *fields]) + "\n")
    shared.hook("installed", name.removeprefix("linux-image-"))
    shared.hook("done")
    for file in shared.paths.queue.iterdir():
        assert file.name.startswith("apt-") or not planned
    assert all(package.name == name for request in shared.requests() for package in request)
    for file in shared.paths.queue.iterdir():
        file.unlink()


def test_actions_among_noise_are_found(machine: Machine) -> None:
    noise = "".join(f"pkg{i} 1 amd64 none < 2 amd64 none /p{i}.deb\n" for i in range(3000))
    config = "VERSION 3\n" + "".join(f"K{i}::=a%20b\n" for i in range(3000)) + "\n"
    assert machine.plan(config + noise + UNPACK + noise) == [f"{IMAGE.name}==6.1.192-2"]


def test_closed_stdin(machine: Machine) -> None:
    command = f"exec {HOOK} --root {machine.root} plan <&-"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_missing_queue_is_made(machine: Machine) -> None:
    assert not machine.paths.lib.exists()
    machine.hook("installed", RELEASE, under_apt=False)
    assert len(machine.requests()) == 1


def test_queue_that_cannot_be_written_costs_a_line(machine: Machine) -> None:
    machine.paths.lib.parent.mkdir(parents=True, exist_ok=True)
    machine.paths.lib.write_text("not a directory")
    said = machine.hook("installed", RELEASE, under_apt=False)
    assert said.startswith("kspliced: this kernel upgrade will not go live by itself: ")
    assert "Not a directory" in said or "File exists" in said


@pytest.mark.parametrize("program", ["mktemp", "mv", "sync"])
def test_disk_that_is_full(machine: Machine, program: str) -> None:
    machine.program(program, f"echo {program}: No space left on device >&2; exit 1")
    said = machine.hook("installed", RELEASE, under_apt=False)
    assert said.endswith("No space left on device\n")
    assert machine.requests() == []
    assert not list(machine.paths.queue.iterdir()), "no half request is left behind"
    assert machine.unpoked()


@pytest.mark.parametrize("program", ["sync", "systemctl", "mktemp"])
def test_hung_disk_or_systemd_does_not_hold_apt(machine: Machine, program: str) -> None:
    machine.program(program, f"echo $$ >>{machine.root}/hung; exec sleep 90 >&- 2>&-")
    machine.impatient()
    try:
        machine.plan(HEAD + UNPACK)
        assert machine.hook("installed", RELEASE) == ""
        assert machine.hook("done") == ""
        assert machine.hook("installed", RELEASE, under_apt=False) == ""
    finally:
        for pid in machine.noted("hung").split():
            os.kill(int(pid), 9)


@pytest.mark.parametrize("broken", ["exit 1", "kill -SEGV $$"])
def test_missing_or_crashed_daemon(machine: Machine, broken: str) -> None:
    machine.program("systemctl", broken)
    assert machine.hook("installed", RELEASE, under_apt=False) == ""
    assert len(machine.requests()) == 1


def test_nothing_keeps_debconf_waiting(machine: Machine) -> None:
    # debconf waits until its descriptor 3 is closed by everybody.
    machine.impatient()
    machine.program("systemctl", f"echo $$ >{machine.root}/calls; exec sleep 30")
    read, write = os.pipe()
    try:
        command = f"exec {HOOK} --root {machine.root} installed {RELEASE} 3>&{write}"
        command = f"{command} {write}>&-" if write != 3 else command
        with subprocess.Popen(["/bin/bash", "-c", command], pass_fds=(write,)) as process:
            os.close(write)
            assert process.wait(PROMISED) == 0
            assert select.select([read], [], [], PROMISED)[0] == [read]
            assert os.read(read, 1) == b"", "end of file"
    finally:
        os.close(read)
        os.kill(int(machine.pokes()[0]), 9)


def test_without_systemd_nothing_happens(machine: Machine) -> None:
    (machine.root / "run/systemd/system").rmdir()
    assert machine.plan(HEAD + UNPACK) == []
    machine.hook("installed", RELEASE)
    machine.hook("done")
    assert machine.requests() == []
    assert machine.unpoked()


@pytest.mark.parametrize(
    "mark",
    ["run/systemd/container", "run/host/container-manager", "run/.containerenv", ".dockerenv"],
)
def test_in_a_container_nothing_happens(machine: Machine, mark: str) -> None:
    """It may have systemd, and a kernel package of the very flavour that its host runs."""
    (machine.root / mark).parent.mkdir(parents=True, exist_ok=True)
    (machine.root / mark).write_text("lxc")
    assert at_a_terminal(machine) == ""
    assert machine.requests() == [] and machine.unpoked()
    assert machine.plan(HEAD + UNPACK) == []


@pytest.mark.parametrize(
    "release,build",
    [
        ("6.8.0-45-generic", "#45-Ubuntu SMP PREEMPT_DYNAMIC Fri Aug 30 12:02:04 UTC 2024"),
        ("6.8.12-4-pve", "#1 SMP PREEMPT_DYNAMIC PMX 6.8.12-4 (2024-11-06T15:04Z)"),
        ("6.7-4.1-liquorix-amd64", "#1 ZEN SMP PREEMPT liquorix 6.7-5ubuntu1~bookworm"),
        ("6.1.200-amd64", "#2 SMP PREEMPT_DYNAMIC Thu Jan 1 00:00:00 UTC 1970"),
        ("6.1.0-55-amd64", ""),
    ],
)
def test_a_kernel_that_is_not_debians_is_left_alone(
    machine: Machine, release: str, build: str
) -> None:
    machine.runs(release)
    (machine.root / "proc/sys/kernel/version").write_text(f"{build}\n")
    flavour = release.partition("-")[2].lstrip("0123456789.-") or "amd64"
    name = f"linux-image-6.8.0-99-{flavour}"
    line = f"{name} - - none < 6.9-1 amd64 none /x.deb\n"
    assert machine.plan(HEAD + line) == []
    assert machine.hook("installed", name.removeprefix("linux-image-")) == ""
    assert machine.requests() == [] and machine.unpoked()


def at_a_terminal(machine: Machine) -> str:
    """What the person at apt's terminal reads at its end."""
    if (machine.root / "var/lib/dpkg/status").stat().st_size == 0:
        machine.dpkg_has("installed", "6.1.192-2")
    machine.plan(HEAD + UNPACK)
    machine.hook("installed", RELEASE)
    ours, theirs = pty.openpty()
    subprocess.run([HOOK, "--root", machine.root, "done"], stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    try:
        return os.read(ours, 4096).decode()
    except OSError:  # EIO: nothing was written before the last writer closed it
        return ""
    finally:
        os.close(ours)


def test_one_line_for_a_person(machine: Machine) -> None:
    line = "kspliced: making linux 6.1.192-2 live in the background; see kspliced status\r\n"
    assert at_a_terminal(machine) == line


@pytest.mark.parametrize(
    "name,content,words",
    [
        ("lib/modules/6.1.0-55-amd64/modules.dep", "", "the kernel core is not built"),
        ("sys/kernel/security/lockdown", "none [integrity]", "the kernel is locked down"),
        ("proc/sys/kernel/modules_disabled", "1", "kernel.modules_disabled is set"),
        ("proc/sys/kernel/kptr_restrict", "2", "kernel.kptr_restrict is 2"),
        ("sys/module/lkrg/refcnt", "1", "LKRG is loaded"),
    ],
)
def test_what_is_in_the_way_is_said_at_once(
    machine: Machine, name: str, content: str, words: str
) -> None:
    file = machine.root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    said = at_a_terminal(machine)
    assert said.startswith(f"kspliced: linux 6.1.192-2 will not go live by itself: {words}"), said
    assert said.endswith("; see kspliced doctor\r\n") and said.count("\n") == 1
    assert machine.requests() == [(IMAGE,)], "the daemon keeps it until it is mended"


def test_a_self_built_kernel_is_not_promised(machine: Machine) -> None:
    machine.dpkg_has("installed", "6.1.192-2", "linux-upstream")
    said = at_a_terminal(machine)
    assert (
        said == f"kspliced: {IMAGE.name} 6.1.192-2 is not the distribution's, and is left alone\r\n"
    )


@pytest.mark.parametrize("python", ["exit 1", "exec sleep 60"], ids=["broken", "slow"])
def test_without_an_answer_nothing_is_promised(machine: Machine, python: str) -> None:
    machine.program("python3", python)
    machine.program("timeout", PATIENT.replace("set -- 15", "set -- 0.3"))
    assert at_a_terminal(machine) == (
        "kspliced: looking at linux 6.1.192-2 in the background; see kspliced status\r\n"
    )


def test_no_promise_that_is_not_kept(machine: Machine) -> None:
    (machine.root / "proc/cmdline").write_text("quiet kspliced=off\n")
    assert at_a_terminal(machine) == ""
    (machine.root / "proc/cmdline").write_text("quiet\n")
    machine.runs("6.12.94+deb13-amd64")
    assert at_a_terminal(machine) == "", "another series takes a reboot"


def test_unknown_word_is_named(machine: Machine) -> None:
    assert machine.hook("fly") == "kspliced: package-hook: unknown word 'fly'\n"
