# SPDX-License-Identifier: GPL-2.0-or-later
"""The places that Linux 6.12 rewrites otherwise than 6.1; see test_sites.py."""

from __future__ import annotations

import pytest

from kspliced.elf.read import read_object
from kspliced.match import match
from tests.corpus.match.kit import address_of, compiled, packed, running
from tests.corpus.match.test_sites import HERE, VMLINUX, Make, branch, names, plain

SITES = compiled((HERE / "sites612.S").read_text(), language="assembler")
OFFSETS = {s.name: s.value for s in read_object(SITES).symbols if s.name}
VALUE = "8877665544332211"


def near_jump(rest: str) -> Make:
    distance = OFFSETS["away"] - OFFSETS["ajmp"] - 2
    return plain(f"eb{distance:02x}{rest}")


# (how far behind the label, name of the label, what the kernel has there)
ALLOWED: tuple[tuple[str, Make], ...] = (
    ("endbr", plain("f30f1efa")),
    ("endbr", plain("660f1f00")),
    ("endbr", plain("0f1f40d6")),
    ("call", branch("e8", "thunked")),
    ("call", branch("e8", "thunked", offset=-9)),
    ("call2", branch("e8", "unthunked")),
    ("para", branch("e8", "pv_now", "90")),
    ("para", plain("660f1f440000")),
    ("alt", plain("eb0c" + "cc" * 12)),
    ("alt", plain("31c9" + "eb0a" + "cc" * 10)),
    ("alt", plain("31c9" + "0f1f840000000000" + "0f1f4000")),
    ("ajmp", near_jump("cccccc")),
    ("ajmp", near_jump("0f1f00")),
    ("rptr-8", plain(VALUE)),
    ("rshift-1", plain("0c")),
)
FORBIDDEN: tuple[tuple[str, Make], ...] = (
    ("endbr", plain("0f1f4000")),
    ("call", branch("e8", "thunked", offset=-16)),
    ("call", branch("e8", "thunked", offset=-8)),
    ("call", branch("e8", "unthunked")),
    ("call", branch("e9", "thunked", offset=-9)),
    ("call2", branch("e8", "unthunked", offset=-9)),
    ("para", branch("e8", "stranger", "90")),
    ("para", branch("e8", "pv_now", "cc")),
    ("alt", plain("eb0b" + "cc" * 12)),
    ("alt", plain("31c9" + "eb0a" + "90" * 10)),
    ("alt", plain("31d2" + "eb0a" + "cc" * 10)),
    ("ajmp", near_jump("909090")),
    ("rptr-8", plain("efcdab8967452301")),
    ("rptr-8", plain(VALUE[:-2] + "12")),
    ("rshift-1", plain("0d")),
)


def differing(site: str, make: Make) -> list[str]:
    kernel = running(SITES, VMLINUX)
    for label, found in (("rptr-8", plain(VALUE)), ("rshift-1", plain("0c")), (site, make)):
        name, _, before = label.partition("-")
        at = address_of(kernel, "patched") - OFFSETS["patched"] + OFFSETS[name] - int(before or 0)
        kernel.write(at, found(kernel, at))
    return [m.function for m in match(packed({"a.o": SITES}), kernel).unmatched]


@pytest.mark.parametrize(("site", "make"), ALLOWED, ids=names(ALLOWED))
def test_what_the_kernel_can_put_there_matches(site: str, make: Make) -> None:
    assert differing(site, make) == []


@pytest.mark.parametrize(("site", "make"), FORBIDDEN, ids=names(FORBIDDEN))
def test_anything_else_does_not(site: str, make: Make) -> None:
    assert differing(site, make) == ["patched"]
