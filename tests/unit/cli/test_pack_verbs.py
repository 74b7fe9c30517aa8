# SPDX-License-Identifier: GPL-2.0-or-later
"""show, match, build and plan: what they print and how they end."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kspliced.build import pipeline, planned
from kspliced.build.fates import Decision, Fate
from kspliced.build.request import BuildRequest, BuildResult, StageTime
from kspliced.build.select import Irrelevant
from kspliced.cli import build as build_verb
from kspliced.cli.main import main
from kspliced.errors import BuildError, Code, ExitCode
from kspliced.kernel.modules import Modules
from kspliced.model import KernelId, Progress, ProgressSink, Refusal
from kspliced.pack import Blob, read_pack, write_pack
from kspliced.plan.attribution import Attribution
from kspliced.plan.components import Component
from tests.unit.engine.fakes import MALLOC, UPDATE, manifest

REFUSAL = Refusal("init_only", "fs/ext4/a.o", "f", "it runs only at start-up", ".init.text")


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A pack on the disk."""
    file = tmp_path / "a.kspack"
    write_pack(file, manifest(), (Blob("update.ko", b"\x7fELF"),))
    return file


def test_show_explains(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(pack)]) == ExitCode.DONE
    text = capsys.readouterr().out
    for word in (UPDATE, MALLOC, "6.1.192-1", "6.1.192-2", "#1140001", "2 functions replaced"):
        assert word in text


def test_show_as_json(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "--json", str(pack)]) == ExitCode.DONE
    value = json.loads(capsys.readouterr().out)
    assert value["digest"] == read_pack(pack).digest
    assert value["blobs"] == [{"name": "update.ko", "size": 4}]
    assert [f["name"] for f in value["functions"]] == ["ext4_mb_init_group", MALLOC]


