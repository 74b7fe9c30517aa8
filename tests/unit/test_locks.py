# SPDX-License-Identifier: GPL-2.0-or-later
"""Locks are their owner's alone."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kspliced.engine.paths import Paths
from kspliced.engine.store import opened
from kspliced.source.cache import lock_file, locked
from tests.unit.engine.fakes import FakeJournal

TREE = Path(__file__).resolve().parents[2]
_TAKE_OVER = """#!/bin/sh
# systemd-run: runs the command as a unit does, with systemd's umask.
umask 022
while [ "${1#--}" != "$1" ]; do shift; done
exec "$@"
"""


@pytest.mark.parametrize("script", ["debian/kspliced.postinst", "rpm/kspliced.spec"])
@pytest.mark.parametrize("before", [None, 0o644])
def test_the_lock_that_a_package_makes_is_roots(
    script: str, before: int | None, tmp_path: Path
) -> None:
    """Whoever can open a lock can hold it, and with it every update."""
    text = (TREE / script).read_text("utf-8")
    if script.endswith(".spec"):
        text = text.split("%post\n")[1].split("\n%preun\n")[0].replace("%systemd_post", ": ")
        text = text.replace("%{units}", "")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, content in (("systemd-run", _TAKE_OVER), ("systemctl", "#!/bin/sh\n")):
        (tools / name).write_text(content, "ascii")
        (tools / name).chmod(0o755)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    lock = tmp_path / "run/kspliced/lock"
    if before is not None:
        lock.parent.mkdir()
        lock.touch()
        lock.chmod(before)
    arguments = ["configure", "0.1"] if script.startswith("debian") else ["2"]
    done = subprocess.run(
        ["sh", "-s", *arguments],
        input="umask 022\n" + text.replace("/run/", f"{tmp_path}/run/"),
        env={"PATH": f"{tools}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert lock.stat().st_mode & 0o777 == 0o600


def test_every_lock_is_its_owners(tmp_path: Path) -> None:
    """All places that lock a file are known here, and none is open to others."""
    package = TREE / "kspliced"
    users = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if "flock(" in file.read_text("utf-8") or "lockf(" in file.read_text("utf-8")
    }
    assert users == {"engine/store.py", "source/cache.py"}
    paths = Paths(tmp_path)
    for lock in (paths.lock, tmp_path / "cache.lock"):
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
        lock.chmod(0o644)
    old = os.umask(0)
    try:
        with opened(paths, FakeJournal(), 0.0):
            assert paths.lock.stat().st_mode & 0o777 == 0o600
        for lock in (tmp_path / "cache.lock", tmp_path / "new.lock"):
            with lock_file(lock) as file:
                assert locked(file)
                assert lock.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(old)
