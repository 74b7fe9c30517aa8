# SPDX-License-Identifier: GPL-2.0-or-later
"""``kspliced doctor``: whether this machine can have hot updates, and what helps where it cannot.

The command looks for itself, with no right and no daemon: it has to tell, too, why there is none.
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from pathlib import Path

from kspliced.cli import output
from kspliced.client import connected
from kspliced.engine.paths import Paths
from kspliced.engine.preconditions import evaluate, first_failed
from kspliced.engine.view import Finding, Precondition, failed, ok, system_view, unknown
from kspliced.errors import Code, ExitCode, KsplicedError
from kspliced.record import encode

_STYLES = {Finding.OK: "green", Finding.FAILED: "red", Finding.UNKNOWN: "yellow"}


def run(arguments: Namespace) -> ExitCode:
    """Print the list; the exit code says whether something of it fails."""
    found = evaluate(system_view(Paths(Path(arguments.root or "/"))))
    if arguments.root is None:
        found = (*found, asyncio.run(_daemon()))
    ready = first_failed(found) is None
    if arguments.json:
        output.print_json({"ready": ready, "preconditions": encode(found)})
    else:
        for precondition in found:
            show(precondition)
        if ready:
            output.field("doctor", "nothing stands in the way of a hot update", "green")
    return ExitCode.DONE if ready else ExitCode.REFUSED


def show(precondition: Precondition) -> None:
    """Print a precondition for people."""
    text = precondition.words
    if precondition.state is Finding.FAILED:
        text = f"{text}; {precondition.remedy} [{precondition.code.value}]"
    output.field(precondition.state.value, text, _STYLES[precondition.state])


async def _daemon() -> Precondition:
    """Whether the daemon answers; the bus starts it."""
    try:
        async with connected() as client:
            await client.current_job()
    except KsplicedError as error:
        if error.code is Code.NO_DAEMON:
            return failed(error.code, error.message, error.remedy)
        return unknown(Code.NO_DAEMON, f"the daemon is not known to answer: {error.message}")
    return ok(Code.NO_DAEMON, "the daemon answers")
