# SPDX-License-Identifier: GPL-2.0-or-later
"""How much CPU a boot replay costs, natively: ``bench/replay.py PACK MODULE.ko...``.

One fresh process does what the replay does: start, imports, state, pack, the symbols of the kernel
that runs here (as many as in any), the match, the link, the durable writes. The modules (ext4 and
those it needs, of the pack's kernel) stand in for the kernel's memory; the core's switch itself
is not in it, it takes about a millisecond.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kspliced.model import Hold, Linked
    from kspliced.pack import Pack

RUNS = 5
TREE = Path(__file__).parents[1]


def main(arguments: list[str]) -> int:
    """Print the figures as JSON: CPU seconds of each run, and the least of them."""
    if arguments[:1] == ["--once"]:
        return _once(Path(arguments[1]), arguments[2:])
    if len(arguments) < 2:
        print(f"usage: {sys.argv[0]} PACK MODULE.ko...", file=sys.stderr)
        return 2
    seconds = []
    for _ in range(RUNS):
        command = [sys.executable, str(Path(__file__).resolve()), "--once", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(TREE)}
        child = os.posix_spawn(sys.executable, command, environment)
        _, status, usage = os.wait4(child, 0)
        if status:
            return 1
        seconds.append(round(usage.ru_utime + usage.ru_stime, 3))
    print(json.dumps({"replay_cpu_seconds": min(seconds), "runs": seconds}))
    return 0


def _once(pack: Path, modules: list[str]) -> int:
    # As the worker does it: nothing of this is loaded before the process starts.
    from dataclasses import replace

    from kspliced.engine.__main__ import SystemClock, system_context
    from kspliced.engine.edges import Cancel, Job
    from kspliced.engine.paths import Paths
    from kspliced.engine.replay import replay
    from kspliced.engine.state import Stage, State, save_state
    from kspliced.engine.store import record_of
    from kspliced.model import no_progress
    from kspliced.pack import read_pack

    with tempfile.TemporaryDirectory() as directory:
        paths = Paths(Path(directory))
        read = read_pack(pack)
        kernel = read.manifest.kernel
        system = paths.proc / "sys/kernel"
        (system / "random").mkdir(parents=True)
        (system / "osrelease").write_text(kernel.release)
        (system / "version").write_text(f"#1 SMP PREEMPT_DYNAMIC Debian {kernel.version} (date)")
        (system / "random/boot_id").write_text("this")
        paths.packs.mkdir(parents=True)
        paths.pack(read.digest).write_bytes(pack.read_bytes())
        save_state(paths, State(history=(replace(record_of(read), stage=Stage.LIVE),)))
        context = system_context(paths, Job(no_progress, Cancel()))
        context = replace(context, kernel=_Kernel(modules), clock=SystemClock())
        outcome = replay(context)
    return 0 if outcome.action == "replayed" else 1


class _Kernel:
    """The modules' files in place of the kernel's memory, and a core that always says yes."""

    def __init__(self, modules: list[str]) -> None:
        self._modules = modules

    def ready(self) -> None:
        return

    def updates(self) -> tuple[()]:
        return ()

    def link(self, pack: Pack, sink: object) -> Linked:
        from kspliced.kernel.kallsyms import Kallsyms
        from kspliced.kernel.offline import OfflineKernel, read_module_file
        from kspliced.match import link, match

        symbols = Kallsyms(Path("/proc/kallsyms").read_bytes())
        symbols.named("ext4_mb_init_group", "ext4")
        symbols.exported("kfree")
        files = [read_module_file(Path(module)) for module in self._modules]
        kernel = OfflineKernel(pack.manifest.kernel.release, files)
        return link(pack, match(pack, kernel), ())

    def load(self, name: str, module: bytes) -> None:
        assert module

    def apply(self, name: str) -> int:
        return 1

    def reverse(self, name: str) -> int:
        return 1

    def hold(self, name: str, hold: Hold) -> None:
        return

    def nudge(self, name: str) -> bool:
        return False

    def unload(self, name: str) -> None:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
