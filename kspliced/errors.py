# SPDX-License-Identifier: GPL-2.0-or-later
"""The one error tree: every failure a user can meet has a stable code, a message and a remedy.

``code`` is part of the interface: it appears in JSON output, in the journal and, in CamelCase, as
the last part of the D-Bus error name ``org.kspliced1.Error.*``. Codes are never renamed.
"""

from __future__ import annotations

from enum import Enum


class Code(str, Enum):
    """Stable error codes, grouped by the stage that raises them."""

    # anywhere
    FAILED = "failed"
    USAGE = "usage"
    NOTHING_TO_DO = "nothing_to_do"
    CANCELLED = "cancelled"
    NO_SPACE = "no_space"
    IO = "io"
    # source and build
    SOURCE_UNREADABLE = "source_unreadable"
    SOURCE_VERSION = "source_version"
    SOURCE_UNAVAILABLE = "source_unavailable"
    SERIES_UNREADABLE = "series_unreadable"
    SERIES_OTHER_KERNEL = "series_other_kernel"
    CVE_DATA_UNREADABLE = "cve_data_unreadable"
    HEADERS_MISSING = "headers_missing"
    CONFIG_MISSING = "config_missing"
    COMPILER_MISSING = "compiler_missing"
    COMPILER_MISMATCH = "compiler_mismatch"
    COMPILE_FAILED = "compile_failed"
    TOOL_MISSING = "tool_missing"
    OBJECT_MALFORMED = "object_malformed"
    REFUSED = "refused"
    BUILDER_UNAVAILABLE = "builder_unavailable"
    BUILDER_LOST = "builder_lost"
    NO_EXEC = "no_exec"
    NO_MEMORY = "no_memory"
    # pack
    PACK_MALFORMED = "pack_malformed"
    PACK_FORMAT = "pack_format"
    PACK_OTHER_KERNEL = "pack_other_kernel"
    PACK_MISSING = "pack_missing"
    # match and link
    NO_MATCH = "no_match"
    AMBIGUOUS = "ambiguous"
    UNRESOLVED = "unresolved"
    TARGET_NOT_LOADED = "target_not_loaded"
    KERNEL_UNREADABLE = "kernel_unreadable"
    # core and switch
    CORE_NOT_LOADED = "core_not_loaded"
    CORE_ABI = "core_abi"
    CODE_BUSY = "code_busy"
    PROBED = "probed"
    REDIRECTED = "redirected"
    LOAD_FAILED = "load_failed"
    SWITCH_FAILED = "switch_failed"
    # state and policy
    STATE_MALFORMED = "state_malformed"
    SWITCHED_OFF = "switched_off"
    BOOT_LOOP = "boot_loop"
    RESIDENT_LIMIT = "resident_limit"
    NO_UPDATE = "no_update"
    # preconditions: what a machine must have before anything is built (engine/preconditions.py)
    FOREIGN_KERNEL = "foreign_kernel"
    CONTAINER = "container"
    SIGNATURE_REQUIRED = "signature_required"
    MODULES_DISABLED = "modules_disabled"
    SYMBOLS_HIDDEN = "symbols_hidden"
    KERNEL_CONFIG = "kernel_config"
    NAMESPACES_DISABLED = "namespaces_disabled"
    LKRG_LOADED = "lkrg_loaded"
    # bus
    NO_DAEMON = "no_daemon"
    NOT_AUTHORIZED = "not_authorized"
    BUSY = "busy"