@pytest.mark.parametrize("verb", ["show", "match"])
def test_a_bad_pack_is_one_error(verb: str, pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack.write_bytes(pack.read_bytes()[:-1])
    assert main([verb, str(pack)]) == ExitCode.FAILED
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("kspliced: ") and err.count("\n") == 1
    assert main([verb, "--json", str(pack)]) == ExitCode.FAILED
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "pack_malformed" and error["remedy"]


def test_match_needs_a_readable_image(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["match", str(pack), "--image", str(pack.parent / "no.ko")]) == ExitCode.FAILED
    assert "no.ko: No such file or directory; " in capsys.readouterr().err


def test_match_takes_one_captured_kernel(pack: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = ["--image", str(pack.parent / "a.ko"), "--image", str(pack.parent)]
    assert main(["match", str(pack), *images]) == ExitCode.USAGE
    assert main(["match", str(pack), *images[2:]]) == ExitCode.FAILED
    assert f"{pack.parent}/proc/kcore: No such file or directory" in capsys.readouterr().err


def _result(**changes: Any) -> BuildResult:
    of = manifest()
    component = Component("fs/ext4/a.c", ("fs/ext4/a.c",), (), (), ())
    whole = BuildResult(
        manifest=of,
        blobs=(Blob("update.ko", b"\x7fELF"),),
        functions=of.functions,
        refused=(),
        irrelevant=(Irrelevant("Documentation/a.rst", "not kernel code"),),
        fates=(Fate(component, Decision.LIVE, (), ("ext4",)),),
        attributions=(Attribution(("fs/ext4/a.c",), 0.9),),
        entries=of.entries,
        seconds=(StageTime("unpack", 1.5),),
    )
    return replace(whole, **changes)


def _refused() -> BuildResult:
    (fate,) = _result().fates
    fates = (replace(fate, decision=Decision.REBOOT, reasons=(REFUSAL,)),)
    return _result(manifest=None, blobs=(), functions=(), refused=(REFUSAL,), fates=fates)


def _arguments(verb: str, tmp_path: Path, *more: str) -> list[str]:
    targets = tmp_path / "targets"
    targets.write_text("vmlinux\next4\n", "ascii")
    own = ["-o", str(tmp_path / "out.kspack")] if verb == "build" else []
    return [verb, "--from", "a", "--to", "b", "--targets", str(targets), *own, *more]


def _builds(patch: pytest.MonkeyPatch, result: BuildResult | BuildError) -> list[BuildRequest]:
    """Have the builder return or raise ``result``; the requests it gets."""
    requests: list[BuildRequest] = []

    def build(request: BuildRequest, sink: ProgressSink) -> BuildResult:
        requests.append(request)
        sink(Progress("unpack", 0.0, ""))
        if isinstance(result, BuildError):
            raise result
        return result

    for module in (build_verb, planned, pipeline):
        patch.setattr(module, "build", build)
    patch.setattr(signal, "signal", lambda *_: None)
    return requests


def test_build_writes_a_pack_and_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = _builds(monkeypatch, _result())
    assert main(_arguments("build", tmp_path, "--json", "--jobs", "3")) == ExitCode.DONE
    value = json.loads(capsys.readouterr().out)
    written = read_pack(tmp_path / "out.kspack")
    assert (value["pack"], value["digest"]) == (str(tmp_path / "out.kspack"), written.digest)
    assert set(value["functions"][0]) == {"target", "unit", "name", "kind", "why"}
    assert value["seconds"] == {"unpack": 1.5}
    assert requests[0].targets == ("vmlinux", "ext4")
    assert requests[0].jobs == 3
    assert requests[0].config == Path(f"/boot/config-{os.uname().release}")
    assert main(_arguments("build", tmp_path)) == ExitCode.DONE
    assert "2 functions replaced" in capsys.readouterr().out


def test_build_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _builds(monkeypatch, _refused())
    assert main(_arguments("build", tmp_path, "--json")) == ExitCode.REFUSED
    value = json.loads(capsys.readouterr().out)
    assert value["pack"] is None and value["digest"] is None
    assert value["refused"][0]["code"] == "init_only"
    assert not (tmp_path / "out.kspack").exists()


def test_build_speaks_to_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    # A refusal is a result for the engine, and the worker's status that of a success.
    _builds(monkeypatch, _refused())
    assert main(_arguments("build", tmp_path, "--progress", "json")) == ExitCode.DONE
    first, last = map(json.loads, capfdbinary.readouterr().out.splitlines())
    assert first["progress"]["phase"] == "unpack"
    assert last["result"]["pack"] is None
    error = BuildError(Code.COMPILER_MISSING, "gcc-12 is not there", "install gcc-12", ("a",))
    _builds(monkeypatch, error)
    assert main(_arguments("build", tmp_path, "--progress", "json")) == ExitCode.FAILED
    _, last = map(json.loads, capfdbinary.readouterr().out.splitlines())
    assert last["error"] == {
        "code": "compiler_missing",
        "message": "gcc-12 is not there",
        "remedy": "install gcc-12",
        "details": ["a"],
    }


def test_build_with_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _builds(monkeypatch, _result(manifest=None, blobs=(), functions=()))
    assert main(_arguments("build", tmp_path)) == ExitCode.NOTHING_TO_DO
    assert "code of this kernel" in capsys.readouterr().err


def test_build_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _builds(monkeypatch, _result())
    arguments = [*_arguments("build", tmp_path), "-o", str(tmp_path / "no/where.kspack")]
    assert main(arguments) == ExitCode.FAILED
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("result", "code", "totals", "status"),
    [
        (_result(), ExitCode.DONE, (1, 0, 1), "live"),
        (_refused(), ExitCode.REFUSED, (0, 1, 1), "reboot"),
        (
            _result(manifest=None, functions=(), blobs=(), fates=()),
            ExitCode.NOTHING_TO_DO,
            (0, 0, 1),
            "absent",
        ),
    ],
)
def test_plan_decides_for_every_file(
    result: BuildResult,
    code: ExitCode,
    totals: tuple[int, int, int],
    status: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _builds(monkeypatch, result)
    assert main(_arguments("plan", tmp_path, "--json")) == code
    value = json.loads(capsys.readouterr().out)
    counts = value["totals"]
    assert (counts["live"], counts["reboot"], counts["irrelevant"]) == totals
    (entry,) = value["entries"]
    assert entry["status"] == status
    ids = {component["id"] for component in value["components"]}
    assert set(entry["components"]) <= ids
    for component in value["components"]:
        assert set(component) == {
            "id",
            "decision",
            "targets",
            "files",
            "functions",
            "reasons",
            "lines",
        }
    assert main(_arguments("plan", tmp_path)) == code
    assert "plan" in capsys.readouterr().out


def test_targets_of_another_kernel_are_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build_verb._own_targets(KernelId("6.1.0-0-none", "6.1.192-1", "x86_64")) == Modules(
        (), ()
    )
    uname = os.uname()
    version = "9.9.9-1"
    fake = os.uname_result(
        (uname.sysname, uname.nodename, "6.1.0-55-amd64", f"#1 SMP Debian {version} (x)", "x86_64")
    )
    monkeypatch.setattr(os, "uname", lambda: fake)
    targets = build_verb._own_targets(KernelId("6.1.0-55-amd64", version, "x86_64"))
    assert targets.names[0] == "vmlinux"
