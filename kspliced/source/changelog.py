# SPDX-License-Identifier: GPL-2.0-or-later
"""The entries that an upgrade adds to debian/changelog (deb-changelog(5))."""

from __future__ import annotations

import re

from kspliced.model import ChangelogEntry

_HEADER = re.compile(r"^\S+ \(([^)]+)\)", re.MULTILINE)
_TRAILER = re.compile(r"^ -- .*$", re.MULTILINE)
_BULLET = re.compile(r"^\s+[*-] ")
_PERSON = re.compile(r"^\s+\[ .* \]\s*$")
_CVE = re.compile(r"CVE-\d{4}-\d{4,}")
_CLOSES = re.compile(r"closes:\s*(?:bug)?#?\s?\d+(?:,\s*(?:bug)?#?\s?\d+)*", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")


def new_entries(changelog: str, from_version: str) -> tuple[ChangelogEntry, ...]:
    """The bullets of all versions above the one called ``from_version``, newest first.

    A changelog that does not hold ``from_version`` gives nothing: better no entry than ones the
    upgrade does not add. A bullet that only heads a list ("New upstream stable update:") is
    not an entry.
    """
    headers = list(_HEADER.finditer(changelog))
    versions = [match.group(1) for match in headers]
    if from_version not in versions:
        return ()
    entries: list[ChangelogEntry] = []
    for number, header in enumerate(headers[: versions.index(from_version)]):
        body = changelog[header.end() : headers[number + 1].start()]
        body = _TRAILER.sub("", body)
        entries += (_entry(versions[number], text) for text in _bullets(body))
    return tuple(entries)


def _bullets(body: str) -> list[str]:
    """The text of each bullet, its continuation lines joined."""
    bullets: list[list[str]] = []
    for line in body.splitlines()[1:]:
        if _BULLET.match(line):
            bullets.append([line.split(None, 1)[1]])
        elif line.strip() and bullets and not _PERSON.match(line):
            bullets[-1].append(line.strip())
    texts = [" ".join(lines) for lines in bullets]
    return [text for text in texts if not re.search(r":(\s+https?://\S+)?$", text)]


def _entry(version: str, text: str) -> ChangelogEntry:
    bugs = [n for match in _CLOSES.findall(text) for n in _NUMBER.findall(match)]
    return ChangelogEntry(version, text, tuple(_CVE.findall(text)), tuple(bugs))
