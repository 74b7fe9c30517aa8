# SPDX-License-Identifier: GPL-2.0-or-later
"""Units of which the assembler reads files, by .incbin or .include, that no compiler knows of.

No list of dependencies names such a file: neither make nor ccache compiles again when it changes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from kspliced.plan.text import code_lines

_READS = re.compile(rb"incbin|\.include\b|#\s*embed\b")
_OF_RECORD = re.compile(r"^(?:source|deps)_\S+ :=(?P<files>(?:[^\n\\]|\\\n?)*)", re.MULTILINE)


class AssemblerReads:
    """Looks into what compiled units were made of; remembers it by what files were when looked at.

    :param top: the directory that make ran in.
    """

    def __init__(self, top: Path) -> None:
        self._top = top
        self._records: dict[Path, tuple[int, bool]] = {}
        self._files: dict[str, tuple[int, int, bool]] = {}

    def more_than_listed(self, record: Path) -> bool:
        """Whether the unit of Kbuild's ``record`` (.NAME.o.cmd) may read more than that lists.

        False where there is no record.
        """
        try:
            made = record.stat().st_mtime_ns
            known = self._records.get(record)
            if known is None or known[0] != made:
                text = record.read_text("utf-8", "replace")
                known = made, any(self._file_reads(name) for name in _listed(text))
                self._records[record] = known
        except FileNotFoundError:
            return False
        return known[1]

    def _file_reads(self, name: str) -> bool:
        path = self._top / name
        try:
            status = path.stat()
            known = self._files.get(name)
            if known is None or known[:2] != (status.st_mtime_ns, status.st_size):
                found = status.st_size > 0 and _reads(path.read_bytes())
                known = status.st_mtime_ns, status.st_size, found
                self._files[name] = known
        except OSError:
            return False
        return known[2]


def _reads(content: bytes) -> bool:
    if _READS.search(content) is None:
        return False
    # A comment may say so, and does in a header that half of the kernel includes.
    code = "\n".join(code_lines(content.decode("utf-8", "replace")))
    return _READS.search(code.encode()) is not None


def _listed(record: str) -> Iterator[str]:
    for match in _OF_RECORD.finditer(record):
        for word in match["files"].split():
            if word != "\\" and not word.startswith("$(") and not word.endswith(")"):
                yield os.path.normpath(word)
