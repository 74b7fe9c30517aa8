# SPDX-License-Identifier: GPL-2.0-or-later
"""The builder on the real packages of the first upgrade, and on what can be wrong with them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kspliced.build import pipeline
from kspliced.build.history import History
from kspliced.build.pipeline import build
from kspliced.build.planned import Planned, planned
from kspliced.build.request import BuildRequest, BuildResult
from kspliced.errors import Code, KsplicedError
from kspliced.model import Progress, no_progress
from kspliced.pack import pack_bytes, read_pack
from kspliced.plan.attribution import Attribution, Claim
from kspliced.plan.edits import Spot
from kspliced.plan.safety import Policy
from kspliced.source.lines import hunks
from tests.vm import cache, real
from tests.vm.case import NEW_VERSION, OLD_RELEASE, OLD_VERSION

TOP = Path(__file__).parents[2]
pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def request_() -> BuildRequest:
    old, new = cache.debs(*real.SOURCES)
    kernel = real.kernel()
    return BuildRequest(
        from_source=old,
        to_source=new,
        config=kernel / f"boot/config-{OLD_RELEASE}",
        headers=kernel,
        targets=("vmlinux", "ext4"),
        only=(),
        jobs=2,
        workdir=None,
    )


def refusal(request: BuildRequest) -> KsplicedError:
    with pytest.raises(KsplicedError) as caught:
        build(request, no_progress)
    assert caught.value.message
    assert caught.value.remedy
    return caught.value


def test_the_first_upgrade_is_two_functions_and_reproducible(
    request_: BuildRequest, tmp_path: Path
) -> None:
    steps: list[Progress] = []
    result = build(request_, steps.append)
    assert [(f.target, f.unit, f.name, f.kind.value, f.why) for f in result.functions] == [
        ("ext4", "fs/ext4/mballoc.o", "ext4_mb_init_group", "changed",
         "inlined callee: ext4_mb_get_buddy_page_lock"),
        ("ext4", "fs/ext4/mballoc.o", "ext4_mb_load_buddy_gfp", "changed", "own source"),
    ]  # fmt: skip
    assert result.refused == ()
    assert [entry.bugs for entry in result.entries] == [("1154101",)]
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert not any("the rest" in step.message for step in steps), "one walk was enough"
    assert result.manifest is not None
    first = pack_bytes(result.manifest, result.blobs)

    # Again, through the command line, at another place: the same bytes.
    pack = tmp_path / "again.kspack"
    targets = tmp_path / "targets"
    targets.write_text("vmlinux\next4\n")
    command = [sys.executable, "-m", "kspliced.cli", "build", "--json"]
    command += ["--from", str(request_.from_source), "--to", str(request_.to_source)]
    command += ["--config", str(request_.config), "--headers", str(request_.headers)]
    command += ["--targets", str(targets), "-o", str(pack)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=TOP)
    said = json.loads(done.stdout)
    assert (pack.read_bytes(), said["digest"]) == first
    assert {f["name"] for f in said["functions"]} == {
        "ext4_mb_init_group", "ext4_mb_load_buddy_gfp",
    }  # fmt: skip
    assert set(said["seconds"]) >= {"unpack", "compile", "emit"}
    assert read_pack(pack).manifest == result.manifest


@pytest.fixture
def on_trees(request_: BuildRequest) -> BuildRequest:
    """The request on an unpacked tree of what ext4 needs, which is quick; nothing changes."""
    return dataclasses.replace(request_, from_source=real.tree(), to_source=real.tree())


def changed(request: BuildRequest, folder: Path, file: str, more: str) -> BuildRequest:
    """The request with ``more`` at the end of ``file`` in the new tree."""
    shutil.copytree(request.from_source, folder, symlinks=True, copy_function=os.link)
    path = folder / file
    text = path.read_text()
    path.unlink()
    path.write_text(text + more)
    return dataclasses.replace(request, to_source=folder)


def test_a_module_that_is_not_loaded_is_refused(on_trees: BuildRequest, tmp_path: Path) -> None:
    request = changed(on_trees, tmp_path / "new", "fs/ext4/mballoc.c", "int new_variable;\n")
    result = build(dataclasses.replace(request, targets=("vmlinux",)), no_progress)
    assert result.manifest is None
    assert [r.code for r in result.refused] == ["module_not_loaded"]


def test_the_same_source_twice_is_nothing_to_do(on_trees: BuildRequest) -> None:
    result = build(on_trees, no_progress)
    assert result.manifest is None
    assert not result.refused


def test_a_change_that_compiles_to_nothing_is_nothing_to_do(
    on_trees: BuildRequest, tmp_path: Path
) -> None:
    """Blank lines at the top shift every __LINE__, which the #line directives take back."""
    request = changed(on_trees, tmp_path / "new", "fs/ext4/mballoc.c", "/* the end */\n")
    source = tmp_path / "new/fs/ext4/mballoc.c"
    source.write_text("\n\n\n" + source.read_text())
    result = build(request, no_progress)
    assert result.manifest is None
    assert not result.refused
    assert "compile" in {stage.stage for stage in result.seconds}


