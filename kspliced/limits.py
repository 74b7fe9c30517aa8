# SPDX-License-Identifier: GPL-2.0-or-later
"""How much anybody may make kspliced read, remember and send: one budget, in one place.

The parts add up: a pack that is taken gives a record that fits, records that fit give a state that
can be read back, and a state that can be read gives messages that the bus takes (32 MiB on a
stock system bus). The largest real pack, of a whole point release, has a tenth of what is allowed.
"""

from __future__ import annotations

KIB = 1 << 10
MIB = 1 << 20

# A pack: its file, its manifest's JSON and how many values that has, its blobs and what all of them
# unpack to; what xz may need to unpack one (preset 9 needs 65 MiB); a text of its manifest.
PACK_BYTES = 128 * MIB
PACK_MANIFEST = 32 * MIB
PACK_VALUES = 2_000_000
PACK_BLOBS = 16_384
PACK_UNPACKED = 512 * MIB
PACK_XZ = 80 * MIB
PACK_TEXT = 64 * KIB

# The patches of an upgrade, all together; a record of a CVE, and all of them.
SERIES_BYTES = 512 * MIB
CVE_FILE = 16 * MIB
CVE_BYTES = 2048 * MIB

# A line of a worker; the result of one of the engine's.
WORKER_LINE = 16 * MIB
WORKER_RESULT = 64 * KIB
# The private memory of a worker of the engine.
WORKER_MEMORY = 3 << 30

# An error: one text of it, and all of its details.
TEXT = 4 * KIB
DETAILS = 64 * KIB

# A record of an update, bytes of JSON of each of its lists. What is replaced and what waits has to
# be whole; what was refused, and the changelog, may be cut.
RECORD_FUNCTIONS = 2 * MIB
RECORD_NAMES = 512 * KIB
RECORD_REFUSED = 1 * MIB
RECORD_ENTRIES = 1 * MIB
# The state's file.
STATE_BYTES = 64 * MIB

# On the bus: each list of an Update object, of which there are some dozens, and the status as JSON.
PUBLISHED_LIST = 64 * KIB
PUBLISHED_JSON = 12 * MIB


def cut(text: str, limit: int = TEXT) -> str:
    """``text``, or its first ``limit`` characters and how many more it has."""
    if len(text) <= limit:
        return text
    return f"{text[: limit - 40]}… ({len(text) - limit + 40} more characters)"


def cut_lines(lines: tuple[str, ...], limit: int = DETAILS) -> tuple[str, ...]:
    """``lines``, each cut(), as far as they have ``limit`` bytes in all; then how many more there
    are."""
    kept: list[str] = []
    size = 0
    for number, line in enumerate(lines):
        line = cut(line)
        size += len(line.encode("utf-8", "replace")) + 4
        if size > (limit if number == len(lines) - 1 else limit - KIB):
            return (*kept, f"… {len(lines) - number} more lines")
        kept.append(line)
    return tuple(kept)
