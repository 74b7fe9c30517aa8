# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine as the checks of engine/preconditions.py see it, and what they answer."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path

from kspliced.engine.kernels import running_kernel
from kspliced.engine.paths import Paths
from kspliced.errors import Code, KsplicedError
from kspliced.model import KernelId

_TOOL_SECONDS = 30


class Finding(str, Enum):
    """UNKNOWN: what tells was not there, or was not asked; it stops nothing."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Precondition:
    """One of the list. ``code`` is the stable code of its failure, ``words`` say what was found."""

    code: Code
    state: Finding
    words: str
    remedy: str = ""


Ask = Callable[[tuple[str, ...]], str | None]


@dataclass(frozen=True)
class View:
    """The machine as the checks see it. ``ask`` runs a tool and gives its output, or None where it
    is not there or fails; without it no tool is run."""

    paths: Paths
    ask: Ask | None = None

    def text(self, name: str) -> str | None:
        """What a file below the root says, or None."""
        try:
            return (self.paths.root / name).read_text("utf-8", "replace").strip()
        except OSError:
            return None

    def there(self, name: str) -> bool:
        """Whether there is such a file below the root."""
        return there(self.paths.root / name)

    @cached_property
    def identity(self) -> KernelId | KsplicedError:
        """The running kernel, or why there is none for us; rpm is asked once."""
        try:
            return running_kernel(self.paths)
        except KsplicedError as error:
            return error

    def running(self) -> KernelId | None:
        """The running kernel, if it is the distribution's."""
        return self.identity if isinstance(self.identity, KernelId) else None

    @property
    def release(self) -> str:
        """uname -r."""
        return self.text("proc/sys/kernel/osrelease") or ""

    def config(self) -> str:
        """The running kernel's configuration, or nothing."""
        try:
            return self.paths.config(self.release).read_text("utf-8", "replace")
        except OSError:
            return ""


def system_view(paths: Paths) -> View:
    """The machine at ``paths``; its tools are asked where that is the root of this process."""
    return View(paths, _output if str(paths.root) == "/" else None)


def ok(code: Code, words: str) -> Precondition:
    """It holds."""
    return Precondition(code, Finding.OK, words)


def failed(code: Code, words: str, remedy: str) -> Precondition:
    """It does not hold, and what helps."""
    return Precondition(code, Finding.FAILED, words, remedy)


def unknown(code: Code, words: str) -> Precondition:
    """It cannot be told."""
    return Precondition(code, Finding.UNKNOWN, words)


def there(path: Path) -> bool:
    """Whether there is such a file, as far as this process may see."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def _output(command: tuple[str, ...]) -> str | None:
    import subprocess

    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
            timeout=_TOOL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
