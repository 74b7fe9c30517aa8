# SPDX-License-Identifier: GPL-2.0-or-later
"""The smallest guest: a stock kernel, busybox and a few files, all in memory.

    with Initramfs("name", kernel, {"victim.ko": path}) as machine:
        machine.run("insmod /victim.ko")

It boots in some seconds and has no disk, so it serves to test what only needs a kernel. Scripts
travel over the second serial port, one at a time; the console goes to build/vm/NAME/console.log.
"""

from __future__ import annotations

import base64
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.vm import autopsy, cache
from tests.vm.errors import GuestLost, GuestTimeout, HarnessError

BUILD = Path(__file__).parents[2] / "build" / "vm"
BOOT_TIMEOUT = 120.0
# Emulated, a kernel sometimes dies while it rewrites its own code before it has run anything else
# (int3 in sched_clock_cpu(), where a jump label had just been switched: PARALLEL says why).
BOOTS = 3
# QEMU 7.2's cmpxchg16b takes the flags from a place that is not up to date. The kernel looks at
# the zero flag only, which is right; but an interrupt right after it saves what the others seem to
# be, and its return sets them: a pointer's bits, the trap flag or the nested task among them. A
# kernel that finds no cmpxchg16b does without.
CPU = "max,-cx16"
# What QEMU runs a guest with: processors that are threads, or that take turns in one. With threads,
# a processor may translate code again between the moment when another one, which is to change it,
# drops the old translation, and the change itself: it then runs the old code for ever. So a
# breakpoint that the kernel has removed (text_poke_bp() does all the time) stays for one processor.
PARALLEL, TURNS = "tcg,thread=multi", "tcg,thread=single"
READY = b"ready\n"

# Each script comes as one line of base64 and is answered by its exit code, the size of its output
# and the output.
INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /tmp
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tracefs none /sys/kernel/tracing
echo 0 > /proc/sys/kernel/kptr_restrict
exec < /dev/ttyS1 > /dev/ttyS1
stty raw -echo
echo ready
while read -r line; do
    echo "$line" | base64 -d > /tmp/script
    sh /tmp/script > /tmp/out 2>&1 < /dev/null
    echo "$? $(wc -c < /tmp/out)"
    cat /tmp/out
