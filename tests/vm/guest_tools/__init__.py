# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs for a guest of busybox: each a mapping of file names in its / to files of the host."""

from __future__ import annotations

from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from tests.vm import cache
from tests.vm.errors import HarnessError

BPF_TRACE = Path(__file__).parent / "bpf_trace.c"

# What Debian's perf is linked with, directly or not.
PERF_PACKAGES = (
    "linux-perf", "libbabeltrace1", "libbz2-1.0", "libc6", "libcap2", "libcrypt1", "libdw1",
    "libelf1", "libexpat1", "libgcc-s1", "libglib2.0-0", "liblzma5", "libnuma1", "libopencsd1",
    "libpcre2-8-0", "libperl5.36", "libpython3.11", "libslang2", "libstdc++6", "libunwind8",
    "libuuid1", "libzstd1", "zlib1g",
)  # fmt: skip
LOADER = "ld-linux-x86-64.so.2"
# A shell function, since all files lie in the / of the guest, where no loader looks.
PERF = f'perf() {{ HOME=/tmp /{LOADER} --library-path / /perf "$@"; }}\n'


def compiled(source: Path) -> dict[str, Path]:
    """The program of one C source, linked statically by this machine's compiler."""
    name = source.stem

    def make(folder: Path) -> None:
        cache.command(
            "gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread",
            "-o", folder / name, source,
        )  # fmt: skip

    key = cache.digest(source.read_bytes(), cache.command("gcc", "--version"))
    return {name: cache.made(f"tool-{name}-{key}", make) / name}


def perf() -> dict[str, Path]:
    """Debian's perf with all libraries; a script runs it after ``PERF``."""
    specs = [cache.candidate(package) for package in PERF_PACKAGES]

    def make(folder: Path) -> None:
        for deb in cache.debs(*specs):
            cache.command("dpkg-deb", "-x", deb, folder)

    root = cache.made(f"perf-{cache.digest(*specs)}", make)
    binary = root / "usr/bin/perf"
    found = {"perf": binary}
    wanted = [binary]
    while wanted:
        for name in _needed(wanted.pop()):
            if name not in found:
                found[name] = _library(root, name)
                wanted.append(found[name])
    return found


def _needed(binary: Path) -> list[str]:
    with binary.open("rb") as file:
        dynamic = ELFFile(file).get_section_by_name(".dynamic")
        assert isinstance(dynamic, DynamicSection)
        return [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")]


def _library(root: Path, name: str) -> Path:
    for folder in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"):
        if (path := root / folder / name).exists():
            return path
    raise HarnessError(f"perf needs {name}, which no package of PERF_PACKAGES has")
