# SPDX-License-Identifier: GPL-2.0-or-later
"""What dnf 4 and rpm leave in the queue, with real transactions; they never fail and never wait."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kspliced.engine.paths import Paths
from kspliced.engine.queue import Package, read_queue

DNF = Path(__file__).parents[2] / "plugins" / "dnf"
HELPER = DNF / "kernel-request"
OLD, NEW = "6.1.192-1.ks1.x86_64", "6.1.192-2.ks1.x86_64"
KERNEL = Package(f"kernel-{NEW}", "", "6.1.192-2.ks1")
# The helper promises a second; a loaded test machine may take a process that long to start.
PROMISED = 8.0
# As long it may take where it is patient.
GUARD = 20.0


class Machine:
    """A root directory with a running kernel, systemd, and a systemctl that notes its calls."""

    def __init__(self, root: Path) -> None:
        self.root, self.paths = root, Paths(root)
        for directory in ("run/systemd/system", "proc/sys/kernel", "usr/bin"):
            (root / directory).mkdir(parents=True)
        (root / "proc/cmdline").write_text("root=/dev/vda quiet\n")
        self.runs(OLD)
        self.program("systemctl", f'echo "$@" >>{root}/calls')
        self.program("logger", f'echo "$@" >>{root}/journal')
        # What it left behind after half a second is not there yet for a test to see.
        self.helper = root / "kernel-request"
        text = HELPER.read_text()
        assert "\nSECONDS = 0.5\n" in text
        text = text.replace("\nSECONDS = 0.5\n", "\nSECONDS = 15\n")
        self.helper.write_text(text.replace("\nCHECK_SECONDS = 0.3\n", "\nCHECK_SECONDS = 15\n"))
        self.helper.chmod(0o755)

    def runs(self, release: str) -> None:
        (self.root / "proc/sys/kernel/osrelease").write_text(release + "\n")

    def program(self, name: str, script: str) -> None:
        file = self.root / "usr/bin" / name
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def tell(self, *words: str, stderr: int = subprocess.STDOUT) -> str:
        """Run the helper; its output. It must succeed, soon, in one line at most."""
        begin = time.monotonic()
        done = subprocess.run(
            [self.helper, "--root", self.root, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            timeout=60,
        )
        assert time.monotonic() - begin < GUARD
        assert done.returncode == 0
        assert done.stdout.count(b"\n") <= 1
        return done.stdout.decode()

    def requests(self) -> list[tuple[Package, ...]]:
        queue = read_queue(self.paths)
        assert not queue.bad
        assert {queued.request.source for queued in queue.requests} <= {"dnf"}
        return [queued.request.packages for queued in queue.requests]

    def noted(self, name: str) -> str:
        """What a program noted, which may be a moment behind."""
        file, end = self.root / name, time.monotonic() + GUARD
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.02)
        return file.read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root")


def test_a_kernel_is_told_and_the_daemon_started(machine: Machine) -> None:
    assert machine.tell("installed", f"{NEW}=6.1.192-2.ks1") == ""
    assert machine.requests() == [(KERNEL,)]
    assert machine.noted("calls") == "--no-block --quiet start kspliced.service\n"


def test_one_that_goes(machine: Machine) -> None:
    machine.tell("removed", OLD)
    assert machine.requests() == [(Package(f"kernel-{OLD}", "", ""),)]


def at_a_terminal(machine: Machine) -> str:
    """What the person at dnf's terminal reads."""
    master, terminal = pty.openpty()
    machine.tell("installed", f"{NEW}=6.1.192-2.ks1", stderr=terminal)
    os.close(terminal)
    try:
        return os.read(master, 4096).decode()
    except OSError:  # EIO: nothing was written before the last writer closed it
        return ""
    finally:
        os.close(master)


def test_one_line_for_a_person(machine: Machine) -> None:
    """kspliced itself says it (tests/unit/engine/test_announce.py), of the right root."""
    machine.program("python3", f'echo "$@" >{machine.root}/asked; echo "kspliced: it is so"')
    assert at_a_terminal(machine) == "kspliced: it is so\r\n"
    asked = machine.noted("asked")
    assert asked == f"-P -m kspliced.engine.announce --root {machine.root}\n"
    machine.program("python3", "exit 0")
    assert at_a_terminal(machine) == ""


@pytest.mark.parametrize("python", ["exit 1", "exec sleep 60"], ids=["broken", "slow"])
def test_without_an_answer_nothing_is_promised(machine: Machine, python: str) -> None:
    machine.program("python3", python)
    text = machine.helper.read_text()
    machine.helper.write_text(text.replace("CHECK_SECONDS = 15", "CHECK_SECONDS = 0.3"))
    assert at_a_terminal(machine) == (
        "kspliced: looking at linux 6.1.192-2.ks1 in the background; see kspliced status\r\n"
    )


def test_in_a_container_nothing_happens(machine: Machine) -> None:
    (machine.root / "run/systemd/container").write_text("lxc")
    assert at_a_terminal(machine) == "" and machine.requests() == []


