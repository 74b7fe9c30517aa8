# SPDX-License-Identifier: GPL-2.0-or-later
"""Who loads modules has no network, and what has the network has no right over the kernel."""

from __future__ import annotations

import configparser
import subprocess
from pathlib import Path

import pytest

from kspliced.engine import __main__ as worker
from kspliced.engine.edges import Cancel
from kspliced.engine.fetch_unit import PROPERTIES, in_unit, transient
from kspliced.engine.paths import Paths
from kspliced.errors import Code, KsplicedError

DATA = Path(__file__).resolve().parents[3] / "data"
_KERNEL = ("CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYSLOG", "CAP_SYS_ADMIN", "CAP_BPF")


def test_the_network_and_the_kernel_are_apart(tmp_path: Path) -> None:
    daemon = configparser.ConfigParser(strict=False, interpolation=None)
    daemon.read(DATA / "kspliced.service", "utf-8")
    assert daemon["Service"]["PrivateNetwork"] == "yes"
    assert "AF_INET" not in daemon["Service"]["RestrictAddressFamilies"]
    download = dict(value.split("=", 1) for value in PROPERTIES)
    capabilities = download["CapabilityBoundingSet"].split()
    assert not set(_KERNEL) & set(capabilities)
    unit = tmp_path / "download.service"
    unit.write_text("\n".join(("[Service]", "ExecStart=/usr/bin/apt-get", *PROPERTIES)), "utf-8")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=35", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


def test_every_fetcher_of_a_real_machine_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(tmp_path)
    for rpm in (False, True):
        monkeypatch.setattr(worker, "of_rpm", lambda _, rpm=rpm: rpm)
        monkeypatch.setattr(worker, "running_kernel", lambda _: None)
        assert worker._fetcher(paths).download is in_unit  # type: ignore[attr-defined]


def test_the_proxy_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.delenv("http_proxy", raising=False)
    argv = transient("a.service", ("apt-get", "download", "x"), Path("/some/where"))
    assert argv[argv.index("--") + 1 :] == ("apt-get", "download", "x")
    assert "--setenv=https_proxy" in argv and "--setenv=http_proxy" not in argv
    assert "--working-directory=/some/where" in argv


def test_what_is_cancelled_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, script in (
        ("systemd-run", "exec sleep 60"),
        ("systemctl", f'echo "$@" >{tmp_path}/calls'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n", "ascii")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    cancel = Cancel()
    cancel.wanted = True
    with pytest.raises(KsplicedError) as raised:
        in_unit(("apt-get", "download", "x"), cancel, 60.0, None)
    assert raised.value.code is Code.CANCELLED
    (unit,) = (tmp_path / "calls").read_text("ascii").split()[1:]
    assert unit.startswith("kspliced-fetch-") and unit.endswith(".service")
