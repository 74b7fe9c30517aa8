# SPDX-License-Identifier: GPL-2.0-or-later
"""Operating system errors, turned into the one error tree with a cause and a remedy."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from kspliced.errors import Code, KsplicedError


def translate(error: OSError) -> KsplicedError:
    """The error to report for ``error``: NO_SPACE when a disk or quota is full, else IO."""
    where = f" ({error.filename})" if error.filename else ""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return KsplicedError(Code.NO_SPACE, f"{reason}{where}", "free some space and try again")
    if error.errno in (errno.EACCES, errno.EPERM):
        return KsplicedError(Code.NOT_AUTHORIZED, f"{reason}{where}", "run it as root")
    remedy = "look whether it is what it should be, and try again"
    if error.errno == errno.EIO:
        remedy = "check the disk: see the kernel's messages"
    return KsplicedError(Code.IO, f"{reason}{where}", remedy)


@contextmanager
def translated() -> Iterator[None]:
    """Turn an OSError of the block into its KsplicedError."""
    try:
        yield
    except OSError as error:
        raise translate(error) from error
