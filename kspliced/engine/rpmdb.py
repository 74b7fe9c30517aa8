# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels in rpm's database: what provides ``kernel-uname-r``, whatever its name."""

from __future__ import annotations

from kspliced.engine.paths import Paths
from kspliced.errors import Code, KernelError
from kspliced.lines import split_lines

_PROVIDE = "kernel-uname-r"
_FORMAT = "[%{=VERSION}-%{=RELEASE} %{PROVIDENAME} %{PROVIDEVERSION}\n]"
_SECONDS = 60


def kernels(paths: Paths) -> tuple[tuple[str, str], ...]:
    """(uname -r, VERSION-RELEASE) of each installed kernel; none where there is no rpm.

    :raises KernelError: KERNEL_UNREADABLE where rpm does not answer.
    """
    # Not for the daemon of a machine without RPM packages.
    import subprocess

    command = ["rpm", "-q", "--whatprovides", _PROVIDE, "--qf", _FORMAT]
    if str(paths.root) != "/":
        command += ["--root", str(paths.root.resolve())]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        return ()
    except (OSError, subprocess.TimeoutExpired) as error:
        text = f"cannot ask rpm which kernels are installed: {error}"
        raise KernelError(Code.KERNEL_UNREADABLE, text, "see whether `rpm -qa` works") from error
    lines = (line.split(" ") for line in split_lines(done.stdout.decode("utf-8", "replace")))
    return tuple((words[2], words[0]) for words in lines if words[1:2] == [_PROVIDE] and words[2:])
