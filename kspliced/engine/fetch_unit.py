# SPDX-License-Identifier: GPL-2.0-or-later
"""The transient unit that apt and dnf download in.

Who may load modules has no network, and what talks to the network may load none: the daemon's own
unit has no address family of the internet, and this one no right over the kernel.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from kspliced.engine.command import Finished, run
from kspliced.engine.edges import Cancel
from kspliced.errors import KsplicedError

UNIT = "kspliced-fetch-"
PROPERTIES = (
    # apt gives up root for its downloads, and takes back what came.
    "CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID "
    "CAP_KILL CAP_SETGID CAP_SETUID",
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "ReadWritePaths=/var/lib/kspliced/sources /var/cache /run/kspliced -/var/lib/dnf",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "PrivateMounts=yes",
    "ProtectProc=invisible",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectControlGroups=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallErrorNumber=EPERM",
    "UMask=0022",
    "RuntimeMaxSec=2h",
    "Nice=10",
    # Stopping the daemon stops the download, should the worker not be there to do it.
    "PartOf=kspliced.service",
)
_PASSED_ON = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")

Download = Callable[[tuple[str, ...], Cancel, float, Path | None], Finished]


def in_unit(
    argv: tuple[str, ...], cancel: Cancel, seconds: float, directory: Path | None
) -> Finished:
    """command.run(), with the tool in a unit of its own. ``directory`` is where it works.

    :raises KsplicedError: as command.run().
    """
    unit = f"{UNIT}{os.getpid()}.service"
    try:
        return run(transient(unit, argv, directory), cancel, seconds, None)
    except KsplicedError:
        # Where systemd-run alone has ended, the unit may be there still.
        stop = ["systemctl", "stop", unit]
        subprocess.run(stop, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        raise


def transient(unit: str, argv: tuple[str, ...], directory: Path | None) -> tuple[str, ...]:
    """The command that runs ``argv`` in the transient service ``unit``."""
    options = [f"--property={value}" for value in PROPERTIES]
    if directory is not None:
        options.append(f"--working-directory={directory}")
    environment = ["--setenv=LC_ALL=C.UTF-8", "--setenv=DEBIAN_FRONTEND=noninteractive"]
    for name in _PASSED_ON:
        environment += [f"--setenv={n}" for n in (name, name.upper()) if n in os.environ]
    head = ("systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--unit={unit}")
    return (*head, "--description=kspliced download", *options, *environment, "--", *argv)
