# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutated packs, tried as the daemon tries what the builder wrote: read, match, link.

What may come of one is a clean error, or the very same module as of the whole pack, as some values
only inform people; or one that has the core compare more of the same functions, where a pre object
does not say any more what the kernel may rewrite. Anything else is a finding: another module, an
exception of another tree, a hang, memory without bound.
"""

from __future__ import annotations

import collections
import multiprocessing
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from kspliced import limits
from kspliced.errors import KsplicedError
from kspliced.kernel.core import SymbolCrc
from kspliced.kernel.offline import OfflineKernel
from kspliced.match import Matched, check_coherence, link, match
from kspliced.model import Linked
from kspliced.pack import Pack, parse_pack
from tests.torture.mutations import mutant

# Bytes of address space that a process may have, and seconds that one mutant may take.
MEMORY = 1 << 30
SECONDS = 30
# Characters of an error with its details.
LONGEST = limits.TEXT + limits.DETAILS + 1000
CRCS = (SymbolCrc("kspliced_register_update", 1), SymbolCrc("kspliced_unregister_update", 2))
REFUSED, SAME, STRICTER = "refused", "the same module", "the same module, more is compared"


@dataclass(frozen=True)
class Subject:
    """A pack, its file's content, and a kernel that it is right for."""

    content: bytes
    kernel: OfflineKernel


@dataclass(frozen=True)
class Trial:
    """What came of one mutant: ``outcome`` is REFUSED, SAME, STRICTER, or what is wrong."""

    seed: int
    kind: str
    outcome: str
    words: str

    @property
    def harmless(self) -> bool:
        """Whether it is as it should be."""
        return self.outcome in (REFUSED, SAME, STRICTER)


@dataclass(frozen=True)
class Report:
    """A campaign: trials by kind and outcome, those that did harm, bytes of the largest process."""

    counts: dict[tuple[str, str], int]
    harm: tuple[Trial, ...]
    peak: int
    seconds: float


class _Hang(BaseException):
    """Not an Exception, so that nobody's handler takes it."""


class _Unexpected:
    """A block whose exceptions are findings: what was raised is kept as text."""

    def __init__(self) -> None:
        self.words = ""

    def __enter__(self) -> _Unexpected:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is not None:
            self.words = "".join(traceback.format_exception(error, limit=-4))
        return isinstance(error, Exception)


@dataclass(frozen=True)
class Proven:
    """What matching found, and the module that it gives."""

    matched: Matched
    module: Linked


def proven(content: bytes, kernel: OfflineKernel) -> Proven:
    """What a pack's file gives; a KsplicedError for one that is no good."""
    pack = parse_pack(content, "the pack")
    check_coherence(pack)
    matched = match(pack, kernel)
    return Proven(matched, link(pack, matched, CRCS))


def tried(subject: Subject, pack: Pack, whole: Proven, seed: int) -> Trial:
    """Make a mutant and try it."""
    kind, content = mutant(pack, subject.content, seed)
    outcome, words = "a traceback", ""
    with _Unexpected() as unexpected:
        outcome, words = _outcome(content, subject.kernel, whole)
    return Trial(seed, kind, outcome, unexpected.words or words)


def _outcome(content: bytes, kernel: OfflineKernel, whole: Proven) -> tuple[str, str]:
    signal.alarm(SECONDS)
    try:
        found = proven(content, kernel)
    except KsplicedError as error:
        words = "\n".join((f"{error.code.value}: {error}", *error.details))
        clean = error.message.strip() and len(words) < LONGEST and "Traceback" not in words
        return REFUSED if clean else "an unreadable error", words[:500]
    except _Hang:
        return "a hang", ""
    except MemoryError:
        return "too much memory", ""
    finally:
        signal.alarm(0)
    if _essence(found.module) == _essence(whole.module):
        return SAME, ""
    if _stricter(found.matched, whole.matched):
        return STRICTER, ""
    return "another module", f"{found.module.name} {found.module.waiting}"[:500]


def _stricter(found: Matched, whole: Matched) -> bool:
    """Whether the same is replaced, in the same places, and all that was compared is compared."""
    if [s.span for s in found.spans] != [s.span for s in whole.spans]:
        return False
    for more, less in zip(found.spans, whole.spans, strict=True):
        if (more.address, more.expect) != (less.address, less.expect):
            return False
        if any(a & b != b for a, b in zip(more.mask, less.mask, strict=True)):
            return False
    same = (found.data, found.constants, found.imports, found.waiting)
    return same == (whole.data, whole.constants, whole.imports, whole.waiting)


def _essence(module: Linked) -> Linked:
    """A module without its name, which a pack may choose."""
    name = module.name.encode()
    return replace(module, name="", content=module.content.replace(name, bytes(len(name))))


_state: tuple[Subject, Pack, Proven]


def _begin(make: Callable[[], Subject]) -> None:
    global _state
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    def hang(*_: object) -> None:
        raise _Hang

    signal.signal(signal.SIGALRM, hang)
    subject = make()
    _state = (
        subject,
        parse_pack(subject.content, "the pack"),
        proven(subject.content, subject.kernel),
    )


def _try(seed: int) -> tuple[Trial, int]:
    trial = tried(*_state, seed)
    return trial, _peak()


def _peak() -> int:
    """Bytes that this process has had in memory at most.

    VmHWM counts since exec(); ru_maxrss would count what the process that began this one had.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def campaign(
    make: Callable[[], Subject],
    count: int,
    first_seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """Try ``count`` mutants, in a process for each processor; ``make`` gives each its subject."""
    begin = time.monotonic()
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    harm: list[Trial] = []
    peak = 0
    # A new interpreter each: what the caller has in memory is none of a pack's.
    context = multiprocessing.get_context("spawn")
    with context.Pool(initializer=_begin, initargs=(make,)) as pool:
        results: Iterator[tuple[Trial, int]] = pool.imap_unordered(
            _try, range(first_seed, first_seed + count), chunksize=16
        )
        for done, (trial, used) in enumerate(results, start=1):
            counts[trial.kind, trial.outcome] += 1
            peak = max(peak, used)
            if not trial.harmless:
                harm.append(trial)
            progress(done)
    return Report(dict(counts), tuple(harm), peak, time.monotonic() - begin)
