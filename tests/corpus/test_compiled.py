# SPDX-License-Identifier: GPL-2.0-or-later
"""What was compiled before is used again, and never for another text."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kspliced.build.assembler_reads import AssemblerReads
from kspliced.build.compiled import CompilerCache, compiler_cache
from kspliced.build.kbuild import Kbuild, Unit, open_headers
from tests.vm import real
from tests.vm.case import OLD_RELEASE


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


# A unit whose object has what a file holds that only the assembler reads.
_BLOB = '__asm__(".pushsection .rodata\\n.incbin \\"blob\\"\\n.popsection");\n'


@pytest.mark.parametrize("place", ["fs/bad_inode.c", "include/linux/falloc.h"])
def test_a_file_that_the_assembler_reads_is_noticed(
    tmp_path: Path, cache: CompilerCache, place: str
) -> None:
    """Directly, or by a header; and the rest of the directory is cached as ever."""
    tree = tmp_path / "tree"
    shutil.copytree(real.tree(), tree, symlinks=True, copy_function=os.link)
    for name in {"fs/bad_inode.c", place}:
        path = tree / name
        text = (
            path.read_text()
            if path.exists()
            else "#include <linux/fs.h>\n#include <linux/falloc.h>\n"
        )
        path.unlink(missing_ok=True)
        path.write_text(text + (_BLOB if name == place else ""))
    kernel = real.kernel()
    headers = open_headers(kernel, kernel / f"boot/config-{OLD_RELEASE}")
    unit = Unit("fs/bad_inode.o", "fs", "vmlinux")
    objects = tmp_path / "objects"

    def compiled(kbuild: Kbuild, content: str) -> bytes:
        (objects / "blob").write_text(content)
        assert kbuild.compile((unit,)) == {}
        return kbuild.object_path(unit).read_bytes()

    # The first time the headers may be too new for ccache to keep what was made of them.
    for content in ("the first blob", "the second blob", "the third blob"):
        shutil.rmtree(objects, ignore_errors=True)
        kbuild = Kbuild(tree, objects, headers, 1, cache=cache)
        assert content.encode() in compiled(kbuild, content)
    # Make does not know of the file either.
    assert b"a blob more" in compiled(kbuild, "a blob more")


def test_what_only_speaks_of_it_is_cached(tmp_path: Path) -> None:
    (tmp_path / "one.h").write_text('/* asm(".include <x.h>") */ // .incbin\n')
    (tmp_path / "two.c").write_text('asm("\\t.incbin\\t\\"x\\"");\n')
    (tmp_path / "three.h").write_text('asm(".include \\"x.s\\"");\n')
    for names, more in (("one.h", False), ("one.h two.c", True), ("three.h one.h", True)):
        record = tmp_path / ".unit.o.cmd"
        record.write_text(
            f"cmd_unit.o := gcc -I./include -c unit.c two.c\n\nsource_unit.o := unit.c\n\n"
            f"deps_unit.o := \\\n  {' '.join(names.split())} \\\n"
            f"    $(wildcard include/config/X) \\\n\nunit.o: $(deps_unit.o)\n"
        )
        assert AssemblerReads(tmp_path).more_than_listed(record) is more
    assert not AssemblerReads(tmp_path).more_than_listed(tmp_path / "none")
