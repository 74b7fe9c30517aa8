# SPDX-License-Identifier: GPL-2.0-or-later
"""Frozen values that cross the borders between packages.

Addresses are run-time virtual addresses; sizes and offsets are bytes; times are seconds unless the
name says otherwise. ``unit`` is an object's path in the kernel tree (``fs/ext4/mballoc.o``),
``target`` is ``vmlinux`` or a module name as in /proc/modules (``ext4``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

# KSPLICED_ABI of kmod/kspliced_abi.h: what the builder emits and the core must speak.
CORE_ABI = 2
# The target that is the kernel proper; others are modules.
VMLINUX = "vmlinux"


@dataclass(frozen=True)
class KernelId:
    """A kernel build: ``release`` is uname -r, ``version`` the source package version."""

    release: str
    version: str
    arch: str


@dataclass(frozen=True)
class ChangelogEntry:
    """One bullet of a changelog that the upgrade adds. ``bugs`` are bug numbers without '#'."""

    version: str
    subject: str
    cves: tuple[str, ...]
    bugs: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """A change that will not go live, and why. ``code`` is a stable word (docs/refusals.md)."""

    code: str
    unit: str
    symbol: str
    reason: str
    evidence: str = ""


class ChangeKind(str, Enum):
    """What the update does with a symbol: a function replaced or added, a datum added, a constant
    changed in place, or a callback of a variable."""

    CHANGED = "changed"
    NEW = "new"
    DATA = "data"
    CONSTANT = "constant"


@dataclass(frozen=True)
class FunctionChange:
    """What changes, or comes, and ``why``: own source, inlined callee, ..."""

    target: str
    unit: str
    name: str
    kind: ChangeKind
    why: str


@dataclass(frozen=True)
class Hold:
    """A module whose load the core holds until its part of an applied update is in. Where the part
    does not come, a ``required`` one does not load; any other loads with its old code."""

    module: str
    required: bool


@dataclass(frozen=True)
class Linked:
    """An update module to load, and its name; ``waiting`` are targets that have to be loaded before
    the units ``held`` can go live, in another module; ``holds`` are for their loads. It takes about
    ``size`` bytes of kernel memory."""

    name: str
    content: bytes
    size: int
    waiting: tuple[str, ...]
    held: tuple[str, ...]
    holds: tuple[Hold, ...] = ()


class ImportKind(str, Enum):
    """How the linker finds the address of an undefined symbol of the update module.

    UNIT: ``symbol`` is defined in the pre object of ``unit``; its address comes from matching.
    EXTERN: external linkage, by the scope rules that ld and the module loader use for ``target``.
    CORE: left to the module loader (the kernel core's own interface).
    """

    UNIT = "unit"
    EXTERN = "extern"
    CORE = "core"


@dataclass(frozen=True)
class Import:
    """An undefined symbol ``name`` in the update module's symbol table.

    ``symbol`` is the name in the pre object's symbol table and ``index`` its symbol table index
    there (local names may repeat); index is -1 for EXTERN and CORE.
    """

    name: str
    kind: ImportKind
    target: str
    unit: str
    symbol: str
    index: int


@dataclass(frozen=True)
class Span:
    """Code of the running kernel that the update replaces or keeps threads out of.

    ``symbol``/``index`` name it in the pre object of ``unit``. ``import_name`` is the undefined
    symbol of the update module that stands for its run-time address. The linker writes ``size``
    expected bytes at ``buffer_offset`` of its group's ``.kspliced.expect`` and the mask at the same
    offset of ``.kspliced.mask``. ``jump_offset`` is -1 for a range that gets no jump (.cold part).
    """

    target: str
    unit: str
    symbol: str
    index: int
    size: int
    jump_offset: int
    import_name: str
    buffer_offset: int


@dataclass(frozen=True)
class Datum:
    """Data of the running kernel that the update changes in place: ``size`` bytes at ``offset`` of
    a symbol. All of a constant; of data that are written, one pointer that was NULL.

    ``symbol``, ``index``, ``import_name`` and ``buffer_offset`` as in :class:`Span`; there is no
    mask. Its new content is at ``value_offset`` of ``.kspliced.values``; there the linker
    copies the 8-byte addresses at the offsets ``kept`` from what was found.
    """

    target: str
    unit: str
    symbol: str
    index: int
    offset: int
    size: int
    import_name: str
    buffer_offset: int
    value_offset: int
    kept: tuple[int, ...]


@dataclass(frozen=True)
class RuntimeConstant:
    """An immediate in new code, ``size`` bytes at ``offset`` of its group's ``section``, that the
    linker sets to what ``variable`` of the running vmlinux holds (asm/runtime-const.h)."""

    section: str
    offset: int
    size: int
    variable: str


@dataclass(frozen=True)
class PreUnit:
    """A pre object in a pack: ``blob`` is its name among the pack's blobs."""

    target: str
    unit: str
    blob: str


@dataclass(frozen=True)
class Group:
    """Units that go live together or not at all: when all of ``targets`` are loaded.

    ``blob`` names their part of the update module among the pack's blobs, an object whose undefined
    symbols are ``imports``. ``pinned``: the kernel may keep an address inside it; what was applied
    once stays in memory in any case. ``required`` are targets that must not run their old code once
    the other ones of ``targets`` run new code, of another group: all units of this one are theirs.
    Groups of the same ``together`` are of one change: what leaves one out leaves out all of them.
    """

    blob: str
    targets: tuple[str, ...]
    units: tuple[str, ...]
    imports: tuple[Import, ...]
    spans: tuple[Span, ...]
    data: tuple[Datum, ...]
    constants: tuple[RuntimeConstant, ...]
    pinned: bool
    required: tuple[str, ...] = ()
    together: str = ""


@dataclass(frozen=True)
class Manifest:
    """What a pack says of itself. ``update`` is the update module's name (``ks_<digest>``);
    ``glue`` is the part that makes a module of any ``groups``."""

    update: str
    kernel: KernelId
    to_version: str
    compiler: str
    core_abi: int
    units: tuple[PreUnit, ...]
    functions: tuple[FunctionChange, ...]
    refused: tuple[Refusal, ...]
    entries: tuple[ChangelogEntry, ...]
    glue: Group
    groups: tuple[Group, ...]

    @property
    def pinned(self) -> bool:
        """Whether any group is."""
        return any(group.pinned for group in self.groups)


@dataclass(frozen=True)
class Progress:
    """A step of a long job: ``phase`` is a stable word, ``fraction`` 0..1 of the whole job."""

    phase: str
    fraction: float
    message: str


ProgressSink = Callable[[Progress], None]


def no_progress(_: Progress) -> None:
    """A sink for callers that do not show progress."""
