# SPDX-License-Identifier: GPL-2.0-or-later
"""The files for D-Bus, polkit and systemd in data/: well-formed, and true to the code."""

from __future__ import annotations

import configparser
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kspliced.client import NAME
from kspliced.engine.journal import catalog
from kspliced.service import api

DATA = Path(__file__).resolve().parents[2] / "data"
UNITS = sorted([*DATA.glob("kspliced*.service"), *DATA.glob("*.timer"), *DATA.glob("*.path")])


def test_introspection_files_are_up_to_date(tmp_path: Path) -> None:
    api.write_files(tmp_path)
    for file in sorted(tmp_path.iterdir()):
        assert (DATA / file.name).read_text("utf-8") == file.read_text("utf-8"), (
            "run python3 -m kspliced.service.api data"
        )


def test_the_catalog_is_up_to_date() -> None:
    assert (DATA / "kspliced.catalog").read_text("utf-8") == catalog()


def test_polkit_knows_every_action() -> None:
    policy = ElementTree.parse(DATA / "org.kspliced1.policy").getroot()
    actions = {action.get("id") for action in policy.findall("action")}
    used = {m.action for i in api.INTERFACES for m in i.methods} - {""}
    assert actions == used | {api.ACTION_CANCEL}
    for action in policy.findall("action"):
        allowed = [e.text for e in action.findall("defaults/*")]
        expected = ["auth_admin_keep"] * 3
        if action.get("id") == api.ACTION_REFRESH:
            expected[2] = "yes"
        if action.get("id") == api.ACTION_APPLY_PACK:
            # Whoever may is root: nobody is remembered, and nobody has it without a password.
            expected = ["auth_admin"] * 3
        assert allowed == expected


def test_the_bus_lets_our_interfaces_through() -> None:
    config = ElementTree.parse(DATA / "org.kspliced1.conf").getroot()
    allowed = {a.get("send_interface") for a in config.iter("allow")}
    with_methods = {i.name for i in api.INTERFACES if i.methods}
    assert with_methods <= allowed
    assert [a.get("own") for a in config.iter("allow") if a.get("own")] == [NAME]


def test_activation_leads_to_the_unit() -> None:
    activation = configparser.ConfigParser()
    activation.read(DATA / "org.kspliced1.service", "utf-8")
    unit = configparser.ConfigParser(strict=False)
    unit.read(DATA / activation["D-BUS Service"]["SystemdService"], "utf-8")
    assert activation["D-BUS Service"]["Name"] == unit["Service"]["BusName"] == NAME
    assert unit["Service"]["Type"] == "dbus"


@pytest.mark.parametrize("unit", UNITS, ids=lambda u: u.name)
def test_systemd_accepts(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if unit.name in line]
    assert ours == []


@pytest.mark.parametrize("unit", [u for u in UNITS if u.suffix == ".service"], ids=lambda u: u.name)
def test_services_are_hardened(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=50", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-200:] + done.stderr
