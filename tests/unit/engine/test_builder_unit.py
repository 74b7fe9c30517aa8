# SPDX-License-Identifier: GPL-2.0-or-later
"""The builder as the engine runs it: its unit, its room, its cache, and how it may be lost."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kspliced.engine import builder as engine_builder
from kspliced.engine.builder import UnitBuilder
from kspliced.engine.builder_cache import cache_of, keep_only
from kspliced.engine.builder_unit import Confined, properties, transient_unit
from kspliced.engine.edges import BuildOrder, Built, Cancel, Job
from kspliced.engine.room import BUILD_BYTES
from kspliced.errors import Code, KsplicedError
from kspliced.model import Progress
from tests.unit.engine.fakes import NEWER, RUNNING, Machine, manifest, pack_content

# What stands in for `kspliced build`: it writes the pack that the order's source names.
_BUILDER = """
import json, pathlib, sys
assert sys.argv[1] == "build" and sys.argv[-2:] == ["--progress", "json"]
output = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
targets = pathlib.Path(sys.argv[sys.argv.index("--targets") + 1]).read_text()
assert targets == "vmlinux\\next4\\nzfs (O)\\n", targets
source = pathlib.Path(sys.argv[sys.argv.index("--from") + 1])
output.write_bytes(source.read_bytes())
print(json.dumps({"progress": {"phase": "compile", "fraction": 0.5, "message": "x.o"}}))
refused = [{"code": "init_code", "unit": "a.o", "symbol": "b", "reason": "c"}]
print(json.dumps({"result": {"pack": str(output), "digest": "", "functions": [],
    "refused": refused, "seconds": {"compile": 1.5}}}))
