# SPDX-License-Identifier: GPL-2.0-or-later
"""Big files that are made once: real packages from the machine's own archive, and what is built.

Everything lies under /var/cache/kspliced (``KSPLICED_CACHE`` overrides it), is made atomically
and is made again when it is missing. Nothing here is ever changed once it has its name.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from tests.vm.errors import HarnessError


def root() -> Path:
    """The cache directory, created if need be."""
    path = Path(os.environ.get("KSPLICED_CACHE", "/var/cache/kspliced"))
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(*parts: str | bytes) -> str:
    """Sixteen hex digits that stand for exactly these parts in this order."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()[:16]


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock ``name``, so that two processes never make the same thing at once."""
    with (root() / f".{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def made(name: str, make: Callable[[Path], None]) -> Path:
    """The directory ``name`` of the cache; ``make`` fills it first where it does not exist."""
    path = root() / name
    with locked(name):
        if not path.is_dir():
            fresh = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=root()))
            fresh.chmod(0o755)
            try:
                make(fresh)
                fresh.rename(path)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    return path


def command(*args: str | Path, cwd: Path | None = None, stdin: str | None = None) -> str:
    """Run a host command and return its output; HarnessError with what it said if it fails."""
    words = [str(arg) for arg in args]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )
    except FileNotFoundError as error:
        raise HarnessError(f"{words[0]} is not installed; run tests/setup.sh") from error
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        raise HarnessError(f"{' '.join(words)} exited {done.returncode}:\n{said}")
    return done.stdout


def candidate(package: str) -> str:
    """``name=version`` of the version that this machine's apt would install."""
    for line in command("apt-cache", "policy", package).splitlines():
        if line.startswith("  Candidate:"):
            return f"{package}={line.split()[1]}"
    raise HarnessError(f"this machine's apt knows no {package}; run apt-get update")


def debs(*specs: str) -> tuple[Path, ...]:
    """The .deb of each ``name=version``, downloaded where it is missing.

    They come from the archive that the machine's own apt is configured for, so apt's signature
    checks count. Returns paths in the order of ``specs``.
    """
    store = root() / "debs"
    store.mkdir(exist_ok=True)
    with locked("debs"):
        missing = [spec for spec in specs if _find(store, spec) is None]
        if missing:
            _download(store, missing)
    found = [_find(store, spec) for spec in specs]
    return tuple(path for path in found if path is not None)


def _find(store: Path, spec: str) -> Path | None:
    name, _, version = spec.partition("=")
    # apt writes the epoch's colon as %3a in file names.
    pattern = f"{name}_{quote(version, safe='+~-.').lower()}_*.deb"
    return next(iter(sorted(store.glob(pattern))), None)


def _download(store: Path, specs: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix=".download.", dir=store) as folder:
        fresh = Path(folder)
        command("apt-get", "-o", "APT::Sandbox::User=root", "-q", "download", *specs, cwd=fresh)
        for deb in fresh.glob("*.deb"):
            deb.rename(store / deb.name)
    for spec in specs:
        if _find(store, spec) is None:
            raise HarnessError(f"apt-get download {spec} succeeded but left no .deb")
