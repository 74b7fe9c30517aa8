# SPDX-License-Identifier: GPL-2.0-or-later
"""The story's world where dnf upgrades: Debian's userland, kernels of RPM packages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.vm import repo, rpm_image, rpm_kernel, rpm_packages, rpm_repo
from tests.vm.rpm_kernel import NEW, OLD
from tests.vm.world import Kernel, Repository, World

_NEWEST = "rpm -q --qf '%{VERSION}-%{RELEASE}\\n' kernel-core | sort -V | tail -n 1 | tr -d '\\n'"


@contextmanager
def kernels_repository(*others: Path) -> Iterator[Repository]:
    """The two kernels and their sources, and ``others`` from the start."""
    old, new = rpm_kernel.packages()
    before = (*old.binary, old.source, rpm_image.userland(), *others)
    with rpm_repo.repository(before, (*new.binary, new.source)) as disk:
        yield Repository(disk, repo.mount)


def _repository() -> AbstractContextManager[Repository]:
    return kernels_repository(*rpm_packages.own_rpms())


RPM = World(
    name="rpm-story",
    old=Kernel(OLD.version, OLD.uname),
    new=Kernel(NEW.version, NEW.uname),
    image=rpm_image.base,
    repository=_repository,
    refresh="dnf -q makecache",
    install="dnf -y install kspliced kspliced-dkms python3-dnf-plugin-kspliced",
    remove="dnf -y remove kspliced",
    again="dnf -y install kspliced",
    upgrade="dnf -y update",
    newest=_NEWEST,
)
