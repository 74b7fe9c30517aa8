# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine must have before an update is built: the one list (docs/preconditions.md).

`kspliced doctor`, `status`, `plan`, the line at the end of apt's or dnf's output and the jobs
themselves all tell it. Every check reads a few files below the root, and none needs a right. Cheap
to import and to run: the daemon does, which asks no tools.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from kspliced.engine.kernels import (
    installed_kernels,
    installed_version,
    switched_off,
)
from kspliced.engine.paths import Paths
from kspliced.engine.room import BUILD_BYTES, BUILD_FILES, lacking, packed_bytes
from kspliced.engine.versions import of_rpm, series
from kspliced.engine.view import (
    Finding,
    Precondition,
    View,
    failed,
    ok,
    system_view,
    there,
    unknown,
)
from kspliced.errors import Code, KsplicedError, PreconditionError
from kspliced.lines import split_lines
from kspliced.model import CORE_ABI, KernelId

# What the core finds and calls (kmod/symbols.c), what matching reads, and the reliable unwinder.
_OPTIONS = (
    "SMP",
    "MODULES",
    "KALLSYMS",
    "KALLSYMS_ALL",
    "KPROBES",
    "DYNAMIC_FTRACE",
    "STACKTRACE",
    "UNWINDER_ORC",
    "PROC_KCORE",
)
# The builder's unit has namespaces of its own of these kinds.
_NAMESPACES = ("user", "mnt", "net", "ipc")
_LOCKDOWN = re.compile(r"\[(\w+)\]")
_COMPILER = re.compile(r'^CONFIG_CC_VERSION_TEXT="((\S+) .*)"$', re.MULTILINE)
_DEBIAN_COMPILER = re.compile(r"\(Debian ([^)]+)\)")
_NUMBERED = re.compile(r"gcc-\d+$")
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_CONTAINERS = ("run/systemd/container", "run/host/container-manager")
_CONTAINER_FILES = {".dockerenv": "docker", "run/.containerenv": "podman"}
_SMALL = (
    "proc/sys/kernel/modules_disabled",
    "proc/sys/kernel/kptr_restrict",
    "sys/kernel/security/lockdown",
    "sys/module/module/parameters/sig_enforce",
    "sys/kernel/kspliced/abi",
    *(f"proc/sys/user/max_{kind}_namespaces" for kind in _NAMESPACES),
)
_LKRG = ("sys/module/lkrg", "sys/module/p_lkrg", "proc/sys/lkrg")


Check = Callable[[View], Precondition]


def evaluate(view: View, checks: tuple[Check, ...] | None = None) -> tuple[Precondition, ...]:
    """What holds of ``checks``, by default of the whole list, in its order."""
    return tuple(check(view) for check in checks or ALL)


def first_failed(found: tuple[Precondition, ...]) -> Precondition | None:
    """The one that stands in the way, or None."""
    return next((one for one in found if one.state is Finding.FAILED), None)


def require(paths: Paths, checks: tuple[Check, ...]) -> None:
    """Refuse what cannot succeed here, before any work is done.

    :raises PreconditionError: with the code of the first that fails.
    """
    lacking = first_failed(evaluate(system_view(paths), checks))
    if lacking is not None:
        raise PreconditionError(lacking.code, lacking.words, lacking.remedy)


def stamp(paths: Paths) -> tuple[object, ...]:
    """A value that changes when a precondition may have: what the daemon compares at each look, so
    it costs a tenth of a millisecond."""
    root = str(paths.root)
    release = _first_bytes(f"{root}/proc/sys/kernel/osrelease").decode("utf-8", "replace").strip()
    places = (
        *_CONTAINERS,
        *_CONTAINER_FILES,
        *_LKRG,
        f"lib/modules/{release}/modules.dep",
        f"boot/config-{release}",
        f"usr/src/linux-headers-{release}",
        "var/lib/kspliced/sources",
    )
    return (
        *(_first_bytes(f"{root}/{name}") for name in _SMALL),
        *(_changed(f"{root}/{name}") for name in places),
        _is_roomy(paths),
    )


def _first_bytes(name: str) -> bytes:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 256)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _changed(name: str) -> int:
    try:
        return os.stat(name).st_mtime_ns  # noqa: PTH116 (a Path costs as much again)
    except OSError:
        return -1


