# SPDX-License-Identifier: GPL-2.0-or-later
"""The package of the core under the real dkms: a kernel that it cannot serve stops nobody.

It is installed by dpkg on this machine, seen through overlays that are gone with the test; the
headers are Debian's, spoiled or not.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.vm import kmod_build, packages

KERNEL = kmod_build.KERNELS[0]
RELEASE = KERNEL.release
# After the package is installed comes a kernel, whose hooks run as its package runs them.
SCRIPT = """
exec 2>&1
mount -t tmpfs none /mnt
for place in usr etc var; do
    mkdir -p /mnt/$place/upper /mnt/$place/work
    mount -t overlay -o lowerdir=/$place,upperdir=/mnt/$place/upper,workdir=/mnt/$place/work \
        none /$place || exit 9
done
rm -rf /lib/modules /var/lib/dkms/*
mkdir -p /lib/modules/{release}
ln -s /usr/src/linux-headers-{release} /lib/modules/{release}/build
touch /lib/modules/{release}/modules.order /lib/modules/{release}/modules.builtin
cp -a {headers}/usr/. /usr
cd /usr/src
{spoil}
dpkg --force-depends -i {deb}
echo "installed: $?"
{before_hooks}
echo "hooks begin"
run-parts --exit-on-error --arg={release} /etc/kernel/postinst.d
echo "hooks: $?"
run-parts --exit-on-error --arg={release} /etc/kernel/header_postinst.d
echo "header hooks: $?"
ls /lib/modules/{release}/updates/dkms
dpkg --force-depends -r kspliced-dkms
echo "removed: $?"
"""


@dataclass(frozen=True)
class Case:
    """What is wrong with the kernel's headers, and what our hook says of it, or ''."""

    spoil: str
    says: str


CASES = {
    "served": Case("", ""),
    "no table of all symbols": Case(
        f"sed -i '/^CONFIG_KALLSYMS_ALL=/d' linux-headers-{RELEASE}/.config",
        f"no kernel core for {RELEASE}: its configuration",
    ),
    "another interface": Case(
        "echo '#error another interface' >> linux-headers-6.1.0-55-common/include/linux/kobject.h",
        f"no kernel core for {RELEASE}: it does not build",
    ),
    "no headers": Case(
        f"rm -r linux-headers-{RELEASE}", f"no kernel core for {RELEASE}: its headers"
    ),
}


def installed(case: Case, before_hooks: str = "") -> str:
    """What installing the package, a kernel and its headers, and removing the package said."""
    (deb,) = (path for path in packages.own_debs() if path.name.startswith("kspliced-dkms"))
    # The place of the headers names the tree that it was unpacked to, as installed.
    tree: Path = kmod_build.headers(KERNEL).parents[2]
    script = SCRIPT.format(
        release=RELEASE, headers=tree, spoil=case.spoil, deb=deb, before_hooks=before_hooks
    )
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_kernel_without_its_core_is_installed(case: Case) -> None:
    said = installed(case)
    for step in ("installed", "hooks", "header hooks", "removed"):
        assert f"{step}: 0\n" in said, said
    assert ("kspliced.ko" in said) == (not case.says), said
    lines = [line for line in said.splitlines() if line.startswith("kspliced: ")]
    # One line from each of the two folders of hooks.
    assert all(case.says and case.says in line for line in lines), said
    assert len(lines) == (2 if case.says else 0), said


def test_dkms_itself_would_stop_the_kernel() -> None:
    """Why the core is not built by dkms's own hook, which AUTOINSTALL asks for."""
    conf = "/usr/src/kspliced-*/dkms.conf"
    said = installed(CASES["another interface"], f"echo 'AUTOINSTALL=yes' >> $(echo {conf})")
    assert "hooks: 0\n" not in said, said
