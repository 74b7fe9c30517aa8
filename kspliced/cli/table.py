# SPDX-License-Identifier: GPL-2.0-or-later
"""The one table of verbs, options and exit codes.

The parser (parser.py), the man pages (manpage.py) and the shell completion (completion.py) are made
from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kspliced.errors import ExitCode

PROGRAM = "kspliced"
SUMMARY = "kernel upgrades that take effect without a reboot"


class Kind(Enum):
    """What an option or operand takes."""

    FLAG = "flag"
    FILE = "file"
    DIRECTORY = "directory"
    TEXT = "text"
    NUMBER = "number"


@dataclass(frozen=True)
class Option:
    """An option. ``default`` is what the manual says of its absence; ``choices`` limit a TEXT."""

    names: tuple[str, ...]
    help: str
    kind: Kind = Kind.FLAG
    metavar: str = ""
    default: str = ""
    required: bool = False
    repeat: bool = False
    choices: tuple[str, ...] = ()

    @property
    def dest(self) -> str:
        """Its name among the parsed arguments: that of its first long name."""
        return self.names[0].lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class Operand:
    """A positional argument, a file."""

    name: str
    help: str
    optional: bool = False


@dataclass(frozen=True)
class Verb:
    """A verb. ``module`` carries it out; ``exits`` are its exit codes besides 1 and 2."""

    name: str
    module: str
    summary: str
    text: tuple[str, ...]
    options: tuple[Option, ...] = ()
    operands: tuple[Operand, ...] = ()
    exits: tuple[ExitCode, ...] = ()


JSON = Option(("--json",), "print one JSON object instead of text")

_SOURCES = (
    Option(
        ("--from",),
        "source of the kernel that runs: a tree, a linux-source .deb, a .dsc or a .src.rpm",
        Kind.FILE,
        "SRC",
        required=True,
    ),
    Option(("--to",), "source of the new kernel, likewise", Kind.FILE, "SRC", required=True),
    Option(
        ("--config",),
        "configuration of the kernel that runs",
        Kind.FILE,
        "FILE",
        default="/boot/config-`uname -r` or /lib/modules/`uname -r`/config",
    ),
    Option(
        ("--headers",),
        "its headers package, unpacked or installed",
        Kind.DIRECTORY,
        "DIR",
        default="/usr/src/linux-headers-`uname -r` or /usr/src/kernels/`uname -r`",
    ),
    Option(
        ("--targets",),
        "file with one target a line, vmlinux or a module's name: other code is left alone; behind "
        "a module that is not of the kernel's own tree stand its taints, as in /proc/modules: (O)",
        Kind.FILE,
        "FILE",
        default="what is loaded, if the configuration is that of the running kernel; else "
        "everything that the configuration builds",
    ),
    Option(
        ("--symbols",),
        "what the running kernel has, as /proc/kallsyms has it; its addresses are not needed",
        Kind.FILE,
        "FILE",
        default="/proc/kallsyms, if the configuration is that of the running kernel",
    ),
    Option(
        ("--jobs", "-j"),
        "compilers at a time",
        Kind.NUMBER,
        "N",
        default="the number of processors",
    ),
    Option(
        ("--policy",),
        "what goes live by itself: all that is beyond doubt, or what is in weak doubt too, or "
        "nothing",
        Kind.TEXT,
        "P",
        default="conservative",
        choices=("conservative", "normal", "manual"),
    ),
    Option(("--workdir",), "where the temporary trees go (300 MB)", Kind.DIRECTORY, "DIR"),
    Option(
        ("--cache",),
        "where read sources (2 GiB at most) and objects (1 GB) are kept for the next time",
        Kind.DIRECTORY,
        "DIR",
        default="~/.cache/kspliced",
    ),
)
_COMMITS = (
    Option(
        ("--commits",),
        "the commits between the two sources: a git repository with the stable branch, a "
        "directory with a quilt series or with patches, an mbox or a patch; what they made is "
        "known then, and not told from the changelog's words",
        Kind.FILE,
        "PATH",
    ),
    Option(
        ("--cve-data",),
        "which commits mend which CVEs: a CVE record or a record of OSV as JSON, or a directory "
        "of them",
        Kind.FILE,
        "PATH",
    ),
)
_ONLY = Option(
    ("--only",),
    "only units whose path matches, as fs/ext4/*; may be repeated",
    Kind.TEXT,
    "GLOB",
    repeat=True,
)
_EXCLUDE = Option(
    ("--exclude",),
    "leave out the components of units whose path matches; may be repeated",
    Kind.TEXT,
    "GLOB",
    repeat=True,
)
_PROGRESS = Option(
    ("--progress",),
    "how to show progress: auto (on a terminal), none, or json: messages for a program that "
    "runs this one, then the result",
    Kind.TEXT,
    "HOW",
    default="auto",
    choices=("auto", "none", "json"),
)
_NO_WAIT = Option(("--no-wait",), "only start the job; `kspliced status --wait` follows it")

VERBS = (
    Verb(
        "status",
        "status",
        "show what runs, what is installed and what is live",
        (
            "Shows the running kernel, the version whose changes are effectively live, the newest "
            "installed one, the update with its functions and changelog entries, a job under way, "
            "and whether a reboot is needed.",
        ),
        (
            Option(("--wait", "--watch", "-w"), "follow the job under way to its end first"),
            Option(("--verbose", "-v"), "list everything, also what is long"),
            JSON,
        ),
        exits=(ExitCode.NO_DAEMON_OR_RIGHT,),
    ),
    Verb(
        "apply",
        "apply",
        "make an update live",
        (
            "Without PACK: the update to the newest installed kernel, built if it is not there, "
            "also when it was undone before or looked dangerous. The daemon does the work; an "
            "interrupt (Ctrl-C) asks it to stop at the next safe point.",
        ),
        (_NO_WAIT, JSON),
        (Operand("PACK", "an update pack, from `kspliced build`", optional=True),),
        (
            ExitCode.NOTHING_TO_DO,
            ExitCode.REFUSED,
            ExitCode.NO_DAEMON_OR_RIGHT,
            ExitCode.BUSY,
        ),
    ),
    Verb(
        "undo",
        "undo",
        "restore the kernel's own code",
        (
            "Takes back the live update. It is not applied again, at boot or by the next upgrade "
            "to the same version, until `kspliced apply`.",
        ),
        (_NO_WAIT, JSON),
        exits=(ExitCode.NO_DAEMON_OR_RIGHT, ExitCode.BUSY),
    ),
    Verb(
        "uname",
        "uname",
        "print the effective kernel version",
        (
            "Prints the version of the kernel package whose changes are live: what uname(1) "
            "would say, had the machine been rebooted.",
        ),
        (
            Option(("--all", "-a"), "print the release and the version that was booted, too"),
            JSON,
        ),
        exits=(ExitCode.NO_DAEMON_OR_RIGHT,),
    ),
    Verb(
        "reboot-required",
        "reboot_required",
        "tell whether only a reboot brings all installed changes",
        (
            "Prints `no`, `yes` or `pending` (an update is being made), and the reasons. The exit "
            "code is 0 once the answer is known. With --check nothing is printed and the exit "
            "code is the answer: 0 for yes, 3 for no, 6 for pending.",
        ),
        (Option(("--check", "-q"), "print nothing; answer with the exit code"), JSON),
        exits=(ExitCode.NOTHING_TO_DO, ExitCode.NO_DAEMON_OR_RIGHT, ExitCode.BUSY),
    ),
    Verb(
        "doctor",
        "doctor",
        "tell whether this machine can have hot updates",
        (
            "Looks at everything that an update needs before it is built: the kernel and its "
            "options, the kernel core, what the kernel lets root do, the compiler, headers and "
            "sources, room, the daemon. Each is ok, failed (then with what helps, and a stable "
            "code) or unknown, which stops nothing. Needs no right and no daemon; apt's lists are "
            "read, the network is not. The exit code is 0 if nothing fails, else 4.",
        ),
        (
            Option(
                ("--root",),
                "look at the machine below DIR; tools and the daemon are not asked then",
                Kind.DIRECTORY,
                "DIR",
            ),
            JSON,
        ),
        exits=(ExitCode.REFUSED,),
    ),
    Verb(
        "plan",
        "plan",
        "tell what an upgrade would do, without doing it",
        (
            "Builds the update in memory and tells for every changed file whether its change can "
            "go live, needs a reboot, should be looked at first, is in a module that is not "
            "loaded, or is no part of this kernel; and what that means for each changelog entry.",
        ),
        (*_SOURCES, *_COMMITS, _ONLY, _EXCLUDE, JSON),
        exits=(ExitCode.NOTHING_TO_DO, ExitCode.REFUSED),
    ),
    Verb(
        "report",
        "report",
        "write a page that shows what an upgrade would do",
        (
            "Does what plan does and writes one self-contained HTML page: what can go live, what "
            "needs a reboot and why, by subsystem, each component with its difference, its "
            "evidence and its changelog entries, to be searched in a browser.",
        ),
        (
            *_SOURCES,
            *_COMMITS,
            _ONLY,
            _EXCLUDE,
            Option(("--output", "-o"), "the page to write", Kind.FILE, "HTML", required=True),
            JSON,
        ),
    ),
    Verb(
        "build",
        "build",
        "build an update pack from two sources",
        (
            "Compiles the units that the changes between two sources touch, before and after, "
            "compares the objects and writes what a running kernel needs to a pack. Needs no root "
            "and no daemon. Changes that do not stand by themselves go together; what cannot be "
            "proved is left out, with the reason.",
        ),
        (
            *_SOURCES,
            *_COMMITS,
            _ONLY,
            _EXCLUDE,
            Option(("--output", "-o"), "the pack to write", Kind.FILE, "PACK", required=True),
            _PROGRESS,
            JSON,
        ),
        exits=(ExitCode.NOTHING_TO_DO, ExitCode.REFUSED),
    ),
    Verb(
        "show",
        "show",
        "explain a pack",
        ("Verifies a pack and tells what it is for and what it changes.",),
        (JSON,),
        (Operand("PACK", "an update pack"),),
    ),
    Verb(
        "match",
        "match",
        "compare a pack with a kernel, changing nothing",
        (
            "Compares every function of the pack's units with the running kernel, byte for byte, "
            "and finds every address that the update needs. Needs root, to read the kernel's "
            "memory. With --image the modules in files are compared instead, without root.",
        ),
        (
            Option(
                ("--image",),
                "a module (.ko) to compare with, repeatable, or a directory with a kernel's proc "
                "and sys",
                Kind.FILE,
                "FILE",
                repeat=True,
            ),
            JSON,
        ),
        (Operand("PACK", "an update pack"),),
        (ExitCode.REFUSED, ExitCode.NO_DAEMON_OR_RIGHT),
    ),
)

EXIT_CODES = (
    (ExitCode.DONE, "done"),
    (ExitCode.FAILED, "failed"),
    (ExitCode.USAGE, "wrong usage"),
    (ExitCode.NOTHING_TO_DO, "nothing to do"),
    (ExitCode.REFUSED, "refused, all of what was asked for"),
    (ExitCode.NO_DAEMON_OR_RIGHT, "no daemon, or no right to do it"),
    (ExitCode.BUSY, "busy: code to be changed is in use, or a job runs; try again later"),
)
