# SPDX-License-Identifier: GPL-2.0-or-later
"""The transient unit that the builder runs in: what it may touch, and why systemd has no result.

It compiles downloaded source, so it gets a user of its own, no network, no socket of any family,
nothing of /run and /var/lib but what it is to read, and bounds on memory, tasks and time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import kspliced
from kspliced.engine.transient import HARDENED, command
from kspliced.errors import BuildError, Code, KsplicedError
from kspliced.worker import WorkerLost

CACHE_NAME = "kspliced"
_PROPERTIES = (
    *HARDENED,
    "DynamicUser=yes",
    "User=kspliced-build",
    "CacheDirectoryMode=0755",
    "PrivateNetwork=yes",
    "PrivateIPC=yes",
    "IPAddressDeny=any",
    "RestrictAddressFamilies=AF_UNIX",
    "DevicePolicy=closed",
    "PrivateUsers=yes",
    "KeyringMode=private",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "MemoryDenyWriteExecute=yes",
    "RemoveIPC=yes",
    # Compilers, make and ccache need no socket, not of the bus either. (A transient unit cannot
    # have RestrictAddressFamilies=none, which systemd 252 takes in unit files only.) @privileged
    # stays: make sets its own user and group again, archivers own their files.
    "SystemCallFilter=~@network-io",
    "MemoryMax=2G",
    "TasksMax=512",
    "LimitFSIZE=4G",
    "LimitCORE=0",
    "RuntimeMaxSec=4h",
    "CPUWeight=20",
    "IOWeight=20",
    "OOMScoreAdjust=500",
)
# Empty in the unit but for what is bound there. /run has the sockets of the bus and of services.
_HIDDEN = ("/run", "/var/lib")
# systemd.exec(5), "Process exit codes": what systemd could not do before it ran the builder.
_FIRST, _LAST = 200, 245
_STEPS = {
    202: ("hand over its files (FDS)", ""),
    203: ("run its interpreter (EXEC)", "see that python3 is installed and may be run"),
    217: (
        "give it a user of its own (USER)",
        "allow user namespaces: sysctl user.max_user_namespaces, and what a container allows",
    ),
    219: ("make its control group (CGROUP)", ""),
    225: ("give it a network of its own (NETWORK)", "allow network namespaces"),
    226: (
        "set up its file systems (NAMESPACE)",
        "allow mount namespaces: what a container allows",
    ),
    228: ("restrict its system calls (SECCOMP)", ""),
    239: (
        "make its cache (CACHE_DIRECTORY)",
        "see that /var/cache can be written and has room",
    ),
}
_AGAIN = "it is tried again later"
_JOURNAL = "see the journal"
_RESULT = re.compile(r"^Finished with result: (?P<result>[\w-]+)$", re.MULTILINE)
_ENDED = re.compile(r"^Main processes terminated with: code=(?P<code>\w+)", re.MULTILINE)
_REFUSED = re.compile(r"^Failed to .*$", re.MULTILINE)
_LOST = {
    "oom-kill": ("it ran out of memory", "give the machine more memory or swap"),
    "timeout": ("it took over four hours", ""),
    "signal": ("it was killed", ""),
    "core-dump": ("it was killed", ""),
    "watchdog": ("it was killed", ""),
    "resources": ("systemd had no resources for it", ""),
}


@dataclass(frozen=True)
class Confined:
    """A command for a unit of its own. ``cache`` is the only directory it may write to, below
    /var/cache/kspliced; ``reads`` are files and directories it needs of what is hidden else."""

    unit: str
    command: tuple[str, ...]
    cache: Path
    reads: tuple[Path, ...] = ()


def properties(confined: Confined) -> tuple[str, ...]:
    """The unit's properties, as `systemd-run --property` and a unit file's [Service] have them."""
    name = f"{CACHE_NAME}/{confined.cache.name}"
    bound = sorted({p for p in confined.reads if any(p.is_relative_to(h) for h in _HIDDEN)})
    return (
        *_PROPERTIES,
        f"CacheDirectory={name}",
        # systemd mounts it noexec (since 257), and so may the administrator have: the kernel's
        # build runs scripts of its source and host programs that it makes.
        f"ExecPaths={confined.cache.parent.parent}/private/{name}",
        *(f"TemporaryFileSystem={place}:ro,mode=0755" for place in _HIDDEN),
        *(f"BindReadOnlyPaths={place}" for place in bound),
    )


def transient_unit(confined: Confined) -> list[str]:
    """The command that runs a command in a hardened transient service."""
    environment = (
        f"PYTHONPATH={Path(kspliced.__file__).resolve().parent.parent}",
        f"TMPDIR={confined.cache}",
        "PYTHONDONTWRITEBYTECODE=1",
    )
    unit, name, argv = confined.unit, "kspliced builder", confined.command
    return list(command(unit, name, properties(confined), environment, argv))


def without_result(error: WorkerLost) -> KsplicedError:
    """What it means that a transient unit ended without a result: that systemd could not start it,
    that it was lost, or, and only that is final, that the builder itself failed."""
    said = "\n".join(error.details)
    refused, result, ended = (p.search(said) for p in (_REFUSED, _RESULT, _ENDED))
    if _FIRST <= error.status <= _LAST:
        step, remedy = _STEPS.get(error.status, ("start it", ""))
        text = f"systemd could not {step}: the builder did not start (status {error.status})"
        return _transient(Code.BUILDER_UNAVAILABLE, text, remedy or _JOURNAL, error)
    if refused is not None and result is None:
        text = f"systemd did not start the builder: {refused[0]}"
        return _transient(Code.BUILDER_UNAVAILABLE, text, "see `systemctl status`", error)
    if ended is not None and ended["code"] == "exited" and error.status != 0:
        return error
    cause, remedy = _LOST.get(result["result"] if result else "", ("", ""))
    text = f"the builder was lost without a result (status {error.status})"
    if ended is not None and ended["code"] == "killed":
        cause = cause or "it was stopped"
    cause = cause or "systemd, executed again, no longer knew of it"
    return _transient(Code.BUILDER_LOST, f"{text}: {cause}", remedy or _JOURNAL, error)


def _transient(code: Code, text: str, remedy: str, error: KsplicedError) -> BuildError:
    return BuildError(code, text, f"{remedy}; {_AGAIN}", error.details)


def stopped(error: KsplicedError) -> KsplicedError:
    """What it means that the builder says it was cancelled, which nobody here wished for."""
    text = (
        "the builder was stopped before its end: by hand, for want of memory, or after four hours"
    )
    return _transient(Code.BUILDER_LOST, text, _JOURNAL, error)