def _is_roomy(paths: Paths) -> bool:
    try:
        status = os.statvfs(paths.cache.parent)
    except OSError:
        return True
    return status.f_bavail * status.f_frsize >= BUILD_BYTES


def kernel(view: View) -> Precondition:
    """The running kernel is the distribution's."""
    code = Code.FOREIGN_KERNEL
    running = view.identity
    if isinstance(running, KsplicedError):
        if running.code is code:
            return failed(code, running.message, running.remedy)
        return unknown(code, running.message)
    return ok(code, f"linux {running.version} ({running.release}) is the distribution's kernel")


def container(view: View) -> Precondition:
    """The machine is no container: its kernel would be another machine's."""
    code = Code.CONTAINER
    names = [text for text in map(view.text, _CONTAINERS) if text is not None]
    names += [name for file, name in _CONTAINER_FILES.items() if view.there(file)]
    if not names:
        return ok(code, "this is no container")
    name = re.sub(r"[^A-Za-z0-9-]", "", names[0])[:32]
    text = f"this is a container ({name or 'unnamed'}), whose kernel is the host's"
    return failed(code, text, "install kspliced on the host")


def switch(view: View) -> Precondition:
    """The administrator did not switch kspliced off."""
    code = Code.SWITCHED_OFF
    if switched_off(view.paths):
        text = "kspliced=off is on the kernel command line"
        return failed(code, text, "boot without it to apply updates")
    return ok(code, "kspliced=off is not on the kernel command line")


def core(view: View) -> Precondition:
    """The kernel core is loaded, or is where modprobe finds it."""
    code = Code.CORE_NOT_LOADED
    if view.there("sys/kernel/kspliced/abi"):
        return ok(code, "the kernel core is loaded")
    listed = view.text(f"lib/modules/{view.release}/modules.dep")
    if listed is not None and re.search(r"(^|/)kspliced\.ko[^:/\n]*:", listed, re.MULTILINE):
        return ok(code, "the kernel core is built for this kernel")
    return failed(
        code,
        f"the kernel core is not built for {view.release}",
        f"install kspliced-dkms and linux-headers-{view.release}; `dkms status kspliced` must say "
        "installed",
    )


def core_abi(view: View) -> Precondition:
    """A core that is loaded is of this version."""
    abi = view.text("sys/kernel/kspliced/abi")
    if abi is None or abi == str(CORE_ABI):
        return ok(Code.CORE_ABI, "no kernel core of another version is loaded")
    return failed(
        Code.CORE_ABI,
        f"the kernel core has ABI {abi[:20]!r}, this kspliced needs {CORE_ABI}",
        "install kspliced and kspliced-dkms of one version and reboot; where no update was "
        "applied since the boot, 'modprobe -r kspliced && modprobe kspliced' will do",
    )


def signature(view: View) -> Precondition:
    """The kernel loads modules without a signature: those of updates are made here."""
    code = Code.SIGNATURE_REQUIRED
    lockdown, enforced = (
        view.text("sys/kernel/security/lockdown"),
        view.text("sys/module/module/parameters/sig_enforce"),
    )
    found = _LOCKDOWN.search(lockdown or "")
    if found and found[1] != "none":
        boot = ", as Secure Boot is on" if _secure_boot(view) else ""
        return failed(
            code,
            f"the kernel is locked down ({found[1]}{boot}) and loads only signed modules",
            "updates are not signed yet: boot without lockdown (for Secure Boot: `mokutil "
            "--disable-validation`)",
        )
    if enforced == "Y":
        return failed(
            code,
            "the kernel loads only signed modules (module.sig_enforce or CONFIG_MODULE_SIG_FORCE)",
            "updates are not signed yet: boot without module.sig_enforce",
        )
    if lockdown is None and enforced is None:
        return unknown(code, "whether the kernel loads modules without a signature is not shown")
    return ok(code, "the kernel loads modules without a signature")


def _secure_boot(view: View) -> bool:
    try:
        return (view.paths.root / _SECURE_BOOT).read_bytes()[-1:] == b"\x01"
    except OSError:
        return False


