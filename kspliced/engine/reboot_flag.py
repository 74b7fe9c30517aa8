# SPDX-License-Identifier: GPL-2.0-or-later
"""/run/reboot-required follows our verdict, where nothing but the kernel asks for a reboot.

Debian's unattended-upgrades (its hook in /etc/kernel/postinst.d) and Ubuntu's update-notifier make
the file for each kernel that comes, and add the package to /run/reboot-required.pkgs (Debian
Policy 9.12); Automatic-Reboot, the message of the day and monitoring ask for it. What is moved away
is recorded in /run/kspliced, and comes back as soon as our verdict is another.

``python3 -m kspliced.engine.reboot_flag`` is for the end of a daemon, however it came.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from kspliced.engine import queue
from kspliced.engine.files import read_regular, write_durably
from kspliced.engine.kernels import distribution_images
from kspliced.engine.paths import Paths
from kspliced.engine.status import Status, StatusState, Verdict
from kspliced.record import RecordError, dumps, loads

_LIMIT = 64 << 10


@dataclass(frozen=True)
class Withheld:
    """What was moved away: the file's text, and the lines of its .pkgs. ``settled``: the verdict is
    that no reboot is needed; else it is still being worked on."""

    settled: bool
    text: str
    packages: tuple[str, ...]


class RebootFlag:
    """The two files below ``paths``, and the record of what is not there because of us."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._flag = paths.root / "run/reboot-required"
        self._packages = paths.root / "run/reboot-required.pkgs"
        self._record = paths.run / "reboot-required.json"

    def follow(self, status: Status | None) -> str:
        """Bring the files in line with the status; a line about it where something changed.

        OSError passes to the caller.
        """
        if status is not None and status.reboot_required.verdict is Verdict.NO:
            return self._withhold(status, settled=True)
        if status is not None and self._under_way(status):
            return self._withhold(status, settled=False)
        return self._give_back()

    def abandon(self) -> str:
        """Give back what was withheld for a verdict that will not come now; as follow()."""
        record = self._recorded()
        return self._give_back() if record is not None and not record.settled else ""

    def _under_way(self, status: Status) -> bool:
        working = status.state is StatusState.BUSY or queue.pending(self._paths)
        return working and status.reboot_required.verdict is Verdict.PENDING

    def _withhold(self, status: Status, settled: bool) -> str:
        record = self._recorded()
        if record is not None and self._packages.exists() and not self._flag.exists():
            # Somebody added a package between our look and our move.
            self._flag.touch()
        if record is not None and record.settled != settled:
            self._write(Withheld(settled, record.text, record.packages))
        if not self._flag.exists():
            return ""
        lines = self._lines()
        known = distribution_images(self._paths, status.running)
        if not lines or not known.issuperset(lines):
            return ""  # a library asks for it, too, or nobody knows who
        before = record.packages if record is not None else ()
        text = read_regular(self._flag, _LIMIT).decode("utf-8", "replace")
        self._write(Withheld(settled, text, tuple(dict.fromkeys((*before, *lines)))))
        # The list first: who adds to it meanwhile is seen above, the next time.
        self._packages.unlink()
        self._flag.unlink()
        why = "no reboot is needed for" if settled else "an update is being made for"
        return f"{self._flag} is set aside: {why} {', '.join(lines)}"

    def _give_back(self) -> str:
        record = self._recorded()
        if record is None:
            return ""
        lines = self._lines()
        new = [name for name in record.packages if name not in lines]
        if new:
            with self._packages.open("a", encoding="utf-8") as file:
                file.write("".join(f"{name}\n" for name in new))
        if not self._flag.exists():
            self._flag.write_text(record.text, "utf-8")
        self._record.unlink()
        return f"{self._flag} is there again: {', '.join(record.packages)}"

    def _lines(self) -> list[str]:
        try:
            content = read_regular(self._packages, _LIMIT)
        except FileNotFoundError:
            return []
        return content.decode("utf-8", "replace").split()

    def _recorded(self) -> Withheld | None:
        try:
            return loads(Withheld, read_regular(self._record, _LIMIT))
        except FileNotFoundError:
            return None
        except RecordError:
            # Better a reboot too many than one that nobody asks for.
            return Withheld(False, "", ())

    def _write(self, record: Withheld) -> None:
        write_durably(self._record, dumps(record) + b"\n")


def main() -> int:
    """Give back what a daemon withheld that ended before it had an answer; the exit status."""
    try:
        line = RebootFlag(Paths(Path("/"))).abandon()
    except OSError as error:
        line = f"cannot restore /run/reboot-required: {error}"
    if line:
        print(f"kspliced: {line}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
