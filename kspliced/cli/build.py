# SPDX-License-Identifier: GPL-2.0-or-later
"""``kspliced build``: two sources to a pack, without daemon or root."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
from argparse import Namespace
from pathlib import Path
from types import FrameType
from typing import Any

from kspliced import named
from kspliced.build.kbuild import open_headers
from kspliced.build.pipeline import build
from kspliced.build.request import BuildRequest, BuildResult
from kspliced.cli import output
from kspliced.cli.changes import counted
from kspliced.errors import BuildError, Code, ExitCode, KsplicedError, SourceError
from kspliced.kernel.modules import Modules, read_modules
from kspliced.model import KernelId
from kspliced.named import read_named
from kspliced.pack import write_pack
from kspliced.plan.safety import Policy
from kspliced.record import encode
from kspliced.worker import Reporter

_LISTED = 20
# Bytes that a list of targets or symbols may have: ten times what a kernel's has.
_LISTS = 128 << 20
_TARGET = re.compile(r"[0-9A-Za-z_-]+")
_TARGETS = "name a file with one target a line, vmlinux or a module"
# /proc/kallsyms, also without addresses.
_SYMBOL = re.compile(rb"^(?:[0-9a-f]+ )?[A-Za-z] \S+", re.MULTILINE)
_SYMBOLS = "name a file as /proc/kallsyms is"
_KALLSYMS = Path("/proc/kallsyms")


def run(arguments: Namespace) -> ExitCode:
    """Build a pack.

    :raises KsplicedError: what the builder raises; NOTHING_TO_DO; IO, NO_SPACE.
    """
    stop_on_sigterm()
    if arguments.progress == "json":
        return _work_for_a_program(arguments)
    check_output(arguments.output)
    with output.progress(arguments.progress == "auto" and sys.stderr.isatty()) as sink:
        result = build(request_of(arguments), sink)
    digest = _write(Path(arguments.output), result)
    if arguments.json:
        output.print_json(result_json(result, arguments.output, digest))
    else:
        _show(result, arguments.output)
    return ExitCode.REFUSED if result.manifest is None else ExitCode.DONE


def _first(given: str | None, *usual: str) -> Path:
    """What was given, or the first of the usual places that is there."""
    places = [Path(place) for place in usual]
    return Path(given) if given else next((p for p in places if p.exists()), places[0])


def stop_on_sigterm() -> None:
    """Have SIGTERM end the build as a failure, so that it cleans up."""
    signal.signal(signal.SIGTERM, _stop)


def request_of(arguments: Namespace) -> BuildRequest:
    """The request that the options of build and plan amount to.

    :raises KsplicedError: CONFIG_MISSING, HEADERS_MISSING, IO.
    """
    release = os.uname().release
    # Debian's place first, then that of kernels of RPM packages.
    config = _first(arguments.config, f"/boot/config-{release}", f"/lib/modules/{release}/config")
    headers = _first(
        arguments.headers, f"/usr/src/linux-headers-{release}", f"/usr/src/kernels/{release}"
    )
    if arguments.targets is not None:
        modules = _listed_targets(Path(arguments.targets))
    else:
        modules = _own_targets(open_headers(headers, config).kernel)
    if arguments.symbols is not None:
        symbols: Path | None = _readable(Path(arguments.symbols))
    else:
        symbols = _own_symbols(headers, config)
    return BuildRequest(
        from_source=Path(getattr(arguments, "from")),
        to_source=Path(arguments.to),
        config=config,
        headers=headers,
        targets=modules.names,
        foreign=modules.foreign,
        only=tuple(arguments.only),
        exclude=tuple(arguments.exclude),
        jobs=arguments.jobs or len(os.sched_getaffinity(0)),
        workdir=Path(arguments.workdir) if arguments.workdir else None,
        cache=Path(arguments.cache) if arguments.cache else _own_cache(),
        policy=Policy(arguments.policy or Policy.CONSERVATIVE),
        symbols=symbols,
        commits=Path(arguments.commits) if arguments.commits else None,
        cve_data=Path(arguments.cve_data) if arguments.cve_data else None,
    )


def _own_cache() -> Path:
    """The caller's own cache, as the XDG Base Directory Specification places it."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".cache") / "kspliced"


def result_json(result: BuildResult, pack: str, digest: str | None) -> dict[str, Any]:
    """The JSON object of a build."""
    return {
        "pack": pack if digest is not None else None,
        "digest": digest,
        "update": result.manifest.update if result.manifest else None,
        "to_version": result.manifest.to_version if result.manifest else None,
        "functions": encode(result.functions),
        "refused": encode(result.refused),
        "irrelevant": encode(result.irrelevant),
        "entries": encode(result.entries),
        "seconds": {stage.stage: stage.seconds for stage in result.seconds},
    }


