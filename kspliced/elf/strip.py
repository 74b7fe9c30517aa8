# SPDX-License-Identifier: GPL-2.0-or-later
"""Take the content of one section out of an object file, in place: nothing moves."""

from __future__ import annotations

import struct

from kspliced.errors import BuildError, Code

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SHT_NULL = 0


def without_section(data: bytes, name: str) -> bytes:
    """``data`` with section ``name``, which nothing refers to, empty and of type SHT_NULL.

    Its bytes become zeros, which compress to nothing. An object without it stays as it is.

    :raises BuildError: OBJECT_MALFORMED.
    """
    try:
        return _without(data, name.encode() + b"\0")
    except (struct.error, IndexError) as error:
        raise BuildError(Code.OBJECT_MALFORMED, f"the object is cut short: {error}") from error


def _without(data: bytes, name: bytes) -> bytes:
    fields = _HEADER.unpack_from(data)
    table, entry, count, names = fields[6], fields[11], fields[12], fields[13]
    headers = [list(_SECTION.unpack_from(data, table + n * entry)) for n in range(count)]
    start = headers[names][4]
    changed = bytearray(data)
    for number, header in enumerate(headers):
        where = start + header[0]
        if data[where : where + len(name)] == name:
            place, size = header[4], header[5]
            changed[place : place + size] = bytes(size)
            header[1], header[5] = _SHT_NULL, 0
            _SECTION.pack_into(changed, table + number * entry, *header)
    return bytes(changed)
