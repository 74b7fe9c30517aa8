# SPDX-License-Identifier: GPL-2.0-or-later
"""What was found before of the same upgrade, and what a search gave up, not to try it again.

A search that is repeated, or goes on after it was cancelled, begins with what was divided and
dropped then. What remains is compiled, compared and judged as always.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from kspliced.build.fates import Decision
from kspliced.build.kbuild import Headers
from kspliced.model import Refusal
from kspliced.record import RecordError, dumps, loads
from kspliced.source.snapshot import Snapshot

# Searches, the ones made last.
_MOST = 16
_CODE = Path(__file__).parents[1]
# What the machine did, and not the source: another time it may compile.
_ACCIDENTS = (
    "signal terminated program",
    "No space left on device",
    "Disk quota exceeded",
    "Cannot allocate memory",
    "Permission denied",
    "Operation not permitted",
    # Make says no more where nobody said why.
    "not remade because of errors",
)


T = TypeVar("T")


def accidental(evidence: str) -> bool:
    """Whether a compiler's words tell of the machine."""
    return any(word in evidence for word in _ACCIDENTS)


@dataclass(frozen=True)
class GivenUp:
    """A component that was dropped, by name, and why."""

    name: str
    decision: Decision
    reasons: tuple[Refusal, ...]

    @property
    def accident(self) -> bool:
        """Whether it may be another time, for all that its reasons say."""
        return any(accidental(reason.evidence) for reason in self.reasons)


@dataclass(frozen=True)
class State:
    """How far a search is: the files it divided, those of them that it ``severed``, and the
    components it dropped; ``settled`` if nothing else was to be."""

    divided: tuple[str, ...] = ()
    given_up: tuple[GivenUp, ...] = ()
    settled: bool = False
    severed: tuple[str, ...] = ()


class Shelf(Generic[T]):
    """Records of one ``kind`` by key, as files in ``folder``, the last few; None to keep none."""

    def __init__(self, folder: Path | None, kind: type[T]) -> None:
        self._folder, self._kind = folder, kind

    def keys(self) -> frozenset[str]:
        """Of what is there."""
        found = self._folder.glob("*.json") if self._folder is not None else ()
        return frozenset(path.stem for path in found)

    def read(self, key: str) -> T | None:
        """A record; None where there is none, or it cannot be read."""
        if self._folder is None:
            return None
        try:
            return loads(self._kind, (self._folder / f"{key}.json").read_bytes())
        except (FileNotFoundError, RecordError):
            return None

    def write(self, key: str, record: T) -> None:
        """Keep a record.

        :raises OSError: no space left.
        """
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
            file.write(dumps(record))
        Path(file.name).replace(self._folder / f"{key}.json")
        paths = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in paths[:-_MOST]:
            path.unlink()


class Remembered:
    """The states of searches in ``folder``, None to keep none; ``key`` says what is searched."""

    def __init__(self, folder: Path | None, key: str) -> None:
        self._states, self.key = Shelf(folder, State), key

    def read(self) -> State:
        """The last state; an empty one where there is none, or it cannot be read."""
        return self._states.read(self.key) or State()

    def write(self, state: State) -> None:
        """Keep a state, but for what the machine did.

        :raises OSError: no space left.
        """
        if not any(component.accident for component in state.given_up):
            self._states.write(self.key, state)


def key_of(
    headers: Headers, old: Snapshot, changed: Path, paths: Iterable[str], wish: Iterable[str]
) -> str:
    """A digest of all that a search depends on: this program, the kernel with its configuration,
    the old source, the files of the new one that differ, and what is wanted.

    :param changed: the tree with the new version of ``paths``.
    """
    digest = hashlib.sha256()
    for part in _parts(headers, old, changed, paths, wish):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _parts(
    headers: Headers, old: Snapshot, changed: Path, paths: Iterable[str], wish: Iterable[str]
) -> Iterator[bytes]:
    for path in sorted(_CODE.rglob("*.*")):
        if path.is_file() and path.suffix != ".pyc":
            yield str(path.relative_to(_CODE)).encode()
            yield path.read_bytes()
    kernel = headers.kernel
    for text in (kernel.release, kernel.version, kernel.arch, headers.compiler_version, *wish):
        yield text.encode()
    yield (headers.top / ".config").read_bytes()
    for path_of in sorted(old.paths()):
        yield path_of.encode() + b"\0" + old.digest(path_of)
    for path_of in sorted(paths):
        place = changed / path_of
        yield path_of.encode() + b"\0" + (place.read_bytes() if place.is_file() else b"")
