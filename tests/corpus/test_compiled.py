# SPDX-License-Identifier: GPL-2.0-or-later
"""What was compiled before is used again, and never for another text."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kspliced.build.compiled import CompilerCache, compiler_cache


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("near", "far"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    (tmp_path / "tree/far/value.h").write_text("#define VALUE 1\n")
    (tmp_path / "tree/one.c").write_text('#include "value.h"\nint value = VALUE;\n')
    return tmp_path / "tree"


@pytest.fixture
def cache(tmp_path: Path) -> CompilerCache:
    found = compiler_cache(tmp_path / "compiled")
    assert found is not None
    return found


def compiled(tree: Path, cache: CompilerCache) -> tuple[bytes, bool]:
    """The object, and whether it was there."""
    environment = {**os.environ, **cache.environment(tree)}
    options = "-Inear -Ifar -c -Wp,-MMD,one.d -o one.o one.c"
    command = f"ccache --zero-stats && {cache.command('gcc')} {options} && ccache --print-stats"
    done = subprocess.run(
        ["sh", "-ec", command],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    counts = dict(line.split("\t") for line in done.stdout.splitlines() if "\t" in line)
    assert int(counts["direct_cache_hit"]) + int(counts["cache_miss"]) == 1
    return (tree / "one.o").read_bytes(), counts["direct_cache_hit"] == "1"


def test_the_same_text_is_compiled_once(tree: Path, cache: CompilerCache) -> None:
    first, known = compiled(tree, cache)
    assert not known
    (tree / "one.d").unlink()
    assert compiled(tree, cache) == (first, True)
    assert "far/value.h" in (tree / "one.d").read_text()


def test_a_header_that_changes_is_noticed(tree: Path, cache: CompilerCache) -> None:
    first, _ = compiled(tree, cache)
    (tree / "far/value.h").write_text("#define VALUE 2\n")
    second, known = compiled(tree, cache)
    assert (second != first, known) == (True, False)
    (tree / "far/value.h").write_text("#define VALUE 1\n")
    assert compiled(tree, cache) == (first, True)


def test_a_new_header_that_is_found_first_is_noticed(tree: Path, cache: CompilerCache) -> None:
    first, _ = compiled(tree, cache)
    (tree / "near/value.h").write_text("#define VALUE 3\n")
    second, known = compiled(tree, cache)
    assert (second != first, known) == (True, False)
    (tree / "near/value.h").unlink()
    assert compiled(tree, cache) == (first, True)


def test_nobody_s_settings_count(
    tree: Path, cache: CompilerCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "ccache.conf").write_text("disable = true\n")
    monkeypatch.setenv("CCACHE_CONFIGPATH", str(tree / "ccache.conf"))
    assert not compiled(tree, cache)[1]
    assert compiled(tree, cache)[1]


def test_no_cache_without_a_folder_or_ccache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compiler_cache(None) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compiler_cache(tmp_path) is None
