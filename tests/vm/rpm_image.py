# SPDX-License-Identifier: GPL-2.0-or-later
"""The RPM guest's disk: Debian 12's userland, and a kernel that dnf installed.

dnf, rpm and kernel-install are Debian's own. RPM's database holds the kernel, and what comes to
it; one package without files says what Debian's userland provides.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from tests.vm import cache, image, repo, rpm_kernel, rpm_repo
from tests.vm.rpm_kernel import OLD

PACKAGES = (
    # what a small server has
    "systemd systemd-sysv dbus polkitd kmod sudo udev procps iproute2 libpam-systemd",
    "dnf dnf-plugins-core rpm gnupg initramfs-tools zstd",
    # what our packages depend on, so that the story measures ours
    "dkms gcc gcc-12 make binutils xz-utils universal-ctags patch bc bison flex libelf-dev",
    "libssl-dev cpio python3-rpm python3-debian python3-pyelftools python3-dbus-next",
    "python3-systemd python3-capstone python3-rich",
    # what hammers the file system
    "stress-ng e2fsprogs util-linux",
)
# What the packages of the kernel and of kspliced ask for, by the names of RPM distributions.
PROVIDES = (
    *("coreutils", "kmod", "systemd = 252", "/bin/sh", "/usr/bin/sh", "/usr/bin/python3"),
    *("binutils", "ctags", "dbus", "gcc", "make", "patch", "polkit", "xz", "rpm-build"),
    *("dkms = 3.0.10", "python3 = 3.11.2", "python3-dnf = 4.14.0", "ccache"),
    *("python3-capstone", "python3-dbus-next", "python3-debian", "python3-pyelftools"),
    *("python3-rich", "python3-rpm", "python3-systemd"),
)

FILES = {
    # Debian's RPM looks for its database in the user's home.
    "etc/rpm/macros.database": "%_dbpath /var/lib/rpm\n",
    "etc/kernel/install.conf": "layout=other\n",
    "etc/dnf/dnf.conf": "[main]\ngpgcheck=True\ninstallonly_limit=3\n"
    "clean_requirements_on_remove=True\nbest=False\nskip_if_unavailable=True\n",
    # Debian has all plugins in one package; this one would make a repository of what is fetched.
    "etc/dnf/plugins/local.conf": "[main]\nenabled=False\n",
    f"etc/yum.repos.d/{rpm_repo.NAME}.repo": rpm_repo.SOURCES,
}


def base() -> image.Image:
    """The image, made if it is not in the cache."""
    path = cache.made(f"image-rpm-{_key()}", _make)
    kernel, initrd = (path / f"{kind}-{OLD.uname}" for kind in ("vmlinuz", "initrd.img"))
    return image.Image(path / "root.ext4", image.Boot(OLD.uname, kernel, initrd))


def _key() -> str:
    old, _new = rpm_kernel.packages()
    read = (image.HERE / "agent.py", Path(image.__file__), Path(rpm_repo.__file__), Path(__file__))
    files = (*sorted(rpm_kernel.FILES.iterdir()), *read)
    return cache.digest(
        json.dumps([PACKAGES, FILES]), str(old.folder), *(path.read_bytes() for path in files)
    )


def _make(folder: Path) -> None:
    old, _new = rpm_kernel.packages()
    root = folder / "root"
    with tempfile.TemporaryDirectory(prefix=".rpm.", dir=cache.root()) as place:
        files = Path(place, "files")
        image.write_files(files, FILES)
        hook = files / "etc/kernel/install.d/60-boot.install"
        hook.parent.mkdir()
        shutil.copy(rpm_kernel.FILES / "boot.install", hook)
        hook.chmod(0o755)
        repository = Path(place, "repository")
        rpm_repo.lay_out(repository / rpm_repo.NAME, (*old.binary, userland()), ())
        image.bootstrap(root, PACKAGES, _install(files, repository))
    for kind in ("vmlinuz", "initrd.img"):
        shutil.copy(root / "boot" / f"{kind}-{OLD.uname}", folder)
    image.write_disk(root, folder / "root.ext4")


def _install(files: Path, repository: Path) -> str:
    """What mmdebstrap is to do with the root when Debian's packages are in it."""
    key = rpm_kernel.key().public
    target = f'"$1{repo.PLACE}"'
    return (
        f'set -e; cp -r {files}/etc "$1"; mkdir -p "$1/etc/pki/rpm-gpg" "$1/var/lib/rpm"; '
        f'cp {key} "$1{rpm_repo.KEYFILE}"; ln -sf dkms "$1/etc/kernel/install.d/40-dkms.install"; '
        f"mkdir -p {target}; cp -r {repository}/. {target}; "
        f'chroot "$1" rpm --import {rpm_repo.KEYFILE}; '
        'chroot "$1" dnf -y install debian-userland kernel kernel-devel; '
        f'rm -r {target}; rm -rf "$1"/var/cache/dnf/*'
    )


def userland() -> Path:
    """The package that tells RPM what Debian's userland provides, signed."""
    spec = (rpm_kernel.FILES / "debian-userland.spec").read_text()
    spec = spec.replace("@PROVIDES@", "\n".join(f"Provides: {name}" for name in PROVIDES))

    def make(folder: Path) -> None:
        (folder / "userland.spec").write_text(spec)
        words = ("--define", f"_topdir {folder}", "--define", f"_rpmdir {folder}")
        cache.command("rpmbuild", "-bb", "--quiet", *words, folder / "userland.spec")
        rpm_kernel.key().sign(*folder.glob("*/*.rpm"))

    folder = cache.made(f"rpm-userland-{cache.digest(spec)}", make)
    (package,) = folder.glob("*/*.rpm")
    return package