@pytest.mark.parametrize("flavour", ["+debug", "+rt"])
def test_another_flavour_is_none_of_ours(machine: Machine, flavour: str) -> None:
    machine.tell("installed", f"{NEW}{flavour}=6.1.192-2.ks1")
    assert machine.requests() == []
    machine.runs(OLD + flavour)
    machine.tell("installed", f"{NEW}=1", f"{NEW}{flavour}=2")
    assert machine.requests() == [(Package(f"kernel-{NEW}{flavour}", "", "2"),)]


@pytest.mark.parametrize(
    ("name", "runs"),
    [("kernel-core", ""), ("kernel-debug-core", "+debug"), ("kernel-rt-debug-core", "+rt-debug")],
)
def test_dnf5_tells_packages(machine: Machine, name: str, runs: str) -> None:
    """The command of the actions file, with dnf 5's variables as it would replace them."""
    machine.runs(OLD + runs)
    lines = (DNF / "kspliced.actions").read_text().splitlines()
    line = next(line for line in lines if line.startswith("post_transaction:kernel*-core:in:"))
    for told in (name, "kernel-debug-modules-core", "kernel-modules-core", "kernel-64k-core"):
        command = line.split(":", 4)[4]
        for key, value in (
            ("name", told),
            ("version", "6.1.192"),
            ("release", "2.ks1"),
            ("arch", "x86_64"),
        ):
            command = command.replace(f"${{pkg.{key}}}", value)
        program, *words = command.split(" ")
        assert program == "/usr/lib/kspliced/kernel-request"
        machine.tell(*words)
    assert machine.requests() == [(Package(f"kernel-{NEW}{runs}", "", "6.1.192-2.ks1"),)]


def test_without_systemd_nothing_runs_here(machine: Machine) -> None:
    (machine.root / "run/systemd/system").rmdir()
    machine.tell("installed", f"{NEW}=1")
    assert machine.requests() == []


def test_a_queue_that_cannot_be_written_is_said(machine: Machine) -> None:
    (machine.root / "var/lib").mkdir(parents=True)
    (machine.root / "var/lib/kspliced").write_text("a file\n")
    line = machine.tell("installed", f"{NEW}=1")
    assert line.startswith("kspliced: this kernel upgrade will not go live by itself: ")
    assert "will not go live" in machine.noted("journal")


def test_a_disk_that_hangs_delays_nobody(machine: Machine, tmp_path: Path) -> None:
    """A queue behind a FIFO that nobody reads: opening it to be synchronised waits for ever."""
    (machine.root / "var/lib/kspliced").mkdir(parents=True)
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(
        "import os, time\nos.fsync = lambda fd: time.sleep(90)\n"
    )
    script = f"import sys; sys.path.insert(0, {str(slow)!r}); import sitecustomize, runpy; "
    script += f"sys.argv = ['x', '--root', {str(machine.root)!r}, 'installed', '{NEW}=1']; "
    script += f"runpy.run_path({str(HELPER)!r}, run_name='__main__')"
    begin = time.monotonic()
    done = subprocess.run(["python3", "-c", script], stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert time.monotonic() - begin < PROMISED
    assert machine.requests() == []


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=40)
    )
)
def test_hostile_words(machine: Machine, words: list[str]) -> None:
    machine.tell("installed", *words)
    for packages in machine.requests():
        assert all(package.name.startswith("kernel-") for package in packages)


@dataclass(frozen=True)
class Repository:
    """A directory of packages with its metadata."""

    folder: Path

    def add(self, name: str, release: str, *lines: str) -> None:
        spec = self.folder / f"{name}.spec"
        head = f"Name: {name}\nVersion: 6.1.192\nRelease: {release}\nSummary: s\nLicense: GPL\n"
        body = "BuildArch: noarch\n" + "".join(f"{line}\n" for line in lines if ":" in line)
        spec.write_text(
            head
            + body
            + "%description\nd\n%files\n"
            + "".join(f"{line}\n" for line in lines if ":" not in line)
        )
        define = ("--define", f"_topdir {self.folder}", "--define", f"_rpmdir {self.folder}")
        run("rpmbuild", "-bb", "--quiet", *define, str(spec))
        run("createrepo_c", "--quiet", str(self.folder))


def run(*command: str, status: int = 0) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


@dataclass(frozen=True)
class World:
    """A root that dnf manages, with our plugin loaded."""

    machine: Machine
    repository: Repository
    plugins: Path

    def dnf(self, *words: str, status: int = 0) -> str:
        """Run dnf on the root; it must exit with ``status``."""
        root, repo = self.machine.root, self.repository.folder
        options = (
            "-y",
            f"--installroot={root}",
            "--releasever=1",
            "--nogpgcheck",
            f"--repofrompath=ours,file://{repo}",
            "--repoid=ours",
            "--refresh",
            "--setopt=cachedir=/cache",
            "--setopt=reposdir=/nowhere",
            f"--setopt=pluginpath={self.plugins}",
            "--setopt=installonlypkgs=installonlypkg(kernel)",
            "--setopt=protect_running_kernel=False",
        )
        return run("dnf", *options, *words, status=status)

    def releases(self) -> list[str]:
        """The installed kernels."""
        found = run("rpm", f"--root={self.machine.root}", "-q", "kernel-core", "--qf", "%{R}\n")
        return sorted(found.split())

    def kernel(self, release: str, *lines: str, name: str = "kernel-core", plus: str = "") -> None:
        uname = f"6.1.192-{release}.x86_64{plus}"
        provides = (f"Provides: kernel-uname-r = {uname}", "Provides: installonlypkg(kernel)")
        self.repository.add(name, release, *provides, *lines)


