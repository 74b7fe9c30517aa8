# SPDX-License-Identifier: GPL-2.0-or-later
"""fs/ext4/mballoc.o of 6.1.192-1 against the ext4.ko that Debian shipped, on disk and running."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kspliced.elf.read import read_object
from kspliced.errors import PackError
from kspliced.kernel.core import SymbolCrc
from kspliced.kernel.image import KernelSymbol
from kspliced.kernel.offline import OfflineKernel
from kspliced.match import Cause, NoMatchError, check_coherence, link, match
from kspliced.pack import Pack, parse_pack
from tests.corpus.match import real_pack
from tests.corpus.match.real_pack import laid_out
from tests.vm.case import FAULTY_FUNCTION
from tests.vm.guest import FULL_CPU, Guest
from tests.vm.image import Image, base

pytestmark = pytest.mark.vm

TOP = Path(__file__).parents[3]
TRACING = "/sys/kernel/tracing"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return real_pack.content(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def pack(content: bytes) -> Pack:
    return parse_pack(content, "test")


@pytest.fixture(scope="module")
def shipped() -> bytes:
    return real_pack.shipped()


def test_its_manifest_and_its_parts_agree(pack: Pack) -> None:
    check_coherence(pack)


def test_every_function_of_the_unit_matches_what_was_shipped(pack: Pack, shipped: bytes) -> None:
    kernel = laid_out(shipped)
    matched = match(pack, kernel)
    assert matched.unmatched == ()
    assert matched.counts.functions == 71
    (span,) = [s for s in matched.spans if s.span.symbol == FAULTY_FUNCTION]
    assert span.address == address(kernel, FAULTY_FUNCTION)
    parts = (pack.manifest.glue, *pack.manifest.groups)
    names = {i.name: i for part in parts for i in part.imports}
    for found in matched.imports:
        wanted = names[found.name]
        places = kernel.symbols.named(wanted.symbol, "ext4") + kernel.symbols.named(
            wanted.symbol, "vmlinux"
        )
        assert found.address in {p.address for p in places}
    crcs = [SymbolCrc(s, 1) for s in ("kspliced_register_update", "kspliced_unregister_update")]
    undefined = [
        s.name
        for s in read_object(link(pack, matched, crcs).content).symbols
        if s.name and not s.section
    ]
    assert sorted(undefined) == [crc.name for crc in crcs]


def address(kernel: OfflineKernel, name: str) -> int:
    (symbol,) = kernel.symbols.named(name, "ext4")
    assert isinstance(symbol, KernelSymbol)
    return symbol.address


def test_another_source_is_told_from_another_compiler(pack: Pack, shipped: bytes) -> None:
    kernel = laid_out(shipped)
    kernel.write(address(kernel, FAULTY_FUNCTION) + 0x40, b"\x0f\x0b")
    with pytest.raises(NoMatchError) as caught:
        match(pack, kernel)
    assert [m.cause for m in caught.value.mismatches] == [Cause.OTHER_CODE]
    assert caught.value.blamed == (pack.manifest.units[0].unit,)
    # Every function with another prologue, as another compiler would leave them.
    kernel = laid_out(shipped)
    (pre,) = pack.manifest.units
    for symbol in read_object(pack.blob(pre.blob)).symbols:
        for place in kernel.symbols.named(symbol.name, "ext4") if symbol.type == 2 else ():
            kernel.write(place.address + 5, b"\xf4" * min(4, symbol.size))
    with pytest.raises(NoMatchError) as caught:
        match(pack, kernel)
    assert caught.value.mismatches[0].cause is Cause.OTHER_COMPILER
    assert "compiler" in caught.value.remedy


@pytest.fixture(scope="module")
def guest(content: bytes) -> Iterator[Guest]:
    image: Image = base()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for path in sorted((TOP / "kspliced").rglob("*.py")):
            tar.add(path, path.relative_to(TOP))
    with Guest("match", image, cpu=FULL_CPU) as machine:
        machine.put(archive.getvalue(), "/root/kspliced.tar.gz")
        machine.put(content, "/root/test.kspack")
        machine.run("tar -C /root -xzf /root/kspliced.tar.gz")
        yield machine


def matched_in(guest: Guest) -> tuple[int | None, Any]:
    command = "cd /root && /usr/bin/python3 -m kspliced.cli match test.kspack --json"
    result = guest.run(command, timeout=240.0, check=False)
    return result.status, json.loads(result.stdout)


def test_the_running_kernel_matches_also_while_it_is_traced(guest: Guest) -> None:
    status, told = matched_in(guest)
    assert (status, told["matched"], told["functions"], told["unmatched"]) == (0, True, 71, [])
    guest.run(f"echo {FAULTY_FUNCTION} > {TRACING}/set_ftrace_filter")
    guest.run(f"echo function > {TRACING}/current_tracer")
    guest.run(f"echo 'p:entry {FAULTY_FUNCTION}' > {TRACING}/kprobe_events")
    guest.run(f"echo 1 > {TRACING}/events/kprobes/entry/enable")
    traced = matched_in(guest)
    guest.run(f"echo 0 > {TRACING}/events/kprobes/entry/enable; echo > {TRACING}/kprobe_events")
    guest.run(f"echo nop > {TRACING}/current_tracer; echo > {TRACING}/set_ftrace_filter")
    assert traced == (status, told)


def test_a_kprobe_inside_the_function_is_named(guest: Guest) -> None:
    guest.run(f"echo 'p:inside {FAULTY_FUNCTION}+0x1e' > {TRACING}/kprobe_events")
    guest.run(f"echo 1 > {TRACING}/events/kprobes/inside/enable")
    status, told = matched_in(guest)
    guest.run(f"echo 0 > {TRACING}/events/kprobes/inside/enable; echo > {TRACING}/kprobe_events")
    assert status == 4
    assert told["error"]["code"] == "no_match"
    first = told["mismatches"][0]
    assert (first["function"], first["offset"], first["cause"]) == (FAULTY_FUNCTION, 30, "kprobe")
    assert any(line.startswith(">") for line in first["found_code"])
    assert matched_in(guest)[0] == 0


def test_without_the_right_there_is_one_clear_error(guest: Guest) -> None:
    command = "cp -r /root/kspliced /root/test.kspack /tmp; cd /tmp; "
    command += "setpriv --reuid nobody /usr/bin/python3 -m kspliced.cli match test.kspack"
    result = guest.run(command, timeout=120.0, check=False)
    assert result.status == 1
    assert "Traceback" not in result.stderr
    assert "root" in result.stderr


def test_a_pack_of_another_release(pack: Pack, shipped: bytes) -> None:
    other = dataclasses.replace(
        pack.manifest, kernel=dataclasses.replace(pack.manifest.kernel, release="6.1.0-1-amd64")
    )
    with pytest.raises(PackError, match=r"6\.1\.0-1-amd64"):
        match(dataclasses.replace(pack, manifest=other), laid_out(shipped))