def modules(view: View) -> Precondition:
    """Modules may be loaded at all."""
    code = Code.MODULES_DISABLED
    value = view.text("proc/sys/kernel/modules_disabled")
    if value is None:
        return unknown(code, "kernel.modules_disabled is not shown")
    if value != "0":
        return failed(
            code,
            "kernel.modules_disabled is set: no module can be loaded until the next boot",
            "take it out of /etc/sysctl.d and reboot",
        )
    return ok(code, "modules can be loaded")


def symbols(view: View) -> Precondition:
    """/proc/kallsyms shows root its addresses: from kptr_restrict 2 on it shows nobody any
    (kernel/kallsyms.c, kallsyms_show_value())."""
    code = Code.SYMBOLS_HIDDEN
    value = view.text("proc/sys/kernel/kptr_restrict")
    if value is None:
        return unknown(code, "kernel.kptr_restrict is not shown")
    if value not in ("0", "1"):
        return failed(
            code,
            f"kernel.kptr_restrict is {value[:4]}: the kernel hides its symbols from root, too",
            "set kernel.kptr_restrict to 1, now (sysctl -w) and in /etc/sysctl.d",
        )
    return ok(code, "the kernel shows root its symbols")


def memory(view: View) -> Precondition:
    """The kernel's memory can be read."""
    code = Code.KERNEL_UNREADABLE
    found = _LOCKDOWN.search(view.text("sys/kernel/security/lockdown") or "")
    if found and found[1] == "confidentiality":
        text = "the kernel is locked down (confidentiality): its memory cannot be read"
        return failed(code, text, "boot with lockdown=integrity at most")
    if view.there("proc/kcore"):
        return ok(code, "/proc/kcore is there")
    if not view.there("proc/kallsyms"):
        return unknown(code, "there is no procfs of a kernel")
    return failed(code, "there is no /proc/kcore", "boot a kernel with CONFIG_PROC_KCORE")


def options(view: View) -> Precondition:
    """The kernel has the options that the core and the match need."""
    code = Code.KERNEL_CONFIG
    config = view.config()
    if not config:
        return unknown(code, f"there is no configuration of {view.release}")
    lines = set(split_lines(config))
    missing = [f"CONFIG_{name}" for name in _OPTIONS if f"CONFIG_{name}=y" not in lines]
    if missing:
        text = f"the kernel is made without {', '.join(missing)}"
        return failed(code, text, "boot a kernel of the distribution that has it")
    return ok(code, "the kernel has every option that the core needs")


def compiler(view: View) -> Precondition:
    """The compiler that built the kernel, exactly, is installed."""
    code = Code.COMPILER_MISMATCH
    match = _COMPILER.search(view.config())
    if match is None:
        return unknown(code, f"no configuration of {view.release} names its compiler")
    wanted, name = match[1], match[2]
    if not any(view.there(f"{place}/{name}") for place in ("usr/bin", "usr/local/bin")):
        text = f"{name}, which built the kernel, is not installed"
        return failed(code, text, f"install the compiler {wanted}")
    installed = _installed_compiler(view, name, wanted)
    if installed is None:
        return unknown(code, f"the version of {name} is not known; the kernel's is {wanted}")
    if installed != wanted:
        text = f"the kernel was built by {wanted!r}; installed is {installed!r}"
        return failed(code, text, f"install the version of {name} that built the kernel")
    return ok(code, f"{wanted} built the kernel and is installed")


def _installed_compiler(view: View, name: str, wanted: str) -> str | None:
    """What the compiler calls itself; unasked, by the version of its Debian package."""
    if view.ask is not None:
        return (view.ask((name, "--version")) or "").partition("\n")[0].strip() or None
    package, version = _NUMBERED.search(name), _DEBIAN_COMPILER.search(wanted)
    if package is None or version is None:
        return None
    has = installed_version(view.paths, package[0])
    return wanted.replace(version[1], has) if has is not None else None


def headers(view: View) -> Precondition:
    """The running kernel's headers are installed, kept, or offered."""
    code, release = Code.HEADERS_MISSING, view.release
    package = f"linux-headers-{release}"
    for place in (f"usr/src/{package}", f"usr/src/kernels/{release}"):
        if view.there(f"{place}/.config"):
            return ok(code, f"/{place} has the kernel's headers")
    if there(view.paths.sources / f"headers-{release}"):
        return ok(code, "the kernel's headers are kept")
    running = view.running()
    offered = _offered(view, running, package)
    if running is None or offered is None:
        return unknown(code, f"{package} is not installed; whether it is offered is not known")
    if running.version in offered:
        return ok(code, f"apt offers {package}")
    text = f"{package} is not installed, and apt does not offer it"
    return failed(code, text, f"install {package} {running.version}")