@pytest.fixture
def world(machine: Machine, tmp_path: Path) -> Iterator[World]:
    for tool in ("dnf", "rpmbuild", "createrepo_c"):
        assert shutil.which(tool), f"{tool} is missing: run tests/setup.sh"
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    text = (DNF / "kspliced.py").read_text()
    assert text.count("/usr/lib/kspliced/kernel-request") == 1
    # dnf unloads a plugin whose file its transaction removes.
    text = text.replace("/usr/lib/kspliced/kernel-request", str(machine.helper))
    (plugins / "kspliced.py").write_text(text)
    repository = Repository(tmp_path / "repository")
    repository.folder.mkdir()
    found = World(machine, repository, plugins)
    found.kernel("1.ks1")
    found.dnf("install", "kernel-core")
    for file in machine.paths.queue.iterdir():
        file.unlink()
    yield found


def test_an_update_is_an_installation(world: World) -> None:
    world.kernel("2.ks1")
    world.dnf("update")
    assert world.machine.requests() == [(KERNEL,)]
    assert world.releases() == ["1.ks1", "2.ks1"]


def test_what_is_no_kernel_is_not_told(world: World) -> None:
    world.repository.add("kernel-tools", "1")
    world.dnf("install", "kernel-tools")
    assert world.machine.requests() == []


def test_two_flavours_at_once(world: World) -> None:
    world.kernel("2.ks1")
    world.kernel("2.ks1", name="kernel-debug-core", plus="+debug")
    world.dnf("install", "kernel-core-6.1.192-2.ks1", "kernel-debug-core")
    assert world.machine.requests() == [(KERNEL,)]


def test_a_kernel_that_is_erased(world: World) -> None:
    world.dnf("remove", "kernel-core")
    assert world.machine.requests() == [(Package(f"kernel-{OLD}", "", ""),)]


def test_a_downgrade_is_a_kernel_that_came(world: World) -> None:
    """Whether it is newer than the running one is the engine's to find out."""
    world.kernel("0.ks1")
    world.dnf("downgrade", "kernel-core-6.1.192-0.ks1")
    assert world.releases() == ["0.ks1", "1.ks1"], "kernels are installed beside one another"
    older = OLD.replace("-1.ks1", "-0.ks1")
    assert world.machine.requests() == [(Package(f"kernel-{older}", "", "6.1.192-0.ks1"),)]


def test_a_transaction_that_fails_half_way(world: World) -> None:
    """A scriptlet of another package fails: the kernel came, and is told."""
    world.kernel("2.ks1")
    world.repository.add("breaks", "1", "%pre -p <lua>", 'error("it cannot be")')
    said = world.dnf("install", "kernel-core-6.1.192-2.ks1", "breaks", status=1)
    assert "it cannot be" in said and "Traceback" not in said
    assert world.releases() == ["1.ks1", "2.ks1"]
    assert world.machine.requests() == [(KERNEL,)]


def test_without_a_command_line(world: World, tmp_path: Path) -> None:
    """dnf's own interface for programs: the plugin has no ``cli``."""
    world.kernel("2.ks1")
    script = f"""
import dnf
base = dnf.Base()
conf = base.conf
conf.installroot, conf.cachedir = {str(world.machine.root)!r}, {str(tmp_path / "cache")!r}
conf.substitutions["releasever"] = "1"
conf.pluginpath, conf.gpgcheck = [{str(world.plugins)!r}], False
conf.installonlypkgs, conf.protect_running_kernel = ["installonlypkg(kernel)"], False
base.init_plugins()
base.pre_configure_plugins()
base.configure_plugins()
base.repos.add_new_repo("ours", conf, baseurl=["file://{world.repository.folder}"])
base.fill_sack()
base.install("kernel-core-6.1.192-2.ks1")
base.resolve()
base.download_packages(base.transaction.install_set)
base.do_transaction()
"""
    run("/usr/bin/python3", "-c", script)
    assert world.machine.requests() == [(KERNEL,)]


def test_a_helper_that_went_with_the_transaction(world: World) -> None:
    plugin = world.plugins / "kspliced.py"
    helper = str(world.machine.helper)
    plugin.write_text(plugin.read_text().replace(helper, "/nowhere/kernel-request"))
    world.kernel("2.ks1")
    said = world.dnf("update")
    assert "Complete!" in said and "Traceback" not in said


@pytest.mark.parametrize("word", ["add", "remove"])
def test_kernel_install(tmp_path: Path, word: str) -> None:
    """A script of kernel-install(8) that succeeds also where the helper is not there."""
    run(str(DNF / "95-kspliced.install"), word, NEW, str(tmp_path), str(tmp_path / "vmlinuz"))
