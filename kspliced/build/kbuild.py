# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own build system, asked for single objects.

The object tree is made of the distribution's headers package, which ships the configuration, the
generated headers and the host programs, so that nothing has to be configured or prepared.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from posixpath import normpath, relpath

from kspliced.build.assembler_reads import AssemblerReads
from kspliced.build.compiled import FRESH, CompilerCache
from kspliced.errors import BuildError, Code, SourceError
from kspliced.lines import split_lines
from kspliced.model import KernelId
from kspliced.named import read_named

# BTF instead of DWARF: what the layout of types is compared by.
FLAGS = "-ffunction-sections -fdata-sections -g0 -gbtf"
# As the kernel itself was compiled.
PLAIN_FLAGS = "-g0"

_HERE = Path(__file__).resolve().parent
_FAILED = re.compile(
    r"\*\*\* \[[^]]*?(?P<path>[^]: ]+)\] Error \d+|Target '(?P<left>[^']+)' not remade because"
)
# What a compiler, the shell and make say of the machine and not of the source.
_FULL = ("No space left on device", "Disk quota exceeded")
_OF_MACHINE = (
    (Code.NO_SPACE, _FULL, "make room where it builds, and try again"),
    (
        Code.NO_MEMORY,
        ("signal terminated program", "Cannot allocate memory"),
        "give the machine more memory or swap, and try again",
    ),
    (
        Code.NO_EXEC,
        ("Permission denied", "Operation not permitted"),
        "let programs be run where it builds: see its mount options and the security modules",
    ),
)
_MAKE_SAYS = re.compile(r"^make(?:\[\d+\])?: (?:\*\*\*|Target '|Entering|Leaving)")
# Bytes that a configuration may have: a hundred times the largest.
_CONFIG = 32 << 20
_SET = re.compile(r"^CONFIG_\w+=.*$", re.MULTILINE)


@dataclass(frozen=True)
class Headers:
    """A headers package: ``top`` holds .config, include/ and links to scripts/ and tools/."""

    top: Path
    kernel: KernelId
    compiler: str
    compiler_version: str


@dataclass(frozen=True)
class Unit:
    """An object the configuration builds: Kbuild compiles it in ``directory``."""

    path: str
    directory: str
    target: str


@dataclass(frozen=True)
class Listing:
    """What one directory builds: (module object, its parts), and where Kbuild descends."""

    builtin: frozenset[str]
    modular: frozenset[str]
    multi: tuple[tuple[str, frozenset[str]], ...]
    down: frozenset[str]


def open_headers(path: Path, config: Path) -> Headers:
    """Find the headers package in ``path`` and check it against the kernel's configuration.

    :param path: /usr/src/linux-headers-RELEASE or /usr/src/kernels/RELEASE, or a directory that
        the packages were unpacked in.
    :raises SourceError: HEADERS_MISSING, CONFIG_MISSING.
    """
    inside = ("usr/src/linux-headers-*", "usr/src/kernels/*")
    try:
        places = [path, *(place for pattern in inside for place in sorted(path.glob(pattern)))]
        tops = [p for p in places if (p / ".config").is_file() and (p / "tools").exists()]
    except OSError as error:
        raise SourceError(
            Code.HEADERS_MISSING,
            f"cannot read {path}: {error.strerror}",
            "name the headers package of the running kernel, unpacked or installed",
        ) from error
    top = next(iter(tops), None)
    if top is None:
        raise SourceError(
            Code.HEADERS_MISSING,
            f"{path} holds no kernel headers package (no .config with its tools)",
            "install the headers (linux-headers or kernel-devel) of the running kernel",
        )
    try:
        text = (top / ".config").read_text("utf-8")
        release = _quoted(top / "include/generated/utsrelease.h")
        version = _source_version(top, release)
    except (OSError, ValueError, IndexError) as error:
        raise SourceError(
            Code.HEADERS_MISSING,
            f"{top} is not a complete headers package: {error}",
            "install linux-headers, or kernel-devel, of the running kernel again",
        ) from error
    _check_config(config, text, top)
    match = re.search(r'^CONFIG_CC_VERSION_TEXT="((\S+) .*)"$', text, re.MULTILINE)
    if match is None:
        raise SourceError(Code.CONFIG_MISSING, f"{top}/.config does not name its compiler")
    kernel = KernelId(release, version, os.uname().machine)
    return Headers(top.resolve(), kernel, match.group(2), match.group(1))


