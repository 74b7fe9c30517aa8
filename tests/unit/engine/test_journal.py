# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of journal entries and the catalog made from it."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import systemd.journal

from kspliced.engine.journal import Event, Facts, SystemJournal, catalog

CATALOG = Path(__file__).parents[3] / "data/kspliced.catalog"


def test_ids_are_uuids_of_their_own() -> None:
    ids = [event.value.id for event in Event]
    assert len(set(ids)) == len(ids)
    for name in ids:
        # RFC 4122, version 4.
        assert re.fullmatch(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", name)


def test_the_shipped_catalog_is_the_tables() -> None:
    assert CATALOG.read_text("utf-8") == catalog(), (
        "run: /usr/bin/python3 -m kspliced.engine.journal > data/kspliced.catalog"
    )


def test_the_catalog_names_fields_that_exist() -> None:
    known = {f"KSPLICED_{field.name.rstrip('_').upper()}" for field in fields(Facts)}
    assert set(re.findall(r"@(\w+)@", catalog())) <= known


def test_journalctl_compiles_the_catalog(tmp_path: Path) -> None:
    target = tmp_path / "usr/lib/systemd/catalog"
    target.mkdir(parents=True)
    (target / "kspliced.catalog").write_text(catalog())
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    subprocess.run(
        ["journalctl", f"--root={tmp_path}", "--update-catalog"], check=True, capture_output=True
    )
    listed = subprocess.run(
        ["journalctl", f"--root={tmp_path}", "--list-catalog"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert len(listed.splitlines()) == len(Event)


def test_an_entry_has_its_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr(systemd.journal, "send", lambda text, **kw: sent.append((text, kw)))
    SystemJournal().send(Event.LIVE, "live\x1b[0m", Facts(update="ks_1", from_="1", pause_us="3"))
    ((text, values),) = sent
    assert "\x1b" not in text
    assert values["MESSAGE_ID"] == Event.LIVE.value.id and values["PRIORITY"] == "5"
    names = {name for name in values if name.startswith("KSPLICED_")}
    assert names == {"KSPLICED_UPDATE", "KSPLICED_FROM", "KSPLICED_PAUSE_US"}


def test_without_a_journal_it_is_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "no socket")

    monkeypatch.setattr(systemd.journal, "send", fail)
    SystemJournal().send(Event.FAILED, "it failed")
    assert capsys.readouterr().err == "kspliced: it failed\n"


def test_the_daemons_part_is_cheap() -> None:
    code = (
        "import sys, kspliced.engine.status, kspliced.engine.queue\n"
        "heavy = {'elftools', 'capstone', 'systemd', 'subprocess', 'debian', 'ctypes'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "[]\n"


def test_a_replay_with_nothing_to_do_is_cheap() -> None:
    code = (
        "import sys, kspliced.engine.__main__\n"
        "print(sorted({'elftools', 'capstone', 'systemd', 'debian'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout == "[]\n"
