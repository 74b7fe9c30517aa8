# SPDX-License-Identifier: GPL-2.0-or-later
"""How a job that the daemon did is shown (engine/switch.py, Outcome)."""

from __future__ import annotations

from typing import Any

from kspliced.cli import output
from kspliced.client import JobEnd
from kspliced.worker import clean


def show_end(end: JobEnd | str, as_json: bool) -> None:
    """Print a job's result, or where it runs."""
    if isinstance(end, str):
        if as_json:
            output.print_json({"job": end})
        else:
            print(f"started {end}; `kspliced status --wait` follows it")
    elif as_json:
        output.print_json({"job": end.path, "verb": end.verb, "result": end.result})
    else:
        print(_text(end.result))


def _text(result: dict[str, Any]) -> str:
    text = clean(str(result.get("message", "done")))
    functions, pause = result.get("functions"), result.get("pause_us")
    if result.get("action") == "live" and isinstance(functions, int):
        text += f": {output.plural(functions, 'function')}, CPUs held for {pause} microseconds"
    return text
