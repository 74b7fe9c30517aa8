# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel core's interface in /sys/kernel/kspliced (docs/kernel-core.md)."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

from kspliced.errors import Code, KernelError
from kspliced.kernel.load import delete_module, init_module
from kspliced.lines import split_lines
from kspliced.model import CORE_ABI, Hold

CORE_PATH = Path("/sys/kernel/kspliced")

_NAME = re.compile(r"[A-Za-z0-9_]{1,55}")
_STACK = re.compile(r"(\d+ [^\t]*)\t(.*)")
_CONFLICT = re.compile(r"(\d+) ([^\t]*)\t([^\t]+)\+0x([0-9a-f]+)\t(reliable|scan)")
_CRC = re.compile(r"(\w+) 0x([0-9a-fA-F]{1,8})")
_MISMATCH = re.compile(r"([^\t]+)\t([^\t]+)\t(\w+)\t([0-9a-fA-F]*)\t([0-9a-fA-F]*)")
_PROBE = re.compile(r"([^\t]+)\t([^\t]+)\t(\d+)")
_HELD = re.compile(r"([^\t]+)\t(optional|required)\t0x([0-9a-f]+)\t(\d+)\t0x([0-9a-f]+)\t(\d+)")
_REDIRECTED = re.compile(r"([^\t]+)\t([^\t]+)")
_CAUSES = {
    "no_match": "the running code is not what was matched",
    "code_busy": "threads are inside code that would change",
    "out_of_memory": "the kernel is out of memory",
    "target_gone": "a module that would be patched is not loaded any more",
    "arrived": "a module that it cannot go without came meanwhile, with its old code",
    "already": "the update is in that stage already",
    "unexpected": "the kernel refused; its log says why",
}


@dataclass(frozen=True)
class SymbolCrc:
    """A MODVERSIONS checksum of a symbol of the core."""

    name: str
    crc: int


@dataclass(frozen=True)
class Conflict:
    """A thread with an address of old code on its stack.

    ``comm`` is escaped as the core gives it; ``reliable`` is False when the address was found by
    scanning the stack's words. ``stack``: function+0xoffset, innermost first.
    """

    pid: int
    comm: str
    function: str
    offset: int
    reliable: bool
    stack: tuple[str, ...] = ()

    def line(self) -> str:
        """One line for everybody: who is where. A thread's name and id are public in procfs."""
        sure = "" if self.reliable else " (found by scanning its stack)"
        return f"{self.comm}[{self.pid}] in {self.function}+{self.offset:#x}{sure}"

    def lines(self) -> tuple[str, ...]:
        """For root: the line, and one for the stack, which procfs shows to root only."""
        who = self.line()
        return (who, f"  stack: {' < '.join(self.stack)}") if self.stack else (who,)


@dataclass(frozen=True)
class SpanMismatch:
    """A span that the core found changed between matching and the switch."""

    target: str
    function: str
    offset: int
    expected: bytes
    found: bytes

    def public_line(self) -> str:
        """One line for everybody."""
        return f"{self.target}: {self.function}+{self.offset:#x} is not what was matched"

    def line(self) -> str:
        """One line for root, with the bytes."""
        return (
            f"{self.target}: {self.function}+{self.offset:#x}: "
            f"expected {self.expected.hex()}, found {self.found.hex()}"
        )


@dataclass(frozen=True)
class Probe:
    """A kprobe in the way of the last attempt."""

    target: str
    function: str
    offset: int

    def line(self) -> str:
        """One line for people."""
        return f"{self.target}: a kprobe at {self.function}+{self.offset:#x}"


@dataclass(frozen=True)
class Table:
    """A special section of a module: where it is, and its size in bytes."""

    section: str
    address: int
    size: int


@dataclass(frozen=True)
class Held:
    """A module whose load the core holds: it is in place, and none of its code has run."""

    module: str
    required: bool
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Part:
    """What an update is about: a function that is ``replaced``, code only compared, or data."""

    target: str
    name: str
    replaced: bool


