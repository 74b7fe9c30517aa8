# SPDX-License-Identifier: GPL-2.0-or-later
"""Any kernel source, by what it is: a tree, a package of Debian, a source RPM."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kspliced.errors import Code, SourceError
from kspliced.source.package import DebSource, DscSource, Source, TreeSource
from kspliced.source.srpm import SrpmSource

_REMEDY = "name a kernel source package or a tree that can be read"


@contextmanager
def open_source(path: Path, workdir: Path) -> Iterator[Source]:
    """Open ``path`` (a directory, .deb, .dsc or .src.rpm) as a source.

    :param workdir: where a source package is unpacked; removed by the caller.
    :raises SourceError: SOURCE_UNREADABLE, TOOL_MISSING.
    """
    _check_readable(path)
    if path.is_dir():
        yield TreeSource(path)
    elif path.suffix == ".deb" and path.is_file():
        yield DebSource(path)
    elif path.suffix == ".dsc" and path.is_file():
        with tempfile.TemporaryDirectory(dir=workdir, prefix="dsc.") as temporary:
            yield DscSource(path, Path(temporary) / "linux")
    elif path.suffix == ".rpm" and path.is_file():
        with tempfile.TemporaryDirectory(dir=workdir, prefix="rpm.") as temporary:
            yield SrpmSource(path, Path(temporary) / "rpmbuild")
    else:
        what = "is not a source tree, a .deb, a .dsc or a .src.rpm"
        raise SourceError(Code.SOURCE_UNREADABLE, f"{path} {what}", _REMEDY)


def _check_readable(path: Path) -> None:
    try:
        if path.is_dir():
            next(path.iterdir(), None)
        elif path.is_file():
            path.open("rb").close()
        else:
            path.stat()
    except FileNotFoundError as error:
        raise SourceError(Code.SOURCE_UNREADABLE, f"{path} does not exist", _REMEDY) from error
    except OSError as error:
        text = f"cannot read {path}: {error.strerror}"
        raise SourceError(Code.SOURCE_UNREADABLE, text, _REMEDY) from error
