# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan says of every change what becomes of it, and rounds nothing up."""

from __future__ import annotations

from kspliced.build.pipeline import BuildResult
from kspliced.build.plan import plan_of
from kspliced.build.select import Irrelevant
from kspliced.model import ChangeKind, ChangelogEntry, FunctionChange, Refusal
from kspliced.record import encode

ENTRIES = (ChangelogEntry("6.1.2-1", "ext4: fix it", ("CVE-2026-12345",), ()),)
FUNCTION = FunctionChange("ext4", "fs/ext4/a.o", "f", ChangeKind.CHANGED, "own source")
IRRELEVANT = (Irrelevant("arch/arm64/x.c", "another architecture"),)
REFUSAL = Refusal("header_changed", "include/a.h", "", "units may change")


def result(
    functions: tuple[FunctionChange, ...] = (), refused: tuple[Refusal, ...] = ()
) -> BuildResult:
    return BuildResult(None, (), functions, refused, IRRELEVANT, ENTRIES, ())


def test_all_live() -> None:
    plan = encode(plan_of(result(functions=(FUNCTION,))))
    assert [c["decision"] for c in plan["components"]] == ["live", "irrelevant"]
    assert plan["entries"][0]["status"] == "live"
    assert plan["totals"] == {
        "live": 1, "reboot": 0, "irrelevant": 1, "entries": 1, "entries_live": 1,
    }  # fmt: skip


def test_one_refusal_and_nothing_is_live() -> None:
    plan = encode(plan_of(result(refused=(REFUSAL,))))
    assert [c["decision"] for c in plan["components"]] == ["reboot", "irrelevant"]
    assert plan["components"][0]["reasons"][0]["code"] == "header_changed"
    assert plan["entries"][0]["status"] == "reboot"
    assert plan["totals"]["entries_live"] == 0


def test_an_upgrade_of_other_code() -> None:
    plan = encode(plan_of(result()))
    assert plan["entries"][0]["status"] == "absent"
