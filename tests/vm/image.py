# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's disk: a Debian 12 root of real packages, made once by mmdebstrap and cached.

mmdebstrap takes the mirror and the suites from this machine's own apt configuration; nothing of
it stays in the root, whose only package source is the repository that a test attaches.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.vm import cache, case
from tests.vm.errors import HarnessError

HERE = Path(__file__).parent
SUITE = "bookworm"
DISK_SIZE = "14G"

PACKAGES = (
    # what a small server has
    "systemd systemd-sysv dbus polkitd kmod sudo apt udev procps iproute2 libpam-systemd",
    # the running kernel, and the metapackage that will pull the next one
    f"linux-image-{case.OLD_RELEASE}={case.OLD_VERSION}",
    f"{case.META}={case.META_OLD_VERSION} initramfs-tools zstd",
    # recommended by the kernel: `apt upgrade` keeps back what would lose a recommendation
    "firmware-linux-free apparmor",
    # what our packages depend on, so that the story measures ours
    f"dkms gcc gcc-12 make dpkg-dev linux-headers-{case.OLD_RELEASE}={case.OLD_VERSION}",
    "binutils xz-utils universal-ctags patch bc bison flex libelf-dev libssl-dev rsync cpio",
    "python3-debian python3-pyelftools python3-dbus-next python3-systemd python3-capstone",
    "python3-rich python3-apt",
    # what hammers the file system
    "stress-ng fio e2fsprogs util-linux",
)