class ExitCode(int, Enum):
    """Exit codes of the command line."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOTHING_TO_DO = 3
    REFUSED = 4
    NO_DAEMON_OR_RIGHT = 5
    BUSY = 6


_EXIT_CODES = {
    Code.USAGE: ExitCode.USAGE,
    Code.NOTHING_TO_DO: ExitCode.NOTHING_TO_DO,
    Code.FOREIGN_KERNEL: ExitCode.NOTHING_TO_DO,
    Code.CONTAINER: ExitCode.NOTHING_TO_DO,
    Code.REFUSED: ExitCode.REFUSED,
    Code.NO_MATCH: ExitCode.REFUSED,
    Code.AMBIGUOUS: ExitCode.REFUSED,
    Code.UNRESOLVED: ExitCode.REFUSED,
    Code.PACK_OTHER_KERNEL: ExitCode.REFUSED,
    Code.RESIDENT_LIMIT: ExitCode.REFUSED,
    Code.NO_DAEMON: ExitCode.NO_DAEMON_OR_RIGHT,
    Code.NOT_AUTHORIZED: ExitCode.NO_DAEMON_OR_RIGHT,
    Code.CODE_BUSY: ExitCode.BUSY,
    Code.PROBED: ExitCode.BUSY,
    Code.REDIRECTED: ExitCode.BUSY,
    Code.BUSY: ExitCode.BUSY,
}

# Failures of this machine, now: the same thing may succeed when it is tried again, though nobody
# changed the update. A request that ends so is kept; every other code is about what was asked for.
_TRANSIENT = frozenset(
    {
        Code.CANCELLED,
        Code.NO_SPACE,
        Code.NO_MEMORY,
        Code.NO_EXEC,
        Code.IO,
        Code.SOURCE_UNAVAILABLE,
        Code.BUILDER_UNAVAILABLE,
        Code.BUILDER_LOST,
        Code.CORE_NOT_LOADED,
        Code.CODE_BUSY,
        Code.PROBED,
        Code.REDIRECTED,
        Code.BUSY,
        # What an administrator may mend (engine/preconditions.py).
        Code.CORE_ABI,
        Code.COMPILER_MISMATCH,
        Code.HEADERS_MISSING,
        Code.KERNEL_CONFIG,
        Code.KERNEL_UNREADABLE,
        Code.LKRG_LOADED,
        Code.MODULES_DISABLED,
        Code.NAMESPACES_DISABLED,
        Code.SIGNATURE_REQUIRED,
        Code.SWITCHED_OFF,
        Code.SYMBOLS_HIDDEN,
    }
)


class KsplicedError(Exception):
    """A failure with a stable code, one clear message and, where there is one, a remedy.

    ``message``, ``remedy`` and ``details`` (a compiler's first error, the functions that threads
    are in) are for everybody: status, bus and journal. They name the running kernel's code as
    symbol and offset. ``evidence`` is for root: addresses, bytes and stacks of the running kernel.
    It goes to a file of root's (engine/evidence.py) or to the terminal of who asked, nowhere else.
    ``blamed`` names the units or functions of an update that it is about, where that is known:
    the update may work without them.
    """

    blamed: tuple[str, ...] = ()

    def __init__(
        self,
        code: Code,
        message: str,
        remedy: str = "",
        details: tuple[str, ...] = (),
        evidence: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
        self.details = details
        self.evidence = evidence

    @property
    def exit_code(self) -> ExitCode:
        """The command line's exit code for this error."""
        return _EXIT_CODES.get(self.code, ExitCode.FAILED)

    @property
    def transient(self) -> bool:
        """Whether trying the same thing again may help, nothing else having changed."""
        return self.code in _TRANSIENT

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class SourceError(KsplicedError):
    """A source, a configuration or a headers package cannot be used."""


class BuildError(KsplicedError):
    """Compiling, differencing or emitting failed."""


class PackError(KsplicedError):
    """A pack is malformed or is for another kernel."""


class MatchError(KsplicedError):
    """The running kernel is not what the pack was built against, or a symbol has no one address."""


class KernelError(KsplicedError):
    """The running kernel or its kspliced core cannot be used, or refused a switch."""


class PreconditionError(KsplicedError):
    """The machine lacks something that no work can make up for (engine/preconditions.py)."""


class StateError(KsplicedError):
    """The durable state forbids or cannot take the action."""


class BusError(KsplicedError):
    """The daemon cannot be reached, or said no."""