"""


@pytest.fixture
def order(machine: Machine) -> BuildOrder:
    root = machine.paths.root
    source, target = root / "source", root / "target"
    source.write_bytes(pack_content(manifest()))
    target.write_bytes(b"new")
    targets = ("vmlinux", "ext4", "zfs")
    return BuildOrder(
        RUNNING, NEWER.version, source, target, source, root, targets, foreign=("zfs",)
    )


def built(machine: Machine, order: BuildOrder, script: str, cancel: bool = False) -> Built:
    """What comes of a build that ``script`` stands in for; systemd would make its cache."""

    def stand_in(confined: Confined) -> list[str]:
        confined.cache.mkdir(parents=True, exist_ok=True)
        return [sys.executable, "-c", script, *confined.command[4:]]

    steps: list[Progress] = []
    job = Job(steps.append, Cancel())
    job.cancel.wanted = cancel
    made = UnitBuilder(machine.paths, stand_in).build(order, job)
    assert 0.2 < steps[0].fraction < 0.84
    return made


def fails(machine: Machine, order: BuildOrder, script: str) -> KsplicedError:
    with pytest.raises(KsplicedError) as caught:
        built(machine, order, script)
    assert caught.value.message and caught.value.remedy
    return caught.value


def test_the_builder_hands_back_a_pack(machine: Machine, order: BuildOrder) -> None:
    made = built(machine, order, _BUILDER)
    assert made.content == pack_content(manifest())
    assert [refusal.code for refusal in made.refused] == ["init_code"]
    (cache,) = machine.paths.cache.iterdir()
    assert list(cache.iterdir()) == [] and list(machine.paths.run.iterdir()) == []


def test_the_builder_is_told_what_the_kernel_has_and_not_where(
    machine: Machine, order: BuildOrder
) -> None:
    lines = ("ffffffff81000000 T _text", "ffffffff81000010 t one", "ffffffffc0000000 t x\t[ext4]")
    (machine.paths.proc / "kallsyms").write_text("".join(f"{line}\n" for line in lines))
    ask = 'symbols = pathlib.Path(sys.argv[sys.argv.index("--symbols") + 1]).read_text()\n'
    ask += 'assert symbols == "T _text\\nt one\\n", symbols\n'
    marker = "source = pathlib"
    assert built(machine, order, _BUILDER.replace(marker, ask + marker)).content
    assert list(machine.paths.run.iterdir()) == []


def test_a_builder_that_links_to_a_secret(
    machine: Machine, order: BuildOrder, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("root:x")
    link = f"output.symlink_to({str(tmp_path / 'secret')!r})"
    body = _BUILDER.replace("output.write_bytes(source.read_bytes())", link)
    with pytest.raises(KsplicedError) as caught:
        built(machine, order, body)
    assert caught.value.code is Code.IO


@pytest.mark.parametrize("result", ["1", "[]", '{"pack":"x"}', '{"functions":[1],"refused":[]}'])
def test_a_builder_whose_result_is_malformed(
    machine: Machine, order: BuildOrder, result: str
) -> None:
    with pytest.raises(KsplicedError) as caught:
        built(machine, order, f"print('{{\"result\":{result}}}')")
    assert caught.value.code is Code.FAILED and "malformed" in caught.value.message


# -- how systemd says that there is no result ------------------------------------------------------

_RUNNING = "Running as unit: kspliced-build-7.service"
_ENDED = "Main processes terminated with: code="


def said(status: int, *lines: str) -> str:
    """A systemd-run of 252 that ends so."""
    text = "\n".join(lines)
    return f"import sys\nsys.stderr.write({text!r})\nsys.exit({status})"


@pytest.mark.parametrize(
    ("status", "lines", "code", "words"),
    [
        (
            217,
            (_RUNNING, "Finished with result: exit-code", f"{_ENDED}exited/status=217"),
            Code.BUILDER_UNAVAILABLE,
            ("USER", "user namespaces"),
        ),
        (226, (_RUNNING,), Code.BUILDER_UNAVAILABLE, ("NAMESPACE", "mount namespaces")),
        (239, (_RUNNING,), Code.BUILDER_UNAVAILABLE, ("CACHE_DIRECTORY", "/var/cache")),
        (210, (_RUNNING,), Code.BUILDER_UNAVAILABLE, ("status 210", "journal")),
        (
            1,
            ("Failed to start transient service unit: Connection reset by peer",),
            Code.BUILDER_UNAVAILABLE,
            ("Connection reset by peer",),
        ),
        (
            1,
            ("Failed to connect to bus: No such file or directory",),
            Code.BUILDER_UNAVAILABLE,
            ("No such file",),
        ),
        (0, (_RUNNING, "Finished with result: success"), Code.BUILDER_LOST, ("executed again",)),
        (
            0,
            (
                _RUNNING,
                "Failed to query unit state: Remote peer disconnected",
                "Finished with result: success",
            ),
            Code.BUILDER_LOST,
            ("executed again",),
        ),
        (
            1,
            (_RUNNING, "Finished with result: oom-kill", f"{_ENDED}killed/status=KILL"),
            Code.BUILDER_LOST,
            ("memory", "swap"),
        ),
        (
            255,
            (_RUNNING, "Finished with result: signal", f"{_ENDED}killed/status=KILL"),
            Code.BUILDER_LOST,
            ("killed",),
        ),
        (
            0,
            (_RUNNING, "Finished with result: success", f"{_ENDED}killed/status=TERM"),
            Code.BUILDER_LOST,
            ("stopped",),
        ),
        # As systemd 257 has it.
        (
            0,
            (_RUNNING, "Finished with result: success", f"{_ENDED}killed, status=15/TERM"),
            Code.BUILDER_LOST,
            ("stopped",),
        ),
    ],
)
def test_a_builder_that_systemd_did_not_start_or_lost(
    machine: Machine,
    order: BuildOrder,
    status: int,
    lines: tuple[str, ...],
    code: Code,
    words: tuple[str, ...],
) -> None:
    error = fails(machine, order, said(status, *lines))
    assert error.code is code and error.transient
    assert error.details == lines
    assert all(word in str(error) for word in words)
    assert "tried again" in error.remedy


def test_a_builder_that_fails_by_itself_is_final(machine: Machine, order: BuildOrder) -> None:
    lines = (
        _RUNNING,
        "Traceback (most recent call last):",
        "ZeroDivisionError: division by zero",
        "Finished with result: exit-code",
        f"{_ENDED}exited/status=1",
    )
    error = fails(machine, order, said(1, *lines))
    assert error.code is Code.FAILED and not error.transient
    assert error.details == lines


def test_a_builder_that_was_stopped_is_not_our_wish(machine: Machine, order: BuildOrder) -> None:
    """systemd ends the unit with SIGTERM when a compiler was killed for want of memory."""
    failure = '{"error":{"code":"cancelled","message":"m","remedy":"","details":[]}}'
    error = fails(machine, order, f"print('{failure}')")
    assert error.code is Code.BUILDER_LOST and error.transient
    with pytest.raises(KsplicedError) as caught:
        built(machine, order, f"print('{failure}')", cancel=True)
    assert caught.value.code is Code.CANCELLED


# -- room ------------------------------------------------------------------------------------------


def mounted(place: Path, options: str) -> Iterator[Path]:
    """A small file system of its own."""
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def small_cache(machine: Machine) -> Iterator[Path]:
    yield from mounted(machine.paths.root / "var/cache", "size=16m")


@pytest.fixture
def few_inodes(machine: Machine) -> Iterator[Path]:
    yield from mounted(machine.paths.root / "var/cache", "size=3g,nr_inodes=5000")


@pytest.fixture
def small_tmp(machine: Machine) -> Iterator[Path]:
    yield from mounted(machine.paths.root / "var/tmp", "size=64m")


def test_room_is_asked_for_where_it_builds(
    machine: Machine, order: BuildOrder, small_cache: Path
) -> None:
    error = fails(machine, order, _BUILDER)
    assert error.code is Code.NO_SPACE and error.transient
    assert "1536 MiB" in error.message and "16 MiB are free" in error.message
    assert str(small_cache) in error.message


def test_inodes_are_asked_for(machine: Machine, order: BuildOrder, few_inodes: Path) -> None:
    error = fails(machine, order, _BUILDER)
    assert error.code is Code.NO_SPACE
    assert "80000 inodes" in error.message and str(few_inodes) in error.message


def test_no_room_is_needed_where_it_does_not_build(
    machine: Machine, order: BuildOrder, small_tmp: Path
) -> None:
    assert built(machine, order, _BUILDER).content


def test_what_a_build_before_has_packed_counts(
    machine: Machine, order: BuildOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(engine_builder, "require_space", lambda _d, n, *_: asked.append(n))
    built(machine, order, _BUILDER)
    packed = cache_of(machine.paths, order) / "sources/key/content"
    packed.parent.mkdir(parents=True)
    with packed.open("wb") as file:
        file.write(b"x" * (8 << 20))
    built(machine, order, _BUILDER)
    assert asked == [BUILD_BYTES, BUILD_BYTES - (8 << 20)]


# -- caches ----------------------------------------------------------------------------------------


def test_each_set_of_inputs_has_a_cache_of_its_own(machine: Machine, order: BuildOrder) -> None:
    first = cache_of(machine.paths, order)
    assert first == cache_of(machine.paths, dataclasses.replace(order, targets=("kvm",)))
    seen = {first}
    for changed in ("source", "target"):
        file = machine.paths.root / changed
        file.write_bytes(file.read_bytes() + b"x")
        seen.add(cache_of(machine.paths, order))
    seen.add(cache_of(machine.paths, dataclasses.replace(order, kernel=NEWER)))
    assert len(seen) == 4


def test_a_source_of_several_files(machine: Machine, order: BuildOrder) -> None:
    """A .dsc names the files beside it."""
    place = machine.paths.root / "dsc"
    place.mkdir()
    (place / "linux.dsc").write_text("same")
    (place / "linux.debian.tar.xz").write_text("one")
    of_files = dataclasses.replace(order, target=place / "linux.dsc")
    first = cache_of(machine.paths, of_files)
    (place / "linux.debian.tar.xz").write_text("two")
    assert cache_of(machine.paths, of_files) != first


def test_what_builds_of_other_inputs_left_is_gone(machine: Machine, order: BuildOrder) -> None:
    """However deep it is, and whatever it links to."""
    paths = machine.paths
    secret = paths.root / "secret"
    secret.mkdir()
    (secret / "file").write_text("kept")
    real = paths.cache.parent / "private/kspliced"
    stale = real / ("0123456789abcdef" * 2)
    stale.mkdir(parents=True)
    paths.cache.mkdir()
    (paths.cache / stale.name).symlink_to(f"../private/kspliced/{stale.name}")
    (stale / "link").symlink_to(secret)
    deep = "import os\nfor _ in range(1200): os.mkdir('d'); os.chdir('d')"
    subprocess.run([sys.executable, "-c", deep], check=True, cwd=stale)
    cache = cache_of(paths, order)
    cache.mkdir()
    (cache / "mine").write_text("kept")
    (real / cache.name).mkdir()
    keep_only(paths, cache, Cancel())
    assert list(paths.cache.iterdir()) == [cache] and (cache / "mine").exists()
    assert [place.name for place in real.iterdir()] == [cache.name]
    assert (secret / "file").exists()


# -- the unit --------------------------------------------------------------------------------------


def confined() -> Confined:
    reads = ("/var/lib/kspliced/sources/source-1/a.deb", "/usr/src/linux-headers-1", "/run/x")
    return Confined(
        "kspliced-build-1.service",
        ("/usr/bin/python3",),
        Path("/var/cache/kspliced/0123"),
        tuple(map(Path, reads)),
    )


def test_the_unit_has_no_rights() -> None:
    command = transient_unit(confined())
    assert command[-2:] == ["--", "/usr/bin/python3"]
    for needed in (
        "DynamicUser=yes",
        "PrivateNetwork=yes",
        "SystemCallFilter=~@network-io",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "CacheDirectory=kspliced/0123",
        "ExecPaths=/var/cache/private/kspliced/0123",
        "BindReadOnlyPaths=/var/lib/kspliced/sources/source-1/a.deb",
        "BindReadOnlyPaths=/run/x",
    ):
        assert f"--property={needed}" in command
    assert not any("/usr/src" in word for word in command)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_says_that_little_is_exposed(tmp_path: Path) -> None:
    unit = tmp_path / "kspliced-build.service"
    lines = ("[Service]", "ExecStart=/usr/bin/true", *properties(confined()))
    # What sections other than [Service] have does not count here.
    unit.write_text("\n".join(line for line in lines if not line.startswith("PartOf=")))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Unknown" not in done.stderr
