# SPDX-License-Identifier: GPL-2.0-or-later
"""A pack of a whole upgrade, live in a guest that has a server's modules loaded.

    python3 -m tests.whole.live PACK

boots the kernel that the pack is for, loads the modules, matches, links, applies, sees that the
guest can do what it could (files/workload), undoes, and prints the figures as JSON. While the
update is live, stress-ng's stressors run, too. What its kernel says is checked.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kspliced.pack import Pack, read_pack
from tests.vm.scenario_guest import ScenarioGuest
from tests.whole import work
from tests.whole.kernels import UPGRADES, Upgrade, dependencies, modules

# A server's: file systems, network, virtual machines, sound. What needs hardware may not load.
SERVER = (
    # libcrc32c asks for it by the name of the algorithm.
    "crc32c_generic",
    "ext4", "xfs", "btrfs", "nfs", "nfsd", "nfsv3", "nfsv4", "nf_tables", "nf_conntrack", "nf_nat",
    "bridge", "veth", "overlay", "kvm", "kvm_intel", "kvm_amd", "virtio_net", "virtio_blk", "sctp",
    "cifs", "bluetooth", "snd_pcm", "tun", "dm_mod", "raid1", "xfrm_user", "esp4", "ip_tables",
    "nft_compat", "loop", "fuse", "autofs4", "e1000", "ahci", "sd_mod", "xhci_hcd", "nvme",
    "openvswitch", "vxlan", "macvlan", "8021q", "act_mirred", "tls", "rds", "tipc",
    # What the workload needs, as there is no modprobe.
    "nft_ct", "nft_masq", "nft_chain_nat", "xt_tcpudp", "xt_comment", "cmac", "ccm", "gcm", "ecb",
    "ctr", "ghash_generic", "sha512_generic", "nls_utf8",
)  # fmt: skip
STRESSED = 1  # seconds for each stressor
HARDWARE = frozenset({"kvm_intel", "kvm_amd"})
WORK = """
set -e
ip link set lo up; ping -c 1 -W 2 127.0.0.1 > /dev/null || exit 1
# busybox names no peer: the kernel calls it veth0.
ip link add v1 type veth; ip link add br0 type bridge; ip link set v1 master br0
ip link set v1 up; ip link set veth0 up; ip link set br0 up; ip addr add 10.0.0.1/24 dev br0
ping -c 1 -W 2 10.0.0.1 > /dev/null
ip link del br0; ip link del v1
truncate -s 64M /tmp/disk && losetup /dev/loop0 /tmp/disk && mke2fs /dev/loop0 > /dev/null
mkdir -p /tmp/m && mount -t ext4 /dev/loop0 /tmp/m || exit 1
for n in 1 2 3 4; do dd if=/dev/urandom of=/tmp/m/$n bs=64k count=40 2> /dev/null & done; wait
md5sum /tmp/m/[1-4] > /tmp/sums; umount /tmp/m; mount -t ext4 /dev/loop0 /tmp/m || exit 1
md5sum -c -s /tmp/sums || exit 1
mkdir -p /tmp/o/u /tmp/o/w /tmp/o/m
mount -t tmpfs none /tmp/o && mkdir -p /tmp/o/u /tmp/o/w /tmp/o/m
mount -t overlay -o lowerdir=/tmp/m,upperdir=/tmp/o/u,workdir=/tmp/o/w none /tmp/o/m || exit 1
echo more >> /tmp/o/m/1; umount /tmp/o/m; umount /tmp/o; umount /tmp/m; losetup -d /dev/loop0
"""


def loaded(upgrade: Upgrade, names: Sequence[str] = SERVER) -> tuple[str, ...]:
    """The files of modules and of what they need, in the order in which they are loaded."""
    needs = dependencies(modules(upgrade))
    return tuple(dict.fromkeys(path for name in names for path in needs[name]))


def guest(
    upgrade: Upgrade,
    names: Sequence[str] = SERVER,
    files: Mapping[str, Path] | None = None,
    arguments: tuple[str, ...] = (),
) -> ScenarioGuest:
    """A guest that runs the old kernel, with modules, more files in its root, and more of QEMU's
    ``arguments``."""
    needs = dependencies(modules(upgrade))
    hardware = frozenset(_name(needs[name][-1]) for name in HARDWARE)
    return ScenarioGuest(
        f"live-{upgrade.name}",
        tuple(_name(path) for path in loaded(upgrade, names)),
        upgrade.kernel,
        hardware,
        ("-m", "3G", *arguments),
        files or {},
    )


def _name(path: str) -> str:
    return path.removeprefix("kernel/").removesuffix(".ko")


@dataclass(frozen=True)
class Cycle:
    """How an update went live and back. ``spans``: functions; ``pause_us``: microseconds in the
    emulated guest; ``held``: targets that are loaded, but wait for others; ``faults``: what the
    kernel complained about from then on."""

    update: str
    spans: int
    waiting: tuple[str, ...]
    held: tuple[str, ...]
    match_and_load_seconds: float
    attempts: int
    attempts_to_undo: int
    pause_us: int
    module_bytes: int
    faults: str


def cycle(machine: ScenarioGuest, pack: Pack, load: str, burden: str = "") -> Cycle:
    """Apply the pack, undo, apply once more and undo; ``load`` has to succeed all the time, and
    ``burden``, if any, in its place while the update is live."""

    def works(script: str = load) -> None:
        machine.check(script, 1800)

    works()
    # Modules complain about the emulated processor when they are loaded (crypto/testmgr.c).
    before = set(machine.faults().splitlines())
    started = time.monotonic()
    linked = machine.load(pack)
    seconds = time.monotonic() - started
    tries = machine.switch(linked.name, "apply")
    where = f"/sys/kernel/kspliced/updates/{linked.name}"
    pause = int(machine.check(f"cat {where}/pause_ns"))
    spans = machine.check(f"cat {where}/spans").splitlines()
    works(burden or load)
    undo = machine.switch(linked.name, "reverse")
    works()
    machine.switch(linked.name, "apply")
    machine.switch(linked.name, "reverse")
    works()
    return Cycle(
        update=linked.name,
        spans=len(spans),
        waiting=linked.waiting,
        held=linked.held,
        match_and_load_seconds=round(seconds, 1),
        attempts=tries,
        attempts_to_undo=undo,
        pause_us=pause // 1000,
        module_bytes=len(linked.content),
        faults="\n".join(line for line in machine.faults().splitlines() if line not in before),
    )


def at_work(pack: Pack) -> Cycle:
    """A pack live in a guest that does a server's work."""
    upgrade = UPGRADES[pack.manifest.kernel.version]
    with guest(upgrade, arguments=work.arguments()) as machine:
        return cycle(machine, pack, work.script(), work.script(STRESSED))


def main(arguments: list[str]) -> int:
    """The command; 1 when the kernel complained."""
    result = at_work(read_pack(Path(arguments[0])))
    print(json.dumps(asdict(result), indent=2))
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
