# SPDX-License-Identifier: GPL-2.0-or-later
"""The one list of preconditions, over roots that lack one thing each; jobs refuse by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kspliced.cli import main as command
from kspliced.engine import preconditions, queue, replay, transactions
from kspliced.engine.journal import Event
from kspliced.engine.preconditions import ALL, evaluate, first_failed, stamp
from kspliced.engine.room import BUILD_BYTES
from kspliced.engine.state import load_state
from kspliced.engine.status import StatusState, Verdict, current_status, status_json
from kspliced.engine.view import Finding, View
from kspliced.errors import Code, KsplicedError
from tests.unit.engine.fakes import NEWER, RUNNING, Machine

COMPILER = "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0"
RELEASE = RUNNING.release
OPTIONS = "".join(f"CONFIG_{name}=y\n" for name in preconditions._OPTIONS)
WHOLE = {
    "proc/sys/kernel/modules_disabled": "0\n",
    "proc/sys/kernel/kptr_restrict": "0\n",
    **{f"proc/sys/user/max_{kind}_namespaces": "7813\n" for kind in ("user", "mnt", "net", "ipc")},
    "proc/kcore": "",
    "proc/kallsyms": "",
    "sys/kernel/security/lockdown": "[none] integrity confidentiality\n",
    "sys/module/module/parameters/sig_enforce": "N\n",
    f"boot/config-{RELEASE}": f'{OPTIONS}CONFIG_CC_VERSION_TEXT="{COMPILER}"\n',
    "usr/bin/gcc-12": "",
    f"usr/src/linux-headers-{RELEASE}/.config": "",
    f"var/lib/kspliced/sources/source-{RUNNING.version}/s.deb": "",
    f"var/lib/kspliced/sources/source-{NEWER.version}/s.deb": "",
}
GCC = "\nPackage: gcc-12\nStatus: install ok installed\nArchitecture: amd64\nVersion: {}\n"
SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
GONE = None


def put(root: Path, name: str, content: str | None) -> None:
    file = root / name
    if content is GONE:
        file.unlink()
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, "latin-1")


@pytest.fixture
def whole(machine: Machine) -> Machine:
    """A machine that lacks nothing."""
    for name, content in WHOLE.items():
        put(machine.paths.root, name, content)
    with (machine.paths.dpkg / "status").open("a") as file:
        file.write(GCC.format("12.2.0-14+deb12u1"))
    return machine


def test_a_machine_that_lacks_nothing(whole: Machine) -> None:
    found = evaluate(View(whole.paths))
    assert [one.state for one in found] == [Finding.OK] * len(ALL), found
    assert len({one.code for one in found}) == len(ALL), "a code of its own each"
    assert all(one.words and not one.remedy for one in found)


LACKS: list[tuple[str, str | None, Code, str]] = [
    ("proc/sys/kernel/version", "#45-Ubuntu SMP\n", Code.FOREIGN_KERNEL, "left alone"),
    ("run/systemd/container", "lxc", Code.CONTAINER, "a container (lxc)"),
    ("run/systemd/container", "", Code.CONTAINER, "a container (unnamed)"),
    ("run/host/container-manager", "systemd-nspawn\n", Code.CONTAINER, "systemd-nspawn"),
    (".dockerenv", "", Code.CONTAINER, "docker"),
    ("run/.containerenv", "", Code.CONTAINER, "podman"),
    ("proc/cmdline", "quiet kspliced=off\n", Code.SWITCHED_OFF, "kspliced=off"),
    (f"lib/modules/{RELEASE}/modules.dep", GONE, Code.CORE_NOT_LOADED, RELEASE),
    (f"lib/modules/{RELEASE}/modules.dep", "a/ext4.ko:\n", Code.CORE_NOT_LOADED, RELEASE),
    ("sys/kernel/kspliced/abi", "999\n", Code.CORE_ABI, "999"),
    ("sys/kernel/security/lockdown", "none [integrity]", Code.SIGNATURE_REQUIRED, "integrity"),
    ("sys/module/module/parameters/sig_enforce", "Y\n", Code.SIGNATURE_REQUIRED, "sig_enforce"),
    ("proc/sys/kernel/modules_disabled", "1\n", Code.MODULES_DISABLED, "modules_disabled"),
    ("proc/sys/kernel/kptr_restrict", "2\n", Code.SYMBOLS_HIDDEN, "kptr_restrict is 2"),
    ("proc/kcore", GONE, Code.KERNEL_UNREADABLE, "kcore"),
    (f"boot/config-{RELEASE}", "CONFIG_SMP=y\n", Code.KERNEL_CONFIG, "CONFIG_KALLSYMS_ALL"),
    ("usr/bin/gcc-12", GONE, Code.COMPILER_MISMATCH, "gcc-12"),
    ("proc/sys/user/max_user_namespaces", "0\n", Code.NAMESPACES_DISABLED, "max_user_namespaces"),
    ("proc/sys/user/max_net_namespaces", "0\n", Code.NAMESPACES_DISABLED, "max_net_namespaces"),
    ("sys/module/lkrg/refcnt", "1\n", Code.LKRG_LOADED, "LKRG"),
    ("sys/module/p_lkrg/refcnt", "1\n", Code.LKRG_LOADED, "LKRG"),
    ("proc/sys/lkrg/kint_enforce", "2\n", Code.LKRG_LOADED, "LKRG"),
]


@pytest.mark.parametrize("name,content,code,words", LACKS)
def test_what_a_machine_may_lack(
    whole: Machine, name: str, content: str | None, code: Code, words: str
) -> None:
    before = stamp(whole.paths)
    put(whole.paths.root, name, content)
    failed = first_failed(evaluate(View(whole.paths)))
    assert failed is not None and failed.code is code
    assert words in failed.words and failed.remedy
    # What the machine boots with does not change under a daemon.
    if name not in ("proc/sys/kernel/version", "proc/cmdline", "usr/bin/gcc-12", "proc/kcore"):
        assert stamp(whole.paths) != before, "the daemon notices"


def test_secure_boot_is_named(whole: Machine) -> None:
    put(whole.paths.root, SECURE_BOOT, "\6\0\0\0\1")
    assert first_failed(evaluate(View(whole.paths))) is None, "only lockdown counts"
    put(whole.paths.root, "sys/kernel/security/lockdown", "none [integrity] confidentiality")
    failed = first_failed(evaluate(View(whole.paths)))
    assert failed is not None and "Secure Boot is on" in failed.words


def test_confidentiality_hides_the_memory_too(whole: Machine) -> None:
    put(whole.paths.root, "sys/kernel/security/lockdown", "none integrity [confidentiality]")
    codes = {one.code for one in evaluate(View(whole.paths)) if one.state is Finding.FAILED}
    assert codes == {Code.SIGNATURE_REQUIRED, Code.KERNEL_UNREADABLE}


def test_a_compiler_of_another_version(whole: Machine) -> None:
    status = whole.paths.dpkg / "status"
    status.write_text(status.read_text().replace("12.2.0-14+deb12u1", "12.2.0-14+deb12u2"))
    (failed,) = (one for one in evaluate(View(whole.paths)) if one.state is Finding.FAILED)
    assert failed.code is Code.COMPILER_MISMATCH
    assert COMPILER in failed.words and "12.2.0-14+deb12u2" in failed.words
    # What the compiler says of itself counts more than its package.
    asked: list[tuple[str, ...]] = []

    def ask(command: tuple[str, ...]) -> str:
        asked.append(command)
        return COMPILER + "\nCopyright\n"

    assert first_failed(evaluate(View(whole.paths, ask))) is None
    assert asked == [("gcc-12", "--version")]


def test_sources_and_headers_that_apt_offers_or_not(whole: Machine) -> None:
    sources = whole.paths.sources
    (sources / f"source-{NEWER.version}").rename(sources / "elsewhere")
    (whole.paths.usr_src / f"linux-headers-{RELEASE}/.config").unlink()

    def found(answer: str | None) -> dict[Code, Finding]:
        ask = (
            (lambda command: answer if command[0] == "apt-cache" else COMPILER) if answer else None
        )
        return {one.code: one.state for one in evaluate(View(whole.paths, ask))}

    untold = found(None)
    assert untold[Code.SOURCE_UNAVAILABLE] is untold[Code.HEADERS_MISSING] is Finding.UNKNOWN
    row = "linux-source-6.1 | {} | http://x/debian bookworm/main amd64 Packages\n"
    offered = found(row.format(NEWER.version) + row.format(RUNNING.version))
    assert offered[Code.SOURCE_UNAVAILABLE] is offered[Code.HEADERS_MISSING] is Finding.OK
    lacking = found(row.format("6.1.1-1"))
    assert lacking[Code.SOURCE_UNAVAILABLE] is lacking[Code.HEADERS_MISSING] is Finding.FAILED


def test_a_disk_that_is_full(whole: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preconditions, "BUILD_BYTES", 1 << 60)
    failed = first_failed(evaluate(View(whole.paths)))
    assert failed is not None and failed.code is Code.NO_SPACE
    assert str(whole.paths.cache) in failed.words and BUILD_BYTES < 1 << 60
    monkeypatch.setattr(preconditions, "BUILD_BYTES", 1)
    monkeypatch.setattr(preconditions, "BUILD_FILES", 1 << 60)
    failed = first_failed(evaluate(View(whole.paths)))
    assert failed is not None and failed.code is Code.NO_SPACE and "inodes" in failed.words


def test_what_is_not_shown_stops_nothing(tmp_path: Path) -> None:
    """A bare root: nothing is claimed of what cannot be seen but that there is no core."""
    found = evaluate(View(Machine(tmp_path, NEWER).paths))
    assert first_failed(found) is None
    assert {one.code for one in found if one.state is Finding.UNKNOWN} >= {
        Code.SIGNATURE_REQUIRED,
        Code.MODULES_DISABLED,
        Code.SYMBOLS_HIDDEN,
        Code.KERNEL_UNREADABLE,
        Code.COMPILER_MISMATCH,
        Code.NAMESPACES_DISABLED,
    }


SWITCH = [row for row in LACKS if row[2] not in (Code.FOREIGN_KERNEL, Code.CONTAINER)]


@pytest.mark.parametrize("name,content,code,words", SWITCH)
def test_a_job_is_refused_before_the_build_and_its_request_kept(
    whole: Machine, name: str, content: str | None, code: Code, words: str
) -> None:
    whole.paths.queue.mkdir(parents=True)
    request = '{"schema":1,"source":"apt","packages":[],"time":1}'
    (whole.paths.queue / "apt-1.json").write_text(request)
    old = (whole.paths.root / name).read_text() if (whole.paths.root / name).exists() else None
    put(whole.paths.root, name, content)
    with pytest.raises(KsplicedError) as caught:
        transactions.upgrade(whole.context)
    assert caught.value.code is code and words in caught.value.message and caught.value.remedy
    assert whole.builder.orders == [] and whole.kernel.calls == []
    problem = load_state(whole.paths).problem
    assert problem is not None and problem.code is code
    status = current_status(whole.paths)
    assert status.reboot_required.verdict is Verdict.YES
    assert status.reboot_required.reasons[0].code == code.value
    assert code.value in [
        row["code"] for row in status_json(status)["preconditions"] if row["state"] == "failed"
    ]
    # It is mended: the very request is taken up again.
    if old is None and content is not GONE:
        (whole.paths.root / name).unlink()
        if name.startswith(("sys/module/", "proc/sys/lkrg")):
            (whole.paths.root / name).parent.rmdir()
    else:
        put(whole.paths.root, name, old)
    assert queue.resume(whole.paths)
    assert transactions.upgrade(whole.context).action == "live"
    assert not queue.pending(whole.paths) and current_status(whole.paths).state is StatusState.LIVE


IN_A_CONTAINER = ("run/systemd/container", "lxc")
ON_ANOTHER_KERNEL = ("proc/sys/kernel/version", "#45-Ubuntu SMP\n")


# In a container the replay's unit does not run.
@pytest.mark.parametrize(
    "name,content,job",
    [
        (*IN_A_CONTAINER, transactions.upgrade),
        (*IN_A_CONTAINER, transactions.fetch),
        (*ON_ANOTHER_KERNEL, transactions.upgrade),
        (*ON_ANOTHER_KERNEL, transactions.fetch),
        (*ON_ANOTHER_KERNEL, replay.replay),
    ],
)
def test_what_is_left_alone_is_no_failure(
    whole: Machine, name: str, content: str, job: Callable[..., object]
) -> None:
    put(whole.paths.root, name, content)
    whole.paths.queue.mkdir(parents=True)
    request = '{"schema":1,"source":"apt","packages":[],"time":1}'
    (whole.paths.queue / "apt-1.json").write_text(request)
    with pytest.raises(KsplicedError) as caught:
        job(whole.context)
    assert caught.value.exit_code == 3, "not a failed unit at each boot"
    assert load_state(whole.paths).problem is None
    assert Event.FAILED not in whole.journal.events()
    if job is transactions.upgrade:
        assert not queue.resume(whole.paths) and not queue.pending(whole.paths)


@pytest.mark.parametrize("job", [transactions.undo, replay.replay])
def test_lkrg_is_asked_about_before_any_switch(whole: Machine, job: Callable[..., object]) -> None:
    transactions.upgrade(whole.context)
    if job is replay.replay:
        whole.boot(RUNNING)
    put(whole.paths.root, "sys/module/lkrg/refcnt", "1\n")
    calls = list(whole.kernel.calls)
    with pytest.raises(KsplicedError) as caught:
        job(whole.context)
    assert caught.value.code is Code.LKRG_LOADED and whole.kernel.calls == calls


def test_the_verdict_before_the_first_try(whole: Machine) -> None:
    assert current_status(whole.paths).reboot_required.verdict is Verdict.PENDING
    put(whole.paths.root, "proc/sys/kernel/kptr_restrict", "2")
    reboot = current_status(whole.paths).reboot_required
    assert reboot.verdict is Verdict.YES
    assert [reason.code for reason in reboot.reasons] == ["symbols_hidden"]


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command(whole: Machine, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    words = ["doctor", "--root", str(whole.paths.root)] + ["--json"] * as_json
    assert command.main(words) == 0
    good = capsys.readouterr().out
    put(whole.paths.root, "proc/sys/kernel/modules_disabled", "1")
    assert command.main(words) == 4
    bad = capsys.readouterr().out
    if as_json:
        assert '"ready": true' in good and '"ready": false' in bad
        assert '"code": "modules_disabled"' in bad
    else:
        lines = good.splitlines()
        assert len(lines) == len(ALL) + 1 and all(line.startswith("ok ") for line in lines[:-1])
        (line,) = (line for line in bad.splitlines() if line.startswith("failed"))
        assert "until the next boot" in line and line.endswith("[modules_disabled]")
