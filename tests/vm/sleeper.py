# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that sleeps in one system call, for test_sleepers.py; it runs in the guest.

    sleeper.py read|poll|epoll|futex|vfork NAME
    sleeper.py wake NAME

It calls itself NAME, and writes what its system call gave, and the error number, to
/run/NAME.result. glibc's functions are called without Python's own retry after EINTR.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import sys
import threading
import time
from pathlib import Path

_SYS_CLONE, _SYS_FUTEX = 56, 202
_CLONE_VFORK, _SIGCHLD = 0x4000, 17
_FUTEX_WAIT, _FUTEX_WAKE = 0, 1
_POLLIN = 1
_PAGE = 4096

_libc = ctypes.CDLL(None, use_errno=True)


class _PollFd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


def _fifo(name: str) -> int:
    """A pipe with a name, open for reading and for writing."""
    path = f"/run/{name}.fifo"
    if not Path(path).exists():
        os.mkfifo(path)
    return os.open(path, os.O_RDWR)


def _word(name: str) -> ctypes.c_int:
    """A word of memory that processes share."""
    path = Path(f"/run/{name}.word")
    if not path.exists():
        path.write_bytes(bytes(_PAGE))
    with path.open("r+b") as file:
        return ctypes.c_int.from_buffer(mmap.mmap(file.fileno(), _PAGE))


def _futex(word: ctypes.c_int, operation: int, value: int) -> int:
    number: int = _libc.syscall(_SYS_FUTEX, ctypes.byref(word), operation, value, None, None, 0)
    return number


def _read(name: str) -> int:
    given: int = _libc.read(_fifo(name), ctypes.create_string_buffer(8), 8)
    return given


def _poll(name: str) -> int:
    given: int = _libc.poll(ctypes.byref(_PollFd(_fifo(name), _POLLIN, 0)), 1, -1)
    return given


def _epoll(name: str) -> int:
    with select.epoll() as epoll:
        epoll.register(_fifo(name), select.EPOLLIN)
        given: int = _libc.epoll_wait(epoll.fileno(), ctypes.create_string_buffer(64), 1, -1)
        return given


def _wait_on_futex(name: str) -> int:
    """In a thread that is not the first of its process."""
    found: list[tuple[int, int]] = []
    word = _word(name)

    def sleep() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name)
        found.append((_futex(word, _FUTEX_WAIT, 0), ctypes.get_errno()))

    thread = threading.Thread(target=sleep)
    thread.start()
    while thread.is_alive():
        time.sleep(0.05)
    ctypes.set_errno(found[0][1])
    return found[0][0]


def _vfork(name: str) -> int:
    """Until the child is gone the kernel keeps its parent, whatever signals there are."""
    child: int = _libc.syscall(_SYS_CLONE, _CLONE_VFORK | _SIGCHLD, 0, 0, 0, 0)
    if child == 0:
        Path("/proc/self/comm").write_text(f"{name}-child")
        time.sleep(100000)
        os._exit(0)
    return child


_CALLS = {
    "read": _read,
    "poll": _poll,
    "epoll": _epoll,
    "futex": _wait_on_futex,
    "vfork": _vfork,
}


def main(arguments: list[str]) -> int:
    """Sleep, and tell what came of it; or wake one that sleeps."""
    verb, name = arguments
    if verb == "wake":
        os.write(_fifo(name), b"awake")
        word = _word(name)
        word.value = 1
        _futex(word, _FUTEX_WAKE, 1)
        return 0
    Path("/proc/self/comm").write_text(name)
    ctypes.set_errno(0)
    given = _CALLS[verb](name)
    Path(f"/run/{name}.result").write_text(f"{given} {ctypes.get_errno()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
