# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in the guest: tries from within the builder's unit what it may not, and loses the unit.

``unit_probe.py reach KEY`` prints what a probe in the unit could do; ``unit_probe.py lose HOW``
runs a builder that comes to an end as HOW says, and prints the engine's error, or the result;
``unit_probe.py build RELEASE`` has the real one build /usr/src/new from /usr/src/old.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kspliced.engine.builder import UnitBuilder
from kspliced.engine.builder_unit import Confined, transient_unit
from kspliced.engine.edges import BuildOrder, Cancel, Job
from kspliced.engine.paths import Paths
from kspliced.errors import KsplicedError
from kspliced.model import KernelId, Progress

_KERNEL = KernelId("6.1.0-55-amd64", "6.1.192-1", "x86_64")
# In the unit: each attempt that succeeds is said, and there must be none.
_ATTEMPTS = r"""
import ctypes, glob, json, os, socket, subprocess, sys
cache = sys.argv[1]
done, errors = [], {}

def attempt(name, action):
    try:
        if action() is not False:
            done.append(name)
    except (OSError, subprocess.SubprocessError) as error:
        errors[name] = str(error)

def bus():
    link = socket.socket(socket.AF_UNIX)
    link.connect("/run/dbus/system_bus_socket")

def write(path):
    with open(path, "w") as file:
        file.write("x")

libc = ctypes.CDLL(None, use_errno=True)

def call(function, *arguments):
    if getattr(libc, function)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

for family in ("AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK"):
    attempt(family, lambda: socket.socket(getattr(socket, family)))
attempt("socketpair", socket.socketpair)
attempt("the bus", bus)
files = [os.path.join(place, name) for place, _, names in os.walk("/run") for name in names]
attempt(f"/run: {files}", lambda: files != ["/run/read"])
attempt("/var/lib", lambda: os.listdir("/var/lib") != [])
attempt("other caches", lambda: os.listdir("/var/cache/private") != ["kspliced"])
attempt("other inputs", lambda: os.listdir("/var/cache/private/kspliced") != [sys.argv[2]])
attempt("a network", lambda: len(open("/proc/net/dev").read().splitlines()) > 3)
for place in ("/etc/x", "/usr/x", "/x", "/var/cache/x", "/var/cache/kspliced/x", "/run/x",
              "/var/lib/x", "/dev/kmsg", "/proc/sys/kernel/sysrq", "/sys/kernel/x", "/boot/x",
              "/var/log/x", "/run/read", "/proc/1/oom_score_adj"):
    attempt("write " + place, lambda: write(place))
for place in ("/etc/shadow", "/root", "/home/somebody", "/proc/kcore", "/dev/vda", "/dev/mem",
              "/etc/ssl/private", "/var/log/journal/x"):
    attempt("list " + place, lambda: os.listdir(place))
    attempt("read " + place, lambda: open(place).read(1))
attempt("processes of others", lambda: os.path.exists("/proc/1"))
attempt("kill", lambda: os.kill(1, 0))
attempt("user namespace", lambda: call("unshare", 0x10000000))
attempt("mount", lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None))
attempt("setuid", lambda: os.setuid(0))
attempt("set-user-id", lambda: (write(cache + "/s"), os.chmod(cache + "/s", 0o4755)))
attempt("device", lambda: os.mknod(cache + "/d", 0o60600, os.makedev(254, 0)))
write(cache + "/mine")
with open(cache + "/program", "w") as file:
    file.write("#!/bin/sh\necho ran\n")
os.chmod(cache + "/program", 0o755)
ran = subprocess.run([cache + "/program"], capture_output=True, text=True).stdout.strip()
print(json.dumps({"done": done, "ran": ran, "read": open("/run/read").read(), "errors": errors}))
"""
_SLEEP = """
import json, sys, time
print(json.dumps({"progress": {"phase": "compile", "fraction": 0, "message": ""}}), flush=True)
time.sleep(20)
print(json.dumps({"result": {"pack": "", "functions": [], "refused": []}}))
"""
_EAT = "held = []\nwhile True: held.append(b'x' * (1 << 20))"


def reach(key: str) -> None:
    """Run the attempts in a unit of the cache ``key``."""
    Path("/run/read").write_text("given")
    cache = Path("/var/cache/kspliced") / key
    command = ("/usr/bin/python3", "-c", _ATTEMPTS, str(cache), key)
    unit = Confined(f"kspliced-build-{os.getpid()}.service", command, cache, (Path("/run/read"),))
    subprocess.run(transient_unit(unit), check=True)


def lose(how: str) -> None:
    """Run a builder that is lost."""
    disturb: dict[str, str] = {
        "reexec": "systemctl daemon-reexec",
        "reload": "systemctl daemon-reload",
        "kill": "systemctl kill --signal=KILL 'kspliced-build-*'",
        "stop": "systemctl stop 'kspliced-build-*'",
    }
    body = _EAT if how == "memory" else _SLEEP

    def wrap(confined: Confined) -> list[str]:
        words = transient_unit(replace(confined, command=("/usr/bin/python3", "-c", body)))
        return [*words[:1], *(["--property=MemoryMax=64M"] if how == "memory" else []), *words[1:]]

    def began(_: object) -> None:
        if how in disturb:
            threading.Thread(target=os.system, args=(disturb[how],)).start()

    file = Path("/root/source")
    file.write_text("x")
    order = BuildOrder(_KERNEL, "6.1.192-2", file, file, file, Path("/usr/src"), ("vmlinux",))
    _build(UnitBuilder(Paths(), wrap), order, began)


def build(release: str) -> None:
    """Run the real builder."""
    old, new = Path("/usr/src/old"), Path("/usr/src/new")
    config, headers = Path(f"/boot/config-{release}"), Path(f"/usr/src/linux-headers-{release}")
    order = BuildOrder(_KERNEL, "6.1.192-1", old, new, config, headers, ("vmlinux", "ext4"))
    _build(UnitBuilder(Paths()), order, lambda _: None)


def _build(builder: UnitBuilder, order: BuildOrder, sink: Callable[[Progress], None]) -> None:
    try:
        made = builder.build(order, Job(sink, Cancel()))
    except KsplicedError as error:
        said = {"code": error.code.value, "message": error.message, "remedy": error.remedy}
        print(json.dumps({**said, "transient": error.transient, "details": error.details}))
    else:
        names = [function.name for function in made.functions]
        print(json.dumps({"functions": names, "pack": len(made.content or b"")}))


if __name__ == "__main__":
    verbs: dict[str, Callable[[str], None]] = {"reach": reach, "lose": lose, "build": build}
    verbs[sys.argv[1]](sys.argv[2])
