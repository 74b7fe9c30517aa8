# SPDX-License-Identifier: GPL-2.0-or-later
"""``kspliced match``: a pack against the running kernel or against files; nothing is changed."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kspliced.cli import output
from kspliced.errors import Code, ExitCode, KsplicedError
from kspliced.kernel.image import KernelImage
from kspliced.kernel.live import LiveKernel
from kspliced.kernel.offline import OfflineKernel, read_module_file
from kspliced.match import (
    Explanation,
    Matched,
    Mismatch,
    NoMatchError,
    check_coherence,
    explain,
    match,
)
from kspliced.pack import Pack, read_pack

_LISTED = 20


def run(arguments: Namespace) -> ExitCode:
    """Match a pack, and explain a mismatch.

    :raises KsplicedError: what match() and read_pack() raise; KERNEL_UNREADABLE without root.
    """
    pack = read_pack(Path(arguments.PACK))
    shown = not arguments.json and sys.stderr.isatty()
    with _kernel(pack, arguments.image) as kernel:
        check_coherence(pack)
        try:
            with output.progress(shown) as sink:
                matched = match(pack, kernel, sink)
        except NoMatchError as error:
            told = [explain(pack, kernel, m) for m in error.mismatches[:_LISTED]]
            if arguments.json:
                mismatches = [_explained_json(e) for e in told]
                public = KsplicedError(error.code, error.message, error.remedy, error.details)
                output.print_json({**output.error_json(public), "mismatches": mismatches})
            else:
                # The details and the evidence are the same mismatches, in less detail.
                output.print_error(KsplicedError(error.code, error.message, error.remedy))
                for explanation in told:
                    _show_explanation(explanation)
            return error.exit_code
    if arguments.json:
        output.print_json(_json(pack, matched))
    else:
        _show(pack, matched)
    return ExitCode.DONE


@contextmanager
def _kernel(pack: Pack, images: list[str]) -> Iterator[KernelImage]:
    folder = Path(images[-1]) if images else Path()
    if images and folder.is_dir():
        if len(images) > 1:
            raise KsplicedError(
                Code.USAGE, "a captured kernel is a whole one", "name one directory, or .ko files"
            )
        with LiveKernel(folder / "proc", folder / "sys") as kernel:
            yield kernel
        return
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
        "data": [
            {"target": d.datum.target, "unit": d.datum.unit, "name": d.datum.symbol}
            for d in matched.data
        ],
        "imports": len(matched.imports),
        "unmatched": [_mismatch_json(m) for m in matched.unmatched],
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
        f"{output.plural(len(matched.data), 'constant')} to change, "
        f"{output.plural(len(matched.imports), 'symbol')}",
    )
    if matched.unmatched:
        text = f"{output.plural(len(matched.unmatched), 'function')} that the update does not need"
        output.field("unmatched", text)
        for mismatch in matched.unmatched[:_LISTED]:
            output.field("", mismatch.line())


def _show_explanation(explanation: Explanation) -> None:
    mismatch = explanation.mismatch
    print()
    output.field("function", f"{mismatch.function} in {mismatch.unit} ({mismatch.target})")
    if mismatch.address:
        output.field("offset", f"{mismatch.offset:#x} at {mismatch.address + mismatch.offset:#x}")
    output.field("expected", mismatch.expected.hex(" "))
    for instruction in explanation.expected:
        output.field("", instruction.line())
    output.field("found", mismatch.found.hex(" "))
    for instruction in explanation.found:
        output.field("", instruction.line())
    output.field("cause", f"{mismatch.cause.value}: {mismatch.reason}", "red")
    if mismatch.evidence:
        output.field("", mismatch.evidence)


def _explained_json(explanation: Explanation) -> dict[str, Any]:
    return {
        **_mismatch_json(explanation.mismatch),
        "expected_code": [i.line() for i in explanation.expected],
        "found_code": [i.line() for i in explanation.found],
    }


def _mismatch_json(mismatch: Mismatch) -> dict[str, Any]:
    return {
        "target": mismatch.target,
        "unit": mismatch.unit,
        "function": mismatch.function,
        "address": mismatch.address,
        "offset": mismatch.offset,
        "expected": mismatch.expected.hex(),
        "found": mismatch.found.hex(),
        "cause": mismatch.cause.value,
        "reason": mismatch.reason,
        "evidence": mismatch.evidence,
    }
