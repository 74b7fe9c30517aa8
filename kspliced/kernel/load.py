# SPDX-License-Identifier: GPL-2.0-or-later
"""Load and unload a module from memory: finit_module(2) on a memfd, delete_module(2)."""

from __future__ import annotations

import ctypes
import errno
import os

from kspliced.errors import Code, KernelError

_SYS_FINIT_MODULE = 313
_SYS_DELETE_MODULE = 176

_LOAD_REASONS = {
    errno.EPERM: "not permitted: not root, module loading is disabled, or the kernel is locked "
    "down and wants a signature",
    errno.EKEYREJECTED: "its signature is missing or of a key that the kernel does not trust",
    errno.ENOKEY: "its signature is of a key that the kernel does not know",
    errno.EBADMSG: "its signature is malformed",
    errno.EEXIST: "a module of this name is loaded already",
    errno.ENOEXEC: "the kernel says that it is made for another kernel, or malformed",
    errno.ENOENT: "it needs a symbol that the kernel does not have",
    errno.EINVAL: "the kernel core refused it, or a symbol's version is another",
    errno.EBUSY: "a symbol or a module that it needs is not ready",
    errno.ENOMEM: "the kernel is out of memory",
}
_UNLOAD_REASONS = {
    errno.EPERM: "not permitted: not root, or module loading is disabled",
    errno.ENOENT: "it is not loaded",
    errno.EBUSY: "it is in use",
    errno.EWOULDBLOCK: "it is in use",
}


def init_module(name: str, content: bytes) -> None:
    """Load the module ``content``.

    :param name: what errors call it.
    :raises KernelError: LOAD_FAILED.
    """
    try:
        file = os.memfd_create(name, os.MFD_CLOEXEC)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(file, view) :]
            _call(_SYS_FINIT_MODULE, file, b"", 0)
        finally:
            os.close(file)
    except OSError as error:
        raise _error("load", name, error, _LOAD_REASONS) from error


def delete_module(name: str) -> None:
    """Unload module ``name``, without waiting for its users.

    :raises KernelError: LOAD_FAILED.
    """
    try:
        _call(_SYS_DELETE_MODULE, name.encode(), os.O_NONBLOCK)
    except OSError as error:
        raise _error("unload", name, error, _UNLOAD_REASONS) from error


def _call(number: int, *arguments: int | bytes) -> None:
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    values = [ctypes.c_long(a) if isinstance(a, int) else ctypes.c_char_p(a) for a in arguments]
    if syscall(ctypes.c_long(number), *values) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _error(verb: str, name: str, error: OSError, reasons: dict[int, str]) -> KernelError:
    number = error.errno or 0
    why = reasons.get(number, os.strerror(number))
    word = errno.errorcode.get(number, str(number))
    return KernelError(
        Code.LOAD_FAILED,
        f"cannot {verb} {name}: {why} ({word})",
        "the kernel log (dmesg) says more",
    )
