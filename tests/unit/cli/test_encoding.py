# SPDX-License-Identifier: GPL-2.0-or-later
"""Output is whole and readable whatever the encoding of the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kspliced.cli.table import VERBS
from kspliced.pack import write_pack
from tests.unit.engine.fakes import manifest

ENCODINGS = ("latin-1", "ascii", "cp437", "utf-8")
NASTY = "“a → b” … naïve 漢 \U0001f4a9 \udc80"
_PRINTS = """
import sys
from kspliced.cli import output
from kspliced.errors import Code, KsplicedError
output.open_output()
text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
error = KsplicedError(Code.FAILED, text, text, (text,))
getattr(output, sys.argv[1])(*eval(sys.argv[2], {"text": text, "error": error}))
"""


def _run(encoding: str, *command: str, given: str = "") -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    content = given.encode("utf-8", "surrogateescape")
    command = (sys.executable, *command)
    return subprocess.run(command, input=content, env=environment, capture_output=True, check=False)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("field", '("reason", text)'),
        ("table", '(["reason"], [[text], ["last"]])'),
        ("print_json", "({text: text},)"),
        ("print_error", "(error,)"),
    ],
)
def test_no_text_stops_the_output(encoding: str, function: str, arguments: str) -> None:
    done = _run(encoding, "-c", _PRINTS, function, arguments, given=NASTY)
    assert done.returncode == 0, done.stderr
    text = (done.stdout + done.stderr).decode(encoding, "strict")
    if function == "print_json":
        ((key, value),) = json.loads(text).items()
        # What stands for a byte that is no text has no form in UTF-8.
        assert key == value == NASTY
    elif encoding == "ascii":
        assert '"a -> b" ... na\\xefve \\u6f22 \\U0001f4a9' in text
    elif encoding == "utf-8":
        assert "“a → b” … naïve 漢" in text


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_no_verb_fails_over_an_encoding(verb: str, tmp_path: Path) -> None:
    shown = _run("latin-1", "-m", "kspliced.cli", verb, "--help")
    assert (shown.returncode, shown.stderr) == (0, b"") and shown.stdout
    # A file's name that no encoding has, in an error.
    name = str(tmp_path / NASTY)
    wrong = _run("latin-1", "-m", "kspliced.cli", verb, name, name)
    assert b"Traceback" not in wrong.stderr and wrong.stderr.strip()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_pack_is_shown_whole(encoding: str, tmp_path: Path) -> None:
    entry = manifest().entries[0]
    pack = tmp_path / "a.kspack"
    entries = (replace(entry, subject="a → b 漢"), replace(entry, subject="the last"))
    write_pack(pack, replace(manifest(), entries=entries), ())
    done = _run(encoding, "-m", "kspliced.cli", "show", str(pack))
    assert (done.returncode, done.stderr) == (0, b"")
    assert "the last" in done.stdout.decode(encoding)
    if encoding in ("latin-1", "ascii"):
        assert "a -> b \\u6f22" in done.stdout.decode(encoding)
