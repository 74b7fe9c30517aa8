# SPDX-License-Identifier: GPL-2.0-or-later
"""dnf 4: tells kspliced that a transaction brought a kernel (docs/rpm.md).

Kernels are told by what they provide, not by a name: each flavour has packages of its own, and a
distribution may call them as it likes. Everything is done by kernel-request, which never fails
and takes less than a second. Python 3.6 is enough.
"""

import subprocess

import dnf
import dnf.transaction

HELPER = "/usr/lib/kspliced/kernel-request"
PROVIDE = "kernel-uname-r = "
SECONDS = 1.0


def releases(package):
    """The uname -r of the kernels in a package: one, or none."""
    provides = (str(provide) for provide in package.provides)
    return [text[len(PROVIDE) :] for text in provides if text.startswith(PROVIDE)]


class Kspliced(dnf.Plugin):
    name = "kspliced"

    def transaction(self):
        """After a transaction that succeeded: what it installed and what it removed."""
        came, went = [], []
        for item in self.base.transaction or ():
            if item.action in dnf.transaction.FORWARD_ACTIONS:
                version = f"{item.pkg.version}-{item.pkg.release}"
                came += [f"{release}={version}" for release in releases(item.pkg)]
            elif item.action in dnf.transaction.BACKWARD_ACTIONS:
                went += releases(item.pkg)
        if came:
            self.tell("installed", came)
        elif went:
            self.tell("removed", went)

    def tell(self, word, kernels):
        command = [HELPER, "--root", self.base.conf.installroot, word, *kernels]
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=True)
            process.wait(SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            pass  # removed in this transaction, or the machine is that slow: it goes on by itself
