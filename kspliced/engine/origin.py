# SPDX-License-Identifier: GPL-2.0-or-later
"""Which archives apt has, and whether a package is of one that the installed kernels are of.

The source of a kernel is what the root of this machine is made to run, so it has to come from who
the kernel came from, not from any archive that apt trusts for something (docs/security.md).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kspliced.errors import Code, SourceError
from kspliced.lines import split_lines

_FORMAT = "$(SOURCESENTRY)|$(REPO_URI)|$(RELEASE)|$(ORIGIN)"
_SIGNED_BY = re.compile(r"\bsigned-by=([^\s\]]+)", re.IGNORECASE)
_ARCHIVES = ("apt-get", "indextargets", "--format", _FORMAT)
# What a source list may hold at most, bytes.
_MAX_LIST = 1 << 20

# Runs one of apt's tools with the machine's options, and gives its output.
Ask = Callable[[tuple[str, ...]], str]


@dataclass(frozen=True)
class Archive:
    """A suite of an archive. ``origin`` is what its signed Release says of itself, ``signed_by``
    the keyring that apt's source list binds it to, "" for the one of the whole machine."""

    site: str
    release: str
    origin: str
    signed_by: str

    def same(self, other: Archive) -> bool:
        """Whether both are of one archive: one suite, or one origin by one keyring."""
        if (self.site, self.release) == (other.site, other.release):
            return True
        mine, theirs = (self.origin, self.signed_by), (other.origin, other.signed_by)
        return bool(self.origin) and mine == theirs


@dataclass(frozen=True)
class Row:
    """A version of a package that an archive offers."""

    package: str
    version: str
    archive: Archive


class Origins:
    """What apt's lists say of origins; ``ask`` runs its tools."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        lines = split_lines(ask(_ARCHIVES))
        self._archives = tuple(dict.fromkeys(a for line in lines for a in _archive(line)))

    def require_same(
        self,
        kernels: Iterable[tuple[str, str]],
        fetched: Iterable[tuple[str, str]],
        uris: Iterable[str],
    ) -> None:
        """Refuse packages, each (name, version), to be fetched from ``uris``, that are not of the
        archives of the installed ``kernels``.

        :raises SourceError: SOURCE_UNAVAILABLE; also where apt's lists do not tell.
        """
        kernels = tuple(kernels)
        known = {row.archive for row in self._rows(kernels)}
        if not known:
            names = ", ".join(f"{name} {version}" for name, version in kernels) or "kernel"
            raise SourceError(
                Code.SOURCE_UNAVAILABLE,
                f"no archive that apt knows offers the installed {names}, so that it cannot be "
                "told whose source to trust",
                "run `apt update`; of a kernel that was installed from a file, add the archive",
            )
        wanted = tuple(fetched)
        rows = self._rows(wanted)
        for uri in uris:
            offered = {r.archive for r in rows if uri.startswith(r.archive.site + "/")}
            if not offered or not all(any(a.same(k) for k in known) for a in offered):
                names = ", ".join(name for name, _ in wanted)
                raise SourceError(
                    Code.SOURCE_UNAVAILABLE,
                    f"{names} would come from {_names(offered) or uri}, but the installed kernels "
                    f"are from {_names(known)}",
                    "let apt have the source from the archive of the kernel (deb or deb-src)",
                )

    def _rows(self, packages: Iterable[tuple[str, str]]) -> tuple[Row, ...]:
        wanted = set(packages)
        names = sorted({name for name, _ in wanted})
        if not names:
            return ()
        rows = (
            self._row(line) for line in split_lines(self._ask(("apt-cache", "madison", *names)))
        )
        return tuple(row for row in rows if row and (row.package, row.version) in wanted)

    def _row(self, line: str) -> Row | None:
        """Of ``PACKAGE | VERSION | SITE SUITE/COMPONENT ARCH Packages``."""
        columns = [column.strip() for column in line.split("|")]
        words = columns[2].split() if len(columns) == 3 else []
        if len(words) < 2:
            return None
        site, suite = words[0].rstrip("/"), words[1]
        fitting = [a for a in self._archives if a.site == site and _within(suite, a.release)]
        if not fitting:
            return None
        return Row(columns[0], columns[1], max(fitting, key=lambda a: len(a.release)))


def _within(suite: str, release: str) -> bool:
    return suite == release or suite.startswith(release.rstrip("/") + "/")


def _archive(line: str) -> tuple[Archive, ...]:
    words = line.split("|", 3)
    if len(words) != 4:
        return ()
    entry, site, release, origin = words
    # apt leaves a name in the format where it has no value.
    origin = "" if origin.startswith("$(") else origin
    return (Archive(site.rstrip("/"), release, origin, _signed_by(entry)),)


def _signed_by(entry: str) -> str:
    """The keyring of an entry ``FILE:NUMBER`` of apt's source lists: a line, or a stanza.

    :raises SourceError: SOURCE_UNAVAILABLE where it cannot be read: it must not count as none.
    """
    name, _, number = entry.rpartition(":")
    try:
        with Path(name).open(encoding="utf-8", errors="replace") as file:
            text = file.read(_MAX_LIST)
        place = int(number) - 1
        if name.endswith(".sources"):
            return _normal(_field(_stanzas(text)[place]))
        found = _SIGNED_BY.search(split_lines(text)[place])
        return _normal(found[1].replace(",", " ")) if found else ""
    except (OSError, ValueError, IndexError) as error:
        text = f"apt's source list {name[:200]} cannot be read: {error}"
        raise SourceError(
            Code.SOURCE_UNAVAILABLE, text, "see whether `apt update` works"
        ) from error


def _stanzas(text: str) -> list[list[str]]:
    stanzas: list[list[str]] = [[]]
    for line in split_lines(text):
        if line.startswith("#"):
            continue
        if line.strip():
            stanzas[-1].append(line)
        elif stanzas[-1]:
            stanzas.append([])
    return stanzas


def _field(stanza: list[str]) -> str:
    """The value of Signed-By, a key block's lines joined."""
    value: list[str] = []
    inside = False
    for line in stanza:
        if not line[:1].isspace():
            name, _, rest = line.partition(":")
            inside = name.lower() == "signed-by"
            line = rest
        if inside:
            value.append(line.strip())
    return " ".join(value)


def _normal(value: str) -> str:
    """The same text for the same keyrings, whatever links lead to them."""
    words = (os.path.realpath(w) if w.startswith("/") else w for w in value.split())
    return " ".join(sorted(words)) if "BEGIN PGP" not in value else " ".join(value.split())


def _names(archives: Iterable[Archive]) -> str:
    return ", ".join(
        sorted(f"{a.site} {a.release}" + (f" ({a.origin})" if a.origin else "") for a in archives)
    )
