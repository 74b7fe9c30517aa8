# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest: a Debian machine under QEMU that runs commands, and can be power-cut.

    with Guest("name", image.base()) as guest:
        guest.run("uname -r").stdout
        guest.reset()              # power cut: what was not on the disk is lost

A guest writes to an overlay of its own, so the base image never changes and several guests can
run at once. Its console goes to build/vm/NAME/console.log, which is kept.
"""

from __future__ import annotations

import base64
import itertools
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tests.vm.cache import command
from tests.vm.channel import Lines, Qmp
from tests.vm.errors import GuestLost, GuestTimeout, HarnessError
from tests.vm.image import Boot, Image

T = TypeVar("T")

BUILD = Path(__file__).parents[2] / "build" / "vm"
PIECE = 48 << 10  # bytes of a file that travel in one message
BOOT_TIMEOUT = 240.0
# Emulated, a kernel sometimes dies while it rewrites its own code, long before it runs a program
# (initramfs.py). It is booted again where no program on its disk has run.
BOOTS = 3
PANIC = "Kernel panic - not syncing"
ROOT_MOUNTED = re.compile(r"EXT4-fs \(vda\): mounted")
ANSWER_SLACK = 60.0  # over a command's own timeout, before the guest counts as lost

# An emulated CPU without the wide vector units, which glibc would use and which are slow to
# emulate; SMAP and SMEP for their run-time patched sites. It counts as an AMD one, so the kernel
# needs no page-table isolation, whose TLB flushes would cost most, and it does use retpolines.
FULL_CPU = "qemu64,-svm,+ssse3,+sse4.1,+sse4.2,+popcnt,+fsgsbase,+smep,+smap"
# Its cmpxchg16b may set the trap flag after an interrupt (initramfs.py).
CPU = f"{FULL_CPU},-cx16"

# With an old AMD's own idle state, which stops the timers, a kernel may wait for ever.
KERNEL_LINE = "root=/dev/vda rw console=ttyS0 net.ifnames=0 systemd.show_status=false idle=halt"

FAULT = re.compile(
    r"\b(?:BUG:|kernel BUG|WARNING:|Oops:|Call Trace:|general protection|Kernel panic"
    r"|INFO: task .* blocked|rcu: INFO:|soft lockup|EXT4-fs error)"
)


@dataclass(frozen=True)
class Result:
    """What a command did: ``status`` is its exit code, negative for a signal, None if it lives on.

    ``stdout`` and ``stderr`` are the last MiB of each at most; ``seconds`` is its wall time.
    """

    command: str
    status: int | None
    stdout: str
    stderr: str
    seconds: float
    timed_out: bool

    @property
    def ok(self) -> bool:
        """Whether it exited 0 in its time."""
        return self.status == 0 and not self.timed_out


class CommandFailed(AssertionError):
    """A command in the guest that had to succeed did not."""

    def __init__(self, result: Result) -> None:
        how = "timed out" if result.timed_out else f"exited {result.status}"
        said = "\n".join((result.stdout + result.stderr).splitlines()[-60:])
        super().__init__(f"in the guest: {result.command}: {how}\n{said}")
        self.result = result


class Guest:
    """A guest named ``name`` (a directory name), of ``image``, with read-only extra ``disks``."""

    def __init__(
        self,
        name: str,
        image: Image,
        disks: tuple[Path, ...] = (),
        memory: str = "4G",
        cpu: str = CPU,
    ) -> None:
        self.name, self.cpu = name, cpu
        self.image = image
        self.disks = disks
        self.memory = memory
        self.folder = BUILD / name
        self.console_path = self.folder / "console.log"
        self.boot = image.boot
        self.boot_seconds = 0.0
        self._ids = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._run_folder: Path | None = None
        self._qmp: Qmp | None = None
        self._agent: Lines | None = None

    def __enter__(self) -> Guest:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        # Sockets have short names at most, and the tree may lie deep.
        self._run_folder = Path(tempfile.mkdtemp(prefix=f"ks-{self.name[:20]}-"))
        command(
            "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw",
            "-b", self.image.disk, self._run_folder / "disk.qcow2",
        )  # fmt: skip
        try:
            self.start()
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clean()

    # -- power --------------------------------------------------------------------------------

    def start(self, boot: Boot | None = None) -> None:
        """Switch on and wait until the system is up, with kernel ``boot`` (default: as before)."""
        self.boot = boot or self.boot
        self._until_up(self._switch_on)

    def _until_up(self, begin: Callable[[], None]) -> None:
        """Begin a boot and wait for its end; once more where it dies before it has a disk."""
        for left in reversed(range(BOOTS)):
            before = len(self.console())
            begin()
            try:
                return self._wait_boot(before)
            except (GuestLost, GuestTimeout):
                if not left or ROOT_MOUNTED.search(self.console()[before:]):
                    raise
                self._switch_off()
                begin = self._switch_on

    def _switch_on(self) -> None:
        folder = self._runtime()
        for stale in ("qmp", "agent"):
            (folder / stale).unlink(missing_ok=True)
        with (self.folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command_line(folder), stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        self._qmp = Qmp(folder / "qmp")
        self._agent = Lines(folder / "agent", 20.0)

    def stop(self) -> None:
        """Shut down in good order and switch off."""
        self._ask({"verb": "run", "argv": ["systemctl", "--no-block", "poweroff"]}, 60.0)
        assert self._process is not None
        try:
            self._process.wait(180.0)
        except subprocess.TimeoutExpired as error:
            raise GuestLost(f"{self.name}: does not shut down") from error
        self._switch_off()

    def cut(self) -> None:
        """Take the power away: whatever the guest had not written to its disk is lost."""
        self._switch_off()

    def reset(self) -> None:
        """Power cut and boot again, with the same kernel."""
        assert self._qmp is not None
        qmp = self._qmp
        self._until_up(lambda: qmp.execute("system_reset"))

    def save_disk(self, target: Path) -> None:
        """Write the disk of a guest that is switched off to ``target``, for an image of its own."""
        overlay = self._runtime() / "disk.qcow2"
        command("qemu-img", "convert", "-q", "-O", "raw", overlay, target)

    def boot_files(self, release: str) -> Boot:
        """Read an installed kernel and its initramfs out of the running guest."""
        folder = self._runtime()
        paths = []
        for kind in ("vmlinuz", "initrd.img"):
            paths.append(folder / f"{kind}-{release}")
            self.get(f"/boot/{kind}-{release}", paths[-1])
        return Boot(release, paths[0], paths[1])

    def _command_line(self, folder: Path) -> list[str]:
        drives = [f"file={folder}/disk.qcow2,format=qcow2,if=virtio,cache=unsafe,discard=unmap"]
        drives += [f"file={disk},format=raw,if=virtio,readonly=on" for disk in self.disks]
        line = [
            sys.executable, "-IS", str(Path(__file__).with_name("keeper.py")),
            "qemu-system-x86_64", "-name", self.name,
            "-nodefaults", "-no-user-config", "-display", "none",
            "-machine", "q35,vmport=off,sata=off", "-accel", "tcg,thread=multi,tb-size=1024",
            "-cpu", self.cpu, "-smp", "2", "-m", self.memory,
            "-kernel", str(self.boot.kernel), "-initrd", str(self.boot.initrd),
            "-append", KERNEL_LINE,
            "-chardev", f"file,id=console,path={self.console_path},append=on",
            "-serial", "chardev:console",
            "-chardev", f"socket,id=qmp,path={folder}/qmp,server=on,wait=off",
            "-mon", "chardev=qmp,mode=control",
            "-device", "virtio-serial",
            "-chardev", f"socket,id=agent,path={folder}/agent,server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=org.kspliced.harness",
            "-device", "virtio-rng-pci",
            "-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net",
        ]  # fmt: skip
        for drive in drives:
            line += ["-drive", drive]
        return line

    def _wait_boot(self, before: int) -> None:
        def answers() -> bool:
            if PANIC in self.console()[before:]:
                raise GuestLost(f"{self.name}: the kernel has died; {self._log()}")
            return self._hello()

        started = time.monotonic()
        self.wait_for(answers, BOOT_TIMEOUT, "the agent to answer")
        # A failed unit makes this exit 1; which units must not fail is for the test to say.
        self.run("systemctl is-system-running --wait", timeout=BOOT_TIMEOUT, check=False)
        self.boot_seconds = time.monotonic() - started
        running = self.run("uname -r").stdout.strip()
        if running != self.boot.release:
            raise HarnessError(f"{self.name}: booted {running}, not {self.boot.release}")

    def _switch_off(self) -> None:
        for connection in (self._qmp, self._agent):
            if connection is not None:
                connection.close()
        self._qmp = self._agent = None
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()  # the keeper kills QEMU
            self._process.wait()
            self._process = None

    def _clean(self) -> None:
        self._switch_off()
        if self._run_folder is not None:
            shutil.rmtree(self._run_folder)
            self._run_folder = None

    def _runtime(self) -> Path:
        assert self._run_folder is not None, "the guest is used outside its `with` block"
        return self._run_folder

    # -- commands -----------------------------------------------------------------------------

    def run(
        self,
        script: str,
        *,
        timeout: float = 60.0,
        check: bool = True,
        user: str = "",
        stdin: str = "",
    ) -> Result:
        """Run a shell script as root, or as ``user``; CommandFailed if ``check`` and it fails.

        After ``timeout`` seconds it is killed, with all of its session; where that is not possible
        (it hangs in the kernel) it is left there and ``status`` is None.
        """
        argv = ["bash", "-c", script]
        if user:
            argv = ["runuser", "-u", user, "--", *argv]
        reply = self._ask(
            {"verb": "run", "argv": argv, "stdin": base64.b64encode(stdin.encode()).decode()},
            timeout,
        )
        out, err = (
            base64.b64decode(reply[key]).decode(errors="replace") for key in ("stdout", "stderr")
        )
        result = Result(script, reply["status"], out, err, reply["seconds"], reply["timed_out"])
        if check and not result.ok:
            raise CommandFailed(result)
        return result

    def background(self, unit: str, script: str) -> None:
        """Start a script as the transient service ``unit``; `systemctl stop unit` ends it."""
        self.run(f"systemd-run --quiet --collect --unit={unit} bash -c {shlex.quote(script)}")

    def put(self, source: Path | bytes, target: str) -> None:
        """Write a host file, or bytes, to the path ``target`` in the guest."""
        data = source if isinstance(source, bytes) else source.read_bytes()
        for offset in range(0, max(1, len(data)), PIECE):
            piece = base64.b64encode(data[offset : offset + PIECE]).decode()
            self._ask({"verb": "put", "path": target, "offset": offset, "data": piece}, 60.0)

    def get(self, source: str, target: Path) -> None:
        """Copy the file ``source`` of the guest to ``target`` on the host."""
        with target.open("wb") as handle:
            while True:
                request = {"verb": "get", "path": source, "offset": handle.tell(), "limit": PIECE}
                piece = base64.b64decode(self._ask(request, 60.0)["data"])
                if not piece:
                    return
                handle.write(piece)

    def wait_for(
        self, condition: Callable[[], T | None], timeout: float, what: str, poll: float = 0.5
    ) -> T:
        """Call ``condition`` until it gives something true, and return that.

        Raises GuestTimeout after ``timeout`` seconds, GuestLost when QEMU itself has ended.
        """
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            if self._process is None or self._process.poll() is not None:
                raise GuestLost(f"{self.name}: QEMU ended while waiting for {what}; {self._log()}")
            if time.monotonic() > deadline:
                raise GuestTimeout(f"{self.name}: waited {timeout:.0f} s for {what}; {self._log()}")
            time.sleep(poll)

    def _hello(self) -> bool:
        # With fresh ids: before the agent runs, what is sent may be lost. With deadlines that are
        # not too short: what is neither lost nor read stays in a socket that holds 70 of them.
        try:
            self._ask({"verb": "hello"}, 1.0, slack=4.0)
        except GuestTimeout:
            return False
        return True

    def _ask(
        self, request: dict[str, Any], timeout: float, slack: float = ANSWER_SLACK
    ) -> dict[str, Any]:
        if self._agent is None:
            raise GuestLost(f"{self.name}: is switched off")
        number = next(self._ids)
        self._agent.send(
            {"stdin": "", "limit": 1 << 20, **request, "id": number, "timeout": timeout}
        )
        deadline = time.monotonic() + timeout + slack
        while (reply := self._agent.receive(deadline)) is not None:
            if reply.get("id") != number:
                continue  # of before a reset
            if "error" in reply:
                raise HarnessError(f"{self.name}: {request['verb']}: {reply['error']}")
            return reply
        kind = GuestTimeout if request["verb"] == "hello" else GuestLost
        raise kind(f"{self.name}: no answer from the guest; {self._log()}")

    # -- console ------------------------------------------------------------------------------

    def _log(self) -> str:
        return f"the console is in {self.console_path}"

    def console(self) -> str:
        """All that the console has printed since the guest was first switched on."""
        return self.console_path.read_text(errors="replace") if self.console_path.exists() else ""

    def faults(self, since: int = 0) -> tuple[str, ...]:
        """Lines of the console from character ``since`` on in which the kernel complains."""
        return tuple(line for line in self.console()[since:].splitlines() if FAULT.search(line))
