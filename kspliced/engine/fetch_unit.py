# SPDX-License-Identifier: GPL-2.0-or-later
"""The transient unit that apt and dnf download in.

Who may load modules has no network, and what talks to the network may load none: the daemon's own
unit has no address family of the internet, and this one no right over the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from kspliced.engine.command import Finished, run
from kspliced.engine.edges import Cancel
from kspliced.engine.transient import HARDENED, command, stop
from kspliced.errors import KsplicedError

UNIT = "kspliced-fetch-"
PROPERTIES = (
    *HARDENED,
    # apt gives up root for its downloads, and takes back what came.
    "CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID "
    "CAP_KILL CAP_SETGID CAP_SETUID",
    "ReadWritePaths=/var/lib/kspliced/sources /var/cache /run/kspliced -/var/lib/dnf",
    "PrivateMounts=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "RuntimeMaxSec=2h",
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
        stop(unit)
        raise


def transient(unit: str, argv: tuple[str, ...], directory: Path | None) -> tuple[str, ...]:
    """The command that runs ``argv`` in the transient service ``unit``."""
    options = ["--quiet"]
    if directory is not None:
        options.append(f"--working-directory={directory}")
    environment = ["LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]
    for name in _PASSED_ON:
        environment += [n for n in (name, name.upper()) if n in os.environ]
    return command(unit, "kspliced download", PROPERTIES, environment, argv, *options)