def test_a_source_that_was_not_kept_is_fetched_when_a_unit_includes_it(
    on_trees: BuildRequest, tmp_path: Path
) -> None:
    include = '#include "extra.c"\n'
    old = changed(on_trees, tmp_path / "old", "fs/ext4/mballoc.c", include).to_source
    (old / "fs/ext4/extra.c").write_text("static inline int extra(int n) { return n + 1; }\n")
    on_old = dataclasses.replace(on_trees, from_source=old)
    request = changed(on_old, tmp_path / "new", "fs/ext4/mballoc.c", "extern int more;\n")
    result = build(request, no_progress)
    assert not result.refused
    assert "compile" in {stage.stage for stage in result.seconds}


def test_a_source_that_a_unit_includes_changes_that_unit(
    on_trees: BuildRequest, tmp_path: Path
) -> None:
    old = changed(on_trees, tmp_path / "old", "fs/ext4/mballoc.c", '#include "extra.c"\n')
    extra = "int ext4_extra(int n);\nint ext4_extra(int n)\n{\n\treturn n + 1;\n}\n"
    (tmp_path / "old/fs/ext4/extra.c").write_text(extra)
    on_old = dataclasses.replace(on_trees, from_source=old.to_source)
    request = changed(on_old, tmp_path / "new", "fs/ext4/extra.c", "")
    (tmp_path / "new/fs/ext4/extra.c").write_text(extra.replace("+ 1", "+ 2"))
    result = build(request, no_progress)
    assert not result.refused
    assert [(f.unit, f.name, f.why) for f in result.functions] == [
        ("fs/ext4/mballoc.o", "ext4_extra", "header: fs/ext4/extra.c")
    ]
    fates = {fate.component.files: fate.decision.value for fate in result.fates}
    assert fates == {("fs/ext4/mballoc.c",): "live", ("fs/ext4/extra.c",): "live"}


def test_a_comment_in_a_header_is_nothing_to_do(on_trees: BuildRequest, tmp_path: Path) -> None:
    request = changed(on_trees, tmp_path / "new", "fs/ext4/ext4.h", "/* more */\n")
    result = build(request, no_progress)
    assert result.manifest is None and not result.refused
    assert [i.reason for i in result.irrelevant] == [
        "only comments, what is not configured, or what to inline"
    ]


@pytest.fixture
def mixed(on_trees: BuildRequest, tmp_path: Path) -> BuildRequest:
    """An upgrade of three files and a header, of which one file can go live."""
    request = changed(on_trees, tmp_path / "new", "fs/ext4/inode.c", "this is not C\n")
    edits = (
        ("ext4.h", "#define EXT4_MAX_CON", "#define EXT4_FRESH 3\n#define EXT4_MAX_CON"),
        ("ext4.h", "\tunsigned long   bb_state;", "\tunsigned long   bb_state;\n\tint bb_fresh;"),
        ("mballoc.c", "\tBUG_ON(ac->ac_status == AC_STATUS_FOUND);\n\n",
         "\tBUG_ON(ac->ac_status == AC_STATUS_FOUND + EXT4_FRESH);\n\n"),
        ("balloc.c", "\treturn grp_info[indexh];",
         "\treturn grp_info[indexh]->bb_fresh ? NULL : grp_info[indexh];"),
    )  # fmt: skip
    for name, before, after in edits:
        path = tmp_path / "new/fs/ext4" / name
        text = path.read_text()
        path.unlink()
        assert before in text
        path.write_text(text.replace(before, after, 1))
    return request


def test_what_can_go_live_goes_without_the_rest(mixed: BuildRequest) -> None:
    result = build(mixed, no_progress)
    fates = {fate.component.id: fate.decision.value for fate in result.fates}
    assert fates["fs/ext4/inode.c"] == "reboot"
    assert fates["fs/ext4/balloc.c"] == "reboot"
    assert fates["fs/ext4/mballoc.c"] == "live"
    header = {name: fates[name] for name in fates if name.startswith("fs/ext4/ext4.h")}
    assert header == {
        "fs/ext4/ext4.h:EXT4_FRESH": "live",
        "fs/ext4/ext4.h:ext4_group_info": "reboot",
    }
    codes = {refusal.unit: refusal.code for refusal in result.refused}
    assert codes["fs/ext4/inode.c"] == "does_not_compile"
    assert codes["fs/ext4/ext4.h"] == "type_changed"
    assert result.manifest is not None
    assert {function.unit for function in result.functions} == {"fs/ext4/mballoc.o"}
    assert set(result.manifest.refused) == set(result.refused)


