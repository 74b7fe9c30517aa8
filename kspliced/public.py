# SPDX-License-Identifier: GPL-2.0-or-later
"""The last line before what everybody may read: no address of the kernel, none of its bytes.

What is public is so by its place (KsplicedError.details, never .evidence). Whoever writes for
everybody (bus, state, journal, a worker's lines) sends its texts through here all the same: what a
tool, a pack or a mistake of ours put there is withheld.
"""

from __future__ import annotations

import re
from typing import Any

ADDRESS = "[address withheld]"
BYTES = "[bytes withheld]"
# All kernel addresses are canonical and in the upper half; this is so with five levels, too.
_HIGH = 0xFF00_0000_0000_0000
_ADDRESS = re.compile(
    r"(?<![0-9a-fA-F])(?:0[xX])?[fF]{2}[0-9a-fA-F]{14}(?![0-9a-fA-F])"
    r"|(?<![0-9])18(?:3[7-9]|4[0-4])[0-9]{16}(?![0-9])"
)
_BYTES = re.compile(
    r"(?<![0-9A-Za-z_])(?:0[xX])?(?P<run>[0-9a-fA-F]{18,})(?![0-9A-Za-z])"
    r"|(?<![0-9A-Za-z])[0-9a-f]{2}(?:[ :][0-9a-f]{2}){7,}(?![0-9A-Za-z])"
    r"|(?:\\+x[0-9a-fA-F]{2}[^\\\"]{0,2}){3,}"
)
# What all of these have; most texts do not, and need not be looked at closely.
_SUSPECT = re.compile(
    r"[0-9a-fA-F]{16}|\\x|[0-9a-f]{2}[ :][0-9a-f]{2}[ :][0-9a-f]{2}[ :][0-9a-f]{2}"
)
# A commit's name and a pack's digest are hex digits as well.
_DIGESTS = (40, 64)


def public_text(text: str) -> str:
    """``text`` with what looks like a kernel address or a dump of bytes withheld."""
    if not _SUSPECT.search(text):
        return text
    return _BYTES.sub(_withheld, _ADDRESS.sub(ADDRESS, text))


def _withheld(found: re.Match[str]) -> str:
    run = found["run"]
    if run and (len(run) in _DIGESTS or run.isdecimal()):
        return found[0]
    return BYTES


def public(value: Any) -> Any:
    """A JSON value of which each text is public_text(); a number that is an address becomes 0."""
    if isinstance(value, str):
        return public_text(value)
    if isinstance(value, list):
        return [public(item) for item in value]
    if isinstance(value, dict):
        return {public_text(name): public(item) for name, item in value.items()}
    if isinstance(value, int) and value >= _HIGH:
        return 0
    return value
