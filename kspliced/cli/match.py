# SPDX-License-Identifier: GPL-2.0-or-later
"""``kspliced match``: a pack against the running kernel or against files; nothing is changed."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kspliced.cli import output
from kspliced.cli.disassembly import disassembly
from kspliced.errors import ExitCode
from kspliced.kernel.image import KernelImage
from kspliced.kernel.live import LiveKernel
from kspliced.kernel.offline import OfflineKernel, read_module_file
from kspliced.match import Matched, Mismatch, NoMatchError, match
from kspliced.pack import Pack, read_pack

_LISTED = 20


def run(arguments: Namespace) -> ExitCode:
    """Match a pack, and explain a mismatch.

    :raises KsplicedError: what match() and read_pack() raise; KERNEL_UNREADABLE without root.
    """
    pack = read_pack(Path(arguments.PACK))
    shown = not arguments.json
    try:
        with _kernel(pack, arguments.image) as kernel, output.progress(shown) as sink:
            matched = match(pack, kernel, sink)
    except NoMatchError as error:
        if arguments.json:
            mismatches = [_mismatch_json(pack, m) for m in error.mismatches]
            output.print_json({**output.error_json(error), "mismatches": mismatches})
        else:
            output.print_error(error)
            for mismatch in error.mismatches[:_LISTED]:
                _explain(pack, mismatch)
        return error.exit_code
    if arguments.json:
        output.print_json(_json(pack, matched))
    else:
        _show(pack, matched)
    return ExitCode.DONE


@contextmanager
def _kernel(pack: Pack, images: list[str]) -> Iterator[KernelImage]:
    if images:
        files = [read_module_file(Path(image)) for image in images]
        yield OfflineKernel(pack.manifest.kernel.release, files)
        return
    with LiveKernel() as kernel:
        yield kernel


def _json(pack: Pack, matched: Matched) -> dict[str, Any]:
    counts = matched.counts
    return {
        "digest": pack.digest,
        "matched": True,
        "functions": counts.functions,
        "bytes": counts.bytes,
        "fields": counts.fields,
        "sites": counts.sites,
        "spans": [
            {"target": s.span.target, "unit": s.span.unit, "name": s.span.symbol}
            for s in matched.spans
        ],
        "imports": len(matched.imports),
        "unmatched": [_mismatch_json(pack, m) for m in matched.unmatched],
    }


def _show(pack: Pack, matched: Matched) -> None:
    counts = matched.counts
    output.field("update", pack.manifest.update)
    output.field("match", "the kernel runs what the pack was built against", "green")
    output.field(
        "compared",
        f"{output.plural(counts.functions, 'function')}, {output.plural(counts.bytes, 'byte')}, "
        f"{output.plural(counts.fields, 'relocated field')}, "
        f"{output.plural(counts.sites, 'site')} that the kernel rewrites",
    )
    output.field(
        "found",
        f"{output.plural(len(matched.spans), 'span')} to replace or to guard, "
        f"{output.plural(len(matched.imports), 'symbol')}",
    )
    if matched.unmatched:
        text = f"{output.plural(len(matched.unmatched), 'function')} that the update does not need"
        output.field("unmatched", text)
        for mismatch in matched.unmatched[:_LISTED]:
            output.field("", mismatch.line())


def _explain(pack: Pack, mismatch: Mismatch) -> None:
    code = disassembly(pack, mismatch)
    print()
    output.field("function", f"{mismatch.function} in {mismatch.unit} ({mismatch.target})")
    if mismatch.address:
        output.field("offset", f"{mismatch.offset:#x} at {mismatch.address + mismatch.offset:#x}")
    output.field("expected", mismatch.expected.hex(" "))
    for line in code.expected:
        output.field("", line)
    output.field("found", mismatch.found.hex(" "))
    for line in code.found:
        output.field("", line)
    output.field("cause", f"{mismatch.cause.value}: {mismatch.reason}", "red")


def _mismatch_json(pack: Pack, mismatch: Mismatch) -> dict[str, Any]:
    code = disassembly(pack, mismatch)
    return {
        "target": mismatch.target,
        "unit": mismatch.unit,
        "function": mismatch.function,
        "address": mismatch.address,
        "offset": mismatch.offset,
        "expected": mismatch.expected.hex(),
        "found": mismatch.found.hex(),
        "expected_code": list(code.expected),
        "found_code": list(code.found),
        "cause": mismatch.cause.value,
        "reason": mismatch.reason,
    }