@dataclass(frozen=True)
class Redirected:
    """A function that something else redirects at its entry, so that its replacement is not run."""

    target: str
    function: str

    def line(self) -> str:
        """One line for people."""
        return f"{self.target}: {self.function}"


class Core:
    """The core as this process sees it; ``path`` is its sysfs directory."""

    def __init__(self, path: Path = CORE_PATH) -> None:
        self._path = path

    @property
    def present(self) -> bool:
        """Whether the core is loaded."""
        return (self._path / "abi").exists()

    def check_abi(self) -> None:
        """Make sure that the core is there and speaks our ABI.

        :raises KernelError: CORE_NOT_LOADED, CORE_ABI.
        """
        if not self.present:
            raise KernelError(
                Code.CORE_NOT_LOADED,
                "the kernel core is not loaded",
                "run 'modprobe kspliced'; the package kspliced-dkms builds it for this kernel",
            )
        abi = self._read("abi").strip()
        if abi != str(CORE_ABI):
            raise KernelError(
                Code.CORE_ABI,
                f"the kernel core has ABI {abi[:20]!r}, this kspliced needs {CORE_ABI}",
                "install kspliced and kspliced-dkms of one version and reboot; where no update was "
                "applied since the boot, 'modprobe -r kspliced && modprobe kspliced' will do",
            )

    def version(self) -> str:
        """The core's version."""
        return self._read("version").strip()

    def crcs(self) -> tuple[SymbolCrc, ...]:
        """Checksums for the update module's ``__versions``; none without MODVERSIONS."""
        found = []
        for line in split_lines(self._read("register_crc")):
            match = _CRC.fullmatch(line)
            if match is None:
                raise self._malformed("register_crc", line)
            found.append(SymbolCrc(match[1], int(match[2], 16)))
        return tuple(found)

    def updates(self) -> tuple[str, ...]:
        """Names of the updates that are loaded."""
        try:
            return tuple(sorted(p.name for p in (self._path / "updates").iterdir() if p.is_dir()))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._failed("updates", error) from error

    def stage(self, update: str) -> str:
        """``preparing``, ``applied`` or ``reversed``."""
        return self._read(f"updates/{_checked(update)}/stage").strip()

    def abort_cause(self, update: str) -> str:
        """Why the last attempt changed nothing, or ``ok``."""
        return self._read(f"updates/{_checked(update)}/abort_cause").strip()

    def pause_ns(self, update: str) -> int:
        """How long the last successful switch held all CPUs, in ns."""
        text = self._read(f"updates/{_checked(update)}/pause_ns").strip()
        if not text.isdecimal():
            raise self._malformed("pause_ns", text)
        return int(text)

    def conflicts(self, update: str) -> tuple[Conflict, ...]:
        """Who was in the way of the last attempt."""
        stacks = self._stacks(update)
        found = []
        for line in split_lines(self._read(f"updates/{_checked(update)}/conflicts")):
            match = _CONFLICT.fullmatch(line)
            if match is None:
                raise self._malformed("conflicts", line)
            offset, stack = int(match[4], 16), stacks.get(f"{match[1]} {match[2]}", ())
            found.append(
                Conflict(int(match[1]), match[2], match[3], offset, match[5] != "scan", stack)
            )
        return tuple(found)

    def _stacks(self, update: str) -> dict[str, tuple[str, ...]]:
        """The stack of each conflict, by the thread's id and name."""
        found = {}
        for line in split_lines(self._read(f"updates/{_checked(update)}/stacks")):
            match = _STACK.fullmatch(line)
            if match is None:
                raise self._malformed("stacks", line)
            found[match[1]] = tuple(match[2].split())
        return found

    def mismatches(self, update: str) -> tuple[SpanMismatch, ...]:
        """What differed in the last attempt that ended with no_match."""
        found = []
        for line in split_lines(self._read(f"updates/{_checked(update)}/mismatch")):
            match = _MISMATCH.fullmatch(line)
            try:
                if match is None:
                    raise ValueError
                expected, now = bytes.fromhex(match[4]), bytes.fromhex(match[5])
                found.append(SpanMismatch(match[1], match[2], int(match[3], 0), expected, now))
            except ValueError as error:
                raise self._malformed("mismatch", line) from error
        return tuple(found)

    def probes(self, update: str) -> tuple[Probe, ...]:
        """The kprobes in the way of the last attempt."""
        found = []
        for line in split_lines(self._read(f"updates/{_checked(update)}/probes")):
            match = _PROBE.fullmatch(line)
            if match is None:
                raise self._malformed("probes", line)
            found.append(Probe(match[1], match[2], int(match[3])))
        return tuple(found)

    def redirected(self, update: str) -> tuple[Redirected, ...]:
        """Functions of an update that a live patch, or the like, redirects now."""
        found = []
        for line in split_lines(self._read(f"updates/{_checked(update)}/redirected")):
            match = _REDIRECTED.fullmatch(line)
            if match is None:
                raise self._malformed("redirected", line)
            found.append(Redirected(match[1], match[2]))
        return tuple(found)

    def lost(self, update: str) -> bool:
        """Whether a module went for which an applied update has a part: that part is void."""
        name = f"updates/{_checked(update)}/lost"
        return self._has(name) and bool(self._read(name))

    def places(self, update: str) -> frozenset[int]:
        """The addresses of all spans and data of an update."""
        found = set()
        for name in ("spans", "data"):
            for line in split_lines(self._read(f"updates/{_checked(update)}/{name}")):
                address = line.partition("\t")[0]
                try:
                    found.add(int(address, 16))
                except ValueError as error:
                    raise self._malformed(name, line) from error
        return frozenset(found)

    def parts(self, update: str) -> tuple[Part, ...]:
        """The spans and data of an update, but those that went with their module."""
        found = []
        for line in split_lines(self._read(f"updates/{_checked(update)}/spans")):
            words = line.split("\t")
            if len(words) != 6:
                raise self._malformed("spans", line)
            found.append(Part(words[4], words[5], words[3] not in ("0", "0x0")))
        for line in split_lines(self._read(f"updates/{_checked(update)}/data")):
            words = line.split("\t")
            if len(words) != 4:
                raise self._malformed("data", line)
            found.append(Part(words[2], words[3], False))
        return tuple(found)

    def held(self) -> tuple[Held, ...]:
        """The modules whose loads wait."""
        found = []
        for line in split_lines(self._read("held")) if self._has("held") else ():
            match = _HELD.fullmatch(line)
            if match is None:
                raise self._malformed("held", line)
            jumps = Table("__jump_table", int(match[3], 16), int(match[4]))
            calls = Table(".static_call_sites", int(match[5], 16), int(match[6]))
            found.append(Held(match[1], match[2] == "required", (jumps, calls)))
        return tuple(found)

    def hold(self, update: str, hold: Hold, seconds: int) -> None:
        """Have the loads of a module wait, ``seconds`` at most, while ``update`` is applied.

        :raises KernelError: SWITCH_FAILED; CORE_ABI where an older core cannot do what is required.
        """
        if not self._has(f"updates/{_checked(update)}/holds"):
            if hold.required:
                raise KernelError(
                    Code.CORE_ABI,
                    f"the kernel core is too old to hold the load of {hold.module}",
                    "reboot: the core stays loaded as long as an update module does",
                )
            return
        kind = "required" if hold.required else "optional"
        self._control(update, f"hold {hold.module} {kind} {seconds}")

    def load(self, update: str, content: bytes) -> None:
        """Load a linked update module; registering changes nothing in the kernel yet.

        :raises KernelError: LOAD_FAILED.
        """
        init_module(_checked(update), content)

    def unload(self, update: str) -> None:
        """Unload an update that was never applied.

        :raises KernelError: LOAD_FAILED.
        """
        delete_module(_checked(update))

    def apply(self, update: str) -> None:
        """One attempt at the switch to ``update``; nothing happens if it is applied.

        :raises KernelError: CODE_BUSY with the conflicts as details and their stacks as
            evidence, PROBED with the kprobes, REDIRECTED with the functions, NO_MATCH with the
            functions, and the bytes that differ as evidence, SWITCH_FAILED.
        """
        self._control(update, "apply")

    def reverse(self, update: str) -> None:
        """One attempt at the switch back to the original code; errors as :meth:`apply`."""
        self._control(update, "reverse")

    def nudge(self, update: str) -> bool:
        """Ask the threads of the last conflicts to leave; whether there was one.

        :raises KernelError: SWITCH_FAILED.
        """
        return self._control(update, "nudge")

    def _control(self, update: str, word: str) -> bool:
        """Write a word; whether there was anything to do."""
        path = self._path / "updates" / _checked(update) / "control"
        try:
            file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(file, word.encode())
            finally:
                os.close(file)
        except OSError as error:
            if error.errno not in (errno.EALREADY, errno.ESRCH):
                raise self._switch_error(update, word, error) from error
            return False
        return True

    def _switch_error(self, update: str, word: str, error: OSError) -> KernelError:
        if error.errno == errno.EBUSY:
            conflicts = self.conflicts(update)
            busy = KernelError(
                Code.CODE_BUSY,
                f"cannot {word} {update} now: {_threads(len(conflicts))} inside code that would "
                "change",
                "try again later, or stop the programs named",
                tuple(c.line() for c in conflicts),
                tuple(line for c in conflicts for line in c.lines()),
            )
            busy.blamed = tuple(sorted({c.function.removesuffix(".cold") for c in conflicts}))
            return busy
        if error.errno == errno.ETXTBSY:
            return KernelError(
                Code.PROBED,
                f"cannot {word} {update} now: kprobes stand where code would change",
                "remove the probes named (perf, bpftrace, /sys/kernel/tracing/kprobe_events)",
                tuple(p.line() for p in self.probes(update)),
            )
        if error.errno == errno.EADDRINUSE:
            return KernelError(
                Code.REDIRECTED,
                f"cannot {word} {update} now: a live patch has functions that it would replace",
                "disable the live patch (/sys/kernel/livepatch/*/enabled) and apply again",
                tuple(r.line() for r in self.redirected(update)),
            )
        if error.errno == errno.EILSEQ:
            mismatches = self.mismatches(update)
            return KernelError(
                Code.NO_MATCH,
                f"cannot {word} {update}: the running code is not what was matched",
                "remove kprobes and other hot patches from the functions named",
                tuple(m.public_line() for m in mismatches),
                tuple(m.line() for m in mismatches),
            )
        if error.errno == errno.ENOENT:
            return KernelError(
                Code.SWITCH_FAILED, f"cannot {word} {update}: it is not loaded", "apply its pack"
            )
        cause = self.abort_cause(update)
        why = _CAUSES.get(cause, cause) if cause != "ok" else os.strerror(error.errno or 0)
        return KernelError(
            Code.SWITCH_FAILED, f"cannot {word} {update}: {why}", "see the kernel log (dmesg)"
        )

    def _has(self, name: str) -> bool:
        """Whether this core has a file; one from before an upgrade may be loaded still."""
        return (self._path / name).exists()

    def _read(self, name: str) -> str:
        try:
            return (self._path / name).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise self._failed(name, error) from error

    def _failed(self, name: str, error: OSError) -> KernelError:
        if not self.present:
            self.check_abi()
        return KernelError(
            Code.KERNEL_UNREADABLE,
            f"cannot read {self._path / name}: {os.strerror(error.errno or 0)}",
            "run as root; the update may have been unloaded meanwhile",
        )

    def _malformed(self, name: str, line: str) -> KernelError:
        return KernelError(
            Code.CORE_ABI,
            f"the kernel core's {name} has a malformed line",
            "install kspliced and kspliced-dkms of one version",
            evidence=(f"{name}: {line[:200]!r}",),
        )


def _threads(count: int) -> str:
    return "1 thread is" if count == 1 else f"{count} threads are"


def _checked(update: str) -> str:
    """``update`` when it can be a module's name, so that it is no path."""
    if not _NAME.fullmatch(update):
        raise KernelError(
            Code.USAGE, f"{update[:80]!r} is not the name of an update", "see 'kspliced status'"
        )
    return update
