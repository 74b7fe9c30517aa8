# SPDX-License-Identifier: GPL-2.0-or-later
"""The table and what is made of it: parser, man pages, completion."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from kspliced.cli.completion import SHELLS
from kspliced.cli.main import main
from kspliced.cli.manpage import command_page, system_page, write_pages
from kspliced.cli.table import EXIT_CODES, VERBS
from kspliced.engine.status import StatusState
from kspliced.errors import ExitCode
from kspliced.service import api

REPOSITORY = Path(__file__).resolve().parents[3]
CONTRACT = {
    "plan": {
        "--from",
        "--to",
        "--config",
        "--headers",
        "--targets",
        "--policy",
        "--jobs",
        "--json",
    },
    "report": {"--from", "--to", "--config", "--headers", "--targets", "-o", "--json"},
    "build": {"--from", "--to", "--config", "--headers", "--targets", "--jobs", "--only", "-o"},
    "show": {"--json"},
    "match": {"--image", "--json"},
    "status": {"--json"},
    "apply": {"--json"},
    "undo": {"--json"},
    "uname": {"--json"},
    "reboot-required": {"--json"},
    "doctor": {"--json"},
}


def test_the_contract_s_verbs_and_options_are_there() -> None:
    found = {verb.name: {n for o in verb.options for n in o.names} for verb in VERBS}
    assert set(found) == set(CONTRACT)
    for name, options in CONTRACT.items():
        assert options <= found[name], name
        assert "--json" in found[name]


def test_every_verb_has_its_module_and_every_code_its_text() -> None:
    for verb in VERBS:
        assert callable(import_module(f"kspliced.cli.{verb.module}").run)
    assert [code for code, _ in EXIT_CODES] == list(ExitCode)


@pytest.mark.parametrize("name", ["kspliced.1", "kspliced.8"])
def test_man_pages_have_no_warnings(name: str, tmp_path: Path) -> None:
    write_pages(tmp_path)
    page = tmp_path / name
    done = subprocess.run(
        ["man", "--warnings=w", "-E", "UTF-8", "-l", str(page)],
        capture_output=True,
        text=True,
        check=True,
        env={"MANWIDTH": "80", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
    )
    assert done.stderr == ""
    assert "NAME" in done.stdout and "SEE ALSO" in done.stdout
    assert not re.search(r"\\[a-z(&]", done.stdout)


def test_the_manual_is_complete() -> None:
    command, system = command_page(), system_page()
    for verb in VERBS:
        assert f'.SS "{verb.name}"'.replace("-", "\\-") in command
        for option in verb.options:
            for name in option.names:
                assert name.replace("-", "\\-") in command
    for state in StatusState:
        assert f".B {state.value}\n" in system
    for action in [m.action for i in api.INTERFACES for m in i.methods if m.action]:
        assert action.replace("-", "\\-") in system


def test_bash_completes(tmp_path: Path) -> None:
    script = tmp_path / "kspliced.bash"
    script.write_text(SHELLS["bash"](), "utf-8")
    (tmp_path / "a.kspack").touch()

    def complete(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in ("kspliced", *words))
        text = (
            f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; "
            '_kspliced 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "-c", text], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        return sorted(done.stdout.split())

    assert complete("und") == ["undo"]
    assert set(complete("")) > {verb.name for verb in VERBS}
    assert complete("status", "--ver") == ["--verbose"]
    assert complete("build", "--progress", "") == ["auto", "json", "none"]
    assert complete("show", "a") == ["a.kspack"]
    assert complete("build", "--jobs", "") == []
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-s", "bash", str(script)], check=True)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_accept_their_completion(shell: str, tmp_path: Path) -> None:
    text = SHELLS[shell]()
    for verb in VERBS:
        assert verb.name in text
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "completion"
    script.write_text(text, "utf-8")
    subprocess.run([program, "-n", str(script)], check=True)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["explode"],
        ["show"],
        ["show", "a", "b"],
        ["status", "--jso"],
        ["build", "--from", "a"],
        ["build", "--from", "a", "--to", "b", "-o", "c", "--jobs", "0"],
        ["build", "--from", "a", "--to", "b", "-o", "c", "--progress", "loud"],
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("kspliced: ") and err.count("\n") == 1
    assert "--help" in err


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from kspliced.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'elftools', 'capstone', 'rich', 'dbus_next', 'asyncio', 'debian'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    spent = []
    for _ in range(3):
        start = time.process_time_ns(), _children_seconds()
        subprocess.run(
            [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=True
        )
        spent.append(_children_seconds() - start[1])
    assert min(spent) < 0.15


def _children_seconds() -> float:
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