def test_a_search_that_is_repeated_begins_where_it_ended(
    mixed: BuildRequest, tmp_path: Path
) -> None:
    def searched(request: BuildRequest) -> tuple[list[str], BuildResult]:
        steps: list[Progress] = []
        result = build(dataclasses.replace(request, cache=tmp_path / "cache"), steps.append)
        return [s.message for s in steps if "components," in s.message], result

    rounds, first = searched(mixed)
    again, second = searched(mixed)
    assert len(rounds) > len(again) == 1
    assert (second.fates, second.manifest, second.blobs) == (
        first.fates,
        first.manifest,
        first.blobs,
    )
    (kept,) = (tmp_path / "cache/searches").iterdir()
    kept.write_bytes(kept.read_bytes()[:-9])
    assert searched(mixed)[0] == rounds, "of one that is damaged nothing is believed"
    # What is another search begins anew.
    assert len(searched(dataclasses.replace(mixed, policy=Policy.NORMAL))[0]) == len(rounds)
    assert len(tuple((tmp_path / "cache/searches").iterdir())) == 2


def test_a_plan_that_was_made_is_read_again(mixed: BuildRequest, tmp_path: Path) -> None:
    request = dataclasses.replace(mixed, cache=tmp_path / "cache")

    def told(request: BuildRequest) -> tuple[bool, Planned]:
        steps: list[Progress] = []
        made = planned(request, steps.append)
        return any("components," in step.message for step in steps), made

    searched, first = told(request)
    assert searched and first.plan.totals.live
    assert told(request) == (False, first)
    (kept,) = (tmp_path / "cache/plans").iterdir()
    kept.write_bytes(kept.read_bytes()[:-9])
    assert told(request) == (True, first), "of one that is damaged nothing is believed"
    assert told(dataclasses.replace(request, policy=Policy.NORMAL))[0]
    path = tmp_path / "new/fs/ext4/mballoc.c"
    path.write_text(path.read_text().replace("AC_STATUS_FOUND + EXT4_FRESH", "EXT4_FRESH"))
    searched, other = told(request)
    assert searched and other.plan.totals == first.plan.totals


def test_a_file_of_which_only_a_part_can_go_live(mixed: BuildRequest, tmp_path: Path) -> None:
    path = tmp_path / "new/fs/ext4/balloc.c"
    text = path.read_text()
    edits = (
        # A part by itself, and one that does not compile.
        ("\tif (group == 0)\n\t\treturn 1;\n", "\tif (group == 0)\n\t\treturn 2;\n"),
        ("itbl_cluster = -1, i, c;\n", "itbl_cluster = EXT4_NOWHERE, i, c;\n"),
    )
    for before, after in edits:
        assert text.count(before) == 1
        text = text.replace(before, after)
    path.write_text(text)
    result = build(dataclasses.replace(mixed, policy=Policy.NORMAL), no_progress)
    fates = {fate.component.id: fate for fate in result.fates}
    parts = {
        name.partition(":")[2]: fate.decision.value
        for name, fate in fates.items()
        if name.startswith("fs/ext4/balloc.c")
    }
    assert parts == {
        "ext4_get_group_info": "reboot",
        "ext4_bg_has_super": "live",
        "ext4_num_overhead_clusters": "reboot",
    }
    lost = fates["fs/ext4/balloc.c:ext4_num_overhead_clusters"].reasons
    assert "EXT4_NOWHERE" in lost[0].evidence
    found = {f.name for f in result.functions if f.unit == "fs/ext4/balloc.o"}
    assert "ext4_bg_has_super" in found
    assert not found & {"ext4_get_group_info", "ext4_num_overhead_clusters"}

    # Nothing says which commit the part is of, and that it is all of that.
    careful = build(mixed, no_progress)
    (asked,) = [f for f in careful.fates if f.decision.value == "ask"]
    assert asked.component.id == "fs/ext4/balloc.c:ext4_bg_has_super"
    assert [reason.code for reason in asked.reasons] == ["part_untold"]
    assert {f.unit for f in careful.functions} == {"fs/ext4/mballoc.o"}


