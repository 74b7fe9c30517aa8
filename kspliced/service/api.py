# SPDX-License-Identifier: GPL-2.0-or-later
"""The D-Bus interface of kspliced: names, paths, polkit actions, interfaces. docs/dbus.md.

Stable: members may join, none changes its meaning. ``python3 -m kspliced.service.api DIR`` writes
the introspection files that data/ holds.
"""

from __future__ import annotations

import sys
from pathlib import Path

from kspliced import limits
from kspliced.service.interface import Arg, Emits, Interface, Method, Property, Signal, file_xml

ACTION_APPLY = "org.kspliced1.apply"
ACTION_APPLY_PACK = "org.kspliced1.apply-pack"
ACTION_UNDO = "org.kspliced1.undo"
ACTION_BUILD = "org.kspliced1.build"
ACTION_CANCEL = "org.kspliced1.cancel"
ACTION_REFRESH = "org.kspliced1.refresh"

_JOB = (Arg("job", "o"),)

MANAGER = Interface(
    "org.kspliced1.Manager",
    "The daemon. Reading is for everybody; each method needs the polkit action in its comment.",
    methods=(
        Method(
            "Plan",
            f"{ACTION_BUILD}: find out what Apply would do, up to the comparison with the running "
            "kernel; nothing is applied.",
            ACTION_BUILD,
            outputs=_JOB,
        ),
        Method(
            "Build",
            f"{ACTION_BUILD}: build the update to the newest installed kernel and keep its pack, "
            "without applying it.",
            ACTION_BUILD,
            outputs=_JOB,
        ),
        Method(
            "Apply",
            f"{ACTION_APPLY}: make the newest update live, one that was undone or blocked before "
            "included; it is built if it is not there.",
            ACTION_APPLY,
            outputs=_JOB,
        ),
        Method(
            "ApplyPack",
            f"{ACTION_APPLY_PACK}: make a pack live, which is to run any code as the kernel. The "
            "caller opens the file, with its own rights; it must be a regular file of at most "
            f"{limits.PACK_BYTES // limits.MIB} MiB.",
            ACTION_APPLY_PACK,
            inputs=(Arg("pack", "h"),),
            outputs=_JOB,
        ),
        Method("Undo", f"{ACTION_UNDO}: restore the kernel's own code.", ACTION_UNDO, outputs=_JOB),
        Method(
            "Refresh",
            f"{ACTION_REFRESH}: look at the queue of the package manager's hooks now. Returns at "
            "once.",
            ACTION_REFRESH,
        ),
    ),
    properties=(
        Property("Version", "s", "Version of kspliced.", Emits.CONST),
        Property("Release", "s", "Name of the running kernel, uname -r."),
        Property("Running", "s", "Source package version of the running kernel."),
        Property("Effective", "s", "The version whose changes are live in the running kernel."),
        Property("Installed", "s", "Version of the newest installed kernel of the same flavour."),
        Property("State", "s", "A stable word: see docs/dbus.md."),
        Property("RebootRequired", "b", "Whether only a reboot brings all installed changes."),
        Property("CurrentJob", "o", "The job that runs, or / for none."),
        Property(
            "StatusJson",
            "s",
            "All of the status as one JSON object, the one that `kspliced status` prints as JSON.",
            Emits.INVALIDATES,
        ),
    ),
)

UPDATE = Interface(
    "org.kspliced1.Update",
    "An update of the running kernel. Its path ends in its Id.",
    properties=(
        Property("Id", "s", "Name of the update, which is that of its kernel module.", Emits.CONST),
        Property("Digest", "s", "Digest of its pack, 64 hexadecimal digits.", Emits.CONST),
        Property("From", "s", "Source package version that it starts from.", Emits.CONST),
        Property("To", "s", "Source package version whose changes it brings.", Emits.CONST),
        Property("Stage", "s", "A stable word: see docs/dbus.md."),
        Property(
            "Functions",
            "a(ssss)",
            "Functions replaced or added: target, unit, name, why.",
            Emits.CONST,
        ),
        Property(
            "Entries",
            "a(ssasas)",
            "Changelog entries: version, subject, CVEs, bug numbers.",
            Emits.CONST,
        ),
        Property(
            "Refused",
            "a(sssss)",
            "Changes that do not go live: code, unit, symbol, reason, evidence.",
            Emits.CONST,
        ),
        Property("Waiting", "as", "Modules that have to be loaded before more of it goes live."),
        Property("PauseMicroseconds", "t", "How long the last switch held all CPUs."),
        Property("AppliedAt", "t", "When it last went live, seconds since the epoch, 0 for never."),
    ),
)

JOB = Interface(
    "org.kspliced1.Job",
    "A job. It stays on the bus for a while after its end, so that its result can be read.",
    methods=(
        Method(
            "Cancel",
            f"Ask the job to stop at its next safe point. The user who started it may; others need "
            f"{ACTION_CANCEL}.",
        ),
    ),
    signals=(Signal("Finished", "The job ended.", (Arg("ok", "b"), Arg("code", "s"))),),
    properties=(
        Property("Verb", "s", "upgrade, plan, build, apply, undo, widen or fetch.", Emits.CONST),
        Property("State", "s", "running, done, failed or cancelled."),
        Property("Phase", "s", "What it does: a stable word, empty before the first."),
        Property("Fraction", "d", "How far it is, 0 to 1."),
        Property("Message", "s", "What it does, for people."),
        Property("ErrorCode", "s", "After a failure, its stable code."),
        Property("ErrorMessage", "s", "After a failure, what happened."),
        Property("ErrorRemedy", "s", "After a failure, what can be done, or nothing."),
        Property("ErrorDetails", "as", "After a failure, lines of evidence."),
        Property("Result", "s", "After success, the job's result as a JSON object."),
    ),
)

INTERFACES = (MANAGER, UPDATE, JOB)


def write_files(directory: Path) -> None:
    """Write the introspection file of each interface to ``directory``. OSError passes."""
    for interface in INTERFACES:
        (directory / f"{interface.name}.xml").write_text(file_xml(interface), "utf-8")


if __name__ == "__main__":
    write_files(Path(sys.argv[1]))