# Documentation is left out by dpkg itself, in the guest's own later upgrades too.
DPKG_OPTIONS = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-include=/usr/share/doc/linux-*/*",  # changelogs, which say what an upgrade mends
    "force-unsafe-io",
)

# The initramfs holds what mounts a virtio disk and nothing else, as on a machine tuned for a
# quick boot: making one in the guest takes seconds, not minutes.
FILES = {
    "etc/initramfs-tools/conf.d/guest": "MODULES=list\nCOMPRESS=zstd\n"
    "COMPRESSLEVEL=1\nRESUME=none\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n",
}

# Written once the packages are there: some of these would make maintainer scripts wait.
LATE_FILES = {
    "etc/hostname": "guest\n",
    "etc/hosts": "127.0.0.1 localhost guest\n",
    "etc/fstab": "/dev/vda / ext4 errors=remount-ro 0 1\n",
    "etc/systemd/network/80-guest.network": "[Match]\nName=en* eth*\n[Network]\nDHCP=ipv4\n",
    "etc/systemd/journald.conf.d/guest.conf": "[Journal]\nStorage=persistent\n",
    "etc/systemd/system/harness-agent.service": """\
[Unit]
Description=Test harness agent
[Service]
ExecStart=/usr/bin/python3 -I /usr/local/libexec/harness-agent
KillMode=process
OOMPolicy=continue
Restart=on-failure
""",
    "etc/udev/rules.d/80-harness-agent.rules": 'SUBSYSTEM=="virtio-ports", '
    'ATTR{name}=="org.kspliced.harness", TAG+="systemd", '
    'ENV{SYSTEMD_WANTS}="harness-agent.service"\n',
}

MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "serial-getty@ttyS0.service",
    "systemd-networkd-wait-online.service",
)


@dataclass(frozen=True)
class Boot:
    """A kernel and its initramfs, as files on the host. ``release`` is its uname -r."""

    release: str
    kernel: Path
    initrd: Path


@dataclass(frozen=True)
class Image:
    """A disk with a root file system, never written, and what boots it."""

    disk: Path
    boot: Boot


def base() -> Image:
    """The base image, made if it is not in the cache. About two minutes then, else nothing."""
    path = cache.made(f"image-{_key()}", _make)
    kernel, initrd = (path / f"{kind}-{case.OLD_RELEASE}" for kind in ("vmlinuz", "initrd.img"))
    return Image(path / "root.ext4", Boot(case.OLD_RELEASE, kernel, initrd))


def _key() -> str:
    files = json.dumps([FILES, LATE_FILES, MASKED, DPKG_OPTIONS, DISK_SIZE])
    return cache.digest(
        " ".join(PACKAGES), files, (HERE / "agent.py").read_bytes(), Path(__file__).read_bytes()
    )


def apt_sources() -> str:
    """This machine's own sources of Debian's bookworm suites, one a line.

    Raises HarnessError where the machine's apt has none.
    """
    form = "$(CREATED_BY) $(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)"
    lines: dict[str, None] = {}
    for line in cache.command("apt-get", "indextargets", "--format", form).splitlines():
        words = line.split()
        if len(words) != 5 or words[:2] != ["Packages", "Debian"]:
            continue
        uri, release, component = words[2:]
        if release.split("-")[0] == SUITE:
            lines[f"deb {uri} {release} {component}"] = None
    if not lines:
        raise HarnessError(
            f"this machine's apt knows no Debian {SUITE} archive; "
            "the tests need a Debian 12 machine, after `apt-get update`"
        )
    return "\n".join(lines) + "\n"


def _apt_options() -> list[str]:
    # Proxies, certificates and the like of this machine, which its mirror may need.
    dump = cache.command("apt-config", "dump", "--no-empty")
    wanted = (line for line in dump.splitlines() if line.startswith("Acquire::"))
    return [f"--aptopt={line}" for line in wanted if "::IndexTargets" not in line]


def _make(folder: Path) -> None:
    root = folder / "root"
    bootstrap(root, PACKAGES)
    for kind in ("vmlinuz", "initrd.img"):
        shutil.copy(root / "boot" / f"{kind}-{case.OLD_RELEASE}", folder)
    write_disk(root, folder / "root.ext4")


def bootstrap(root: Path, packages: tuple[str, ...], *hooks: str) -> None:
    """Make a Debian root with ``packages``, the guest's files and the harness's agent.

    ``hooks`` are scripts for mmdebstrap that come last; the root is their first argument.
    """
    if os.geteuid() != 0:
        raise HarnessError("making the guest's image needs root (mmdebstrap, file ownership)")
    with tempfile.TemporaryDirectory(prefix=".files.", dir=root.parent) as place:
        early, late = Path(place, "early"), Path(place, "late")
        write_files(early, FILES)
        write_files(late, LATE_FILES)
        agent = late / "usr/local/libexec/harness-agent"
        agent.parent.mkdir(parents=True)
        shutil.copy(HERE / "agent.py", agent)
        cache.command(
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            "--quiet",
            *_apt_options(),
            *(f"--dpkgopt={option}" for option in DPKG_OPTIONS),
            f"--include={' '.join(packages)}",
            "--aptopt=APT::Install-Recommends false",
            f"--setup-hook=copy-in {early}/etc /",
            f"--customize-hook=copy-in {late}/etc {late}/usr /",
            f"--customize-hook={_customize()}",
            *(f"--customize-hook={hook}" for hook in hooks),
            SUITE,
            str(root),
            "-",
            stdin=apt_sources(),
        )


def write_disk(root: Path, disk: Path) -> None:
    """Make an ext4 disk of a root, which is removed."""
    cache.command(
        "mke2fs", "-q", "-t", "ext4", "-d", root, "-L", "root", "-m", "0",
        "-E", "lazy_itable_init=1,lazy_journal_init=1", disk, DISK_SIZE,
    )  # fmt: skip
    shutil.rmtree(root)


def _customize() -> str:
    masks = " ".join(MASKED)
    return (
        'set -e; root="$1"; '
        f'systemctl --root "$root" --quiet mask {masks}; '
        'systemctl --root "$root" --quiet enable systemd-networkd; '
        'rm -f "$root/etc/apt/sources.list" "$root/etc/apt/apt.conf.d/99mmdebstrap"; '
        'rm -rf "$root"/var/cache/apt/*.bin "$root"/var/lib/apt/lists/*; '
        'mkdir -p "$root/var/log/journal"; '
        ': > "$root/etc/machine-id"; '
        'chroot "$root" useradd --create-home --shell /bin/bash somebody'
    )


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Write each text to the path below ``folder`` that it belongs to."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
