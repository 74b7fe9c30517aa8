# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel core's files, and the errors of its verbs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kspliced.errors import Code, KernelError
from kspliced.kernel.core import Conflict, Core, Held, Part, SpanMismatch, SymbolCrc, Table
from kspliced.kernel.load import init_module
from kspliced.model import CORE_ABI, Hold

UPDATE = "ks_0123456789ab"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    files = {
        "abi": f"{CORE_ABI}\n",
        "version": "0.1.0\n",
        "register_crc": "kspliced_register_update 0x12345678\n"
        "kspliced_unregister_update 0x9abcdef0\n",
        f"updates/{UPDATE}/stage": "preparing\n",
        f"updates/{UPDATE}/control": "",
        f"updates/{UPDATE}/abort_cause": "ok\n",
        f"updates/{UPDATE}/pause_ns": "1180000\n",
        f"updates/{UPDATE}/conflicts": "7 kworker\\x20u4:1\text4_read+0x1f\treliable\n"
        "812 a:b\text4_mb_new_blocks.cold+0x0\tscan\n",
        f"updates/{UPDATE}/stacks": "7 kworker\\x20u4:1\tschedule+0x5e ext4_read+0x1f\n"
        "812 a:b\text4_mb_new_blocks.cold+0x0\n",
        f"updates/{UPDATE}/mismatch": "ext4\text4_read\t30\tcc90\t0f1f\n",
        f"updates/{UPDATE}/probes": "vmlinux\text4_read\t11\n",
        f"updates/{UPDATE}/redirected": "ext4\text4_read\n",
        f"updates/{UPDATE}/original": "",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Make a write fail as the core's does."""

    def write(file: int, data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("kspliced.kernel.core.os.write", write)


def test_files(path: Path) -> None:
    core = Core(path)
    core.check_abi()
    assert core.version() == "0.1.0"
    assert core.crcs() == (
        SymbolCrc("kspliced_register_update", 0x12345678),
        SymbolCrc("kspliced_unregister_update", 0x9ABCDEF0),
    )
    assert core.updates() == (UPDATE,)
    assert core.stage(UPDATE) == "preparing"
    assert core.pause_ns(UPDATE) == 1180000
    assert core.conflicts(UPDATE) == (
        Conflict(
            7, "kworker\\x20u4:1", "ext4_read", 0x1F, True, ("schedule+0x5e", "ext4_read+0x1f")
        ),
        Conflict(812, "a:b", "ext4_mb_new_blocks.cold", 0, False, ("ext4_mb_new_blocks.cold+0x0",)),
    )
    assert core.mismatches(UPDATE) == (
        SpanMismatch("ext4", "ext4_read", 30, b"\xcc\x90", b"\x0f\x1f"),
    )


def test_control_gets_the_word(path: Path) -> None:
    control = path / "updates" / UPDATE / "control"
    Core(path).apply(UPDATE)
    assert control.read_text() == "apply"
    control.write_text("")
    Core(path).reverse(UPDATE)
    assert control.read_text() == "reverse"


def test_holds(path: Path) -> None:
    core, update = Core(path), path / "updates" / UPDATE
    # One from before an upgrade of kspliced.
    assert core.held() == () and not core.lost(UPDATE)
    core.hold(UPDATE, Hold("sctp", False), 25)
    assert (update / "control").read_text() == ""
    with pytest.raises(KernelError) as caught:
        core.hold(UPDATE, Hold("sctp", True), 25)
    assert caught.value.code is Code.CORE_ABI

    (update / "holds").write_text("")
    (update / "lost").write_text("sctp\tsctp_rcv\n")
    (path / "held").write_text("sctp\trequired\t0xffffffffc0001000\t48\t0x0\t0\n")
    core.hold(UPDATE, Hold("sctp", True), 25)
    assert (update / "control").read_text() == "hold sctp required 25"
    assert core.lost(UPDATE)
    jumps = Table("__jump_table", 0xFFFFFFFFC0001000, 48)
    assert core.held() == (Held("sctp", True, (jumps, Table(".static_call_sites", 0, 0))),)
    (path / "held").write_text("sctp required\n")
    with pytest.raises(KernelError) as caught:
        core.held()
    assert caught.value.code is Code.CORE_ABI


def test_places(path: Path) -> None:
    (path / "updates" / UPDATE / "spans").write_text("0x10\t4\t0\t0x20\text4\tone\n")
    (path / "updates" / UPDATE / "data").write_text("0x30\t4\text4\ttwo\n")
    assert Core(path).places(UPDATE) == {0x10, 0x30}


def test_parts(path: Path) -> None:
    update, core = path / "updates" / UPDATE, Core(path)
    spans = "0x10\t4\t0\t0x20\text4\tone\n0x50\t4\t4294967295\t0x0\tvmlinux\tone.cold\n"
    (update / "spans").write_text(spans)
    (update / "data").write_text("0x30\t4\text4\ttwo\n")
    assert core.parts(UPDATE) == (
        Part("ext4", "one", True),
        Part("vmlinux", "one.cold", False),
        Part("ext4", "two", False),
    )
    (update / "data").write_text("0x30 4 ext4 two\n")
    with pytest.raises(KernelError) as caught:
        core.parts(UPDATE)
    assert caught.value.code is Code.CORE_ABI


@pytest.mark.parametrize(
    ("number", "code", "words", "private"),
    [
        (
            errno.EBUSY,
            Code.CODE_BUSY,
            "kworker\\x20u4:1[7] in ext4_read+0x1f\n",
            "  stack: schedule+0x5e < ext4_read+0x1f\n",
        ),
        (errno.ETXTBSY, Code.PROBED, "vmlinux: a kprobe at ext4_read+0xb", ""),
        (errno.EADDRINUSE, Code.REDIRECTED, "ext4: ext4_read", ""),
        (
            errno.EILSEQ,
            Code.NO_MATCH,
            "ext4: ext4_read+0x1e is not what was matched",
            "expected cc90, found 0f1f",
        ),
        (errno.ENOMEM, Code.SWITCH_FAILED, "", ""),
        (errno.EINVAL, Code.SWITCH_FAILED, "", ""),
    ],
)
def test_a_refused_switch(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: Code, words: str, private: str
) -> None:
    refuse(monkeypatch, number)
    for verb in (Core(path).apply, Core(path).reverse):
        with pytest.raises(KernelError) as caught:
            verb(UPDATE)
        assert caught.value.code is code
        public = "\n".join(caught.value.details)
        assert words in public
        assert private in "\n".join(caught.value.evidence)
        assert not private or private not in public
        if code is Code.CODE_BUSY:
            assert ": 2 threads are inside code" in caught.value.message
        blamed = ("ext4_mb_new_blocks", "ext4_read")
        assert caught.value.blamed == (blamed if number == errno.EBUSY else ())


def test_a_stage_that_is_reached_already_is_no_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.EALREADY)
    Core(path).apply(UPDATE)


def test_nudge(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Core(path).nudge(UPDATE)
    assert (path / "updates" / UPDATE / "control").read_text() == "nudge"
    refuse(monkeypatch, errno.ESRCH)
    assert not Core(path).nudge(UPDATE)


def test_no_core(tmp_path: Path) -> None:
    core = Core(tmp_path / "none")
    assert not core.present
    assert core.updates() == ()
    for ask in (core.check_abi, core.version, core.crcs):
        with pytest.raises(KernelError) as caught:
            ask()
        assert caught.value.code is Code.CORE_NOT_LOADED
        assert "modprobe" in caught.value.remedy
    with pytest.raises(KernelError) as caught:
        core.apply(UPDATE)
    assert caught.value.code in (Code.SWITCH_FAILED, Code.CORE_NOT_LOADED)


def test_another_abi(path: Path) -> None:
    (path / "abi").write_text(f"{CORE_ABI + 1}\n")
    with pytest.raises(KernelError) as caught:
        Core(path).check_abi()
    assert caught.value.code is Code.CORE_ABI


@pytest.mark.parametrize("name", ["", "../ks_1", "a/b", "x" * 90, "ks 1"])
def test_a_name_is_no_path(path: Path, name: str) -> None:
    with pytest.raises(KernelError) as caught:
        Core(path).stage(name)
    assert caught.value.code is Code.USAGE


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("conflicts", "what\n"),
        ("mismatch", "a\tb\tc\td\te\n"),
        ("probes", "a\tb\tc\n"),
        ("redirected", "a\n"),
        ("stacks", "what\n"),
        ("pause_ns", "soon\n"),
    ],
)
def test_malformed_files(path: Path, name: str, content: str) -> None:
    (path / "updates" / UPDATE / name).write_text(content)
    core = Core(path)
    asks = {
        "conflicts": core.conflicts,
        "mismatch": core.mismatches,
        "probes": core.probes,
        "redirected": core.redirected,
        "stacks": core.conflicts,
        "pause_ns": core.pause_ns,
    }
    with pytest.raises(KernelError) as caught:
        asks[name](UPDATE)
    assert caught.value.code is Code.CORE_ABI


def test_what_is_no_module_is_not_loaded() -> None:
    with pytest.raises(KernelError) as caught:
        init_module(UPDATE, b"not a module")
    assert caught.value.code is Code.LOAD_FAILED
    assert UPDATE in caught.value.message
