# SPDX-License-Identifier: GPL-2.0-or-later
"""The RPM guest is what it is taken for: kernels of signed packages, that dnf installs and boots.

Nothing of kspliced is in it but the core, compiled in the guest against kernel-devel.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import case, repo, rpm_image, rpm_repo, story, trigger
from tests.vm.guest import Guest
from tests.vm.rpm_kernel import NEW, OLD
from tests.vm.rpm_world import kernels_repository

pytestmark = [pytest.mark.vm, pytest.mark.full]
TREE = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    with (
        kernels_repository() as repository,
        Guest("rpm-world", rpm_image.base(), (repository.disk,)) as started,
    ):
        repository.attach(started)
        yield started


def test_the_running_kernel_is_a_package(guest: Guest) -> None:
    assert guest.run("uname -r").stdout == f"{OLD.uname}\n"
    query = "rpm -q --qf '%{{NAME}} %{{VERSION}}-%{{RELEASE}} %{{SOURCERPM}}\\n' {}"
    expected = f"kernel-core {OLD.version} kernel-{OLD.version}.src.rpm\n"
    for words in (
        "--whatprovides kernel-uname-r",
        f"-f /lib/modules/{OLD.uname}/vmlinuz",
        "--whatprovides 'installonlypkg(kernel)' | grep core",
    ):
        assert guest.run(query.format(words)).stdout == expected
    changed = guest.run("rpm -V kernel-core kernel-modules kernel-devel", check=False).stdout
    assert not changed
    assert guest.run("findmnt -no FSTYPE /").stdout == "ext4\n"
    assert "ext4" in guest.run("lsmod").stdout


def test_the_core_builds_against_kernel_devel_and_loads(guest: Guest) -> None:
    for path in sorted((TREE / "kmod").iterdir()):
        if path.suffix in (".c", ".h") or path.name in ("Kbuild", "Makefile"):
            guest.run("mkdir -p /root/kmod")
            guest.put(path, f"/root/kmod/{path.name}")
    said = guest.run("make -C /root/kmod 2>&1", timeout=900).stdout
    assert "warning" not in said.lower()
    mark = len(guest.console())
    guest.run("insmod /root/kmod/kspliced.ko && ls /sys/kernel/kspliced && rmmod kspliced")
    assert not guest.faults(mark)


def test_dnf_downloads_the_running_kernels_source(guest: Guest) -> None:
    guest.run(
        f"cd /root && dnf -q --enablerepo={rpm_repo.NAME}-source download --source kernel-core",
        timeout=300,
    )
    package = f"/root/kernel-{OLD.version}.src.rpm"
    assert guest.run(f"rpmkeys --checksig {package}").stdout.endswith(": digests signatures OK\n")
    listed = guest.run(f"rpm -qpl {package}").stdout.split()
    assert listed == ["kernel-x86_64.config", "kernel.spec", "linux-6.1.192.tar.xz"]


def test_an_update_installs_the_new_kernel_beside_the_old_one(guest: Guest) -> None:
    repo.offer(guest, "after")
    guest.run("dnf -y update", timeout=900)
    installed = guest.run("rpm -q kernel-core kernel-modules").stdout.split()
    assert installed == [
        f"kernel-{part}-{build.uname}" for part in ("core", "modules") for build in (OLD, NEW)
    ]
    said = guest.run(f"rpm -q --changelog kernel-core-{NEW.version} | grep -m 1 mballoc").stdout
    assert "ext4: fix NULL folio dereference in mballoc (Closes: #" in said
    boot = guest.boot_files(NEW.uname)
    guest.stop()
    guest.start(boot)
    mark = len(guest.console())
    trigger.prepare(guest)
    assert trigger.pull(guest, 2, timeout=300).ok
    assert not guest.faults(mark)


def test_the_old_kernel_has_the_bug() -> None:
    with Guest("rpm-bug", rpm_image.base()) as guest:
        lines = story.provoke(guest)
    assert any(case.FAULTY_FUNCTION in line for line in lines)
