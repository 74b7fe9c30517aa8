# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the kernel fail inside the core, one allocation after the other, and looks at what is left.

For the debugging kernel (tests/vm/debug_kernel.py): Documentation/fault-injection of its source,
tests/vm/guest_tools/faulty.c.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.vm.kmod_lab import UPDATES, Lab

DEBUGFS = "/sys/kernel/debug"

# What a kernel says that has found a mistake; not the dump of an allocation that failed.
COMPLAINT = re.compile(
    r"\b(?:BUG\b|Oops:|WARNING:|general protection|Kernel panic|INFO: (?:task|trying)|rcu: INFO:)"
)
# The module loader itself has these where it cannot do something else for want of memory.
LOADER = re.compile(r"WARNING: CPU: .* (?:static_call_module_notify|jump_label_module_notify)\+")

# All kinds of allocations may fail, those that may wait too, and nobody is told.
_PREPARE = f"""
    set -e
    mount -t debugfs none {DEBUGFS}
    cd {DEBUGFS}/failslab; echo N > ignore-gfp-wait; echo 0 > verbose
    cd ../fail_page_alloc; echo N > ignore-gfp-wait; echo N > ignore-gfp-highmem
    echo 0 > min-order; echo 0 > verbose
    echo scan=off > ../kmemleak
"""
# All that a failure must not change. The addresses of modules are left out.
_SNAPSHOT = f"""snapshot() {{
    cat /proc/victim /proc/victim_table /proc/cmdline /proc/version
    cut -d ' ' -f 1-5 /proc/modules
    grep -o '[^ ]* [[]kspliced[]].*' /proc/vmallocinfo
    echo /sys/kernel/ksplice* {UPDATES}/*
    cat {UPDATES}/*/stage {UPDATES}/*/original {UPDATES}/*/data 2> /dev/null
}}
"""
# Says for each allocation: error number, what faulty left, and the abort causes.
_SWEEP = f"""
snapshot > /tmp/before
n=0 left=0
while [ $left = 0 ]; do
    n=$((n + 1))
    attempt $n > /tmp/result || exit 3
    {{ read -r error left; cat > /tmp/read; }} < /tmp/result
    set -- {UPDATES}/*/abort_cause
    cause=; [ -e $1 ] && cause=$(cat "$@")
    echo $error $left $cause
    if [ $error = 0 ]; then
        cmp /tmp/text /tmp/read || exit 1
        undo
    fi
    snapshot > /tmp/after
    cmp -s /tmp/before /tmp/after || {{ diff /tmp/before /tmp/after; exit 1; }}
done
"""


@dataclass(frozen=True)
class Sweep:
    """How many allocations were made to fail: with an error, and without any harm.

    ``told``: how many of the errors an update's abort cause tells of.
    """

    failed: int
    tolerated: int
    told: int


class Faults:
    """The faults of a lab that has ``faulty`` in its root."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        lab.machine.check(f"chmod 755 /faulty; {_PREPARE}")
        self.leaks()

    def attempt(self, words: str) -> int:
        """Do what faulty.c says while any allocation may fail; returns the error number."""
        return int(self.lab.machine.check(f"/faulty any {words}", 300).split()[0])

    def snapshot(self) -> str:
        """What a failure must leave as it was."""
        return self.lab.machine.run(f"{_SNAPSHOT}snapshot").text

    def sweep(self, words: str, undo: str = "", text: str = "") -> Sweep:
        """Fail each allocation of ``words`` in turn, until there are no more of them.

        Every failure is ENOMEM and changes nothing but abort causes. Where ``words`` succeed all
        the same, and at last, they read ``text``, and ``undo`` goes back to where they started.
        """
        functions = f"{_SNAPSHOT}\nattempt() {{ /faulty $1 {words}; }}\nundo() {{\n:\n{undo}\n}}"
        script = f"cat > /tmp/text <<'END'\n{text}END\n{functions}\n{_SWEEP}"
        output = self.lab.machine.run(script, 1800)
        assert output.status == 0, f"{words}: {output.text}"
        found = [line.split() for line in output.text.splitlines()]
        failed = [(error, cause) for error, _, *cause in found if error != "0"]
        assert {error for error, _ in failed} <= {str(errno.ENOMEM)}
        told = sum("out_of_memory" in cause for _, cause in failed)
        sweep = Sweep(len(failed), len(found) - 1 - len(failed), told)
        print(f"{words[:60]}: {sweep}")
        return sweep

    @contextmanager
    def refusing(self, function: str, value: int, after: int = 0) -> Iterator[None]:
        """The core's ``function`` returns ``value`` at once, from its call ``after`` on, once."""
        self.lab.machine.check(f"""set -e; cd {DEBUGFS}/fail_function
            echo kspliced:{function} > inject; echo {value % 2**64:#x} > kspliced:{function}/retval
            echo 100 > probability; echo 1 > times; echo {after + 1} > space; echo 0 > verbose""")
        try:
            yield
        finally:
            self.lab.machine.check(f"echo > {DEBUGFS}/fail_function/inject")

    @contextmanager
    def failing(self, percent: int) -> Iterator[None]:
        """So many of the allocations fail in what is attempted with ``any``."""
        self.lab.machine.check(f"""set -e
            for kind in failslab fail_page_alloc; do cd {DEBUGFS}/$kind
            echo Y > task-filter; echo {percent} > probability; echo -1 > times; done""")
        try:
            yield
        finally:
            self.lab.machine.check(f"echo 0 | tee {DEBUGFS}/fail*/probability")

    def leaks(self) -> str:
        """The memory that nobody points at any more, whatever was found before left out.

        It is looked at twice, after the five seconds in which the kernel does not judge.
        """
        return self.lab.machine.check(
            f"""set -e; sleep 6; cd {DEBUGFS}
            echo scan > kmemleak; echo scan > kmemleak; cat kmemleak; echo clear > kmemleak""",
            600,
        )
