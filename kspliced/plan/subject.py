# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of a changelog entry, and those of code, made comparable.

A subject reads "[tags] subsystem: part: what it does (CVE-...)". Words of code are identifiers,
taken apart at underscores and capitals, and brought to a stem that the kernel's usual
abbreviations share with the words they stand for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

_TAG = re.compile(r"^(?:\[[^]]*\]\s*)+")
_TAIL = re.compile(r"\s*\((?:CVE-|[Cc]loses:).*$")
_REVERT = re.compile(r'^Revert "(.*?)"?$')
_PARENTHESES = re.compile(r"^\(([^)]*)\)\s*(.*)$")
_DASH = re.compile(r"^([\w/]+)\s+-\s+(.*)$")
WORD = re.compile(r"[A-Za-z_]\w*|\d\w*")
_HUMP = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ENDINGS = ("ations", "ation", "ings", "ing", "ers", "ed", "es", "s", "e")
_EMPTY = """
    a add after all an and are as at be before by can do dont during fix fixed fixes for from if in
    into is it its make no not of off on only or s so t than that the then this to use via was when
    with
"""
_STOP = frozenset(_EMPTY.split())
_PAIRS = """
    address:addr allocate:alloc allocation:alloc argument:arg association:asoc attribute:attr
    attributes:attr buffer:buf character:char checksum:csum command:cmd config:config
    configuration:config connection:conn context:ctx control:ctrl controller:ctrl count:cnt
    credential:cred descriptor:desc destination:dst device:dev directory:dir group:grp
    histogram:hist index:idx indexes:idx information:info initialise:init initialization:init
    initialize:init interrupt:irq interrupts:irq length:len maximum:max memory:mem message:msg
    minimum:min multicast:mcast namespace:netns number:nr object:obj operation:op parameter:param
    parameters:param pointer:ptr position:pos previous:prev priority:prio receive:rcv received:rcv
    recv:rcv refcount:ref reference:ref register:reg request:req response:resp retransmit:retrans
    sequence:seq source:src statistics:stat stats:stat string:str synchronize:sync temporary:tmp
    timestamp:tstamp transmit:xmit transport:trans urgent:urg value:val
"""
_ABBREVIATED = dict(pair.split(":") for pair in _PAIRS.split())


@dataclass(frozen=True)
class Subject:
    """``prefix`` the parts before the last colon; ``text`` what it does; ``tags`` the words in
    brackets, which are architectures; ``body`` all of it but tags and numbers; ``reverts`` if it
    takes back the commit of that body."""

    prefix: tuple[str, ...]
    text: str
    tags: tuple[str, ...]
    body: str
    reverts: bool

    def names(self, word: str) -> bool:
        """Whether a word of it is an identifier, not English."""
        return "_" in word.strip("_") or f"{word}()" in self.body


def read_subject(entry: str) -> Subject:
    """Take the subject of an entry apart."""
    tags = _TAG.match(entry)
    body = _TAIL.sub("", _TAG.sub("", entry))
    reverted = _REVERT.match(body)
    if reverted:
        body = _TAG.sub("", reverted.group(1))
    *prefix, text = re.split(r":\s+", body)
    while found := _PARENTHESES.match(text):
        prefix.append(found.group(1))
        text = found.group(2)
    if found := _DASH.match(text):
        prefix.append(found.group(1))
        text = found.group(2)
    words = WORD.findall(tags.group()) if tags else []
    return Subject(tuple(prefix), text, tuple(words), body, reverted is not None)


def says_something(word: str) -> bool:
    """Whether a word of a subject may tell one commit from another."""
    return len(word) > 1 and word.lower() not in _STOP


@lru_cache(maxsize=1 << 18)
def stem(word: str) -> str:
    """What a word has in common with its other forms and its abbreviation."""
    word = word.lower()
    if word in _ABBREVIATED:
        return _ABBREVIATED[word]
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            word = word.removesuffix(ending)
            break
    return _ABBREVIATED.get(word, word)


@lru_cache(maxsize=1 << 18)
def parts(identifier: str) -> frozenset[str]:
    """The stems of the words that an identifier is made of."""
    found = set()
    for part in identifier.split("_"):
        if part:
            found.add(stem(part))
            if not part.islower():
                found.update(stem(hump) for hump in _HUMP.findall(part))
    return frozenset(found)


@lru_cache(maxsize=1 << 18)
def pairs(identifier: str) -> frozenset[str]:
    """Neighbouring words of an identifier of three or more: a subject often names a part only."""
    words = [part for part in identifier.split("_") if part]
    if len(words) < 3:
        return frozenset()
    return frozenset(f"{one}_{other}" for one, other in pairwise(words))
