# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernels there are, and the order of their versions."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from debian.debian_support import NativeVersion

from kspliced.engine.kernels import (
    distribution_images,
    installed_images,
    installed_kernels,
    installed_version,
    loaded_modules,
    running_kernel,
    source_version,
    switched_off,
)
from kspliced.engine.versions import compare_versions, flavour, series
from kspliced.errors import Code, KernelError
from kspliced.kernel.modules import Modules, listed, read_modules
from kspliced.model import KernelId
from tests.unit.engine.fakes import NEWER, NEWEST, RUNNING, Machine

VERSIONS = [
    "1.0",
    "1.0-1",
    "1.0~rc1-1",
    "6.1.192-1",
    "6.1.192-2",
    "6.1.90-1",
    "6.1.190-1",
    "1:0.1",
    "6.1.192-1+b1",
    "6.5~rc7-1~exp1",
    "6.5-1",
    "6.12.94-1",
    "1.0a",
    "1.0+",
    "1.0+a",
    "1.0-1.1",
    "1.00",
    "1.a",
    "1a",
    "6.1.52-1+deb12u1",
    "6.1.52-1~bpo",
    "1.0~~",
    "1.0~",
    "1-1-1",
]


def test_the_order_is_dpkgs() -> None:
    for left, right in product(VERSIONS, VERSIONS):
        ours, theirs = NativeVersion(left), NativeVersion(right)
        expected = (ours > theirs) - (ours < theirs)
        assert compare_versions(left, right, RUNNING) == expected, (left, right)


RPM_VERSIONS = [
    "5.14.0-362.el9",
    "5.14.0-362.8.1.el9_3",
    "5.14.0-362.13.1.el9_3",
    "6.1.192-2.ks1",
    "6.1.192-2.1.ks1",
    "6.1.192-10.ks1",
    "6.5.0-0.rc7.54.fc40",
    "6.5.0-57.fc40",
    "6.5.0~rc7-1",
    "6.5.0^20240101-1",
    "6.5.0-1",
    "6.10.0-1",
]


def test_the_order_is_rpms() -> None:
    """dpkg would have 362.el9 come after 362.8.1.el9_3."""
    kernel = KernelId("6.1.192-1.ks1.x86_64", "6.1.192-1.ks1", "x86_64")
    pairs = tuple(product(RPM_VERSIONS, RPM_VERSIONS))
    # rpm's own words for one before the other, after it, and the same.
    one, other = 'rpm.ver("{0}")', 'rpm.ver("{1}")'
    words = f"print({one} < {other} and '-1 ' or {other} < {one} and '1 ' or '0 ')"
    lines = (words.format(a, b) for a, b in pairs)
    macro = f"%{{lua: {'; '.join(lines)}}}"
    done = subprocess.run(["rpm", "--eval", macro], check=True, capture_output=True, text=True)
    expected = [int(word) for word in done.stdout.split()]
    assert [compare_versions(a, b, kernel) for a, b in pairs] == expected
    assert set(expected) == {-1, 0, 1}
    assert compare_versions(RPM_VERSIONS[0], RPM_VERSIONS[1], RUNNING) == 1


@pytest.mark.parametrize(
    "release,expected",
    [
        ("6.1.0-55-amd64", ("6.1", "amd64")),
        ("6.1.0-55-cloud-amd64", ("6.1", "cloud-amd64")),
        ("6.1.0-55-rt-amd64", ("6.1", "rt-amd64")),
        ("6.12.94+deb13-amd64", ("6.12", "amd64")),
        ("6.12.94+deb13-cloud-amd64", ("6.12", "cloud-amd64")),
        ("6.1.0-0.deb11.55-amd64", ("6.1", "amd64")),
        ("vanilla", ("", "")),
    ],
)
def test_release_names(release: str, expected: tuple[str, str]) -> None:
    assert (series(release), flavour(release)) == expected


@pytest.mark.parametrize(
    "source,version,expected",
    [
        ("linux-signed-amd64 (6.1.192+2)", "6.1.192-2", "6.1.192-2"),
        ("linux-signed-amd64 (6.5~rc7+1~exp1)", "6.5~rc7-1~exp1", "6.5~rc7-1~exp1"),
        ("linux-signed-amd64 (6.1.52+1+deb12u1)", "6.1.52-1+deb12u1", "6.1.52-1+deb12u1"),
        ("linux", "6.1.192-2", "6.1.192-2"),
        ("linux (6.1.192-2)", "6.1.192-2+b1", "6.1.192-2"),
        ("", "6.1.192-2+b1", "6.1.192-2"),
    ],
)
def test_the_source_behind_a_binary(source: str, version: str, expected: str) -> None:
    assert source_version(source, version) == expected


