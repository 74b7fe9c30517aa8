# SPDX-License-Identifier: GPL-2.0-or-later
"""A change of the kernel and of a module that is not loaded, from the sources to the module's load.

fs/libfs.c and fs/binfmt_misc.c change together, and the module uses what the kernel newly exports;
the daemon makes it load with new code. Then the same guest shows what stays of updates, and what
becomes of them when the state is lost.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from kspliced.build.pipeline import build
from kspliced.build.request import BuildRequest, BuildResult
from kspliced.model import no_progress
from kspliced.pack import pack_bytes
from tests.corpus import kernels
from tests.vm import image, product, real
from tests.vm.case import OLD_RELEASE, OLD_VERSION
from tests.vm.guest import Guest
from tests.vm.kmod_lab import UPDATES

pytestmark = pytest.mark.vm

MOUNT = "/proc/sys/fs/binfmt_misc"
EXPORTED = "EXPORT_SYMBOL(simple_read_from_buffer);"
NEW = """
const char *late_word(int on);
const char *late_word(int on)
{
	return on ? "on\\n" : "off\\n";
}
EXPORT_SYMBOL_GPL(late_word);
"""
CHANGES = (
    (
        "fs/libfs.c",
        "	if (pos < 0)\n		return -EINVAL;\n	if (pos >= available",
        "EINVAL",
        "ERANGE",
    ),
    ("fs/libfs.c", f"{EXPORTED}\n", EXPORTED, f"{EXPORTED}\n{NEW}"),
    (
        "fs/binfmt_misc.c",
        '	char *s = enabled ? "enabled\\n" : "disabled\\n";\n\n',
        'char *s = enabled ? "enabled\\n" : "disabled\\n"',
        "const char *late_word(int on);\n\tconst char *s = late_word(enabled)",
    ),
    ("fs/binfmt_misc.c", "ppos, s, strlen(s));\n", "strlen(s)", "strnlen(s, 16)"),
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    old, new = kernels.source(OLD_VERSION), tmp_path_factory.mktemp("late") / "new"
    shutil.copytree(old, new, symlinks=True, copy_function=os.link)
    for file, place, before, after in CHANGES:
        text = (new / file).read_text()
        assert place in text
        (new / file).unlink()
        (new / file).write_text(text.replace(place, place.replace(before, after), 1))
    root = real.kernel()
    request = BuildRequest(
        from_source=old,
        to_source=new,
        config=root / f"boot/config-{OLD_RELEASE}",
        headers=root,
        targets=("vmlinux", "ext4"),
        only=(),
        jobs=2,
        workdir=None,
    )
    result = build(request, no_progress)
    shutil.rmtree(new)
    return result


@pytest.fixture(scope="module")
def guest(built: BuildResult, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    assert built.manifest is not None, built.refused
    pack = tmp_path_factory.mktemp("pack") / "late.kspack"
    pack.write_bytes(pack_bytes(built.manifest, built.blobs)[0])
    with Guest("late", image.base()) as machine:
        product.place(machine)
        product.start_daemon(machine)
        machine.put(pack, "/root/late.kspack")
        yield machine
        assert not machine.faults()


def test_the_module_is_a_group_that_is_required(built: BuildResult) -> None:
    assert built.manifest is not None and built.refused == ()
    assert [(g.targets, g.units, g.required) for g in built.manifest.groups] == [
        (("binfmt_misc", "vmlinux"), ("fs/binfmt_misc.o",), ("binfmt_misc",)),
        (("vmlinux",), ("fs/libfs.o",), ()),
    ]
    assert {fate.decision.value for fate in built.fates} == {"live"}


def status(guest: Guest) -> Any:
    return json.loads(guest.run("kspliced status --json").stdout)


def unload(guest: Guest) -> None:
    guest.run(f"""
        systemctl stop proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount
        umount {MOUNT}; rmmod binfmt_misc; ! grep -q ^binfmt_misc /proc/modules""")


def shown(guest: Guest) -> str:
    """What the module says of itself."""
    mount = f"mount -t binfmt_misc none {MOUNT}"
    return guest.run(f"{mount} && cat {MOUNT}/status; umount {MOUNT}").stdout.strip()


def test_it_loads_with_new_code_and_not_with_old(guest: Guest) -> None:
    unload(guest)
    guest.run("kspliced apply /root/late.kspack", timeout=600)
    found = status(guest)["update"]
    assert found["live"] and found["waiting"] == ["binfmt_misc"]
    assert guest.run(f"cat {UPDATES}/*/holds").stdout == "binfmt_misc required 120\n"
    loaded = guest.run("modprobe binfmt_misc", timeout=200)
    print(f"the load took {loaded.seconds:.1f} s")
    # The moment it is there, so is its part; the update that it replaced may be going.
    spans = guest.run(f"cat {UPDATES}/*/spans", check=False).stdout
    assert "bm_status_read" in spans
    assert shown(guest) == "on"
    guest.wait_for(lambda: not status(guest)["update"]["waiting"], 60, "the job to end")
    assert not guest.run(f"umount {MOUNT}; rmmod binfmt_misc", check=False).ok


def test_an_undo_holds_nothing(guest: Guest) -> None:
    guest.run("kspliced undo", timeout=300)
    unload(guest)
    guest.run("modprobe binfmt_misc")
    assert shown(guest) == "enabled"


def loaded(guest: Guest) -> dict[str, str]:
    """The update modules that the core has, and their stages."""
    lines = guest.run(f"grep . {UPDATES}/*/stage").stdout.splitlines()
    return {line.split("/")[-2]: line.rpartition(":")[2] for line in lines}


def test_what_was_applied_stays(guest: Guest) -> None:
    before = loaded(guest)
    assert set(before.values()) == {"reversed"} and len(before) == 2
    resident = status(guest)["resident"]
    assert {one["module"] for one in resident["updates"]} == set(before)
    assert resident["bytes"] == sum(one["bytes"] for one in resident["updates"]) > 0
    assert "until the reboot" in guest.run("kspliced status").stdout
    for name in before:
        assert not guest.run(f"rmmod {name}", check=False).ok
    assert "stays loaded" not in guest.run("journalctl -b -t kspliced").stdout


def test_cycles_load_nothing_more(guest: Guest) -> None:
    guest.run("kspliced apply /root/late.kspack", timeout=600)
    assert shown(guest) == "on"
    before, resident = loaded(guest), status(guest)["resident"]
    print(before, resident)
    guest.run("kspliced undo", timeout=300)
    guest.run("kspliced apply", timeout=600)
    assert loaded(guest) == before and status(guest)["resident"] == resident
    assert shown(guest) == "on"


def test_beyond_the_limit_nothing_is_loaded(guest: Guest) -> None:
    guest.run("kspliced undo", timeout=300)
    before = loaded(guest)
    # What nobody remembers the link of cannot be applied again.
    folder = "/run/systemd/system/kspliced.service.d"
    guest.run(f"""
        rm -r /run/kspliced/loaded; mkdir -p {folder}
        echo '[Service]\nEnvironment=KSPLICED_RESIDENT_LIMIT=4K' > {folder}/limit.conf
        systemctl daemon-reload; systemctl restart kspliced""")
    said = guest.run("kspliced apply 2>&1", check=False, timeout=600)
    assert said.status == 4 and "are allowed" in said.stdout and "reboot" in said.stdout, said
    assert loaded(guest) == before
    assert status(guest)["update"]["problem"]["code"] == "resident_limit"
    guest.run(f"rm -r {folder}; systemctl daemon-reload; systemctl restart kspliced")
    guest.run("kspliced apply", timeout=600)
    after = loaded(guest)
    assert len(after) == len(before) + 1 and list(after.values()).count("applied") == 1
    assert shown(guest) == "on"


@pytest.mark.parametrize("lost", ["state", "state and pack"])
def test_a_lost_state_is_made_anew_and_undo_works(guest: Guest, lost: str) -> None:
    guest.run("kspliced apply", check=False, timeout=600)
    update = status(guest)["update"]
    assert update["live"]
    guest.run("rm /var/lib/kspliced/state.json")
    if lost != "state":
        guest.run("rm /var/lib/kspliced/packs/*")
    found = status(guest)
    assert found["update"]["live"] and found["update"]["update"] == update["update"]
    functions = {change["name"] for change in found["update"]["functions"]}
    if lost == "state":
        assert found["update"]["to_version"] == update["to_version"]
        assert (found["update"]["waiting"], found["update"]["held"]) == ([], [])
    else:
        assert found["update"]["problem"]["code"] == "pack_missing"
        assert found["effective"] == OLD_VERSION
    assert "bm_status_read" in functions and len(functions) > 1
    guest.run("kspliced undo", timeout=300)
    assert shown(guest) == "enabled"
