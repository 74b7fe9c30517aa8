# SPDX-License-Identifier: GPL-2.0-or-later
"""``kspliced report``: an upgrade as a page to look at."""

from __future__ import annotations

import dataclasses
import sys
from argparse import Namespace
from pathlib import Path

from kspliced.build.pipeline import build
from kspliced.build.plan import plan_of
from kspliced.cli import output
from kspliced.cli.build import check_output, request_of, stop_on_sigterm, unwritten
from kspliced.cli.page import page
from kspliced.errors import ExitCode
from kspliced.named import write_named
from kspliced.record import encode


def run(arguments: Namespace) -> ExitCode:
    """Write the page.

    :raises KsplicedError: what the builder raises; NO_SPACE, IO when the page cannot be written.
    """
    stop_on_sigterm()
    check_output(arguments.output)
    with output.progress(not arguments.json and sys.stderr.isatty()) as sink:
        result = build(dataclasses.replace(request_of(arguments), diffs=True), sink)
    plan = plan_of(result)
    title = f"{result.from_version} to {result.to_version}"
    text = page(title, plan, {diff.path: diff.text for diff in result.diffs})
    path = Path(arguments.output)
    try:
        write_named(path, text.encode("utf-8"))
    except OSError as error:
        raise unwritten(path, error) from error
    if arguments.json:
        output.print_json({"report": str(path), "totals": encode(plan.totals)})
    else:
        output.field("report", str(path))
    return ExitCode.DONE
