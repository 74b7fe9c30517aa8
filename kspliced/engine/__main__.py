# SPDX-License-Identifier: GPL-2.0-or-later
"""The worker: ``python3 -m kspliced.engine [--root DIR] VERB [PACK]`` (ARCHITECTURE.md).

JSON lines on stdout (kspliced/worker.py); the exit status is that of the command line.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

from kspliced import limits
from kspliced.engine import evidence, replay, transactions
from kspliced.engine.builder import UnitBuilder
from kspliced.engine.dnf import DnfFetcher
from kspliced.engine.edges import Cancel, Context, Fetcher, Job
from kspliced.engine.fetch import AptFetcher
from kspliced.engine.fetch_unit import in_unit
from kspliced.engine.journal import Event, Facts, SystemJournal
from kspliced.engine.kernels import running_kernel
from kspliced.engine.live import RunningKernel
from kspliced.engine.paths import Paths
from kspliced.engine.policy import Backoff
from kspliced.engine.resident import read_limit
from kspliced.engine.switch import Outcome
from kspliced.engine.versions import of_rpm
from kspliced.errors import Code, ExitCode, KsplicedError
from kspliced.oserror import translate
from kspliced.worker import Reporter

_PLAIN: dict[str, Callable[[Context], Outcome]] = {
    "upgrade": transactions.upgrade,
    "plan": transactions.plan,
    "build": transactions.build,
    "undo": transactions.undo,
    "fetch": transactions.fetch,
    "replay": replay.replay,
    "widen": transactions.widen,
    "healthy": replay.healthy,
    "stopped": replay.stopped,
}
_USAGE = (
    "python3 -m kspliced.engine [--root DIR] "
    "upgrade|plan|build|apply [PACK]|undo|match PACK|replay|widen|fetch|healthy|stopped"
)


@dataclass(frozen=True)
class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def _fetcher(paths: Paths) -> Fetcher:
    """By what the running kernel is a package of; where that is not known, nothing is fetched."""
    try:
        rpm = of_rpm(running_kernel(paths))
    except KsplicedError:
        rpm = False
    return DnfFetcher(paths, download=in_unit) if rpm else AptFetcher(paths, download=in_unit)


def system_context(paths: Paths, job: Job) -> Context:
    """The context of a real machine."""
    limit = read_limit(os.environ)
    if limit.complaint:
        print(f"kspliced: {limit.complaint}", file=sys.stderr, flush=True)
    return Context(
        paths=paths,
        job=job,
        journal=SystemJournal(),
        fetcher=_fetcher(paths),
        builder=UnitBuilder(paths),
        kernel=RunningKernel(paths),
        clock=SystemClock(),
        backoff=Backoff(),
        resident_limit=limit,
    )


def perform(context: Context, verb: str, operands: list[str]) -> Outcome:
    """Do one verb.

    :raises KsplicedError: USAGE for an unknown verb; what the verb raises.
    """
    if verb in _PLAIN and not operands:
        return _PLAIN[verb](context)
    if verb == "apply" and len(operands) <= 1:
        return transactions.apply(context, Path(operands[0]) if operands else None)
    if verb == "match" and len(operands) == 1:
        return transactions.match(context, Path(operands[0]))
    raise KsplicedError(Code.USAGE, f"usage: {_USAGE}")


def main(arguments: list[str]) -> int:
    """Run a worker; returns its exit status."""
    reporter = Reporter(sys.stdout.buffer)
    cancel = Cancel()
    root, verb, operands = _parsed(arguments)
    paths = Paths(root)
    _report_bugs(reporter, paths)

    def stop(_number: int, _frame: FrameType | None) -> None:
        cancel.wanted = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        context = system_context(paths, Job(reporter.progress, cancel))
        try:
            reporter.result(perform(context, verb, operands))
        except OSError as error:
            raise translate(error) from error
        except MemoryError as error:
            raise KsplicedError(
                Code.FAILED,
                f"the job needs more than {limits.WORKER_MEMORY >> 20} MiB of memory",
                "see what it reads; report it if that is an honest pack or package",
            ) from error
    except KsplicedError as error:
        evidence.keep(paths, error, verb)
        reporter.failure(error)
        return int(error.exit_code)
    return int(ExitCode.DONE)


def _bound_memory() -> None:
    """Whatever is read, and whatever is wrong with our limits, the machine keeps its memory."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = limits.WORKER_MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit if most < 0 else min(limit, most), most))


def _parsed(arguments: list[str]) -> tuple[Path, str, list[str]]:
    """The root, the verb ("" where there is none) and its operands."""
    root = Path("/")
    if arguments[:1] == ["--root"] and len(arguments) > 1:
        root, arguments = Path(arguments[1]), arguments[2:]
    return root, arguments[0] if arguments else "", arguments[1:]


def _report_bugs(reporter: Reporter, paths: Paths) -> None:
    """A mistake of ours still ends with a line of the protocol and an entry in the journal. What
    the exception says may be of the running kernel, so it is evidence."""

    def report(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        place = ""
        if traceback is not None:
            code = traceback.tb_frame.f_code
            place = f"{Path(code.co_filename).name}:{traceback.tb_lineno}"
        text = f"internal error at {place}: {kind.__name__}"
        failure = KsplicedError(Code.FAILED, text, "please report it", (), (f"{error}",))
        evidence.keep(paths, failure, "internal")
        text = "\n".join((text, *failure.details))
        reporter.failure(failure)
        SystemJournal().send(Event.FAILED, text, Facts(code=failure.code.value))

    sys.excepthook = report


if __name__ == "__main__":
    _bound_memory()
    sys.exit(main(sys.argv[1:]))
