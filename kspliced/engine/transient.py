# SPDX-License-Identifier: GPL-2.0-or-later
"""Transient services of systemd that the engine runs tools in: what none of them may do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

# First in each unit: the first SystemCallFilter says whether the filter lists what is allowed, and
# a unit's own line that begins with ~ takes calls out of that.
HARDENED = (
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectProc=invisible",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectControlGroups=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallErrorNumber=EPERM",
    "UMask=0022",
    "Nice=10",
    # Stopping the daemon stops the unit, should the worker not be there to do it.
    "PartOf=kspliced.service",
)


def command(
    unit: str,
    description: str,
    properties: Iterable[str],
    environment: Iterable[str],
    argv: Iterable[str],
    *options: str,
) -> tuple[str, ...]:
    """The command that runs ``argv`` in the transient service ``unit``, waits for its end and
    passes its input and output on. ``environment`` has VARIABLE=VALUE, or a VARIABLE to pass on;
    ``options`` are more of systemd-run's."""
    return (
        *("systemd-run", "--pipe", "--wait", "--collect", *options),
        *(f"--unit={unit}", f"--description={description}"),
        *(f"--property={value}" for value in properties),
        *(f"--setenv={value}" for value in environment),
        *("--", *argv),
    )


def stop(unit: str) -> None:
    """Stop a unit, or all of a pattern, with everything in it; systemd-run then ends by itself."""
    argv = ["systemctl", "stop", unit]
    subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
