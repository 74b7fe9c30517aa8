# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs for a guest of busybox: each a mapping of file names in its / to files of the host."""

from __future__ import annotations

from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from tests.vm import cache
from tests.vm.errors import HarnessError

BPF_TRACE = Path(__file__).parent / "bpf_trace.c"
FAULTY = Path(__file__).parent / "faulty.c"

# What Debian's perf is linked with, directly or not.
PERF_PACKAGES = (
    "linux-perf", "libbabeltrace1", "libbz2-1.0", "libc6", "libcap2", "libcrypt1", "libdw1",
    "libelf1", "libexpat1", "libgcc-s1", "libglib2.0-0", "liblzma5", "libnuma1", "libopencsd1",
    "libpcre2-8-0", "libperl5.36", "libpython3.11", "libslang2", "libstdc++6", "libunwind8",
    "libuuid1", "libzstd1", "zlib1g",
)  # fmt: skip
# What Debian's tc and nft are linked with.
NETWORK_PACKAGES = (
    "iproute2", "nftables", "libbpf1", "libbsd0", "libc6", "libcap2", "libedit2", "libelf1",
    "libgmp10", "libjansson4", "libmd0", "libmnl0", "libnftables1", "libnftnl11", "libtinfo6",
    "libxtables12", "zlib1g",
)  # fmt: skip
LOADER = "ld-linux-x86-64.so.2"
# A shell function, since all files lie in the / of the guest, where no loader looks.
PERF = f'perf() {{ HOME=/tmp /{LOADER} --library-path / /perf "$@"; }}\n'
NETWORK = "".join(
    f'{name}() {{ /{LOADER} --library-path / /{name} "$@"; }}\n' for name in ("tc", "nft")
)


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
    return _installed("perf", ("usr/bin/perf",), PERF_PACKAGES)


def network() -> dict[str, Path]:
    """Debian's tc and nft with all libraries; a script runs them after ``NETWORK``."""
    return _installed("network", ("sbin/tc", "usr/sbin/nft"), NETWORK_PACKAGES)


def _installed(name: str, programs: tuple[str, ...], packages: tuple[str, ...]) -> dict[str, Path]:
    """Programs of packages, and the libraries that they need."""
    specs = [cache.candidate(package) for package in packages]

    def make(folder: Path) -> None:
        for deb in cache.debs(*specs):
            cache.command("dpkg-deb", "-x", deb, folder)

    root = cache.made(f"{name}-{cache.digest(*specs)}", make)
    wanted = [root / program for program in programs]
    found = {binary.name: binary for binary in wanted}
    while wanted:
        for library in _needed(wanted.pop()):
            if library not in found:
                found[library] = _library(root, library)
                wanted.append(found[library])
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
    raise HarnessError(f"{name} is needed, and none of the packages has it")
