# SPDX-License-Identifier: GPL-2.0-or-later
"""The text of kspliced(8)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """A term and what is said of it."""

    term: str
    text: str


@dataclass(frozen=True)
class Section:
    """A section of a man page: paragraphs, then a list."""

    title: str
    paragraphs: tuple[str, ...]
    items: tuple[Item, ...] = ()


SYSTEM_SECTIONS = (
    Section(
        "DESCRIPTION",
        (
            "The daemon owns the name org.kspliced1 on the system bus and is started by the bus, "
            "at boot or by the package manager's hooks. It holds nothing but the state: each job "
            "is a process of its own. Idle, it sleeps without timers.",
            "When a hook reports that a kernel package was installed, the daemon fetches the "
            "sources of the running and of the new kernel through apt, builds an update in a "
            "transient unit without network and without rights, compares it with the running "
            "kernel byte for byte, links it to the kernel's addresses and has the kernel module "
            "kspliced switch it in, with all processors stopped and no thread inside the code "
            "that changes. What is done is recorded durably before it is done.",
            "What fails and may succeed later, as code in use or a network that is away, is tried "
            "again after five minutes, then twice as long, up to six hours, and at the next "
            "start. What was refused is not.",
            "An update is cumulative: it takes the running kernel to the newest installed one, "
            "and replaces the update before it in one switch.",
        ),
    ),
    Section(
        "AFTER A REBOOT",
        (
            "If the same kernel is booted again, kspliced-replay.service applies the update "
            "again, before the network is up. If another kernel is booted, the update is retired.",
            "A boot that applied an update and never became healthy (kspliced-healthy.timer) is "
            "not repeated: the next one starts without it and says so. `kspliced apply` lifts "
            "that.",
        ),
        (
            Item(
                "kspliced=off",
                "On the kernel command line: nothing is applied and nothing replayed in this boot.",
            ),
        ),
    ),
    Section(
        "REBOOT REQUIRED",
        (
            "Kernel packages make /run/reboot-required where unattended-upgrades or "
            "update-notifier is installed; Automatic-Reboot, the message of the day and monitoring "
            "ask for it. While all that a kernel package brings is live, or a job is about to make "
            "it so, the daemon sets the file aside, if /run/reboot-required.pkgs lists nothing but "
            "images that the running kernel is upgraded to. It is there again when the verdict "
            "becomes another (refused, undone, failed) or the daemon ends without one. With any "
            "other package in the list nothing is touched.",
        ),
        (
            Item(
                "KSPLICED_REBOOT_REQUIRED=keep",
                "In the environment of kspliced.service (systemctl edit): never touch the file.",
            ),
        ),
    ),
    Section(
        "RIGHTS",
        (
            "Everybody may read the status. What changes the kernel needs root or one of these "
            "polkit actions, which administrators have by default:",
        ),
        (
            Item("org.kspliced1.apply", "Apply the update to the newest installed kernel."),
            Item(
                "org.kspliced1.apply-pack",
                "Apply a pack. A pack is code that the kernel runs, so who may do this is root: "
                "give it to nobody who is not. An administrator is asked each time, and told the "
                "pack's digest and version.",
            ),
            Item("org.kspliced1.undo", "Restore the kernel's own code."),
            Item("org.kspliced1.build", "Build the update without applying it."),
            Item("org.kspliced1.cancel", "Cancel a job that somebody else started."),
            Item(
                "org.kspliced1.refresh",
                "Have the daemon look at its queue now. Users at the machine have it.",
            ),
        ),
    ),
    Section(
        "STATE",
        ("The word that `kspliced status` shows, and the property State on the bus:",),
        (
            Item("idle", "The newest installed kernel runs."),
            Item("busy", "A job runs."),
            Item("pending", "A newer kernel is installed and was not looked at yet."),
            Item("live", "All changes of the newest installed kernel are live."),
            Item("partly", "Some are; the others were refused."),
            Item("refused", "None can go live; a reboot is needed."),
            Item("failed", "The last attempt failed; the kernel is as it was."),
            Item("undone", "The update was undone."),
            Item("retired", "Another kernel was booted; the update is not needed any more."),
            Item("switched_off", "kspliced=off is on the kernel command line."),
        ),
    ),
    Section(
        "MEMORY",
        (
            "The kernel may keep the address of a string, a table or a function of an update that "
            "was applied. So its module stays loaded until the reboot, also when it is undone or "
            "another takes its place; `kspliced status` says how much memory that is. An "
            "update that would need more than the limit is refused (resident_limit) before it is "
            "loaded; what is live stays so.",
        ),
        (
            Item(
                "KSPLICED_RESIDENT_LIMIT",
                "Environment variable of kspliced.service and kspliced-replay.service: the limit "
                "in bytes, or with K, M or G. The default is 256M. Set it by `systemctl edit`, "
                "as Environment=KSPLICED_RESIDENT_LIMIT=512M.",
            ),
        ),
    ),
    Section(
        "FILES",
        (),
        (
            Item("/var/lib/kspliced/state.json", "The durable state; root reads it."),
            Item(
                "/var/lib/kspliced/evidence",
                "Addresses, bytes and stacks behind the last failure of an update, for root.",
            ),
            Item("/var/lib/kspliced/packs", "Update packs, named by their digest."),
            Item("/var/lib/kspliced/queue", "Requests of hooks that were not dealt with yet."),
            Item("/var/lib/kspliced/sources", "Source packages of the running kernel."),
            Item("/var/lib/kspliced/aside", "Files that could not be believed."),
            Item(
                "/var/cache/kspliced",
                "What the builder keeps of the last upgrade: its source, and what was compiled.",
            ),
            Item("/sys/kernel/kspliced", "The kernel core: stage, conflicts and pause."),
        ),
    ),
    Section(
        "UNITS",
        (),
        (
            Item("kspliced.service", "The daemon."),
            Item("kspliced-queue.path", "Starts it when a request of a hook waits."),
            Item("kspliced-replay.service", "Applies the update again, early in the boot."),
            Item("kspliced-healthy.timer", "Marks a boot as healthy after two minutes."),
        ),
    ),
    Section(
        "JOURNAL",
        (
            "Everything that happens to the kernel is in the journal, under the identifier "
            "kspliced, with fields KSPLICED_UPDATE, KSPLICED_FROM, KSPLICED_TO, KSPLICED_UNIT, "
            "KSPLICED_SYMBOL, KSPLICED_CODE and KSPLICED_ABORT_CAUSE. `journalctl -t kspliced "
            "-x` adds explanations.",
        ),
    ),
)
