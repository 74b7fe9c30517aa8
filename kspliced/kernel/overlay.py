# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's code as it was before our own updates, for matching while one is applied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kspliced.errors import Code, KernelError
from kspliced.lines import split_lines


@dataclass(frozen=True)
class Original:
    """Bytes that an applied update replaced by a jump."""

    address: int
    data: bytes


def parse_originals(text: str) -> tuple[Original, ...]:
    """The content of ``updates/NAME/original`` (docs/kernel-core.md).

    :raises ValueError: a line is not ``0xADDR<TAB>hex digits``.
    """
    found = []
    for line in split_lines(text):
        address, tab, digits = line.partition("\t")
        if not tab or not digits:
            raise ValueError(f"malformed line {line!r}")
        found.append(Original(int(address, 16), bytes.fromhex(digits)))
    return tuple(found)


def read_originals(core: Path) -> tuple[Original, ...]:
    """The originals of all updates under ``core``, the core's sysfs directory; none without it.

    :raises KernelError: KERNEL_UNREADABLE.
    """
    found: list[Original] = []
    try:
        for path in sorted(core.glob("updates/*/original")):
            found += parse_originals(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise KernelError(
            Code.KERNEL_UNREADABLE,
            "cannot read what the applied update replaced",
            "run as root, with the kspliced core of this version",
            evidence=(str(error),),
        ) from error
    return tuple(found)


def overlaid(data: bytes, address: int, originals: tuple[Original, ...]) -> bytes:
    """``data``, read at ``address``, with the ``originals`` in its range put back."""
    end = address + len(data)
    hits = [o for o in originals if o.address < end and o.address + len(o.data) > address]
    if not hits:
        return data
    result = bytearray(data)
    for original in hits:
        for at, byte in enumerate(original.data, original.address - address):
            if 0 <= at < len(data):
                result[at] = byte
    return bytes(result)
