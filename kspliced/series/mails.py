# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches as mails, as `git format-patch` writes them, and with the headers of DEP-3.

What mail programs did to an encoding is undone as far as it can be; what is broken is read as it
stands, and the patch in it applies or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message

from kspliced.lines import split_lines
from kspliced.series.commit import FULL_NAME, Commit, said_fixes, said_ids
from kspliced.series.diffs import parse_diff

# The line before each mail of an mbox has the date; text that only begins with "From" has none.
FROM = re.compile(rb"^From (\S+) .*\d\d:\d\d:\d\d .*\d{4}\s*$")
_HEADER = re.compile(rb"^[A-Za-z][A-Za-z-]*:")
_NUMBERED = re.compile(r"^(?:\[[^]]*\bPATCH\b[^]]*\]\s*)+", re.IGNORECASE)
_SPACES = re.compile(r"\s+")
_ENDING = re.compile(r"\.(?:patch|diff|mbox|eml)$")


def mails(data: bytes) -> Iterator[bytes]:
    """The mails of an mbox, each with the line before it; a text that has no such line as one."""
    mail: list[bytes] = []
    for line in split_lines(data, keepends=True):
        if FROM.match(line) and mail:
            yield b"".join(mail)
            mail = []
        mail.append(line)
    if mail:
        yield b"".join(mail)


def read_mail(data: bytes, name: str, strip: int = 1) -> Commit:
    """A patch with what stands above it. One that has no hunks changes no files.

    :param name: what errors call it; the subject, where it has none.
    :raises SourceError: SERIES_UNREADABLE.
    """
    first, _, rest = data.partition(b"\n")
    began = FROM.match(first)
    if began:
        data = rest
    written = bool(_HEADER.match(data))
    mail = message_from_bytes(data if written else b"\n" + data)
    body = _body(mail)
    subject = _NUMBERED.sub("", _text(mail, "Subject") or _text(mail, "Description"))
    files = parse_diff(split_lines(body, keepends=True), name, strip)
    text = (data if written else b"").partition(b"\n\n")[0].decode("utf-8", "replace")
    text += "\n" + _message(body)
    own = began.group(1).decode("ascii", "replace") if began else ""
    ids = (own,) if FULL_NAME.fullmatch(own) and own.strip("0") else ()
    return Commit(
        name=name,
        subject=_SPACES.sub(" ", subject).strip() or _ENDING.sub("", name.rpartition("/")[2]),
        ids=tuple(dict.fromkeys((*ids, *said_ids(text)))),
        fixes=said_fixes(text),
        files=files,
    )


def _message(body: bytes) -> str:
    """What stands above the difference."""
    text = body.decode("utf-8", "replace")
    return re.split(r"^(?:---|diff --git |Index: )", text, maxsplit=1, flags=re.MULTILINE)[0]


def _body(mail: Message) -> bytes:
    parts = [part for part in mail.walk() if part.get_content_maintype() != "multipart"]
    found = (part.get_payload(decode=True) for part in parts)
    return b"\n".join(payload for payload in found if isinstance(payload, bytes))


def _text(mail: Message, header: str) -> str:
    """A header's text; what is broken in it stays as it stands."""
    value = mail.get(header)
    if value is None:
        return ""
    try:
        pieces = decode_header(value)
    except (HeaderParseError, ValueError):
        return str(value)
    return "".join(_decoded(piece, charset) for piece, charset in pieces)


def _decoded(piece: str | bytes, charset: str | None) -> str:
    if isinstance(piece, str):
        return piece
    try:
        return piece.decode(charset or "utf-8", "replace")
    except (LookupError, ValueError):
        return piece.decode("utf-8", "replace")
