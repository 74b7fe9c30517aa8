# SPDX-License-Identifier: GPL-2.0-or-later
"""What building the first upgrade's pack costs on this machine, without a guest.

    python3 -m bench.build [--json]

Cold: page cache dropped, nothing kept from before. Warm: the same again, with the old source in
the builder's own cache, as at every upgrade but a machine's first. Yardstick: decompressing the
two sources, measured in the same run; times are only worth something beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.vm import cache
from tests.vm.case import NEW_VERSION, OLD_VERSION
from tests.vm.real import kernel

TOP = Path(__file__).parents[1]
LIMITS = {"cold": 60.0, "warm": 15.0, "memory_mib": 1536.0, "disk_mib": 4096.0}


@dataclass(frozen=True)
class Figures:
    """Seconds of wall time, MiB at the peak, and times the yardstick."""

    decompress: float
    cold: float
    warm: float
    cold_ratio: float
    warm_ratio: float
    memory_mib: float
    disk_mib: float


def decompress(sources: tuple[Path, ...]) -> float:
    """Seconds to decompress all sources at once, to nothing."""
    start = time.monotonic()
    pipe = "dpkg-deb --fsys-tarfile {} | tar -xO --wildcards './usr/src/*.xz' | xz -dc >/dev/null"
    running = [subprocess.Popen(["sh", "-c", pipe.format(source)]) for source in sources]
    if any(process.wait() for process in running):
        raise SystemExit("decompressing failed")
    return time.monotonic() - start


def build(sources: tuple[Path, ...], folder: Path) -> tuple[float, float]:
    """Seconds and peak MiB of disk of one build in ``folder``."""
    root = kernel()
    config = next((root / "boot").glob("config-*"))
    targets = folder / "targets"
    targets.write_text("vmlinux\next4\n")
    command = [sys.executable, "-m", "kspliced.cli", "build", "--json"]
    command += ["--cache", str(folder / "cache")]
    command += ["--from", str(sources[0]), "--to", str(sources[1]), "--config", str(config)]
    command += ["--headers", str(root), "--targets", str(targets), "-o", str(folder / "pack")]
    peak = _Peak(folder)
    start = time.monotonic()
    with peak:
        subprocess.run(command, check=True, cwd=TOP, stdout=subprocess.DEVNULL)
    return time.monotonic() - start, peak.mib


class _Peak:
    """The most that a folder held, looked at twice a second."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.mib = 0.0

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            said = subprocess.run(
                ["du", "-sm", str(self._folder)], capture_output=True, text=True, check=False
            )
            self.mib = max(self.mib, float(said.stdout.split()[0]))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def measure() -> Figures:
    """All figures, in one run."""
    sources = cache.debs(*(f"linux-source-6.1={v}" for v in (OLD_VERSION, NEW_VERSION)))
    kernel()
    os.sync()
    floor = decompress(sources)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        folder = Path(directory)
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        cold, disk = build(sources, folder)
        warm, _ = build(sources, folder)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return Figures(
        round(floor, 1),
        round(cold, 1),
        round(warm, 1),
        round(cold / floor, 2),
        round(warm / floor, 2),
        round(memory),
        round(disk),
    )


def main() -> None:
    """Print the figures beside what they must not exceed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = asdict(measure())
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        limit = f"   at most {LIMITS[name]:g}" if name in LIMITS else ""
        print(f"{name:12} {value:8}{limit}")


if __name__ == "__main__":
    main()
