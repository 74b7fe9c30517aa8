# SPDX-License-Identifier: GPL-2.0-or-later
"""The bug that the upgrade mends: how to provoke it on a throw-away ext4, and how to keep clear.

6.1.192-1 takes a missing page of the buddy bitmap for an error pointer, where 6.1's page cache
returns NULL. Dropping the caches makes the pages go; the next allocation in an initialised
block group dereferences NULL in ext4_mb_load_buddy_gfp and hangs with the group locked.
"""

from __future__ import annotations

from tests.vm.guest import Guest, Result

PLACE = "/mnt/throwaway"
IMAGE = "/var/tmp/throwaway.ext4"

# One round: files are written first, so that the groups are initialised when the pages go.
ROUND = f"""\
set -e
sync
echo 3 > /proc/sys/vm/drop_caches
dd if=/dev/zero of={PLACE}/trigger bs=1M count=40 conv=fsync status=none
rm {PLACE}/trigger
"""

# FS_IOC_GETFSMAP asks for every group's free extents and so loads every buddy page. A file
# system that was asked has nothing missing until the caches are dropped again.
_LOAD = """\
import fcntl, os, struct, sys
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDONLY)
    low, high = struct.pack("2I7Q", *[0] * 9), struct.pack("2I7Q", *[2**32 - 1] * 2,
        *[2**64 - 1] * 3, 0, 0, 0, 0)
    head = bytearray(struct.pack("4I6Q", *[0] * 10) + low + high)
    fcntl.ioctl(fd, 0xC0C0583B, head)
    print(path, struct.unpack_from("4I", head)[3], "extents")
    os.close(fd)
"""


def prepare(guest: Guest) -> None:
    """Make and mount the throw-away ext4 and write to it."""
    guest.run(
        f"mkdir -p {PLACE} && truncate -s 256M {IMAGE} && mke2fs -q -t ext4 {IMAGE} && "
        f"mount -o loop {IMAGE} {PLACE} && "
        f"dd if=/dev/zero of={PLACE}/first bs=1M count=20 conv=fsync status=none",
        timeout=120,
    )


def remount(guest: Guest) -> None:
    """Mount the throw-away ext4 again after a boot."""
    guest.run(f"mountpoint -q {PLACE} || mount -o loop {IMAGE} {PLACE}")


def pull(guest: Guest, rounds: int, timeout: float) -> Result:
    """Run the trigger ``rounds`` times, stopping at the first that fails; never raises for that."""
    script = f"for round in $(seq {rounds}); do\n({ROUND}) || exit 1\ndone; echo {rounds} rounds"
    return guest.run(script, timeout=timeout, check=False)


def make_safe(guest: Guest) -> None:
    """Load what the trigger dropped, so that the faulty code has nothing to trip over.

    To be called while the fixed code runs, before the faulty code is to run again: the caches
    were dropped for the guest's root file system as well.
    """
    guest.run(f"python3 -c '{_LOAD}' / {PLACE}", timeout=120)
