# SPDX-License-Identifier: GPL-2.0-or-later
"""Structured journal entries: one table of MESSAGE_IDs, and the message catalog made from it.

``python3 -m kspliced.engine.journal`` prints the catalog (systemd's catalog format, journalctl(1)
--catalog), which packaging installs as /usr/lib/systemd/catalog/kspliced.catalog.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from enum import Enum
from textwrap import fill
from typing import Protocol

from kspliced.public import public_text
from kspliced.worker import clean


class Priority(int, Enum):
    """syslog priorities."""

    ERR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6


@dataclass(frozen=True)
class Entry:
    """A kind of journal entry: ``id`` is its MESSAGE_ID, ``text`` its explanation."""

    id: str
    priority: Priority
    subject: str
    text: str


class Event(Enum):
    """Every kind of entry that kspliced writes. The ids never change."""

    BUILT = Entry(
        "bb6744a3c880406f876e2bd27b16c98d",
        Priority.INFO,
        "An update pack was built",
        "A pack that takes the running kernel @KSPLICED_FROM@ to the source of "
        "@KSPLICED_TO@ was built: update @KSPLICED_UPDATE@. Nothing runs of it until it is "
        "applied.",
    )
    LIVE = Entry(
        "6cc5eb861bce41e09d656dfef7fa373e",
        Priority.NOTICE,
        "A kernel update is live",
        "The running kernel @KSPLICED_FROM@ now has changes of @KSPLICED_TO@ (update "
        "@KSPLICED_UPDATE@); `kspliced status` tells whether it has all of them. The CPUs "
        "were held for @KSPLICED_PAUSE_US@ microseconds. "
        "`kspliced undo` takes it back.",
    )
    WAITING = Entry(
        "5b1f0a3d6c7e4f0c9f6c2a8f4b7d1e93",
        Priority.INFO,
        "A kernel update waits for a module",
        "Update @KSPLICED_UPDATE@ changes code of modules only that are not loaded. Nothing "
        "of their old code runs. It is applied as soon as one is loaded.",
    )
    WIDENED = Entry(
        "c0a4c6a1f3a94b0f8f0e1d2b7a5396e4",
        Priority.NOTICE,
        "A kernel update covers a module that was loaded",
        "A module was loaded that update @KSPLICED_UPDATE@ has code for. Its running code was "
        "that of @KSPLICED_FROM@ until now, and is that of @KSPLICED_TO@ from now on.",
    )
    REPLAYED = Entry(
        "b94f194a88b44479ae8157ecf89e720b",
        Priority.NOTICE,
        "A kernel update was applied again at boot",
        "The same kernel @KSPLICED_FROM@ was booted again, and update @KSPLICED_UPDATE@ was "
        "applied again before the network came up. `kspliced=off` on the kernel command "
        "line prevents it.",
    )
    UNDONE = Entry(
        "d26e06b3d3fb44e481d7a56881931e05",
        Priority.NOTICE,
        "A kernel update was undone",
        "The running kernel's original code of @KSPLICED_FROM@ is back. The update is not "
        "applied again, at boot or by the next upgrade, until `kspliced apply`.",
    )
    RETIRED = Entry(
        "0765a538614d4a4c862f396b04dfb03a",
        Priority.INFO,
        "A kernel update was retired",
        "A kernel other than @KSPLICED_FROM@, which update @KSPLICED_UPDATE@ is for, was "
        "booted. The update is not needed any more and its pack was removed.",
    )
    CHANGE_REFUSED = Entry(
        "f426db05fd0a46f8a307d667c69d3132",
        Priority.WARNING,
        "A change cannot go live",
        "The change in @KSPLICED_UNIT@, symbol @KSPLICED_SYMBOL@, cannot be applied to the "
        "running kernel: @KSPLICED_CODE@. It needs a reboot into the new kernel. `kspliced "
        "status` lists all such changes.",
    )
    LEFT_OUT = Entry(
        "5cefed8126894e279f38cfbf75799129",
        Priority.WARNING,
        "An update is built again without some units",
        "Some units of the update cannot be switched on the running kernel: its code of them is "
        "not what was compiled, or threads are in it at every attempt (@KSPLICED_CODE@). The "
        "rest is built again without them; they need a reboot.",
    )
    NOTHING = Entry(
        "0e2a5ef3be3847bdbbaf3abcce7c620f",
        Priority.INFO,
        "There is nothing to update",
        "No update of the running kernel is needed or wanted.",
    )
    BUSY = Entry(
        "b97a33457c45491e95342a7315e2fe27",
        Priority.WARNING,
        "The code to be replaced is in use",
        "Threads were inside functions that update @KSPLICED_UPDATE@ changes, at every "
        "attempt; nothing was changed. The processes are in the message. `kspliced apply` "
        "tries again.",
    )
    NUDGED = Entry(
        "831fb00b97de4144b670864ee872d1e6",
        Priority.NOTICE,
        "Threads are asked to leave code that is to be replaced",
        "Threads sleep in functions that update @KSPLICED_UPDATE@ changes; they are in the "
        "message. Each is made to leave its system call, as by a signal that is not there, and "
        "takes it up again. Calls that never do so after a signal, such as epoll_wait(2), end "
        "with EINTR (signal(7)).",
    )
    NO_MATCH = Entry(
        "f1d9ba0c96bd445184f8321828ced279",
        Priority.ERR,
        "The running kernel is not what the update was built for",
        "A byte of the running kernel's code differs from what the update's own source "
        "compiles to: @KSPLICED_UNIT@ @KSPLICED_SYMBOL@. Nothing was changed. A probe, "
        "another live patch or another compiler may be the cause; `kspliced match` explains "
        "the difference.",
    )
    FAILED = Entry(
        "83fd08f2ed29485fa86522df77b2b357",
        Priority.ERR,
        "A kernel update failed",
        "The job @KSPLICED_JOB@ failed with code @KSPLICED_CODE@. The running kernel is as "
        "it was before. `kspliced status` shows the reason and what can be done.",
    )
    BOOT_LOOP = Entry(
        "d394e18ea8e54e3290eba841d247c78c",
        Priority.ERR,
        "An update is not applied again: the machine went down over it",
        "The boot that applied an update last never became healthy, or the machine went "
        "down while an update was switched in. It is not applied again on its own. Once the "
        "cause is known to lie elsewhere, `kspliced apply` applies it all the same.",
    )
    SWITCHED_OFF = Entry(
        "38f8a7f223d94f4e9db01a6b6231e7bd",
        Priority.NOTICE,
        "kspliced is switched off for this boot",
        "`kspliced=off` is on the kernel command line. Nothing is applied or replayed until "
        "a boot without it.",
    )
    BAD_FILE = Entry(
        "278427615f184f569e41689490790101",
        Priority.WARNING,
        "A file of kspliced cannot be believed",
        "The file is not what it should be and was put aside in /var/lib/kspliced/aside. "
        "Whatever wrote it is faulty, or the disk is.",
    )
    LEFT_LOADED = Entry(
        "1efb42206c8f44299de3b9e6c510ceb9",
        Priority.INFO,
        "An update module stays loaded",
        "The module @KSPLICED_UPDATE@ is not applied any more, but the kernel still refers to it. "
        "It does nothing and goes with the next reboot.",
    )
    ADOPTED = Entry(
        "5036ffd6ef234191a9f29928d7dc1f10",
        Priority.WARNING,
        "A kernel update was live without a record",
        "The kernel core has update @KSPLICED_UPDATE@ applied, but /var/lib/kspliced/state.json "
        "did not say so: it was lost, damaged, or is older than the update. It says so now. "
        "`kspliced undo` takes the update back.",
    )
    FETCHED = Entry(
        "3f79b464887f4aaab405c61b7f16e69c",
        Priority.INFO,
        "Source packages of the running kernel were fetched",
        "They are kept in /var/lib/kspliced/sources, so that an update can be built after "
        "the archive has dropped them.",
    )


@dataclass(frozen=True)
class Facts:
    """The structured fields of an entry, as KSPLICED_UPDATE=, ...; empty ones are left out."""

    update: str = ""
    unit: str = ""
    symbol: str = ""
    from_: str = ""
    to: str = ""
    code: str = ""
    abort_cause: str = ""
    job: str = ""
    pause_us: str = ""
    file: str = ""
    remedy: str = ""


NO_FACTS = Facts()


class Journal(Protocol):
    """Where entries go."""

    def send(self, event: Event, message: str, facts: Facts = NO_FACTS) -> None:
        """Write one entry."""
        ...


class SystemJournal:
    """systemd's journal, or stderr where there is none."""

    def send(self, event: Event, message: str, facts: Facts = NO_FACTS) -> None:
        """Write one entry, which more than root can read (kspliced/public.py).

        A journal that cannot be reached never fails a transaction.
        """
        entry = event.value
        values = {
            f"KSPLICED_{field.name.rstrip('_').upper()}": shown(getattr(facts, field.name))
            for field in fields(facts)
            if getattr(facts, field.name)
        }
        text = shown(message)
        try:
            # Late: a replay that has nothing to say need not load it.
            from systemd import journal

            journal.send(
                text,
                MESSAGE_ID=entry.id,
                PRIORITY=str(entry.priority.value),
                SYSLOG_IDENTIFIER="kspliced",
                **values,
            )
        except (ImportError, OSError):
            print(f"kspliced: {text}", file=sys.stderr, flush=True)


def shown(text: str) -> str:
    """``text`` as the journal has it."""
    return clean(public_text(text))


def catalog() -> str:
    """The message catalog, in the order of the table."""
    head = "# SPDX-License-Identifier: GPL-2.0-or-later\n"
    parts = [
        f"-- {event.value.id}\nSubject: {event.value.subject}\nDefined-By: kspliced\n"
        f"Documentation: man:kspliced(8)\n\n{fill(event.value.text, 78)}\n"
        for event in Event
    ]
    return head + "\n" + "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(catalog())
