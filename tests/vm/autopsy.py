# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel of a guest that does not answer any more is doing.

QEMU tells where its processors are. A non-maskable interrupt then makes the kernel die (the guest
has `unknown_nmi_panic` on its command line), and it prints the stacks of all processors before it
does, also where it waits with interrupts off.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.vm.channel import Qmp
from tests.vm.errors import GuestLost

# The kernel's command line: panic_print's bit 6 has all processors' stacks printed (Linux 5.18).
KERNEL_WORDS = "unknown_nmi_panic panic_print=0x40"
TIMEOUT = 30.0
# Of QEMU's "info registers": the address, the flags, and whether the processor is halted.
_PLACE = re.compile(r"\b(?:RIP=[0-9a-f]+ RFL=[0-9a-f]+|HLT=[01])")
# Of the kernel's stacks: where each processor was, by name.
_NAMED = re.compile(r"\bRIP: [0-9a-f]+:(\S+)")


def performed(monitor: Path, process: subprocess.Popen[bytes], console: Path) -> str:
    """Have the kernel print its stacks and die; one line that tells where its processors were.

    :param monitor: the socket of QEMU's machine protocol; nothing else is connected to it.
    :param console: where the kernel prints.
    """
    before = len(console.read_text(errors="replace"))
    try:
        qmp = Qmp(monitor)
    except GuestLost as error:
        return str(error)
    try:
        registers = qmp.execute("human-monitor-command", **{"command-line": "info registers -a"})
        qmp.execute("inject-nmi")
        process.wait(TIMEOUT)
    except (GuestLost, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        qmp.close()
        process.kill()
    places = " ".join(_PLACE.findall(registers))
    named = _NAMED.findall(console.read_text(errors="replace")[before:])
    return f"the processors were at {', '.join(named)} ({places})"
