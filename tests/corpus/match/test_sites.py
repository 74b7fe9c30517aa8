# SPDX-License-Identifier: GPL-2.0-or-later
"""Each place that the kernel rewrites holds what the kernel can put there, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kspliced.elf.read import read_object
from kspliced.kernel.offline import ModuleFile, OfflineKernel
from kspliced.match import MatchedSpan, NoMatchError, match
from tests.corpus.match.kit import (
    RELEASE,
    TARGET,
    address_of,
    compiled,
    packed,
    running,
    span_of,
    unit_import,
)

HERE = Path(__file__).parent
SITES = compiled((HERE / "sites.S").read_text(), language="assembler")
VMLINUX = compiled((HERE / "vmlinux.S").read_text(), language="assembler")
OFFSETS = {s.name: s.value for s in read_object(SITES).symbols if s.name}

Make = Callable[[OfflineKernel, int], bytes]


def plain(text: str) -> Make:
    return lambda kernel, at: bytes.fromhex(text)


def branch(text: str, name: str, tail: str = "", offset: int = 0) -> Make:
    """Bytes ``text``, the distance to a function of vmlinux or label of ours, bytes ``tail``."""

    def make(kernel: OfflineKernel, at: int) -> bytes:
        code = bytes.fromhex(text)
        if kernel.symbols.named(name, "vmlinux"):
            to = address_of(kernel, name, "vmlinux")
        else:
            to = address_of(kernel, "patched") + OFFSETS[name]
        distance = to + offset - (at + len(code) + 4)
        return code + distance.to_bytes(4, "little", signed=True) + bytes.fromhex(tail)

    return make


def short(name: str) -> Make:
    return lambda kernel, at: (
        b"\xeb" + bytes([address_of(kernel, "patched") + OFFSETS[name] - at - 2])
    )


ALLOWED: tuple[tuple[str, Make], ...] = (
    ("ftrace", plain("0f1f440000")),
    ("ftrace", branch("e8", "ftrace_caller")),
    ("ftrace", branch("e8", "ftrace_regs_caller")),
    ("lock", plain("3eff07")),
    ("label5", branch("e9", "away")),
    ("label2", plain("6690")),
    ("scall", plain("0f1f440000")),
    ("scall", plain("2e2e2e31c0")),
    ("scall", branch("e8", "thing_now")),
    ("retp", plain("41ffd10f1f00")),
    ("retp", plain("0faee841ffd1")),
    ("retp", branch("2ee8", "its_page", offset=32)),
    ("retp5", plain("ffd00f1f00")),
    ("retp5", plain("0faee8ffd0")),
    ("retp5", branch("e8", "its_page", offset=36)),
    ("alt", branch("e8", "old_way", "0f1f00")),
    ("alt", branch("e8", "new_way", "0f1f00")),
    ("smap", plain("0f1f00")),
    ("smap", plain("0f01cb")),
    ("ajmp", plain("0f1f440000")),
    ("ajmp", lambda kernel, at: short("away")(kernel, at) + b"\x0f\x1f\x00"),
    ("ajmp", branch("e9", "away")),
    ("para", branch("e8", "pv_now", "6690")),
    ("para", plain("0f1f8000000000")),
    ("ret", plain("c3cccccccc")),
    ("ret", branch("e9", "srso_return_thunk")),
)
FORBIDDEN: tuple[tuple[str, Make], ...] = (
    ("ftrace", plain("6666666690")),
    ("ftrace", branch("e8", "stranger")),
    ("ftrace", branch("e9", "ftrace_caller")),
    ("lock", plain("90ff07")),
    ("label5", branch("e9", "ret")),
    ("label5", plain("9090909090")),
    ("label2", plain("9090")),
    ("label2", short("ret")),
    ("scall", branch("e8", "stranger")),
    ("scall", branch("e9", "thing_now")),
    ("scall", plain("c3cccccccc")),
    ("retp", plain("41ffd1909090")),
    ("retp", plain("41ffd00f1f00")),
    ("retp", branch("2ee8", "its_page", offset=36)),
    ("retp", branch("2ee8", "__x86_indirect_thunk_rax")),
    ("retp5", plain("ffd1666690")),
    ("alt", branch("e8", "stranger", "0f1f00")),
    ("alt", branch("e8", "new_way", "90660f")),
    ("smap", plain("0f01ca")),
    ("ajmp", lambda kernel, at: short("away")(kernel, at) + b"\x90\x90\x90"),
    ("ajmp", branch("e9", "ret")),
    ("para", branch("e8", "stranger", "6690")),
    ("para", branch("e8", "pv_now", "9090")),
    ("ret", plain("c390909090")),
    ("ret", branch("e9", "stranger")),
)


def names(rows: tuple[tuple[str, Make], ...]) -> list[str]:
    return [f"{number}-{name}" for number, (name, _) in enumerate(rows)]


def attempt(site: str, make: Make) -> MatchedSpan:
    kernel = running(SITES, VMLINUX)
    at = address_of(kernel, "patched") + OFFSETS[site]
    kernel.write(at, make(kernel, at))
    matched = match(packed({"a.o": SITES}, (), (span_of(SITES, "patched", jump=-1),)), kernel)
    return matched.spans[0]


@pytest.mark.parametrize(("site", "make"), ALLOWED, ids=names(ALLOWED))
def test_what_the_kernel_can_put_there_matches(site: str, make: Make) -> None:
    span = attempt(site, make)
    assert span.expect[OFFSETS[site] :][:5] != b""


@pytest.mark.parametrize(("site", "make"), FORBIDDEN, ids=names(FORBIDDEN))
def test_anything_else_does_not(site: str, make: Make) -> None:
    with pytest.raises(NoMatchError) as caught:
        attempt(site, make)
    assert caught.value.mismatches[0].function == "patched"


def test_only_what_changes_at_any_moment_is_masked() -> None:
    mask = attempt("lock", plain("f0ff07")).mask
    volatile = {"ftrace": 5, "label5": 5, "label2": 2, "scall": 5}
    for name, size in volatile.items():
        assert mask[OFFSETS[name] :][:size] == bytes(size)
    assert mask.count(0) == sum(volatile.values())


@pytest.mark.parametrize(
    ("make", "fits"),
    [
        (branch("e9", "thing_now"), True),
        (branch("e9", "__x86_return_thunk"), True),
        (plain("c3cccccccc"), True),
        (branch("e9", "stranger"), False),
        (plain("0f1f440000"), False),
    ],
)
def test_a_static_tail_call(make: Make, fits: bool) -> None:
    kernel = running(SITES, VMLINUX)
    at = address_of(kernel, "tail")
    kernel.write(at, make(kernel, at))
    matched = match(packed({"a.o": SITES}), kernel)
    assert [m.function for m in matched.unmatched] == ([] if fits else ["tail"])


def test_a_key_that_only_a_jump_label_names_is_found_in_the_jump_table() -> None:
    kernel = running(SITES, VMLINUX)
    matched = match(packed({"a.o": SITES}, (unit_import(SITES, "hidden_key"),)), kernel)
    assert matched.imports[0].address == address_of(kernel, "hidden_key")


class Poking(OfflineKernel):
    """A kernel that is rewriting one site: a breakpoint stands there for some reads."""

    busy = 0
    site = 0

    def read(self, address: int, size: int) -> bytes:
        data = super().read(address, size)
        if address <= self.site < address + size and self.busy > 0:
            self.busy -= 1
            at = self.site - address
            data = data[:at] + b"\xcc" + data[at + 1 :]
        return data


@pytest.mark.parametrize(("busy", "fits"), [(1, True), (4, True), (1000, False)])
def test_a_site_that_is_being_rewritten_is_waited_for(busy: int, fits: bool) -> None:
    kernel = Poking(RELEASE, [ModuleFile(TARGET, SITES), ModuleFile("vmlinux", VMLINUX)])
    kernel.site, kernel.busy = address_of(kernel, "patched") + OFFSETS["label5"], busy
    matched = match(packed({"a.o": SITES}), kernel)
    assert [m.function for m in matched.unmatched] == ([] if fits else ["patched"])
