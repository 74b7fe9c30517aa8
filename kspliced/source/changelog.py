# SPDX-License-Identifier: GPL-2.0-or-later
"""The entries that an upgrade adds to debian/changelog (deb-changelog(5))."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass

from debian.changelog import Changelog

from kspliced.model import ChangelogEntry

_HEADER = re.compile(r"^\S+ \(([^)]+)\)", re.MULTILINE)
# python-debian warns of each line that it does not know, such as an address.
logging.getLogger("debian.changelog").setLevel(logging.ERROR)
_BULLET = re.compile(r"^\s+[*-] ")
_PERSON = re.compile(r"^\s+\[ .* \]\s*$")
# What was merged stands below its heading, and before the next list.
_ADDRESS = re.compile(r"^\s+https?://\S+\s*$")
_CVE = re.compile(r"CVE-\d{4}-\d{4,}")
_CLOSES = re.compile(r"closes:\s*(?:bug)?#?\s?\d+(?:,\s*(?:bug)?#?\s?\d+)*", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")
_EMPTY = "the changelog says nothing of what changed"


@dataclass(frozen=True)
class News:
    """What an upgrade adds to the changelog; ``problem`` says why that is unknown, or ''."""

    entries: tuple[ChangelogEntry, ...]
    problem: str = ""


def read_news(changelog: str, from_version: str) -> News:
    """The bullets of all versions above the one called ``from_version``, newest first.

    A changelog that does not hold ``from_version`` gives nothing: better no entry than ones the
    upgrade does not add. A bullet that only heads a list ("New upstream stable update:") is
    not an entry.
    """
    headers = list(_HEADER.finditer(changelog))
    versions = [match.group(1) for match in headers]
    if not headers:
        return News((), "the new source has no changelog that can be read")
    if from_version not in versions:
        return News((), f"the changelog of {versions[0]} does not mention {from_version}")
    # Of a kernel's changelog, megabytes, only the new part is parsed.
    added = changelog[: headers[versions.index(from_version)].start()]
    entries: list[ChangelogEntry] = []
    for block in Changelog(added, allow_empty_author=True, strict=False):
        entries += (_entry(str(block.version), text) for text in _bullets(block.changes()))
    problem = "" if entries or versions[0] == from_version else _EMPTY
    return News(tuple(entries), problem)


def _bullets(lines: Iterable[str]) -> list[str]:
    """The text of each bullet, its continuation lines joined."""
    bullets: list[list[str]] = []
    for line in lines:
        if _ADDRESS.match(line):
            continue
        if _BULLET.match(line):
            bullets.append([line.split(None, 1)[1]])
        elif line.strip() and bullets and not _PERSON.match(line):
            bullets[-1].append(line.strip())
    texts = [" ".join(words) for words in bullets]
    return [text for text in texts if not text.endswith(":")]


def _entry(version: str, text: str) -> ChangelogEntry:
    bugs = [n for match in _CLOSES.findall(text) for n in _NUMBER.findall(match)]
    return ChangelogEntry(version, text, tuple(_CVE.findall(text)), tuple(bugs))