def _source_version(top: Path, release: str) -> str:
    """The version of the source package. Debian's is in a header of its own; the release of a
    kernel of RPM packages is VERSION-RELEASE.ARCH, and maybe +FLAVOUR."""
    own = top / "include/generated/package.h"
    # Debian's source makes that header wherever it is compiled; elsewhere it names nothing.
    if own.is_file() and (words := _quoted(own).split()):
        return words[-1]
    version = release.partition("+")[0].removesuffix(f".{os.uname().machine}")
    if "-" not in version:
        raise ValueError(f"{release} names no source package")
    return version


def _quoted(path: Path) -> str:
    match = re.search(r'"(.*)"', path.read_text("utf-8"))
    if match is None:
        raise ValueError(f"{path.name} names nothing")
    return match.group(1)


def _check_config(config: Path, headers_config: str, top: Path) -> None:
    try:
        wanted = _SET.findall(read_named(config, _CONFIG).decode("utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(
            Code.CONFIG_MISSING,
            f"cannot read the kernel configuration {config}: {error}",
            "name the running kernel's /boot/config-*",
        ) from error
    have = set(_SET.findall(headers_config))
    other = [line for line in wanted if line not in have]
    if other or not wanted:
        raise SourceError(
            Code.CONFIG_MISSING,
            f"{config} is not the configuration of the headers in {top}",
            "use the configuration and the headers of one kernel",
            tuple(other[:10]),
        )


def check_compiler(headers: Headers) -> None:
    """Verify that the compiler that built the kernel is the one installed.

    :raises BuildError: COMPILER_MISSING, COMPILER_MISMATCH.
    """
    try:
        done = subprocess.run(
            [headers.compiler, "--version"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise BuildError(
            Code.COMPILER_MISSING,
            f"{headers.compiler}, which built the running kernel, is not installed",
            f"install {headers.compiler}",
        ) from error
    installed = (split_lines(done.stdout) or [""])[0].strip()
    if installed != headers.compiler_version:
        raise BuildError(
            Code.COMPILER_MISMATCH,
            f"the kernel was built by {headers.compiler_version!r}; installed is {installed!r}",
            f"install the version of {headers.compiler} that built the kernel",
        )


class Kbuild:
    """One source tree with one object tree, compiled with ``flags`` beside the kernel's own."""

    def __init__(
        self,
        srctree: Path,
        objtree: Path,
        headers: Headers,
        jobs: int,
        flags: str = FLAGS,
        cache: CompilerCache | None = None,
    ) -> None:
        self._srctree, self._objtree = srctree, objtree
        self._headers, self._jobs, self._flags, self._cache = headers, jobs, flags, cache
        self._assembler = AssemblerReads(objtree)
        self._lay_out()

    def _lay_out(self) -> None:
        top, here = self._headers.top, self._objtree
        (here / "include").mkdir(parents=True)
        (here / "arch/x86/include").mkdir(parents=True)
        shutil.copyfile(top / ".config", here / ".config")
        for name in ("include/config", "include/generated", "arch/x86/include/generated"):
            (here / name).symlink_to(top / name)
        (here / "tools").symlink_to((top / "tools").resolve())
        # A directory of its own: host programs that no package ships are made there.
        (here / "scripts").mkdir()
        for entry in (top / "scripts").resolve().iterdir():
            (here / "scripts" / entry.name).symlink_to(entry)

    def list_directories(self, directories: Iterable[str]) -> dict[str, Listing]:
        """Ask Kbuild what it builds in each of ``directories``.

        A directory whose Makefile means nothing by itself is left out, but then those beside it
        that Kbuild does enter are listed too, since one of them includes that Makefile.

        :raises BuildError: COMPILE_FAILED when make itself fails.
        """
        wanted = tuple(directories)
        found = self._list(wanted)
        places = tuple(f"{d.rpartition('/')[0]}/" for d in wanted if d not in found)
        entered = {down for listing in found.values() for down in listing.down}
        beside = sorted(d for d in entered - found.keys() if d.startswith(places))
        return {**found, **self._list(beside)} if beside else found

    def _list(self, directories: Iterable[str]) -> dict[str, Listing]:
        wanted = tuple(directories)
        # In a file: thousands are too many for a command.
        self._objtree.joinpath("directories").write_text(
            "".join(f"KSPLICED_DIRS += {directory}\n" for directory in wanted)
        )
        command = self._command("kspliced-list", "--output-sync=target")
        return _listings(self._run(command, f"listing {' '.join(wanted):.80}"))

    def compile(self, units: Iterable[Unit]) -> dict[str, str]:
        """Compile objects into the object tree, as far as they are not there and up to date.

        :returns: by object, the compiler's first words of those that do not compile.
        :raises BuildError: NO_SPACE; COMPILE_FAILED when make itself fails; TOOL_MISSING.
        """
        units = tuple(units)
        failed = self._compile(units)
        more = tuple(u for u in units if self._assembler.more_than_listed(self.record(u)))
        if not more:
            return failed
        for unit in more:
            self.object_path(unit).unlink(missing_ok=True)
            failed.pop(unit.path, None)
        return {**failed, **self._compile(more, fresh=True)}

    def preprocess(self, units: Iterable[Unit]) -> dict[str, str]:
        """The text of compiled units as the compiler proper sees it, by object.

        :raises BuildError: NO_SPACE; COMPILE_FAILED when there is none of a unit; TOOL_MISSING.
        """
        made = {unit.path: replace(unit, path=f"{unit.path[:-1]}i") for unit in units}
        failed = self._compile(tuple(made.values()))
        if failed:
            path, words = min(failed.items())
            raise compile_error(f"{path} cannot be preprocessed: {words}", words, ())
        places = {path: self.object_path(unit) for path, unit in made.items()}
        texts = {path: place.read_text("utf-8", "replace") for path, place in places.items()}
        for place in places.values():
            place.unlink()
        return texts

    def _compile(self, units: tuple[Unit, ...], fresh: bool = False) -> dict[str, str]:
        """As :meth:`compile`; ``fresh`` takes nothing from a cache."""
        self._objtree.joinpath("units").write_text(
            "".join(f"KSPLICED_UNITS += {unit.directory}:{_goal(unit)}\n" for unit in units)
        )
        # Symbol versions are of no use in objects that are only compared: genksyms is slow.
        no_versions = "CONFIG_MODVERSIONS="
        command = self._command("kspliced-units", f"KCFLAGS={self._flags}", no_versions)
        # Each object's messages in one piece, and every object tried.
        code, output = self._make([*command, "--keep-going", "--output-sync=target"], fresh)
        failed = _failures(output)
        for unit in units:
            if not self.object_path(unit).is_file():
                # What the whole directory needs was not made.
                failed.setdefault(unit.path, _first_error(split_lines(output)))
        if any(word in output for word in _FULL) or (code and not failed):
            raise _failure("compiling", output)
        return failed

    def dependencies(self, unit: Unit) -> frozenset[str]:
        """The files of the source tree that a compiled unit was made of.

        :raises BuildError: FAILED when Kbuild left no record.
        """
        try:
            words = self.record(unit).read_text("utf-8", "replace").split()
        except OSError as error:
            raise BuildError(Code.FAILED, f"Kbuild left no record of {unit.path}") from error
        top = f"{self._srctree}/"
        return frozenset(normpath(w.removeprefix(top)) for w in words if w.startswith(top))

    def object_path(self, unit: Unit) -> Path:
        """Where the compiled unit lies."""
        return self._objtree / unit.path

    def record(self, unit: Unit) -> Path:
        """Where Kbuild says how it made a unit, and of what."""
        place = self.object_path(unit)
        return place.with_name(f".{place.name}.cmd")

    def _command(self, goal: str, *variables: str) -> list[str]:
        return [
            "make",
            f"-j{self._jobs}",
            "--no-print-directory",
            "-f",
            str(_HERE / "units.mk"),
            # As the kernel's own Makefile has it, for those that include others below them.
            f"--include-dir={self._srctree}",
            "sub_make_done=1",
            f"abs_srctree={self._srctree}",
            f"abs_objtree={self._objtree}",
            f"CC={self._compiler()}",
            f"HOSTCC={self._headers.compiler}",
            f"KERNELRELEASE={self._headers.kernel.release}",
            "ARCH=x86",
            "may-sync-config=",
            # Which follows from the above since 6.12, and without which no option is tried.
            "need-compiler=1",
            # With IBT the kernel runs objtool on what is linked; here each object is by itself.
            "is-single-obj-m=y",
            # What the top Makefile's outer pass, which is left out, exports.
            "quiet=silent_",
            "Q=@",
            "KBUILD_VERBOSE=0",
            f"KSPLICED_LIST={_HERE / 'list.mk'}",
            *variables,
            goal,
        ]

    def _compiler(self) -> str:
        compiler = self._headers.compiler
        return self._cache.command(compiler) if self._cache else compiler

    def _run(self, command: list[str], what: str) -> str:
        code, output = self._make(command)
        if code:
            raise _failure(what, output)
        return output

    def _make(self, command: list[str], fresh: bool = False) -> tuple[int, str]:
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"}
        environment["TMPDIR"] = str(self._objtree)
        if self._cache is not None:
            environment |= self._cache.environment(self._srctree)
        if fresh:
            environment |= FRESH
        try:
            process = subprocess.Popen(
                command,
                cwd=self._objtree,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise BuildError(Code.TOOL_MISSING, "make is not installed", "install make") from error
        try:
            output = process.communicate()[0].decode("utf-8", "replace")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return process.returncode, output


def _failures(output: str) -> dict[str, str]:
    """By object, the first error of those of which make said that they failed or were left."""
    failed: dict[str, str] = {}
    said: list[str] = []
    for line in split_lines(output):
        match = _FAILED.search(line)
        if match is None:
            said.append(line.strip())
            continue
        path = match["path"] or match["left"]
        if path.endswith(".o"):
            failed.setdefault(normpath(path), _first_error(said or [line]))
        # What was said of something else that all of them need is why the others are left.
        said = [] if (match["path"] or "").endswith(".o") else said
    return failed


def _first_error(lines: list[str]) -> str:
    """The line that says why: a compiler's error, or what was said last before make gave up."""
    said = [line.strip() for line in lines if not _MAKE_SAYS.match(line)] or lines
    return next((line for line in said if "error:" in line), said[-1] if said else "").strip()


def _failure(what: str, output: str) -> BuildError:
    lines = [line for line in split_lines(output) if line.strip()]
    errors = [line for line in lines if "error:" in line] or lines[-5:]
    first = _first_error(lines) or "make failed without a word"
    return compile_error(f"{what} failed: {first}", output, tuple(errors[:20]))


def compile_error(message: str, said: str, details: tuple[str, ...]) -> BuildError:
    """The error for what make and the compiler ``said``: of the machine, or else of the source."""
    for code, words, remedy in _OF_MACHINE:
        if any(word in said for word in words):
            return BuildError(code, message, remedy, details)
    remedy = "the source may not be that of this kernel; see the details"
    return BuildError(Code.COMPILE_FAILED, message, remedy, details)


def _listings(output: str) -> dict[str, Listing]:
    rows: dict[str, list[list[str]]] = {}
    failed: set[str] = set()
    for line in split_lines(output):
        words = line.split()
        if len(words) >= 2 and words[1] in ("y", "m", "multi", "down"):
            rows.setdefault(words[0], []).append(words[1:])
        elif len(words) == 2 and words[1] == "failed":
            failed.add(words[0])
    return {directory: _listing(r) for directory, r in rows.items() if directory not in failed}


def _listing(rows: list[list[str]]) -> Listing:
    def words(kind: str) -> frozenset[str]:
        return frozenset(normpath(word) for row in rows if row[0] == kind for word in row[1:])

    multi = [
        (row[1], frozenset(normpath(word) for word in row[2:])) for row in rows if row[0] == "multi"
    ]
    return Listing(words("y"), words("m"), tuple(multi), words("down"))


def find_unit(path: str, listings: dict[str, Listing]) -> tuple[Unit, ...]:
    """The units that the source file ``path`` (``fs/ext4/mballoc.c``) is compiled as.

    Several when modules share the object; none when the configuration does not build it.
    """
    obj = f"{path.rpartition('.')[0]}.o"
    units = []
    for directory, listing in listings.items():
        if not reached(directory, listings):
            continue
        if obj in listing.builtin:
            units.append(Unit(obj, directory, "vmlinux"))
        if obj in listing.modular:
            units += [Unit(obj, directory, name) for name in _modules(obj, listing)]
    return tuple(units)


def _modules(obj: str, listing: Listing) -> list[str]:
    owners = [module for module, parts in listing.multi if obj in parts] or [obj]
    return [Path(owner).stem.replace("-", "_") for owner in owners]


def modules_of(listing: Listing) -> frozenset[str]:
    """The names of the modules that a directory builds."""
    return frozenset(name for obj in listing.modular for name in _modules(obj, listing))


def _goal(unit: Unit) -> str:
    """The object as the directory's own Makefile calls it: it may lie beside the directory."""
    if unit.path.startswith(f"{unit.directory}/"):
        return unit.path
    return f"{unit.directory}/{relpath(unit.path, unit.directory)}"


def reached(directory: str, listings: dict[str, Listing]) -> bool:
    """Whether Kbuild descends into ``directory`` from the topmost directory that has a file."""
    above = [parent for parent in ancestors(directory) if parent in listings]
    return not above or any(
        directory in listings[parent].down and reached(parent, listings) for parent in above
    )


def ancestors(path: str) -> Iterator[str]:
    """The directories above ``path``, nearest first, without the tree's top."""
    parent = path.rpartition("/")[0]
    while parent:
        yield parent
        parent = parent.rpartition("/")[0]
