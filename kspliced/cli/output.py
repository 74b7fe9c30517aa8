# SPDX-License-Identifier: GPL-2.0-or-later
"""What verbs print: JSON, fields, tables, progress. Colour and bars only on a terminal."""

from __future__ import annotations

import codecs
import io
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from textwrap import wrap
from typing import Any

from kspliced.errors import KsplicedError
from kspliced.model import Progress, ProgressSink, no_progress
from kspliced.worker import clean

_LABEL = 11
# What is written for a character that the terminal's encoding does not have; else \uXXXX.
_PLAIN = {
    "→": "->",
    "←": "<-",
    "…": "...",
    "•": "*",
    "≤": "<=",
    "≥": ">=",
    "“": '"',
    "”": '"',
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{REPLACEMENT CHARACTER}": "?",
}
_ERRORS = "kspliced"


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    escaped = (c.encode("ascii", "backslashreplace").decode("ascii") for c in text)
    return "".join(_PLAIN.get(c, e) for c, e in zip(text, escaped, strict=True)), error.end


def open_output() -> None:
    """Have all text go out whole, whatever the encoding of stdout and stderr."""
    codecs.register_error(_ERRORS, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def print_json(value: Any) -> None:
    """Print one JSON object, which stays one in any encoding."""
    unicode = codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"
    print(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=not unicode))


def error_json(error: KsplicedError) -> dict[str, Any]:
    """The JSON of an error, as every verb prints it with --json. Evidence is there only of what
    this process itself, with the rights of who runs it, has seen."""
    evidence = {"evidence": list(error.evidence)} if error.evidence else {}
    return {
        "error": {
            "code": error.code.value,
            "message": error.message,
            "remedy": error.remedy,
            "details": list(error.details),
            **evidence,
        }
    }


def print_error(error: KsplicedError) -> None:
    """One line on stderr, then the lines of evidence, indented."""
    text = clean(str(error)).replace("\n", " ")
    print(f"kspliced: {text}", file=sys.stderr)
    for line in (*error.details, *error.evidence):
        print(f"  {clean(line)}", file=sys.stderr)


def field(label: str, text: str, style: str = "") -> None:
    """A labelled line of text; ``style`` is rich's and only for a terminal."""
    width = max(40, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 10_000
    lines = wrap(clean(text), width - _LABEL - 1, break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        head = label if number == 0 else ""
        _print_styled(f"{head:<{_LABEL}} ", line, style)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table, indented."""
    cells = [[clean(cell).replace("\n", " ") for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(headers, cells)
        return
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    for row in (headers, *cells):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"  {line.rstrip()}")


def plural(count: int, noun: str) -> str:
    """``1 function``, ``2 functions``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@contextmanager
def progress(shown: bool) -> Iterator[ProgressSink]:
    """A sink that shows progress on stderr: a bar on a terminal, else a line for each phase."""
    if not shown:
        yield no_progress
        return
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.fields[phase]:<9}"),
        BarColumn(24),
        TaskProgressColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=1.0, phase="")

        def show(step: Progress) -> None:
            bars.update(
                task,
                completed=step.fraction,
                description=clean(step.message),
                phase=clean(step.phase),
            )

        yield show


class _Lines:
    """Progress where there is no terminal: one line when the phase changes."""

    def __init__(self) -> None:
        self._phase = ""

    def __call__(self, step: Progress) -> None:
        if step.phase != self._phase:
            self._phase = step.phase
            message = f": {clean(step.message)}" if step.message else ""
            print(f"kspliced: {clean(step.phase)}{message}", file=sys.stderr, flush=True)


def _print_styled(head: str, text: str, style: str) -> None:
    if not style or not sys.stdout.isatty():
        print(head + text)
        return
    from rich.console import Console
    from rich.text import Text

    Console(soft_wrap=True, highlight=False).print(Text(head) + Text(text, style=style))


def _rich_table(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="dim")
    for header in headers:
        grid.add_column(header, overflow="fold")
    for row in cells:
        # Text, not markup: names are not ours.
        grid.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(Padding(grid, (0, 0, 0, 2)))