done
"""


@dataclass(frozen=True)
class Output:
    """What a script did: its exit code, and what it wrote to stdout and stderr."""

    status: int
    text: str


def archive(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """A cpio archive (newc, as Documentation/driver-api/early-userspace says) of path: mode, data.

    Directories have to come before what they hold.
    """
    parts = bytearray()
    for number, (name, (mode, data)) in enumerate([*files.items(), ("TRAILER!!!", (0, b""))], 1):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        parts += b"070701" + b"".join(b"%08x" % field for field in fields) + path
        parts += bytes(-len(parts) % 4) + data
        parts += bytes(-len(parts) % 4)
    return bytes(parts)


def busybox() -> bytes:
    """Debian's static busybox, from the package that this machine's apt offers."""
    (deb,) = cache.debs(cache.candidate("busybox-static"))
    with tempfile.TemporaryDirectory() as folder:
        cache.command("dpkg-deb", "-x", deb, folder)
        for path in ("bin/busybox", "usr/bin/busybox"):
            if (Path(folder) / path).exists():
                return (Path(folder) / path).read_bytes()
    raise HarnessError(f"{deb} holds no busybox")


class Initramfs:
    """A guest ``name`` that boots ``kernel`` with ``files`` (name in / to host path).

    :param arguments: further words of QEMU's command line.
    :param accel: what QEMU runs it with.
    :param cpu: the model of the processors.
    """

    def __init__(
        self,
        name: str,
        kernel: Path,
        files: Mapping[str, Path],
        cpus: int = 2,
        arguments: Sequence[str] = (),
        accel: str = PARALLEL,
        cpu: str = CPU,
    ) -> None:
        self.name = name
        self.kernel = kernel
        self.files = files
        self.cpus = cpus
        self.arguments = tuple(arguments)
        self.accel = accel
        self.cpu = cpu
        self.console_path = BUILD / name / "console.log"
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._port: socket.socket | None = None
        self._rest = bytearray()

    def __enter__(self) -> Initramfs:
        self.console_path.parent.mkdir(parents=True, exist_ok=True)
        for boot in range(1, BOOTS + 1):
            try:
                self._boot()
                break
            except GuestLost:
                if boot == BOOTS:
                    raise
                if self.console_path.exists():
                    self.console_path.rename(self.console_path.with_suffix(f".{boot}.log"))
        return self

    def _boot(self) -> None:
        self.console_path.unlink(missing_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix="ks-")
        try:
            self._start(Path(self._folder.name))
        except BaseException:
            self._stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _start(self, folder: Path) -> None:
        contents = {"bin": (0o040755, b""), "bin/busybox": (0o100755, busybox())}
        contents["init"] = (0o100755, INIT.encode())
        contents |= {name: (0o100755, path.read_bytes()) for name, path in self.files.items()}
        (folder / "initrd").write_bytes(archive(contents))
        line = [
            "qemu-system-x86_64", "-machine", "q35", "-accel", self.accel,
            "-smp", str(self.cpus), "-cpu", self.cpu, "-m", "512M",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", str(self.kernel), "-initrd", f"{folder}/initrd",
            # The emulated processor passes for an old AMD, whose idle state stops the timers: once
            # the kernel then waited for an interrupt that did not come.
            "-append",
            f"console=ttyS0 panic=-1 oops=panic loglevel=8 idle=halt {autopsy.KERNEL_WORDS}",
            "-qmp", f"unix:{folder}/monitor,server=on,wait=off",
            "-serial", f"file:{self.console_path}",
            "-chardev", f"socket,id=port,path={folder}/port,server=on,wait=off",
            "-serial", "chardev:port", *self.arguments,
        ]  # fmt: skip
        self._process = subprocess.Popen(line, stdin=subprocess.DEVNULL)
        self._port = self._connect(folder / "port")
        deadline = time.monotonic() + BOOT_TIMEOUT
        while not self._rest.endswith(READY):
            self._receive(deadline)
        self._rest.clear()

    def _connect(self, path: Path) -> socket.socket:
        deadline = time.monotonic() + 20.0
        while True:
            port = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                port.connect(str(path))
                return port
            except OSError as error:
                port.close()
                if time.monotonic() > deadline:
                    raise GuestLost(f"QEMU's socket {path} cannot be reached: {error}") from error
                time.sleep(0.05)

    def _stop(self) -> None:
        if self._port is not None:
            self._port.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._folder is not None:
            self._folder.cleanup()

    def _receive(self, deadline: float) -> None:
        assert self._port is not None, "the machine is used outside its `with` block"
        self._port.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            data = self._port.recv(1 << 16)
        except TimeoutError as error:
            raise GuestTimeout(
                f"{self.name}: no answer; {self._autopsy()}; see {self.console_path}"
            ) from error
        except OSError as error:
            raise GuestLost(f"{self.name}: {error}; see {self.console_path}") from error
        if not data:
            raise GuestLost(f"{self.name}: the kernel has died; see {self.console_path}")
        self._rest += data

    def _autopsy(self) -> str:
        """Where the processors are; the guest is lost after it."""
        assert self._process is not None and self._folder is not None
        return autopsy.performed(
            Path(self._folder.name) / "monitor", self._process, self.console_path
        )

    def run(self, script: str, timeout: float = 60.0) -> Output:
        """Run a shell script and wait for it.

        GuestTimeout where no answer comes in ``timeout`` seconds: the guest is lost then, and every
        further script meets GuestLost.
        """
        assert self._port is not None, "the machine is used outside its `with` block"
        self._port.settimeout(timeout)
        try:
            self._port.sendall(base64.b64encode(script.encode()) + b"\n")
        except OSError as error:
            raise GuestLost(f"{self.name}: {error}; see {self.console_path}") from error
        deadline = time.monotonic() + timeout
        while b"\n" not in self._rest:
            self._receive(deadline)
        head, _, rest = bytes(self._rest).partition(b"\n")
        self._rest = bytearray(rest)
        status, size = (int(word) for word in head.split())
        while len(self._rest) < size:
            self._receive(deadline)
        text = self._rest[:size].decode(errors="replace")
        del self._rest[:size]
        return Output(status, text)

    def check(self, script: str, timeout: float = 60.0) -> str:
        """Run a shell script that has to succeed; returns its output."""
        output = self.run(script, timeout)
        assert output.status == 0, f"{script}: exited {output.status}: {output.text}"
        return output.text
