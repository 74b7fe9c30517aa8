# SPDX-License-Identifier: GPL-2.0-or-later
"""What matching found, and what it says when the running kernel is not what was expected."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kspliced.errors import Code, MatchError
from kspliced.model import Datum, Group, RuntimeConstant, Span


class Cause(str, Enum):
    """The likely cause of a mismatch; stable words."""

    KPROBE = "kprobe"
    HOT_PATCH = "hot_patch"
    LIVEPATCH = "livepatch"
    OTHER_COMPILER = "other_compiler"
    OTHER_SOURCE = "other_source"
    OTHER_CODE = "other_code"
    OTHER_REFERENCE = "other_reference"
    NO_SYMBOL = "no_symbol"
    OVERRIDDEN = "overridden"
    AMBIGUOUS = "ambiguous"
    UNREADABLE = "unreadable"


REMEDIES = {
    Cause.KPROBE: "stop the program that probes it and apply again",
    Cause.HOT_PATCH: "remove the other hot patch and apply again",
    Cause.LIVEPATCH: "disable the livepatch and apply again",
    Cause.OTHER_COMPILER: "install the compiler that built the running kernel and build again",
    Cause.OTHER_SOURCE: "build again from the source of the running kernel's version",
}


@dataclass(frozen=True)
class Discrepancy:
    """Why something is not as compiled. ``text`` is for everybody and names symbols and offsets;
    ``evidence`` has addresses and bytes of the running kernel, for root."""

    text: str
    evidence: str = ""


@dataclass(frozen=True)
class Mismatch:
    """A function of a pre object that the running kernel does not have as compiled.

    ``address`` is the run-time address it was sought at, 0 when there was none; ``offset`` the
    first byte that differs; ``expected`` and ``found`` up to 16 bytes from there, relocated
    fields of ``expected`` being zero. ``reason`` is for everybody; ``evidence``, like address and
    bytes, for root.
    """

    target: str
    unit: str
    function: str
    address: int
    offset: int
    expected: bytes
    found: bytes
    cause: Cause
    reason: str
    evidence: str = ""

    def summary(self) -> str:
        """What is wrong with which function."""
        return f"{self.unit}: {self.function}: {self.reason}"

    def public_line(self) -> str:
        """One line for everybody: symbol, offset and reason."""
        at = f"+{self.offset:#x}" if self.address else ""
        return f"{self.unit}: {self.function}{at}: {self.reason}"

    def line(self) -> str:
        """One line for root, with addresses and bytes."""
        seen = [self.evidence] if self.evidence else []
        where = f"{self.unit}: {self.function}"
        if self.address:
            where += f"+{self.offset:#x} at {self.address + self.offset:#x}"
            if self.expected:
                seen.append(f"expected {self.expected.hex()}, found {self.found.hex()}")
        return f"{where}: {self.reason}" + (f" ({'; '.join(seen)})" if seen else "")


class NoMatchError(MatchError):
    """The running kernel's code is not what the pack was built from; ``mismatches`` says where."""

    def __init__(
        self, code: Code, message: str, remedy: str, mismatches: tuple[Mismatch, ...]
    ) -> None:
        details = tuple(m.public_line() for m in mismatches)
        super().__init__(code, message, remedy, details, tuple(m.line() for m in mismatches))
        self.mismatches = mismatches


@dataclass(frozen=True)
class ResolvedImport:
    """The run-time address, or per-CPU offset, of the update module's undefined symbol ``name``."""

    name: str
    address: int


@dataclass(frozen=True)
class MatchedSpan:
    """A span of the manifest in the running kernel.

    ``expect`` are its bytes as they are now; ``mask`` is 0x00 where the kernel may rewrite them
    at any moment and 0xff elsewhere.
    """

    span: Span
    address: int
    expect: bytes
    mask: bytes


@dataclass(frozen=True)
class MatchedDatum:
    """A constant of the manifest in the running kernel; ``expect`` are its bytes as they are now,
    which are those of the pre object with its references resolved."""

    datum: Datum
    address: int
    expect: bytes


@dataclass(frozen=True)
class MatchedConstant:
    """A runtime constant of the manifest, and the bytes that it has in the running kernel."""

    constant: RuntimeConstant
    value: bytes


@dataclass(frozen=True)
class Counts:
    """What was compared: functions, their bytes, relocated fields and rewritable sites."""

    functions: int
    bytes: int
    fields: int
    sites: int


@dataclass(frozen=True)
class Matched:
    """A pack matched against a kernel. ``groups`` are those whose targets are loaded, ``waiting``
    the targets that are not. ``unmatched`` are functions of its units that the update neither
    replaces nor needs, and that were not found as compiled."""

    groups: tuple[Group, ...]
    waiting: tuple[str, ...]
    imports: tuple[ResolvedImport, ...]
    spans: tuple[MatchedSpan, ...]
    data: tuple[MatchedDatum, ...]
    constants: tuple[MatchedConstant, ...]
    counts: Counts
    unmatched: tuple[Mismatch, ...]

    @property
    def addresses(self) -> frozenset[int]:
        """Where all spans and data are."""
        spans = frozenset(span.address for span in self.spans)
        return spans | {datum.address for datum in self.data}
