# SPDX-License-Identifier: GPL-2.0-or-later
"""Which changed files a changelog entry may be about, from its words alone.

An entry has a subject as the kernel's commits have: "subsystem: part: what it does". Its files are
those that the most specific part of the prefix names, narrowed by the earlier parts and by the
identifiers in the text. Where that leaves several files the entry may be in any or all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kspliced.model import ChangelogEntry

_TAG = re.compile(r"^(?:\[[^]]*\]\s*)+")
_TAIL = re.compile(r"\s*\((?:CVE-|[Cc]loses:).*$")
_WORD = re.compile(r"[A-Za-z0-9]+")
_IDENTIFIER = re.compile(r"\b[A-Za-z]\w*_\w+\b|\b[A-Za-z_]\w*(?=\(\))")
# Subsystems whose directories have another name.
_ALIASES = {
    "asoc": "soc",
    "alsa": "sound",
    "rdma": "infiniband",
    "wifi": "wireless",
    "tracing": "trace",
    "cifs": "client",
    "ksmbd": "server",
    "vfs": "fs",
    "btf": "bpf",
    "nfsv4": "nfs",
}


@dataclass(frozen=True)
class FileFacts:
    """A changed file: the identifiers that its edits touch or its changed lines use."""

    path: str
    identifiers: frozenset[str]


@dataclass(frozen=True)
class Attribution:
    """``files`` the entry may be in, and how sure it is, 0 to 1, that it is in no other."""

    files: tuple[str, ...]
    confidence: float


class Attributor:
    """Holds the changed files by the words of their paths."""

    def __init__(self, files: Iterable[FileFacts]) -> None:
        self._facts = {facts.path: facts for facts in files}
        self._by_word: dict[str, set[str]] = {}
        self._by_identifier: dict[str, set[str]] = {}
        for facts in self._facts.values():
            for word in _words(facts.path):
                self._by_word.setdefault(word, set()).add(facts.path)
            for identifier in facts.identifiers:
                self._by_identifier.setdefault(identifier, set()).add(facts.path)

    def attribute(self, entry: ChangelogEntry) -> Attribution:
        """The files of one entry; none where nothing in it names one."""
        subject = _TAIL.sub("", _TAG.sub("", entry.subject))
        *prefix, _ = subject.split(": ")
        near = self._named(prefix)
        mentioned = [self._by_identifier.get(name, set()) for name in _IDENTIFIER.findall(subject)]
        by_name = set().union(*mentioned)
        if near and by_name & near:
            return _answer(by_name & near, 0.9)
        if near:
            return _answer(near, 0.8 if len(near) == 1 else 0.6)
        if by_name:
            return _answer(by_name, 0.7 if len(by_name) == 1 else 0.5)
        return Attribution((), 0.0)

    def _named(self, prefix: list[str]) -> set[str]:
        """The files that the parts of a prefix name, the last part counting most."""
        found: set[str] = set()
        for part in reversed(prefix):
            for word in reversed(_words(part)):
                named = self._by_word.get(_ALIASES.get(word, word), set())
                if named:
                    found = found & named or found or named
        return found


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _answer(files: set[str], confidence: float) -> Attribution:
    return Attribution(tuple(sorted(files)), confidence)


def fold(files: Iterable[str], fates: Mapping[str, str], ranks: tuple[str, ...]) -> str:
    """The first of ``ranks`` that the fate of one of ``files`` is, '' without files."""
    present = {fates[path] for path in files if path in fates}
    return next((rank for rank in ranks if rank in present), "")