def sources(view: View) -> Precondition:
    """The sources of the running and of the newest installed kernel are kept, or offered."""
    code = Code.SOURCE_UNAVAILABLE
    running = view.running()
    if running is None:
        return unknown(code, "it is not known of which kernel")
    newest = installed_kernels(view.paths, running).newest
    needed = [
        version
        for version in dict.fromkeys((running.version, newest.version))
        if not there(view.paths.sources / f"source-{version}")
    ]
    if not needed:
        return ok(code, "the sources of the kernels are kept")
    offered = _offered(view, running, f"linux-source-{series(running.release)}", "linux")
    if offered is None:
        text = (
            f"the source of {' and '.join(needed)} is not kept; whether it is offered is not known"
        )
        return unknown(code, text)
    lacking = [version for version in needed if version not in offered]
    if lacking:
        return failed(
            code,
            f"apt offers no source of the kernel {' and '.join(lacking)}",
            "run `apt update`; a deb-src line of the suite that has it helps",
        )
    return ok(code, "apt offers the sources of the kernels")


def _offered(view: View, running: KernelId | None, *packages: str) -> frozenset[str] | None:
    """The versions of ``packages`` in apt's lists, or None where apt was not asked."""
    if view.ask is None or running is None or of_rpm(running):
        return None
    text = view.ask(("apt-cache", "madison", *packages))
    if text is None:
        return None
    rows = (line.split("|") for line in split_lines(text))
    return frozenset(row[1].strip() for row in rows if len(row) > 1)


def room(view: View) -> Precondition:
    """There is room where the builder works."""
    code, cache = Code.NO_SPACE, view.paths.cache
    try:
        needed = max(0, BUILD_BYTES - sum(map(packed_bytes, cache.glob("*"))))
        lack = lacking(cache, needed, "building an update", BUILD_FILES)
    except OSError as error:
        return unknown(code, f"the room in {cache} is not known: {error.strerror}")
    if lack is not None:
        return failed(code, lack.words, lack.remedy)
    return ok(code, f"{cache} has room for a build")


def namespaces(view: View) -> Precondition:
    """systemd can give the builder namespaces of its own."""
    code = Code.NAMESPACES_DISABLED
    limits = {kind: view.text(f"proc/sys/user/max_{kind}_namespaces") for kind in _NAMESPACES}
    none = [kind for kind, limit in limits.items() if limit == "0"]
    if none:
        names = ", ".join(f"user.max_{kind}_namespaces" for kind in none)
        text = f"{names} is 0: systemd cannot confine the builder"
        return failed(code, text, "allow some (sysctl), now and in /etc/sysctl.d")
    if any(limit is None for limit in limits.values()):
        return unknown(code, "the limits of namespaces are not shown")
    return ok(code, "systemd can confine the builder")


def lkrg(view: View) -> Precondition:
    """LKRG is not there: to it a switch is an attack, which it may answer with a panic."""
    code = Code.LKRG_LOADED
    if any(map(view.there, _LKRG)):
        return failed(
            code,
            "LKRG is loaded: it takes changed code of the kernel for an attack, and may panic",
            "unload it (`systemctl stop lkrg`) and keep it from loading, or do without updates",
        )
    return ok(code, "LKRG is not loaded")


# What must hold whenever text of the kernel is written, what it takes to go live, and to build.
# Fetching and the builder themselves refuse for headers, sources and room, with the same codes.
WRITING: tuple[Check, ...] = (container, lkrg)
SWITCHING: tuple[Check, ...] = (
    kernel,
    container,
    switch,
    core,
    core_abi,
    signature,
    modules,
    symbols,
    memory,
    options,
    lkrg,
)
BUILDING: tuple[Check, ...] = (compiler, namespaces)
ALL: tuple[Check, ...] = (*SWITCHING, compiler, headers, sources, room, namespaces)