def _work_for_a_program(arguments: Namespace) -> ExitCode:
    """Speak the worker protocol. A refusal is a result too: who asked looks into it."""
    reporter = Reporter(sys.stdout.buffer)
    try:
        check_output(arguments.output)
        result = build(request_of(arguments), reporter.progress)
        digest = _write(Path(arguments.output), result)
    except KsplicedError as error:
        reporter.failure(error)
        return error.exit_code
    line = json.dumps({"result": result_json(result, arguments.output, digest)}, sort_keys=True)
    print(line, flush=True)
    return ExitCode.DONE


def _write(pack: Path, result: BuildResult) -> str | None:
    """Write the pack; its digest, or None when all was refused.

    :raises KsplicedError: NOTHING_TO_DO, NO_SPACE, IO.
    """
    if result.manifest is None:
        if not result.refused:
            text = "nothing that changed between the two sources is code of this kernel"
            raise KsplicedError(Code.NOTHING_TO_DO, text)
        return None
    try:
        return write_pack(pack, result.manifest, result.blobs)
    except OSError as error:
        raise unwritten(pack, error) from error


def check_output(path: str) -> None:
    """Try whether the output can be written, before it takes minutes to make it.

    :raises KsplicedError: NO_SPACE, IO.
    """
    try:
        named.check_output(Path(path))
    except OSError as error:
        raise unwritten(Path(path), error) from error


def unwritten(path: Path, error: OSError) -> KsplicedError:
    """The error for an output that cannot be written to ``path``."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    text = f"cannot write {path}: {error.strerror}"
    code = Code.NO_SPACE if full else Code.IO
    return BuildError(code, text, "choose another place with --output")


def _show(result: BuildResult, pack: str) -> None:
    if result.manifest is not None:
        output.field("pack", pack)
        output.field("update", f"{result.manifest.update} to {result.manifest.to_version}")
        output.field("changes", counted(result.functions))
        rows = [(f.target, f.unit, f.name, f.kind.value, f.why) for f in result.functions]
        output.table(("target", "unit", "function", "kind", "why"), rows)
    if result.refused:
        output.field("refused", output.plural(len(result.refused), "change"))
        refusals = [(r.code, r.unit, r.symbol, r.reason) for r in result.refused]
        output.table(("code", "unit", "symbol", "reason"), refusals)
    if result.irrelevant:
        output.field("left alone", output.plural(len(result.irrelevant), "changed file"))
        files = [(i.path, i.reason) for i in result.irrelevant[:_LISTED]]
        output.table(("file", "reason"), files)
    stages = (f"{stage.stage} {stage.seconds:.1f}" for stage in result.seconds)
    output.field("seconds", ", ".join(stages))


def _listed_targets(file: Path) -> Modules:
    try:
        found = read_modules(read_named(file, _LISTS).decode("utf-8"))
    except OSError as error:
        text = f"cannot read {file}: {error.strerror}"
        raise BuildError(Code.IO, text, _TARGETS) from error
    except UnicodeDecodeError as error:
        raise BuildError(Code.IO, f"{file} is not text: {error}", _TARGETS) from error
    odd = next((name for name in found.names if not _TARGET.fullmatch(name)), "")
    if odd or not found.names:
        what = f"{odd!r:.80} is no target" if odd else "it names no target"
        raise BuildError(Code.IO, f"cannot use {file}: {what}", _TARGETS)
    return found


def _own_targets(kernel: KernelId) -> Modules:
    """What this machine has loaded, if the update is for the kernel that runs here; else all."""
    if not _runs_here(kernel):
        return Modules((), ())
    try:
        found = read_modules(Path("/proc/modules").read_text("utf-8"))
    except FileNotFoundError:
        found = Modules((), ())  # a kernel without modules
    return Modules(("vmlinux", *found.names), found.foreign)


def _own_symbols(headers: Path, config: Path) -> Path | None:
    """The list of what this machine's kernel has, if the update is for that and it may be read."""
    try:
        kernel = open_headers(headers, config).kernel
    except SourceError:
        return None  # as the build will say
    return _KALLSYMS if _runs_here(kernel) and os.access(_KALLSYMS, os.R_OK) else None


def _runs_here(kernel: KernelId) -> bool:
    uname = os.uname()
    return uname.release == kernel.release and kernel.version in uname.version.split()


def _readable(file: Path) -> Path:
    try:
        text = read_named(file, _LISTS)
    except OSError as error:
        why = f"cannot read {file}: {error.strerror}"
        raise BuildError(Code.IO, why, _SYMBOLS) from error
    if text and not _SYMBOL.search(text):
        raise BuildError(Code.IO, f"{file} lists no symbols", _SYMBOLS)
    return file


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KsplicedError(Code.CANCELLED, "cancelled; nothing was written")
