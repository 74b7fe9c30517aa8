# SPDX-License-Identifier: GPL-2.0-or-later
"""The packs that are mutated: a small one made by the compiler here, and one of the real tree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kspliced.build.closure import extern_import, unit_import
from kspliced.model import ChangeKind, FunctionChange, Import, ImportKind, Span
from kspliced.pack import pack_bytes
from tests.corpus.match import real_pack
from tests.corpus.match.kit import TARGET, compiled, index_of, linked, packed, running, span_of
from tests.torture.packs import Subject

_SITES = Path(__file__).parents[1] / "corpus/match/sites.S"
_SOURCE = """
int other(int);
extern int shared;
static int total;
static const char *const words[] = { "one", "two", "three" };
static __attribute__((noinline)) int helper(int n) { return n * total + shared; }
int entry(int n) { total += other(n) + helper(n) + words[n & 1][0]; return total; }
int again(int n) { return entry(n + 1) - helper(n); }
"""
_NAMES = """
    .section .kspliced.strings, "a"
.Lentry:  .asciz "entry"
.Lhelper: .asciz "helper"
.Lmod:    .asciz "mod"
    .section .kspliced.expect, "aw"
.Lexpect:
    .skip 256
    .section .kspliced.mask, "aw"
.Lmask:
    .skip 256
    .section __versions, "a"
    .quad 0
    .asciz "kspliced_register_update"
    .balign 64
    .section .kspliced.spans, "aw"
"""


def _part(imports: dict[str, Import], spans: tuple[Span, ...]) -> bytes:
    """What the builder emits for two functions: new code, and the table of kspliced_abi.h."""
    text = ".section .text\nnew:\n    call kspliced_register_update\n"
    text += "".join(f'    .quad "{wanted.name}"\n' for wanted in imports.values()) + _NAMES
    for span in spans:
        at = span.buffer_offset
        text += f'    .quad "{span.import_name}", new, .Lexpect + {at}, .Lmask + {at}\n'
        text += f"    .quad .L{span.symbol}, .Lmod\n    .long {span.size}, {span.jump_offset}\n"
    return compiled(text, language="assembler")


def small() -> Subject:
    """Two units, one of them with the special sections of the kernel, and two spans."""
    pre = compiled(_SOURCE)
    sites = compiled(_SITES.read_text(), language="assembler")
    module = linked(compiled(_SOURCE, split=False), sites)
    core = Import("kspliced_register_update", ImportKind.CORE, "kspliced", "", "", -1)
    core = replace(core, symbol=core.name)
    names = ("total", "entry", "helper")
    imports = {name: unit_import(TARGET, "a.o", index_of(pre, name), name) for name in names}
    imports["other"] = extern_import(TARGET, "other")
    spans = tuple(
        replace(span_of(pre, name), buffer_offset=at, import_name=imports[name].name)
        for name, at in (("entry", 0), ("helper", 128))
    )
    part = _part(imports, spans)
    pack = packed({"a.o": pre, "b.o": sites}, (*imports.values(), core), spans, part)
    glue = replace(pack.manifest.glue, imports=(core,))
    functions = tuple(
        FunctionChange(TARGET, "a.o", span.symbol, ChangeKind.CHANGED, "source") for span in spans
    )
    manifest = replace(pack.manifest, glue=glue, functions=functions)
    return Subject(pack_bytes(manifest, pack.blobs)[0], running(module))


def real(folder: Path) -> Subject:
    """A pack of one unit of ext4, and the module that Debian shipped."""
    return Subject(real_pack.content(folder), real_pack.laid_out(real_pack.shipped()))


def itself(subject: Subject) -> Subject:
    """A subject that is sent to each process, and not made there."""
    return subject
