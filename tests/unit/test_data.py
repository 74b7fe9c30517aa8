# SPDX-License-Identifier: GPL-2.0-or-later
"""The files for D-Bus, polkit and systemd in data/: well-formed, and true to the code."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kspliced.client import NAME
from kspliced.engine.journal import catalog
from kspliced.service import api, daemon

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


def test_every_method_has_a_right_and_the_manual_names_it() -> None:
    methods = [method for interface in api.INTERFACES for method in interface.methods]
    # Who started a job may cancel it; others need the action (tests/dbus/test_rights.py).
    assert [method.name for method in methods if not method.action] == ["Cancel"]
    rows = [
        line.split("|")
        for line in (DATA.parent / "docs/dbus.md").read_text("utf-8").splitlines()
        if line.startswith("| `") and "`org.kspliced1." in line
    ]
    told = {
        (name, row[2].strip(" `")) for row in rows for name in row[1].split("`")[1::2] if row[2]
    }
    assert told >= {(m.name, m.action or api.ACTION_CANCEL) for m in methods}


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
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


@pytest.mark.parametrize("unit", [u for u in UNITS if u.suffix == ".service"], ids=lambda u: u.name)
def test_nothing_of_the_environment_runs_as_root(unit: Path) -> None:
    commands = [line for line in unit.read_text("utf-8").splitlines() if line.startswith("Exec")]
    assert commands
    for command in commands:
        program = command.split("=", 1)[1].lstrip("-")
        assert program.startswith("/usr/bin/python3 -I -m kspliced.")
    assert daemon.WORKER[1:] == ("-I", "-m", "kspliced.engine")


def test_the_replay_comes_before_what_could_forbid_it() -> None:
    """kernel.modules_disabled=1 and kernel.kptr_restrict=2 of sysctl.d: the order is fixed."""
    unit = configparser.ConfigParser(strict=False)
    unit.read(DATA / "kspliced-replay.service", "utf-8")
    assert "systemd-sysctl.service" in unit["Unit"]["Before"].split()
    assert "systemd-sysctl.service" not in unit["Unit"]["After"].split()


@pytest.mark.skipif(not Path("/lib/systemd/system/sysinit.target").exists(), reason="no systemd")
def test_our_order_has_no_cycle_with_systemds_own_units(tmp_path: Path) -> None:
    """systemd would leave out one of a cycle's units, whichever it is."""
    for unit in UNITS:
        shutil.copy(unit, tmp_path)
        for target in re.findall(r"^WantedBy=(.*)$", unit.read_text("utf-8"), re.MULTILINE):
            wants = tmp_path / f"{target}.wants"
            wants.mkdir(exist_ok=True)
            (wants / unit.name).symlink_to(tmp_path / unit.name)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "default.target"],
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:/lib/systemd/system", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "cycle" not in done.stderr