def test_two_commits_in_one_function(
    mixed: BuildRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One does not compile; who asks for no more than normal gets the other."""
    path = tmp_path / "new/fs/ext4/balloc.c"
    text = path.read_text()
    for before, after in (
        ("\tif (group == 0)\n\t\treturn 1;\n", "\tif (group == 0)\n\t\treturn 2;\n"),
        ("\t    test_root(group, 7))\n", "\t    test_root(group, EXT4_NOWHERE))\n"),
    ):
        assert text.count(before) == 1
        text = text.replace(before, after)
    path.write_text(text)
    name = "fs/ext4/balloc.c"
    _, one, other = hunks(mixed.from_source / name, path)
    claims = (Claim(Spot(name, hunk), 1.0) for hunk in (one, other))
    told = tuple(Attribution((name,), 1.0, claims=(claim,)) for claim in claims)
    monkeypatch.setattr(pipeline, "read_history", lambda news, *_: History(news, told))

    def parts(policy: Policy) -> dict[str, str]:
        result = build(dataclasses.replace(mixed, policy=policy), no_progress)
        some = {f.component.id: f.decision.value for f in result.fates}
        changed = {f.name for f in result.functions if f.unit == "fs/ext4/balloc.o"}
        assert changed == ({"ext4_bg_has_super"} if policy is Policy.NORMAL else set())
        return {n: some[n] for n in some if n.startswith(f"{name}:ext4_bg")}

    assert parts(Policy.CONSERVATIVE) == {f"{name}:ext4_bg_has_super": "reboot"}
    severed = parts(Policy.NORMAL)
    assert severed == {
        f"{name}:ext4_bg_has_super": "live",
        f"{name}:ext4_bg_has_super@{other.old_start}": "reboot",
    }


def test_a_function_that_a_header_changes(on_trees: BuildRequest, tmp_path: Path) -> None:
    request = changed(on_trees, tmp_path / "new", "fs/ext4/mballoc.h", "")
    path = tmp_path / "new/fs/ext4/mballoc.h"
    path.write_text(re.sub(r"(#define MB_DEFAULT_ORDER2_REQS\s+)2\b", r"\g<1>3", path.read_text()))
    result = build(request, no_progress)
    found = {f.name: f.why for f in result.functions}
    assert not result.refused
    assert found == {"ext4_mb_init": "header: fs/ext4/mballoc.h"}


def test_a_member_under_a_second_name_goes_live(on_trees: BuildRequest, tmp_path: Path) -> None:
    """In a union that the compiler lays out as it did the member alone, or does not."""
    members = (("unsigned long bb_flags", None), ("unsigned long bb_flags[1]", "type_changed"))
    for other, code in members:
        folder = tmp_path / str(code)
        request = changed(on_trees, folder, "fs/ext4/ext4.h", "")
        path = folder / "fs/ext4/ext4.h"
        union = f"\tunion {{\n\t\tunsigned long   bb_state;\n\t\t{other};\n\t}};"
        path.write_text(path.read_text().replace("\tunsigned long   bb_state;", union, 1))
        source = folder / "fs/ext4/mballoc.c"
        text = source.read_text()
        source.unlink()
        before = "\tBUG_ON(ac->ac_status == AC_STATUS_FOUND);\n\n"
        assert before in text
        use = "!ext4_get_group_info(ac->ac_sb, 0)->bb_flags"
        after = f"\tBUG_ON(ac->ac_status == AC_STATUS_FOUND || {use});\n\n"
        source.write_text(text.replace(before, after, 1))
        result = build(request, no_progress)
        if code is None:
            assert not result.refused
            assert {f.unit for f in result.functions} == {"fs/ext4/mballoc.o"}
        else:
            assert result.manifest is None
            assert code in {refusal.code for refusal in result.refused}


@pytest.mark.parametrize(("body", "same"), [("1 + n", True), ("n + 2", False)])
def test_a_module_that_is_not_loaded_may_be_as_it_was(
    on_trees: BuildRequest, tmp_path: Path, body: str, same: bool
) -> None:
    """It reads a header that changes, and nobody edited it."""
    probe = "static inline int falloc_probe(int n)\n{\n\treturn n + 1;\n}\n"
    probe = f"#ifndef PROBE\n#define PROBE\n{probe}#endif\n"
    use = "int falloc_%s(int n);\nint falloc_%s(int n)\n{\n\treturn falloc_probe(n);\n}\n"
    old = changed(on_trees, tmp_path / "old", "include/linux/falloc.h", probe).to_source
    for path, name in (("fs/ext4/fsmap.c", "ext4"), ("fs/bad_inode.c", "inode")):
        text = (old / path).read_text() if (old / path).exists() else "#include <linux/fs.h>\n"
        (old / path).unlink(missing_ok=True)
        (old / path).write_text(f"{text}#include <linux/falloc.h>\n{use % (name, name)}")
    on_old = dataclasses.replace(on_trees, from_source=old, targets=("vmlinux",))
    request = changed(on_old, tmp_path / "new", "include/linux/falloc.h", "")
    for path, before, after in (
        ("include/linux/falloc.h", "return n + 1", f"return {body}"),
        ("fs/bad_inode.c", "return falloc_probe(n)", "return 2 * falloc_probe(n)"),
    ):
        place = tmp_path / "new" / path
        text = place.read_text()
        place.unlink()
        place.write_text(text.replace(before, after))
    result = build(request, no_progress)
    found = {(f.unit, f.name) for f in result.functions}
    assert not result.refused
    assert found == {("fs/bad_inode.o", "falloc_inode")} | (
        set() if same else {("fs/ext4/fsmap.o", "falloc_ext4")}
    )


def test_policy_and_exclusion(mixed: BuildRequest) -> None:
    manual = build(dataclasses.replace(mixed, policy=Policy.MANUAL), no_progress)
    assert manual.manifest is None
    fates = {fate.component.id: fate.decision.value for fate in manual.fates}
    assert fates["fs/ext4/mballoc.c"] == "ask"
    without = build(dataclasses.replace(mixed, exclude=("fs/ext4/mb*",)), no_progress)
    assert without.manifest is None
    assert ("left_out", "fs/ext4/mballoc.c") in {(r.code, r.unit) for r in without.refused}


def test_source_of_another_version(request_: BuildRequest) -> None:
    error = refusal(dataclasses.replace(request_, from_source=request_.to_source))
    assert error.code is Code.SOURCE_VERSION
    assert NEW_VERSION in error.message
    assert OLD_VERSION in error.message


def test_a_truncated_source_package(request_: BuildRequest, tmp_path: Path) -> None:
    cut = tmp_path / request_.to_source.name
    with request_.to_source.open("rb") as source:
        cut.write_bytes(source.read(90 << 20))
    error = refusal(dataclasses.replace(request_, to_source=cut))
    assert error.code is Code.SOURCE_UNREADABLE


def test_headers_missing(request_: BuildRequest, tmp_path: Path) -> None:
    assert refusal(dataclasses.replace(request_, headers=tmp_path)).code is Code.HEADERS_MISSING


def test_a_configuration_that_is_not_the_headers(request_: BuildRequest, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(request_.config.read_text() + "CONFIG_SOMETHING_ELSE=y\n")
    error = refusal(dataclasses.replace(request_, config=config))
    assert error.code is Code.CONFIG_MISSING
    assert error.details == ("CONFIG_SOMETHING_ELSE=y",)


@pytest.mark.parametrize(
    ("says", "code"),
    [("gcc-12 (Debian 12.1.0-1) 12.1.0", Code.COMPILER_MISMATCH), (None, Code.COMPILER_MISSING)],
)
def test_wrong_or_missing_compiler(
    request_: BuildRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    says: str | None,
    code: Code,
) -> None:
    if says is not None:
        compiler = tmp_path / "gcc-12"
        compiler.write_text(f"#!/bin/sh\necho '{says}'\n")
        compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    error = refusal(request_)
    assert error.code is code
    assert "gcc-12" in error.remedy


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_no_space_left(request_: BuildRequest, small_disk: Path) -> None:
    error = refusal(dataclasses.replace(request_, workdir=small_disk))
    assert error.code is Code.NO_SPACE
    assert list(small_disk.iterdir()) == [], "nothing is left behind"


def test_a_source_that_does_not_compile(on_trees: BuildRequest, tmp_path: Path) -> None:
    result = build(
        changed(on_trees, tmp_path / "new", "fs/ext4/mballoc.c", "this is not C\n"), no_progress
    )
    assert result.manifest is None
    (refused,) = result.refused
    assert (refused.code, refused.unit) == ("does_not_compile", "fs/ext4/mballoc.c")
    assert "error:" in refused.evidence


def test_an_old_source_that_does_not_compile(on_trees: BuildRequest, tmp_path: Path) -> None:
    old = changed(on_trees, tmp_path / "old", "fs/ext4/mballoc.c", "this is not C\n").to_source
    on_old = dataclasses.replace(on_trees, from_source=old)
    error = refusal(changed(on_old, tmp_path / "new", "fs/ext4/mballoc.c", "int more;\n"))
    assert error.code is Code.COMPILE_FAILED
    assert "mballoc.c" in error.message
