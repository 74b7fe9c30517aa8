# SPDX-License-Identifier: GPL-2.0-or-later
"""Which commit mends which CVE, from what is published as JSON.

CVE records (format 5), as the kernel's CNA publishes them: affected versions of type ``git`` are
``lessThan`` the commit that mends them, and each reference is one of these commits. OSV's format:
ranges of type ``GIT`` have an event ``fixed``; the id or an alias is the CVE.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kspliced.errors import Code, SourceError
from kspliced.limits import CVE_BYTES, CVE_FILE
from kspliced.series.commit import TELLING, Commit, same_commit

_CVE = re.compile(r"CVE-\d{4}-\d{4,}")
_DIGITS = re.compile(rf"[0-9a-f]{{{TELLING},64}}")
_COMMIT_URL = re.compile(r"https?://git\.kernel\.org/(?:stable|linus)/(?:c/)?([0-9a-f]{12,64})")


@dataclass(frozen=True)
class Fix:
    """A ``cve`` and digits of a commit that mends it."""

    commit: str
    cve: str


class CveData:
    """The commits that mend CVEs."""

    def __init__(self, fixes: Iterable[Fix] = ()) -> None:
        self._by: dict[str, list[Fix]] = {}
        for fix in fixes:
            self._by.setdefault(fix.commit[:TELLING], []).append(fix)

    def of(self, commit: Commit) -> tuple[str, ...]:
        """What a commit mends, and those that it was picked from."""
        found = {
            fix.cve
            for own in commit.ids
            for fix in self._by.get(own[:TELLING], ())
            if same_commit(fix.commit, own)
        }
        return tuple(sorted(found | set(commit.cves)))


def read_cves(path: Path) -> CveData:
    """Read a file of JSON, or all that are in a directory or below it.

    :raises SourceError: CVE_DATA_UNREADABLE.
    """
    try:
        files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        if path.exists() and not path.is_dir() and not path.is_file():
            raise _unreadable(f"{path} is no file and no directory")
        fixes = list(_fixes(file for file in files if file == path or file.is_file()))
    except OSError as error:
        text = f"cannot read {error.filename or path}: {error.strerror}"
        raise _unreadable(text) from error
    if not fixes:
        text = f"{path} tells of no commit that mends a CVE"
        raise _unreadable(text)
    return CveData(fixes)


def _unreadable(text: str) -> SourceError:
    remedy = "name CVE records of the kernel's CNA or OSV's, as JSON"
    return SourceError(Code.CVE_DATA_UNREADABLE, text, remedy)


def _fixes(files: Iterable[Path]) -> Iterator[Fix]:
    left = CVE_BYTES
    for file in files:
        with file.open("rb") as opened:
            data = opened.read(CVE_FILE + 1)
        left -= len(data)
        if len(data) > CVE_FILE or left < 0:
            raise _unreadable(f"{file} is too large: a record of a CVE has some kilobytes")
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise _unreadable(f"{file} is not JSON: {error!s:.200}") from error
        for record in value if isinstance(value, list) else [value]:
            for fix in dict.fromkeys((*_of_cve(record), *_of_osv(record))):
                if _DIGITS.fullmatch(fix.commit) and _CVE.fullmatch(fix.cve):
                    yield fix


def _of_cve(record: Any) -> Iterator[Fix]:
    """Those of a CVE record; one that was rejected has none."""
    meta, cna = _get(record, "cveMetadata"), _get(record, "containers", "cna")
    cve = _get(meta, "cveId") or _get(meta, "cveID")
    if not isinstance(cve, str) or _get(meta, "state") == "REJECTED":
        return
    for product in _list(_get(cna, "affected")):
        for version in _list(_get(product, "versions")):
            git, less = _get(version, "versionType") == "git", _get(version, "lessThan")
            if git and _get(version, "status") == "affected" and isinstance(less, str):
                yield Fix(less, cve)
    for reference in _list(_get(cna, "references")):
        url = _get(reference, "url")
        found = _COMMIT_URL.match(url) if isinstance(url, str) else None
        if found is not None:
            yield Fix(found.group(1), cve)


def _of_osv(record: Any) -> Iterator[Fix]:
    """Those of a record of OSV; one that was withdrawn has none."""
    names = [_get(record, "id"), *_list(_get(record, "aliases"))]
    cves = [name for name in names if isinstance(name, str) and _CVE.fullmatch(name)]
    if _get(record, "withdrawn"):
        return
    for product in _list(_get(record, "affected")):
        for reach in _list(_get(product, "ranges")):
            if _get(reach, "type") == "GIT":
                for event in _list(_get(reach, "events")):
                    fixed = _get(event, "fixed")
                    if isinstance(fixed, str):
                        yield from (Fix(fixed, cve) for cve in cves)


def _get(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
