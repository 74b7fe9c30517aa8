# SPDX-License-Identifier: GPL-2.0-or-later
"""The facts of a unit that Kbuild has compiled: its functions read in a run of the compiler of
their own, and kept by all that the unit was made of.

Not in the run that makes the object: ccache keeps nothing that is compiled with these options.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath

from kspliced.build.kbuild import Kbuild, Unit, compile_error
from kspliced.errors import BuildError, Code
from kspliced.facts.declared import Declared, Definition, read_declared
from kspliced.facts.model import UnitFacts
from kspliced.facts.read import options, read_facts
from kspliced.lines import split_lines
from kspliced.record import RecordError, dumps, loads

# Of what is kept, as many bytes; a unit takes 0.1 MB.
_LIMIT = 256 << 20
# No code is made behind the dump, and nothing is warned of twice.
_ONLY_DUMP = ("-w", "-g0", "-flto", "-fno-fat-lto-objects", "-S", "-o", os.devnull)
_COMMAND = re.compile(r"^(?:saved)?cmd_\S+ := (?P<command>.*)$", re.MULTILINE)
_MADE_OF = re.compile(
    r"^(?:source_\S+ := (?P<source>\S+)|  (?P<file>[^\s$]\S*) ?\\?)$", re.MULTILINE
)
# What Kbuild's record has the options of instead.
_CONFIGURATION = "include/generated/autoconf.h"


@dataclass(frozen=True)
class _Kept:
    dump: str
    names: tuple[str, ...]
    definitions: tuple[tuple[str, Definition], ...]


class FactsSource:
    """Facts of the units of one source tree with its object tree.

    :param compiler: the compiler's version, all that it says.
    :param folder: where what was read is kept; None to keep nothing.
    """

    def __init__(
        self, srctree: Path, objtree: Path, kbuild: Kbuild, compiler: str, folder: Path | None
    ) -> None:
        self._srctree, self._objtree = srctree, objtree
        self._kbuild, self._compiler, self._folder = kbuild, compiler, folder

    def facts(self, unit: Unit, wanted: Callable[[str], bool] = lambda _: True) -> UnitFacts:
        """The facts of a unit that has been compiled.

        :param wanted: of a function's name, whether its facts are needed.
        :raises BuildError: FAILED, Kbuild left no record of the unit; COMPILE_FAILED and what the
            machine lacks.
        :raises OSError: no space left.
        """
        try:
            record = self._kbuild.record(unit).read_text("utf-8", "replace")
        except OSError as error:
            raise BuildError(Code.FAILED, f"Kbuild left no record of {unit.path}") from error
        command = _command(record, unit)
        key = self._key(command, record)
        kept = self._read(key)
        if kept is None:
            kept = self._run(command, unit)
            self._write(key, kept)
        declared = Declared(frozenset(kept.names), kept.definitions)
        return read_facts(kept.dump, declared, wanted=wanted)

    def _key(self, command: list[str], record: str) -> str:
        digest = hashlib.sha256(self._compiler.encode())
        for word in (*command, *options(Path(), Path())):
            digest.update(b"\0" + self._anywhere(word).encode())
        names = {m["source"] or m["file"] for m in _MADE_OF.finditer(record)}
        for name in sorted({*names, _CONFIGURATION}):
            path = self._objtree / name
            content = path.read_bytes() if path.is_file() else b""
            digest.update(
                f"\0{normpath(self._anywhere(name))}\0{len(content)}\0".encode() + content
            )
        return digest.hexdigest()

    def _anywhere(self, text: str) -> str:
        """The text as it is wherever the source tree lies."""
        return text.replace(str(self._srctree), "$(srctree)")

    def _run(self, command: list[str], unit: Unit) -> _Kept:
        with tempfile.TemporaryDirectory(dir=self._objtree) as folder:
            dump, declared = Path(folder) / "dump", Path(folder) / "declared"
            done = subprocess.run(
                [*command, *options(dump, declared), *_ONLY_DUMP],
                cwd=self._objtree,
                env={
                    "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
                    "LC_ALL": "C",
                    "TMPDIR": folder,
                },
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )
            if done.returncode:
                said = done.stderr.decode("utf-8", "replace")
                errors = tuple(line for line in split_lines(said) if "error:" in line)
                first = (errors or ("the compiler failed without a word",))[0]
                raise compile_error(f"reading {unit.path} failed: {first}", said, errors[:20])
            # A unit without functions has no dump.
            text = dump.read_text("utf-8", "replace") if dump.is_file() else ""
            text = text.replace(f"[{self._srctree}/", "[")
            known = read_declared(declared.read_text("utf-8", "replace"), str(self._srctree))
        return _Kept(text, tuple(sorted(known.names)), known.definitions)

    def _read(self, key: str) -> _Kept | None:
        if self._folder is None:
            return None
        path = self._folder / key
        try:
            kept = loads(_Kept, zlib.decompress(path.read_bytes()))
            path.touch()
        except (OSError, RecordError, zlib.error):
            return None
        return kept

    def _write(self, key: str, kept: _Kept) -> None:
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
            file.write(zlib.compress(dumps(kept), 6))
        Path(file.name).replace(self._folder / key)
        sizes = [
            (path.stat().st_mtime, path.stat().st_size, path) for path in self._folder.iterdir()
        ]
        total = sum(size for _, size, _ in sizes)
        for _, size, path in sorted(sizes):
            if total <= _LIMIT:
                break
            path.unlink(missing_ok=True)
            total -= size


def _command(record: str, unit: Unit) -> list[str]:
    """The compiler with its options and the source, without what says what is to be made."""
    match = _COMMAND.search(record)
    # What make would expand is doubled, and a number sign is masked; behind ";" is objtool.
    text = match["command"].replace("$$", "$").replace("$(pound)", "#") if match else ""
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    end = next((at for at, word in enumerate(words) if word.endswith(";") or word == ";"), None)
    if end is not None:
        words = [*words[:end], *([words[end][:-1]] if words[end] != ";" else [])]
    if words and words[0] == "ccache":
        words = words[1:]
    if "-c" not in words or "-o" not in words[:-1]:
        raise BuildError(Code.FAILED, f"Kbuild's record of {unit.path} has no compiler's command")
    at = words.index("-o")
    del words[at : at + 2]
    return [word for word in words if word != "-c" and not word.startswith("-Wp,-M")]
