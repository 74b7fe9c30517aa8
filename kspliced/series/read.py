# SPDX-License-Identifier: GPL-2.0-or-later
"""Commits, from whatever a site has them in: a git repository, a quilt series, mails, patches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from kspliced.limits import SERIES_BYTES
from kspliced.lines import split_lines
from kspliced.series.commit import Commit, unreadable
from kspliced.series.cves import CveData
from kspliced.series.git import Repository, is_repository, too_large
from kspliced.series.mails import mails, read_mail

_SERIES = "series"
_PATCH = (".patch", ".diff", ".mbox", ".eml")
# A letter that says what the patches behind it do.
_LETTER = re.compile(r"^(?:v\d+-)?0000-")
_OPTION = re.compile(r"-p(\d)")
_KINDS = "a git repository, a directory with a quilt series or with patches, an mbox or a patch"
_NAME = f"name {_KINDS}"


@dataclass(frozen=True)
class Series:
    """The commits at ``path``, which are ``read`` already, or come of the repository there; what
    ``cves`` tell of them."""

    path: Path
    read: tuple[Commit, ...] | None
    cves: CveData

    def commits(self, from_version: str, to_version: str, workdir: Path) -> tuple[Commit, ...]:
        """The commits, the oldest first; of a repository those between the two versions.

        :param workdir: for temporary files.
        :raises SourceError: SERIES_UNREADABLE, TOOL_MISSING.
        """
        found = self.read
        if found is None:
            with TemporaryDirectory(dir=workdir, prefix="git.") as scratch:
                repository = Repository(self.path, Path(scratch))
                found = repository.commits(from_version, to_version)
        if not found:
            text = f"{self.path} has no commit between {from_version} and {to_version}"
            raise unreadable(text, "name those between the two versions")
        return tuple(replace(commit, cves=self.cves.of(commit)) for commit in found)


def open_series(path: Path, cves: CveData | None = None) -> Series:
    """Read the patches at ``path``, or find that it is a repository.

    :raises SourceError: SERIES_UNREADABLE where there are none, or one is damaged.
    """
    cves = cves or CveData()
    try:
        if path.is_dir():
            if is_repository(path):
                return Series(path, None, cves)
            return Series(path, tuple(_Patches(path).of_directory()), cves)
        if path.is_file():
            return Series(path, tuple(_Patches(path.parent).of_mbox(path)), cves)
    except OSError as error:
        place = error.filename or path
        text = f"cannot read {place}: {error.strerror}"
        raise unreadable(text, "make it readable, or name another place") from error
    what = f"is not {_KINDS}" if path.exists() else "does not exist"
    raise unreadable(f"{path} {what}", _NAME)


class _Patches:
    """Reads patches below a directory, of which all together may have so many bytes."""

    def __init__(self, top: Path) -> None:
        self._top, self._left = top, SERIES_BYTES

    def of_directory(self) -> Iterator[Commit]:
        """Those that its series names, or else all that it holds."""
        series = self._top / _SERIES
        if series.is_file():
            yield from self._of_series(series)
            return
        files = sorted(f for f in self._top.iterdir() if f.name.endswith(_PATCH) and f.is_file())
        if not files:
            text = f"{self._top} is not {_KINDS}: it holds no .git, series, .patch or .mbox"
            raise unreadable(text, _NAME)
        for file in files:
            if not _LETTER.match(file.name):
                yield from self.of_mbox(file)

    def of_mbox(self, file: Path) -> Iterator[Commit]:
        """The patches of a file, which may be the one patch that it is."""
        found = [read_mail(one, str(file)) for one in mails(self._data(file))]
        patches = [commit for commit in found if commit.files]
        if not patches:
            raise unreadable(f"{file} has no patch: nothing in it is a unified difference", _NAME)
        yield from patches

    def _of_series(self, series: Path) -> Iterator[Commit]:
        """As quilt(1) reads it: a patch a line, with options behind it."""
        found = 0
        for line in split_lines(self._data(series).decode("utf-8", "replace")):
            words = line.partition("#")[0].split()
            if not words:
                continue
            found += 1
            name, options = words[0], words[1:]
            file = self._top / name
            strip = next((int(m.group(1)) for o in options if (m := _OPTION.fullmatch(o))), 1)
            if Path(name).is_absolute() or ".." in Path(name).parts:
                text = f"{series} names {name:.200}, which is elsewhere"
                raise unreadable(text, "copy the patch below the series")
            if not file.is_file():
                text = f"{series} names {name:.200}, which is not there"
                raise unreadable(text, "complete the patches, or take it out of the series")
            commit = read_mail(self._data(file), name, strip)
            if not commit.files:
                text = f"{file} is no patch: nothing in it is a unified difference"
                raise unreadable(text, "take it out of the series")
            yield commit
        if not found:
            raise unreadable(f"{series} names no patch", "name a series that has patches")

    def _data(self, file: Path) -> bytes:
        with file.open("rb") as opened:
            data = opened.read(self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise too_large(file)
        return data