def test_the_running_kernel_is_not_the_compilers_version(machine: Machine) -> None:
    assert running_kernel(machine.paths) == RUNNING


FOREIGN = [
    ("6.8.12-4-pve", "#1 SMP PREEMPT_DYNAMIC PMX 6.8.12-4 (2024-11-06T15:04Z)"),
    ("6.6.10-x64v3-xanmod1", "#0~20240105.g8a4d4b5 SMP PREEMPT_DYNAMIC Fri Jan  5"),
    ("6.7-4.1-liquorix-amd64", "#1 ZEN SMP PREEMPT liquorix 6.7-5ubuntu1~bookworm"),
    ("6.8.0-45-generic", "#45-Ubuntu SMP PREEMPT_DYNAMIC Fri Aug 30 12:02:04 UTC 2024"),
    ("6.1.0-rpi7-rpi-v8", "#1 SMP PREEMPT Debian 1:6.1.63-1+rpt1 (2023-11-24)"),
    ("5.15.153.1-microsoft-standard-WSL2", "#1 SMP Fri Mar 29 23:14:13 UTC 2024"),
    ("6.1.200-amd64", "#2 SMP PREEMPT_DYNAMIC Thu Jan 1 00:00:00 UTC 1970"),
    ("6.1.0-55-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1~local3 (2026-11-14)"),
    ("6.9.0-1.fc40.x86_64", "#1 SMP PREEMPT_DYNAMIC mine"),
    ("6.1.0", ""),
]


@pytest.mark.parametrize("release,build", FOREIGN)
def test_a_kernel_that_is_not_the_distributions(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, release: str, build: str
) -> None:
    """One plain line, also where there is no rpm to be asked."""
    monkeypatch.setenv("PATH", "/nonexistent")
    (machine.paths.proc / "sys/kernel/osrelease").write_text(release + "\n")
    (machine.paths.proc / "sys/kernel/version").write_text(build + "\n")
    with pytest.raises(KernelError) as caught:
        running_kernel(machine.paths)
    assert caught.value.code is Code.FOREIGN_KERNEL and caught.value.remedy
    assert caught.value.message == (
        f"the running kernel {release} is not the distribution's, and is left alone"
    )


@pytest.mark.parametrize(
    "version",
    ["6.1.52-1+deb12u1", "6.5.10-1~bpo12+1", "6.5~rc7-1~exp1", "4.19.67-2+deb10u2~bpo9+1"],
)
def test_every_form_of_debians_versions(machine: Machine, version: str) -> None:
    (machine.paths.proc / "sys/kernel/version").write_text(f"#1 SMP Debian {version} (2026)\n")
    assert running_kernel(machine.paths).version == version


@pytest.mark.parametrize(
    "source", ["linux-upstream (6.1.200-1)", "linux-upstream", "", "linux-mine"]
)
def test_a_self_built_image_is_ignored_with_a_word(machine: Machine, source: str) -> None:
    stanza = (
        "\nPackage: linux-image-6.1.200-amd64\nStatus: install ok installed\nArchitecture: amd64\n"
        f"{'Source: ' + source if source else 'Section: kernel'}\nVersion: 6.1.200-1\n"
    )
    with (machine.paths.dpkg / "status").open("a") as file:
        file.write(stanza)
    found = installed_kernels(machine.paths, RUNNING)
    assert found.newest == NEWER and found.other_series is None
    assert found.ignored == ("linux-image-6.1.200-amd64 6.1.200-1",)


def test_an_image_that_was_built_again_has_its_packages_version(machine: Machine) -> None:
    """apt's lists, which are asked who offers it, have that one."""
    name = "linux-image-6.1.0-56-amd64-unsigned"
    stanza = (
        f"\nPackage: {name}\nStatus: install ok installed\nArchitecture: amd64\n"
        "Source: linux (6.1.192-2)\nVersion: 6.1.192-2+b1\n"
    )
    with (machine.paths.dpkg / "status").open("a") as file:
        file.write(stanza)
    assert (name, "6.1.192-2+b1") in installed_images(machine.paths, RUNNING)
    assert name in distribution_images(machine.paths, RUNNING)


