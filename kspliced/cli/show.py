# SPDX-License-Identifier: GPL-2.0-or-later
"""``kspliced show``: what a pack is."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

from kspliced.cli import output
from kspliced.cli.changes import counted
from kspliced.cli.status import entry_text
from kspliced.errors import ExitCode
from kspliced.pack import Pack, read_pack
from kspliced.record import encode


def run(arguments: Namespace) -> ExitCode:
    """Verify and explain a pack.

    :raises PackError: what is wrong with it.
    """
    pack = read_pack(Path(arguments.PACK))
    if arguments.json:
        output.print_json(_json(pack))
    else:
        _show(pack)
    return ExitCode.DONE


def _json(pack: Pack) -> dict[str, Any]:
    value: dict[str, Any] = encode(pack.manifest)
    value["digest"] = pack.digest
    value["blobs"] = [{"name": blob.name, "size": len(blob.data)} for blob in pack.blobs]
    return value


def _show(pack: Pack) -> None:
    manifest = pack.manifest
    kernel = manifest.kernel
    output.field("update", manifest.update)
    output.field("digest", pack.digest)
    output.field("for", f"{kernel.version} ({kernel.release}, {kernel.arch})")
    output.field("brings", manifest.to_version)
    output.field("compiler", f"{manifest.compiler}, core ABI {manifest.core_abi}")
    output.field("changes", counted(manifest.functions))
    rows = [(f.target, f.unit, f.name, f.kind.value, f.why) for f in manifest.functions]
    output.table(("target", "unit", "function", "kind", "why"), rows)
    if manifest.entries:
        output.field("changelog", "")
        for entry in manifest.entries:
            output.field("", entry_text(entry))
    if manifest.refused:
        output.field("refused", output.plural(len(manifest.refused), "change"))
        refusals = [(r.code, r.unit, r.symbol, r.reason) for r in manifest.refused]
        output.table(("code", "unit", "symbol", "reason"), refusals)
    output.field(
        "contents",
        f"{output.plural(len(manifest.units), 'pre object')}, "
        f"{output.plural(sum(len(g.spans) for g in manifest.groups), 'span')} to match, "
        f"{output.plural(sum(len(g.data) for g in manifest.groups), 'constant')} to change, "
        f"{output.plural(sum(len(g.imports) for g in manifest.groups), 'symbol')} to resolve",
    )
    units: Counter[tuple[str, ...]] = Counter()
    for group in manifest.groups:
        units[group.targets] += len(group.units)
    if len(units) > 1:
        output.field("groups", "each goes live when all of its targets are loaded")
        groups = [(", ".join(targets), str(count)) for targets, count in units.items()]
        output.table(("targets", "units"), groups)
