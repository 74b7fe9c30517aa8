# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes to real functions that do no more than count their calls: new code that shows it runs."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from kspliced.pack import pack_bytes
from kspliced.source.functions import function_lines
from tests.vm import cache, case
from tests.vm.scenario_build import Files, Workshop

HERE = Path(__file__).parent
TREE = HERE.parents[1]
# What a pack depends on, below kspliced/.
_PARTS = ("*.py", "build/*.*", "elf/*.py", "plan/*.py", "source/*.py")
_SHOW = "fs/proc/version.c"
_COUNT = "{\textern unsigned long ks_calls; ks_calls++;"
# A module cannot use what vmlinux does not export, so there each function counts for itself.
_COUNT_ALONE = "{\tstatic volatile unsigned long ks_calls; ks_calls++;"
_MODULES = ("fs/ext4/",)


def counting(source: Path, name: str, functions: Mapping[str, Collection[str]]) -> Files:
    """The files of ``source`` with ``functions`` (by file) changed, as an update called ``name``.

    /proc/version then begins with ``name`` and the number of calls of those in vmlinux.
    """
    files: dict[str, bytes] = {}
    for path, names in functions.items():
        lines = (source / path).read_text().splitlines()
        heads = {
            function: next((n for n in range(start - 1, end) if lines[n] == "{"), None)
            for function, start, end in function_lines("\n".join(lines))
            if function in names
        }
        assert set(heads) == set(names), f"{path} has no {set(names) - set(heads)}"
        for function, head in heads.items():
            assert head is not None, f"{path}: {function} does not begin with a brace"
            lines[head] = _COUNT_ALONE if path.startswith(_MODULES) else _COUNT
        files[path] = "\n".join([*lines, ""]).encode()
    shown = (source / _SHOW).read_text()
    call = "\tseq_printf(m, linux"
    assert shown.count(call) == 1
    shown = shown.replace(call, f'\tseq_printf(m, "{name} %lu calls ", ks_calls);\n{call}')
    files[_SHOW] = shown.replace("\nstatic", "\nunsigned long ks_calls;\nstatic", 1).encode()
    return files


def packs(names: Collection[str], functions: Mapping[str, Collection[str]]) -> tuple[Path, ...]:
    """The file of a pack for each name, all of the same functions.

    They are kept in the cache while nothing that goes in changes.
    """

    def make(folder: Path) -> None:
        work = folder / "work"
        work.mkdir()
        workshop = Workshop(work)
        scenarios = {name: counting(workshop.source, name, functions) for name in names}
        for name, built in workshop.build(scenarios).items():
            content, _ = pack_bytes(built.live.manifest, built.live.blobs)
            (folder / f"{name}.kspack").write_bytes(content)
        shutil.rmtree(work)

    folder = cache.made(f"counting-{_key(names, functions)}", make)
    return tuple(folder / f"{name}.kspack" for name in names)


def _key(names: Collection[str], functions: Mapping[str, Collection[str]]) -> str:
    """Everything that goes into the packs: what is asked for, the kernel, and all of our code."""
    ours = [
        *(path for part in _PARTS for path in (TREE / "kspliced").glob(part)),
        TREE / "kmod/kspliced_abi.h",
        HERE / "scenario_build.py",
        Path(__file__),
    ]
    contents = [path.read_bytes() for path in sorted(ours)]
    asked = [f"{path}: {' '.join(functions[path])}" for path in functions]
    return cache.digest(case.OLD_VERSION, " ".join(names), *asked, *contents)
