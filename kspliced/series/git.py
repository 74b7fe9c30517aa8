# SPDX-License-Identifier: GPL-2.0-or-later
"""The commits between two versions, from somebody's git repository.

Nothing of the repository but its objects is given to git: it reads them through a repository of our
own, which has no other configuration, attributes, hooks or remotes. What a repository may have git
run (core.fsmonitor, textconv, gpg.program, a promisor remote) is so never read; its references are
read here.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kspliced.errors import Code, SourceError
from kspliced.limits import SERIES_BYTES
from kspliced.lines import split_lines
from kspliced.series.commit import FULL_NAME, Commit, said_fixes, said_ids, unreadable
from kspliced.series.diffs import parse_diff

# What begins a version of a kernel's package: 6.1.190-1, 6.12~rc3-1~exp1, 6.1.9-200.fc37.
_VERSION = re.compile(r"(?:\d+:)?(\d+\.\d+(?:\.\d+)?)(?:[~-](rc\d+))?")
# Of a file of references, and first parents among which a release is looked for.
_REFERENCES, _SEARCHED = 64 << 20, 100_000
_HEADS = ("refs/heads/", "refs/remotes/")
_SAFE = (
    *("-c", "core.commitGraph=false", "-c", "core.multiPackIndex=false", "--no-pager"),
    *("-c", "core.quotePath=true", "-c", "diff.renames=false"),
)
_LOG = (
    *("log", "-p", "--reverse", "--topo-order", "--no-merges", "--no-color", "--no-ext-diff"),
    *("--no-textconv", "--no-renames", "--no-show-signature", "--no-notes", "--no-mailmap"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--submodule=short", "-U3", "--encoding=UTF-8"),
    *("--format=%x00%H%x00%B%x00",),
)
_FETCH = "fetch the stable branch with its tags and all of its history, or name its patches"


def is_repository(path: Path) -> bool:
    """Whether a directory is a git repository or the working tree of one."""
    bare = (path / "HEAD").is_file() and (path / "objects").is_dir()
    return bare or os.path.lexists(path / ".git")


class Repository:
    """The repository at ``path``, seen through one of our own in ``scratch``.

    :raises SourceError: SERIES_UNREADABLE, TOOL_MISSING.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        self._path, self._own = path, scratch
        self._top = _git_directory(path)
        common = _first_line(self._top / "commondir")
        self._common = (self._top / common).resolve() if common else self._top
        if (self._common / "reftable").exists():
            text = f"{path} keeps its references in a form that is not read here (reftable)"
            raise unreadable(text, "name patches of `git format-patch` instead")
        self._references = dict(self._read_references())
        self._make()

    def commits(self, from_version: str, to_version: str) -> tuple[Commit, ...]:
        """The commits that ``to_version`` has and ``from_version`` has not, the oldest first.

        :param from_version: of a source package; its release is that of upstream in it.
        :raises SourceError: SERIES_UNREADABLE, TOOL_MISSING.
        """
        names = [_release(version) for version in (from_version, to_version)]
        if names[0] == names[1]:
            text = f"{from_version} and {to_version} are both of release {names[0]}"
            remedy = "name the patches that the distribution added, not a repository"
            raise unreadable(f"{text}: {self._path} has no commit between them", remedy)
        first, last = (self._released(name) for name in names)
        return tuple(self._between(first, last))

    def _between(self, first: str, last: str) -> Iterator[Commit]:
        found = self._git(*_LOG, f"{first}..{last}", "--").split(b"\0")[1:]
        for digits, message, diff in zip(found[::3], found[1::3], found[2::3], strict=True):
            name, text = digits.decode("ascii"), message.decode("utf-8", "replace")
            lines = split_lines(diff, keepends=True)
            yield Commit(
                name=name,
                subject=text.partition("\n")[0].strip(),
                ids=(name, *said_ids(text)),
                fixes=said_fixes(text),
                files=parse_diff(lines, f"commit {name}"),
            )

    def _released(self, name: str) -> str:
        """The commit of a release: its tag's, or the one that says so on some branch."""
        tag = self._references.get(f"refs/tags/v{name}")
        if tag is not None:
            return tag
        heads = sorted({d for ref, d in self._references.items() if ref.startswith(_HEADS)})
        if heads:
            searched = ("--first-parent", f"--max-count={_SEARCHED}", "--format=%H %s")
            for line in split_lines(self._git("log", *searched, *heads, "--")):
                digits, _, subject = line.decode("utf-8", "replace").partition(" ")
                if subject == f"Linux {name}":
                    return digits
        text = f"{self._path} has no tag v{name} and no commit `Linux {name}` on a branch"
        raise unreadable(text, _FETCH)

    def _read_references(self) -> Iterator[tuple[str, str]]:
        """References by name; loose ones come last, as they are the newer ones."""
        for line in _text(self._common / "packed-refs").split("\n"):
            digits, _, name = line.partition(" ")
            if FULL_NAME.fullmatch(digits):
                yield name, digits
        for place in ("refs/tags", *_HEADS):
            for file in sorted((self._common / place).rglob("*")):
                digits = _first_line(file) if file.is_file() else ""
                if FULL_NAME.fullmatch(digits):
                    yield file.relative_to(self._common).as_posix(), digits
        for name in ("HEAD", "FETCH_HEAD"):
            digits = _text(self._top / name)[:64].strip().partition("\t")[0]
            if FULL_NAME.fullmatch(digits):
                yield f"refs/heads/{name}", digits

    def _make(self) -> None:
        objects = self._common / "objects"
        if not objects.is_dir():
            raise unreadable(f"{self._path} is no whole git repository: it has no objects", _FETCH)
        if "\n" in str(objects):
            raise unreadable("a repository's path has a newline", "move it elsewhere")
        for name in ("objects/info", "refs"):
            (self._own / name).mkdir(parents=True, exist_ok=True)
        (self._own / "HEAD").write_text("ref: refs/heads/none\n", "utf-8")
        config = "[core]\n\trepositoryformatversion = 1\n\tbare = true\n"
        if any(len(digits) == 64 for digits in self._references.values()):
            config += "[extensions]\n\tobjectFormat = sha256\n"
        (self._own / "config").write_text(config, "utf-8")
        (self._own / "objects/info/alternates").write_bytes(os.fsencode(objects) + b"\n")
        # Where a shallow clone's history ends.
        ends = [line for line in _text(self._common / "shallow").split("\n") if line]
        if ends and all(map(FULL_NAME.fullmatch, ends)):
            (self._own / "shallow").write_text("".join(f"{end}\n" for end in ends), "utf-8")

    def _git(self, *words: str) -> bytes:
        """What git prints of our own repository."""
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C",
            "HOME": str(self._own),
            "GIT_DIR": str(self._own),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_ALLOW_PROTOCOL": "none",
            "GIT_TERMINAL_PROMPT": "0",
        }
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(
                    ["git", *_SAFE, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    env=environment,
                    cwd=self._own,
                )
            except FileNotFoundError as error:
                text = f"git is not installed, and {self._path} is a git repository"
                raise SourceError(Code.TOOL_MISSING, text, "install git") from error
            with process:
                assert process.stdout is not None
                data = process.stdout.read(SERIES_BYTES + 1)
                if len(data) > SERIES_BYTES:
                    process.kill()
                    raise too_large(self._path)
            if process.returncode != 0:
                said.seek(0)
                words_of = split_lines(said.read(2000).decode("utf-8", "replace"))
                why = words_of[0] if words_of else f"it ended with {process.returncode}"
                raise unreadable(f"git cannot read {self._path}: {why:.300}", _FETCH)
        return data


def too_large(path: Path) -> SourceError:
    """The error of commits that are more than anybody reads."""
    text = f"the commits of {path} have more than {SERIES_BYTES >> 20} MiB"
    return unreadable(text, "name those between the two versions only")


def _release(version: str) -> str:
    """What upstream calls the release that a package's version begins with."""
    found = _VERSION.match(version)
    if found is None:
        raise unreadable(f"{version} is no version of a kernel", "name packages, or patches")
    number, candidate = found.groups()
    number = number.removesuffix(".0") if number.count(".") == 2 else number
    return f"{number}-{candidate}" if candidate else number


def _git_directory(path: Path) -> Path:
    """The directory of a repository's own files, wherever it was put."""
    place = path / ".git"
    if not os.path.lexists(place):
        return path
    if place.is_file():
        line = _first_line(place)
        if not line.startswith("gitdir: "):
            raise unreadable(f"{place} does not say where the repository is", "name it itself")
        place = path / line.removeprefix("gitdir: ")
    if not place.is_dir():
        raise unreadable(f"{path} has no repository: {place} is no directory", "name it itself")
    return place


def _first_line(file: Path) -> str:
    return _text(file, 4096).partition("\n")[0].strip()


def _text(file: Path, limit: int = _REFERENCES) -> str:
    """A small file's text; '' where there is none, or it is not to be read. What is no regular file
    might never end, or never begin."""
    try:
        if not file.is_file():
            return ""
        with file.open("rb") as opened:
            return opened.read(limit).decode("utf-8", "surrogateescape")
    except OSError:
        return ""
