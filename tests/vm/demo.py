# SPDX-License-Identifier: GPL-2.0-or-later
"""`make demo`: the story told step by step, a table of before and after, build/demo/result.json."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.vm import case, findings
from tests.vm.errors import HarnessError
from tests.vm.story import Story, StoryError

RESULT = Path(__file__).parents[2] / "build" / "demo" / "result.json"


class Narrator:
    """Tells the story on the terminal; on a pipe, one plain line a phase."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self._started = time.monotonic()
        self._phase = ""

    def say(self, text: str) -> None:
        """One line that came true."""
        self.console.print(f"   [green]✓[/green] {escape(text)}", soft_wrap=True)

    def progress(self, phase: str, fraction: float, message: str) -> None:
        """A line whenever the daemon enters another phase."""
        if phase != self._phase:
            self._phase = phase
            line = f"   [dim]… {fraction:4.0%} {escape(phase)} {escape(message)}[/dim]"
            self.console.print(line, soft_wrap=True)

    def step(self, number: int, title: str) -> None:
        """The heading of a step."""
        clock = time.strftime("%M:%S", time.gmtime(time.monotonic() - self._started))
        line = f"\n[dim]{clock}[/dim] [bold]{number}. {escape(title)}[/bold]"
        self.console.print(line, soft_wrap=True)


def main() -> int:
    """Tell the story; 0 when every step was true. The result is written either way."""
    narrator = Narrator()
    found: dict[str, findings.Finding] = {}
    seconds: dict[str, float] = {}
    error = ""
    narrator.step(0, "The guest, the packages, the repository")
    try:
        with Story(narrator, baseline=True) as story:
            for number, step in enumerate(Story.STEPS, 1):
                narrator.step(number, step.__doc__ or step.__name__)
                started = time.monotonic()
                found[step.__name__] = step(story)
                seconds[step.__name__] = round(time.monotonic() - started, 1)
    except (AssertionError, HarnessError) as failure:
        kind = "not true" if isinstance(failure, StoryError) else "broken"
        error = f"{kind}: {failure}"
    _write(found, seconds, error)
    if error:
        narrator.console.print(f"\n[bold red]✗ {escape(error)}[/bold red]", soft_wrap=True)
        narrator.console.print(f"the consoles of the guests are in build/vm; {RESULT}")
        return 1
    narrator.console.print(_table(found))
    narrator.console.print(f"the same as JSON: {RESULT}", soft_wrap=True)
    return 0


def _write(found: dict[str, findings.Finding], seconds: dict[str, float], error: str) -> None:
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    value = {
        "ok": not error,
        "error": error,
        "from": case.OLD_VERSION,
        "to": case.NEW_VERSION,
        "steps": {name: asdict(finding) for name, finding in found.items()},
        "seconds": seconds,
    }
    RESULT.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _table(found: dict[str, findings.Finding]) -> Table:
    bug, upgraded, live = found["bug"], found["upgrade"], found["live"]
    survived, reverted, replayed = found["survives"], found["undo"], found["power_cut"]
    assert isinstance(bug, findings.Bug) and isinstance(upgraded, findings.Upgraded)
    assert isinstance(live, findings.Live) and isinstance(survived, findings.Survived)
    assert isinstance(reverted, findings.Reverted) and isinstance(replayed, findings.Replayed)
    table = Table("", "before", "after", title="before and after `apt upgrade`")
    baseline = f"{bug.apt_seconds:.0f} s" if bug.apt_seconds is not None else "not timed"
    rows = (
        ("uname -r", case.OLD_RELEASE, survived.release),
        ("effective version", case.OLD_VERSION, live.effective),
        ("the trigger", f"oops in {case.FAULTY_FUNCTION}", f"{survived.rounds} rounds, clean"),
        ("apt upgrade", f"{baseline} (no kspliced)", f"{upgraded.apt_seconds:.0f} s"),
        ("live after apt returned", "after a reboot", f"{live.seconds:.0f} s"),
        ("functions replaced", "", str(len(live.functions))),
        ("all CPUs held for", "a reboot", f"{live.pause_us} µs"),
        ("undo, apply under load", "", f"{reverted.undo_seconds:.1f} s, "
         f"{reverted.apply_seconds:.1f} s"),
        ("after a power cut", "the bug is back", f"replayed at {replayed.replayed_at:.1f} s, "
         f"network at {replayed.network_at:.1f} s"),
        ("daemon, idle", "", f"{survived.daemon_mb:.0f} MB"),
        ("reboot needed", "yes", live.reboot_required),
    )  # fmt: skip
    for row in rows:
        table.add_row(*row)
    return table


if __name__ == "__main__":
    sys.exit(main())
