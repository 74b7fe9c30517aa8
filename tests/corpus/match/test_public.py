# SPDX-License-Identifier: GPL-2.0-or-later
"""What errors about the running kernel show to everybody, and what only to root.

Each report comes from the code that makes it: units matched against a kernel that is not as
compiled, files of the core and of procfs. Each is followed to all that more than root can read.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from kspliced.engine import transactions
from kspliced.engine.__main__ import main
from kspliced.engine.state import load_state
from kspliced.engine.status import current_status, status_json
from kspliced.errors import KsplicedError
from kspliced.kernel.core import Core
from kspliced.kernel.kallsyms import Kallsyms
from kspliced.kernel.kcore import Kcore
from kspliced.kernel.live import LiveKernel
from kspliced.kernel.offline import OfflineKernel
from kspliced.kernel.overlay import read_originals
from kspliced.match import match
from kspliced.model import CORE_ABI
from kspliced.service.objects import error_reply
from tests.corpus.match.kit import (
    address_of,
    compiled,
    extern_import,
    linked,
    packed,
    running,
    span_of,
    unit_import,
)
from tests.unit.engine.fakes import NEWER, UPDATE, Machine

# As little of it as one that is cut short would leave.
ADDRESS = re.compile(r"ff[0-9a-f]{10}", re.IGNORECASE)
BYTES = re.compile(r"(?<![0-9a-z_+])(?!0x)[0-9a-f]{8,}(?![0-9a-z])|\\x[0-9a-f]{2}", re.IGNORECASE)
UNIT = """
#define noinline __attribute__((noinline))
int printk(const char *format, ...);
int other(int);
static int total;
static noinline int helper(int n) { total += n; return other(n); }
static noinline int log_it(int n) { printk("%d: it went well\\n", n); return n; }
noinline int twin(int n) { return n * 3; }
int entry(int n) { return log_it(n) + helper(n) + twin(n); }
"""
OTHER = (
    "int other(int n) { return n; }\nstatic __attribute__((noinline,used)) int x(void){return 4;}"
)
TWINS = "static __attribute__((noinline,used)) int same(int n) { return n * 7; }\n"


def refused(ask: Callable[[], object]) -> KsplicedError:
    with pytest.raises(KsplicedError) as caught:
        ask()
    return caught.value


def changed(name: str, at: int, data: bytes) -> KsplicedError:
    """Bytes of the running kernel are others."""
    pre = compiled(UNIT)
    kernel = running(linked(compiled(UNIT, split=False), compiled(OTHER, split=False)))
    kernel.write(address_of(kernel, name) + at, data)
    pack = packed({"a.o": pre}, (unit_import(pre, "helper"),), (span_of(pre, name),))
    return refused(lambda: match(pack, kernel))


def another(old: str, new: str, name: str) -> KsplicedError:
    """The running kernel is made of another source."""
    pre = compiled(UNIT)
    kernel = running(linked(compiled(UNIT.replace(old, new), split=False), compiled(OTHER)))
    return refused(lambda: match(packed({"a.o": pre}, (), (span_of(pre, name),)), kernel))


def ambiguous() -> KsplicedError:
    """A function that the kernel has twice."""
    pre = compiled(TWINS)
    kernel = running(linked(compiled(TWINS, split=False), compiled(TWINS, split=False)))
    return refused(lambda: match(packed({"a.o": pre}, (), (span_of(pre, "same"),)), kernel))


def missing(name: str) -> KsplicedError:
    """A symbol that the kernel has not, or twice."""
    pre = compiled(UNIT)
    twice = compiled("int twice;"), compiled("int twice;")
    kernel = running(linked(compiled(UNIT, split=False), compiled(OTHER)), linked(*twice[:1]))
    return refused(lambda: match(packed({"a.o": pre}, (extern_import(name),)), kernel))


class Blind(OfflineKernel):
    """A kernel whose memory cannot be read."""

    def read(self, address: int, size: int) -> bytes:
        """Nothing is there."""
        return super().read(0xFFFF_9E3A_4C00_1000, size)


def unreadable() -> KsplicedError:
    pre = compiled(UNIT)
    kernel = running(linked(compiled(UNIT, split=False), compiled(OTHER)))
    kernel.__class__ = Blind
    return refused(lambda: match(packed({"a.o": pre}, (), (span_of(pre, "twin"),)), kernel))


def reports() -> Iterator[tuple[str, KsplicedError]]:
    """Reports of matching, each of its kind."""
    yield "code", changed("twin", 0, bytes.fromhex("0f0b48c7c1efbe"))
    yield "kprobe", changed("entry", 2, b"\xcc")
    yield "jump", changed("helper", 0, b"\xe9\x00\x10\x00\x00")
    yield "call", changed("entry", _call(compiled(UNIT), "entry"), b"\x44\x33\x22\x11")
    yield "string", another("it went well", "it went off!", "log_it")
    yield "constant", another("n * 3", "n * 5", "twin")
    yield "renamed", another("other", "elder", "helper")
    yield "gone", another("int twin(int n) { return n * 3; }", "int twin(int n);", "twin")
    yield "ambiguous", ambiguous()
    yield "missing", missing("nowhere_to_be_found")
    yield "unreadable", unreadable()


def _call(content: bytes, name: str) -> int:
    """The offset of the first field of a function that refers to something."""
    from kspliced.elf.read import read_object

    parsed = read_object(content)
    symbol = next(s for s in parsed.symbols if s.name == name)
    section = next(s for s in parsed.sections if s.index == symbol.section)
    return min(r.offset for r in section.relocations) - symbol.value


def core_files(root: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> Core:
    """A core whose switch fails with ``number``."""
    update = root / "updates" / UPDATE
    update.mkdir(parents=True)
    files = {
        "conflicts": "7 bash\text4_read+0x1f\tscan\n",
        "stacks": "7 bash\tschedule+0x5e ext4_read+0x1f\n",
        "mismatch": "ext4\text4_read\t30\tcc9090ffe1\t0f1f440000\n",
        "abort_cause": "no_match\n",
        "control": "",
    }
    (root / "abi").write_text(f"{CORE_ABI}\n")
    for name, content in files.items():
        (update / name).write_text(content)

    def write(file: int, data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("kspliced.kernel.core.os.write", write)
    return Core(root)


def of_core(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, KsplicedError]]:
    """Reports of the core, and of its files when they are malformed."""
    busy = core_files(root / "busy", errno.EBUSY, monkeypatch)
    yield "stacks", refused(lambda: busy.apply(UPDATE))
    found = core_files(root / "found", errno.EILSEQ, monkeypatch)
    yield "mismatch", refused(lambda: found.apply(UPDATE))
    line = "0xffffffffc0ab1230\t16\t0xffffffffc0ab1240\n"
    for name in ("stacks", "mismatch", "probes", "redirected"):
        (root / "found/updates" / UPDATE / name).write_text(line)
    ask = (found.conflicts, found.mismatches, found.probes, found.redirected)
    for number, read in enumerate(ask):
        yield f"malformed-{number}", refused(partial(read, UPDATE))
    (root / "found/updates" / UPDATE / "original").write_text("ffffffffc0ab1230 0f1f440000\n")
    yield "original", refused(lambda: read_originals(root / "found"))


def of_procfs(root: Path) -> Iterator[tuple[str, KsplicedError]]:
    """Reports of files that the kernel gives to root."""
    lines = (
        b"ffffffff9a000000 T _text\nffffffffc0ab12.0 t x\t[ext4]\nffffffffc0ab1230 t y\t[ext4]\n"
    )
    symbols = Kallsyms(lines)
    yield "kallsyms", refused(lambda: symbols.named("x", "ext4"))
    content = bytearray(0x40 + 56)
    content[:6], content[16], content[32], content[54], content[56] = (
        b"\x7fELF\x02\x01",
        4,
        64,
        56,
        1,
    )
    (root / "kcore").write_bytes(content)
    with Kcore(root / "kcore") as kcore:
        yield "kcore", refused(lambda: kcore.read(0xFFFF_FFFF_9A00_12C0, 64))
    (root / "modules").write_text("ext4 1 - Live 0xffffffffc0123000\n")
    (root / "sys/module/ext4/sections").mkdir(parents=True)
    (root / "sys/module/ext4/sections/.text").write_text("0xffffffffc0123000 0x10\n")
    with LiveKernel(root, root / "sys") as kernel:
        yield "modules", refused(lambda: kernel.loaded("ext4"))
    (root / "modules").write_text("ext4 1 0 - Live 0xffffffffc0123000\n")
    with LiveKernel(root, root / "sys") as kernel:
        yield "sections", refused(lambda: kernel.table("__jump_table", "ext4"))


@pytest.fixture
def errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, KsplicedError]:
    with monkeypatch.context() as patched:
        core = dict(of_core(tmp_path / "core", patched))
    (tmp_path / "proc").mkdir()
    return {**dict(reports()), **core, **dict(of_procfs(tmp_path / "proc"))}


def clean_of_all(text: str, what: str) -> None:
    assert not ADDRESS.search(text), f"{what}: an address in {text!r}"
    for dump in BYTES.findall(text):
        # The update's own name and digest, and the machine's times.
        assert dump in UPDATE or dump.isdecimal(), f"{what}: bytes in {text!r}"


def test_a_report_is_public_by_its_place(errors: dict[str, KsplicedError]) -> None:
    """Not by what is withheld later: the errors themselves."""
    for what, error in errors.items():
        clean_of_all("\n".join((str(error), *error.details)), what)
    kinds = {name for name, error in errors.items() if error.evidence}
    assert kinds >= set(errors) - {"missing", "gone"}, "root is told"
    told = "\n".join("\n".join(error.evidence) for error in errors.values())
    assert len(ADDRESS.findall(told)) > 10 and "0f0b48c7" in told and "stack:" in told


def test_a_report_reaches_nobody_but_root(errors: dict[str, KsplicedError], tmp_path: Path) -> None:
    for what, error in errors.items():
        machine = Machine(tmp_path / what, NEWER)
        machine.kernel.link_error = error
        details, evidence = error.details, error.evidence
        refused(partial(transactions.apply, machine.context, None))
        public = [f"{e.name} {text} {facts}" for e, text, facts in machine.journal.entries]
        public.append(machine.paths.state.read_text())
        public.append(json.dumps(status_json(current_status(machine.paths))))
        reply = error_reply(_Call(), error)
        public.append(repr(reply.body))
        for text in public:
            clean_of_all(text.replace(load_state(machine.paths).history[-1].digest, ""), what)
        assert machine.paths.state.stat().st_mode & 0o777 == 0o600
        files = list(machine.paths.evidence.iterdir()) if evidence else []
        for file in files:
            assert file.stat().st_mode & 0o777 == 0o600
            assert error.details == (*details, f"addresses, bytes and stacks, for root: {file}")
        text = "".join(file.read_text() for file in files)
        assert all(line in text for line in evidence), what


class _Call:
    """What an error reply needs of a call."""

    serial = 1
    sender = ":1.1"


def test_a_worker_writes_no_evidence(
    errors: dict[str, KsplicedError],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """Its lines, which the daemon publishes, and what it says of a mistake of ours."""
    for what, error in errors.items():
        evidence = tuple(error.evidence)

        def fail(*_: object, error: KsplicedError = error) -> None:
            raise error

        monkeypatch.setattr("kspliced.engine.__main__.perform", fail)
        main(["--root", str(tmp_path / what), "match", "x"])
        (line,) = capfdbinary.readouterr().out.splitlines()
        clean_of_all(line.decode().replace(str(tmp_path), ""), what)
        assert set(json.loads(line)["error"]) == {"code", "message", "remedy", "details"}
        if evidence:
            kept = tmp_path / what / "var/lib/kspliced/evidence/match.txt"
            assert evidence[0] in kept.read_text()


def test_a_mistake_of_ours_is_told_without_what_it_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import sys

    def fail(*_: object) -> None:
        raise KeyError(0xFFFF_FFFF_9A00_12C0, b"\x0f\x1f\x44\x00\x00", "0f1f440000")

    monkeypatch.setattr("kspliced.engine.__main__.perform", fail)
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    with pytest.raises(KeyError) as caught:
        main(["--root", str(tmp_path), "match", "x"])
    sys.excepthook(caught.type, caught.value, caught.tb)
    out, err = capfd.readouterr()
    for text in (out, err):
        clean_of_all(text.replace(str(tmp_path), ""), "mistake")
        assert "18446744072" not in text and "KeyError" in out
    assert "0f1f440000" in (tmp_path / "var/lib/kspliced/evidence/internal.txt").read_text()