def test_no_procfs(tmp_path: Path) -> None:
    with pytest.raises(KernelError):
        running_kernel(Machine(tmp_path / "a").paths.__class__(tmp_path / "b"))


def test_the_newest_of_the_flavour_and_series(machine: Machine) -> None:
    cloud = KernelId("6.1.0-99-cloud-amd64", "6.1.199-1", "x86_64")
    other = KernelId("6.12.94+deb13-amd64", "6.12.94-1", "x86_64")
    machine.install(NEWEST, other, RUNNING, cloud, NEWER)
    found = installed_kernels(machine.paths, RUNNING)
    assert (found.newest, found.other_series) == (NEWEST, other)


def test_an_older_series_is_nothing(machine: Machine) -> None:
    machine.install(NEWER, KernelId("5.10.0-30-amd64", "5.10.218-1", "x86_64"))
    assert installed_kernels(machine.paths, RUNNING).other_series is None


@pytest.mark.parametrize(
    "status,there",
    [
        ("install ok installed", True),
        ("install ok half-configured", True),
        ("install ok unpacked", True),
        ("install ok triggers-pending", True),
        ("deinstall ok config-files", False),
        ("install ok not-installed", False),
        ("install reinstreq half-installed", False),
    ],
)
def test_only_what_is_on_the_disk(machine: Machine, status: str, there: bool) -> None:
    file = machine.paths.dpkg / "status"
    file.write_text(file.read_text().replace("install ok installed", status))
    newest = installed_kernels(machine.paths, RUNNING).newest
    assert newest == (NEWER if there else RUNNING)


def test_dpkgs_unmerged_updates_count(machine: Machine) -> None:
    machine.install(RUNNING, NEWER, NEWEST)
    updates = machine.paths.dpkg / "updates"
    status = (machine.paths.dpkg / "status").read_text()
    machine.install(RUNNING)
    updates.mkdir()
    (updates / "0001").write_text(status.split("\n\n")[1] + "\n")
    (updates / "tmp.i").write_text(status.split("\n\n")[2] + "\n")
    assert installed_kernels(machine.paths, RUNNING).newest == NEWER


def test_metapackages_debug_packages_and_garbage(machine: Machine) -> None:
    with (machine.paths.dpkg / "status").open("ab") as file:
        for name in ("linux-image-amd64", "linux-image-6.1.0-99-amd64-dbg"):
            stanza = f"\nPackage: {name}\nStatus: install ok installed\nVersion: 6.1.199-1\n"
            file.write(stanza.encode())
        file.write(b"\n\xff\xfe\x00\nPackage: linux-image-\n\nPackage: linux-image-7")
    assert installed_kernels(machine.paths, RUNNING).newest == NEWER


def test_an_unsigned_image_is_a_kernel(machine: Machine) -> None:
    machine.install(replace(NEWER, release=f"{NEWER.release}-unsigned"))
    assert installed_kernels(machine.paths, RUNNING).newest == NEWER


def test_no_dpkg(tmp_path: Path, machine: Machine) -> None:
    (machine.paths.dpkg / "status").unlink()
    assert installed_kernels(machine.paths, RUNNING).newest == RUNNING
    assert installed_version(machine.paths, "linux-source-6.1") is None


def test_our_own_modules_are_no_targets(machine: Machine) -> None:
    lines = (
        "ext4 1 1 - Live 0x0",
        "ks_0123 1 1 - Live 0x0 (OE)",
        "kspliced 1 1 ks_0123, Live 0x0 (OE)",
        "zfs 1 0 - Live 0x0 (POE)",
        "nfit 1 0 - Live 0x0 (E)",
    )
    (machine.paths.proc / "modules").write_text("".join(f"{line}\n" for line in lines))
    found = loaded_modules(machine.paths)
    assert found == Modules(("ext4", "zfs", "nfit"), ("zfs",))
    assert read_modules(listed(("vmlinux", *found.names), found.foreign)) == Modules(
        ("vmlinux", "ext4", "zfs", "nfit"), ("zfs",)
    )


def test_the_switch_on_the_command_line(machine: Machine) -> None:
    assert not switched_off(machine.paths)
    machine.boot(RUNNING, "quiet kspliced=off")
    assert switched_off(machine.paths)
