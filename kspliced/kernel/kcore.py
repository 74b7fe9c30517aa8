# SPDX-License-Identifier: GPL-2.0-or-later
"""Read kernel memory through /proc/kcore, an ELF core file (fs/proc/kcore.c)."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from kspliced.errors import Code, KernelError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_ET_CORE = 4
_PT_LOAD = 1
_REMEDY = "run as root on a kernel with CONFIG_PROC_KCORE that is not locked down"


@dataclass(frozen=True)
class _Segment:
    start: int
    end: int
    offset: int


class Kcore:
    """An open /proc/kcore; close it, or use it in a ``with`` statement.

    :raises KernelError: KERNEL_UNREADABLE when it cannot be opened or is no core file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError(
                Code.KERNEL_UNREADABLE, f"cannot open {path}: {error.strerror}", _REMEDY
            ) from error
        try:
            self._segments = self._load_segments()
        except (OSError, struct.error, ValueError) as error:
            self.close()
            raise KernelError(
                Code.KERNEL_UNREADABLE, f"{path} is not a kernel core file ({error})", _REMEDY
            ) from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Kcore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load_segments(self) -> tuple[_Segment, ...]:
        header = os.pread(self._file, _HEADER.size, 0)
        fields = _HEADER.unpack(header)
        if fields[0][:6] != b"\x7fELF\x02\x01" or fields[1] != _ET_CORE:
            raise ValueError("no ELF64 little-endian core header")
        offset, size, count = fields[5], fields[9], fields[10]
        if size != _PROGRAM.size:
            raise ValueError("program headers of another size")
        table = os.pread(self._file, size * count, offset)
        segments = []
        for kind, _, at, start, _, length, _, _ in _PROGRAM.iter_unpack(table):
            if kind == _PT_LOAD:
                segments.append(_Segment(start, start + length, at))
        return tuple(segments)

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at ``address``.

        :raises KernelError: KERNEL_UNREADABLE when they are not all in kernel memory.
        """
        for segment in self._segments:
            if segment.start <= address and address + size <= segment.end:
                try:
                    data = os.pread(self._file, size, segment.offset + address - segment.start)
                except OSError as error:
                    raise KernelError(
                        Code.KERNEL_UNREADABLE,
                        f"cannot read kernel memory: {error.strerror}",
                        _REMEDY,
                        evidence=(f"{size} bytes at {address:#x}",),
                    ) from error
                if len(data) == size:
                    return data
                break
        raise KernelError(
            Code.KERNEL_UNREADABLE,
            f"there are no {size} bytes of kernel memory where they were sought",
            evidence=(f"{size} bytes at {address:#x}",),
        )
