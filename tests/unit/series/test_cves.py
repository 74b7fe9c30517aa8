# SPDX-License-Identifier: GPL-2.0-or-later
"""CVEs of commits, from records as the kernel's CNA and OSV publish them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from kspliced.errors import Code, SourceError
from kspliced.series.commit import Commit
from kspliced.series.cves import read_cves

MAINLINE, STABLE, INTRODUCED = "a1" * 20, "b2" * 20, "c3" * 20


def cna(name: str = "CVE-2026-1000", **meta: str) -> dict[str, Any]:
    git = {"status": "affected", "versionType": "git", "version": INTRODUCED}
    return {
        "dataType": "CVE_RECORD",
        "dataVersion": "5.1",
        "cveMetadata": {"cveID": name, "state": "PUBLISHED", **meta},
        "containers": {
            "cna": {
                "affected": [
                    {"versions": [{**git, "lessThan": STABLE}], "programFiles": ["fs/one.c"]},
                    {"versions": [{"version": "6.1", "status": "affected", "lessThan": "x"}]},
                    {"versions": [{"version": "6.1.190", "status": "unaffected"}]},
                ],
                "references": [{"url": f"https://git.kernel.org/stable/c/{MAINLINE}"}],
            }
        },
    }


def osv(**more: Any) -> dict[str, Any]:
    events = [{"introduced": INTRODUCED}, {"fixed": STABLE}]
    ranges = [{"type": "GIT", "repo": "x", "events": events}, {"type": "ECOSYSTEM", "events": []}]
    return {"id": "CVE-2026-1000", "affected": [{"ranges": ranges}], **more}


def commit(*ids: str) -> Commit:
    return Commit("x", "fs: one", ids, (), ())


def written(tmp_path: Path, *values: object) -> Path:
    for number, value in enumerate(values):
        file = tmp_path / f"published/2026/{number}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value))
    return tmp_path


def test_records_say_which_commit_mends(tmp_path: Path) -> None:
    data = read_cves(written(tmp_path, cna(), cna("CVE-2026-2000")))
    both = ("CVE-2026-1000", "CVE-2026-2000")
    assert data.of(commit(STABLE)) == data.of(commit("0" * 40, MAINLINE)) == both
    assert data.of(commit(MAINLINE[:12])) == both
    assert data.of(commit(INTRODUCED)) == data.of(commit()) == data.of(commit(MAINLINE[:8])) == ()
    assert data.of(commit(MAINLINE[:12] + "0" * 28)) == ()


def test_those_of_osv_too(tmp_path: Path) -> None:
    for record in (osv(), osv(id="DSA-1-1", aliases=["CVE-2026-1000"]), [osv()]):
        data = read_cves(written(tmp_path, record, {"other": "json"}))
        assert data.of(commit(STABLE)) == ("CVE-2026-1000",)
        assert data.of(commit(INTRODUCED)) == ()


@pytest.mark.parametrize(
    "value",
    [
        cna(state="REJECTED"),
        osv(withdrawn="2026-01-01T00:00:00Z"),
        osv(id="DSA-1-1"),
        [],
        7,
        {"cveMetadata": [], "containers": {"cna": {"affected": {}, "references": [1]}}},
        {"id": "CVE-2026-1000", "affected": [{"ranges": [{"type": "GIT", "events": [{}]}]}]},
        {"id": "CVE-2026-1", "affected": [None]},
    ],
)
def test_what_tells_of_no_commit_is_said(tmp_path: Path, value: object) -> None:
    with pytest.raises(SourceError) as caught:
        read_cves(written(tmp_path, value))
    assert caught.value.code is Code.CVE_DATA_UNREADABLE and caught.value.remedy
    assert "tells of no commit" in caught.value.message


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[" * 100_000, b"{'a': 1}"])
def test_what_is_no_json_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "one.json").write_bytes(data)
    with pytest.raises(SourceError, match=r"one\.json is not JSON") as caught:
        read_cves(tmp_path)
    assert len(caught.value.message) < 500


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "one.json")
    (tmp_path / "two.json").mkdir()
    with pytest.raises(SourceError, match="tells of no commit"):
        read_cves(tmp_path)
    with pytest.raises(SourceError, match="no file and no directory"):
        read_cves(tmp_path / "one.json")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot read"):
        read_cves(tmp_path / "none")
    with pytest.raises(SourceError, match="tells of no commit"):
        read_cves(tmp_path)
