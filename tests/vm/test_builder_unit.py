# SPDX-License-Identifier: GPL-2.0-or-later
"""The builder's unit under a real systemd: what it may touch, and what is said when it is lost."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm import image, product, real
from tests.vm.case import OLD_RELEASE
from tests.vm.guest import Guest

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def machine() -> Iterator[Guest]:
    """A guest with the product's files, in which systemd runs the builder's unit."""
    with Guest("builder", image.base()) as guest:
        product.place_files(guest)
        guest.put(Path(__file__).with_name("unit_probe.py"), "/root/unit_probe.py")
        yield guest


def probed(guest: Guest, *arguments: str) -> dict[str, Any]:
    """What the probe in the guest says."""
    done = guest.run(f"python3 /root/unit_probe.py {' '.join(arguments)}", timeout=900)
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.fixture
def noexec(machine: Guest) -> Iterator[None]:
    """As systemd mounts it since version 257, and an administrator may."""
    machine.run("mount -t tmpfs -o mode=755,noexec none /var/cache")
    yield
    machine.run("umount /var/cache")


@pytest.mark.usefixtures("noexec")
def test_the_unit_reaches_nothing_but_its_own_cache(machine: Guest) -> None:
    """Network, bus, /etc, what other builds left; and it runs what it makes."""
    for key in ("first", "second"):
        said = probed(machine, "reach", key)
        assert said["done"] == [], said
        assert said["ran"] == "ran"
        assert said["read"] == "given"
    assert machine.run("ls /var/cache/kspliced").stdout.split() == ["first", "second"]


@pytest.mark.usefixtures("noexec")
def test_a_build_in_the_unit(machine: Guest, tmp_path: Path) -> None:
    """The kernel's own build, of one file: with what it runs, in a cache that is mounted noexec."""
    archive = tmp_path / "old.tar.zst"
    subprocess.run(["tar", "--zstd", "-cf", archive, "-C", real.tree(), "."], check=True)
    machine.put(archive, "/usr/src/old.tar.zst")
    edit = "s|#define DELTA 0x9E3779B9|#define DELTA 0x9E3779B8|"
    machine.run(
        "cd /usr/src && mkdir old && tar --zstd -xf old.tar.zst -C old && cp -al old new && "
        f"sed '{edit}' old/fs/ext4/hash.c > hash && mv hash new/fs/ext4/hash.c && "
        "chmod 644 new/fs/ext4/hash.c && ! cmp -s old/fs/ext4/hash.c new/fs/ext4/hash.c",
        timeout=300,
    )
    said = probed(machine, "build", OLD_RELEASE)
    assert said.get("functions"), said
    assert said["pack"] > 0
    # The real builder had the one cache, and left its caches and nothing else there.
    (cache,) = machine.run("ls -d /var/cache/kspliced/*").stdout.split()
    assert machine.run(f"ls {cache}").stdout.split() == ["sources"]


def test_a_builder_that_cannot_start_is_told_plainly(machine: Guest) -> None:
    machine.run("sysctl -w user.max_user_namespaces=0")
    try:
        said = probed(machine, "lose", "never")
    finally:
        machine.run("sysctl -w user.max_user_namespaces=10000")
    assert (said["code"], said["transient"]) == ("builder_unavailable", True)
    assert "217" in said["message"] and "user namespaces" in said["remedy"]


@pytest.mark.parametrize(
    ("how", "word"), [("kill", "killed"), ("stop", "stopped"), ("memory", "memory")]
)
def test_a_builder_that_is_lost_is_told_plainly(machine: Guest, how: str, word: str) -> None:
    said = probed(machine, "lose", how)
    assert (said["code"], said["transient"]) == ("builder_lost", True)
    assert word in said["message"] and "tried again" in said["remedy"]


@pytest.mark.parametrize("how", ["reload", "reexec"])
def test_a_systemd_that_is_executed_again(machine: Guest, how: str) -> None:
    """What apt does where systemd is upgraded with the kernel: the builder goes on, or is lost."""
    said = probed(machine, "lose", how)
    assert said.get("functions") == [] or (
        (said["code"], said["transient"]) == ("builder_lost", True) and "systemd" in said["message"]
    ), said
