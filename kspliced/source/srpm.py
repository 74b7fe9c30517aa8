# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel source RPM packages, through rpm's own library and rpmbuild.

rpmbuild runs the spec's %prep section, so this is for the builder only, which has no rights. The
package's digests are verified here; its signature is when it is fetched.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from functools import cached_property
from pathlib import Path
from typing import Any

from kspliced.errors import Code, SourceError
from kspliced.lines import split_lines
from kspliced.source.members import Member
from kspliced.source.package import TreeSource, file_key

_WORDS = 10


@dataclass(frozen=True)
class _Head:
    """What the package's header says; ``changelog`` newest first: version, trailer, text."""

    name: str
    version: str
    source: bool
    changelog: tuple[tuple[str, str, str], ...]


class SrpmSource:
    """A kernel .src.rpm; its %prep is run when a file of it is asked for.

    :raises SourceError: SOURCE_UNREADABLE, TOOL_MISSING.
    """

    def __init__(self, path: Path, into: Path) -> None:
        self._path, self._into = path, into
        self._head = _read_head(path)
        if not self._head.source:
            raise SourceError(
                Code.SOURCE_UNREADABLE,
                f"{path} is not a source package",
                f"name the .src.rpm that {self._head.name} was built from",
            )

    @property
    def key(self) -> str:
        """Of the package file."""
        return file_key(self._path)

    @property
    def version(self) -> str:
        """VERSION-RELEASE."""
        return self._head.version

    @property
    def changelog(self) -> str:
        """The package's changelog in the form of deb-changelog(5)."""
        name = self._head.name
        return "\n".join(
            f"{name} ({version}) unstable; urgency=medium\n\n{_bullets(text)}\n\n -- {trailer}\n"
            for version, trailer, text in self._head.changelog
        )

    def members(self) -> Iterator[Member]:
        """Every file of the tree, with the spec's patches."""
        return self._tree.members()

    @cached_property
    def _tree(self) -> TreeSource:
        self._into.mkdir()
        # rpmbuild does not look at the payload's digest.
        self._run("rpmkeys", "--checksig", "--nosignature", str(self._path))
        words = self._run(
            "rpmbuild", "-rp", "--nodeps", "--define", f"_topdir {self._into}", str(self._path)
        )
        tops = [
            makefile.parent
            for pattern in ("*/Makefile", "*/*/Makefile")
            for makefile in sorted((self._into / "BUILD").glob(pattern))
            if (makefile.parent / "Kbuild").is_file()
        ]
        if not tops:
            raise _unreadable(self._path, "its %prep section leaves no kernel tree", words)
        return TreeSource(tops[0])

    def _run(self, *command: str) -> tuple[str, ...]:
        """Run a tool of rpm; the last that it says."""
        environment = {**os.environ, "HOME": str(self._into), "LC_ALL": "C"}
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                check=False,
            )
        except OSError as error:
            why = f"{command[0]} is not installed"
            raise SourceError(Code.TOOL_MISSING, why, "install rpm-build") from error
        words = split_lines(done.stdout.decode("utf-8", "replace").strip())[-_WORDS:]
        if done.returncode != 0:
            raise _unreadable(self._path, _cause(words), tuple(words))
        return tuple(words)


def _read_head(path: Path) -> _Head:
    try:
        import rpm
    except ImportError as error:
        why = "python3-rpm, which reads source packages, is not installed"
        raise SourceError(Code.TOOL_MISSING, why, "install python3-rpm") from error
    # What it has to say comes as an exception, too.
    rpm.setVerbosity(rpm.RPMLOG_EMERG)
    transaction = rpm.TransactionSet()
    # Whose keys count is a matter of the fetch; digests are verified.
    transaction.setVSFlags(rpm._RPMVSF_NOSIGNATURES)
    try:
        with path.open("rb") as file:
            header: Any = transaction.hdrFromFdno(file.fileno())
        names = header[rpm.RPMTAG_CHANGELOGNAME]
        times = header[rpm.RPMTAG_CHANGELOGTIME]
        texts = header[rpm.RPMTAG_CHANGELOGTEXT]
        return _Head(
            name=str(header[rpm.RPMTAG_NAME]),
            version=f"{header[rpm.RPMTAG_VERSION]}-{header[rpm.RPMTAG_RELEASE]}",
            source=bool(header[rpm.RPMTAG_SOURCEPACKAGE]),
            changelog=tuple(_versioned(*entry) for entry in zip(names, times, texts, strict=True)),
        )
    except (rpm.error, OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error


def _versioned(name: str, seconds: int, text: str) -> tuple[str, str, str]:
    """An entry's version, which by custom stands behind its author: ``A. U. Thor <a@b> - 1.2-3``
    or ``A. U. Thor <a@b> [1.2-3]``; its trailer as deb-changelog(5) has it; its text."""
    author, _, version = name.rpartition(" ")
    author = author.removesuffix(" -")
    person = author if author.endswith(">") else f"{author} <>"
    return version.strip("[]"), f"{person}  {formatdate(seconds)}", text


def _bullets(text: str) -> str:
    """The lines of an entry, each indented, its items as they are."""
    return "\n".join(f"  {line}" for line in split_lines(text))


def _cause(words: list[str]) -> str:
    told = [line for line in words if line.lstrip().lower().startswith(("error:", "bad exit"))]
    return (told or words or ["rpmbuild failed"])[0].strip()


def _unreadable(path: Path, why: str, words: tuple[str, ...] = ()) -> SourceError:
    return SourceError(
        Code.SOURCE_UNREADABLE, f"{path} cannot be read: {why}", "fetch the package again", words
    )
