# SPDX-License-Identifier: GPL-2.0-or-later
"""Evidence for root: files that nobody else reads, bounded, gone with their update."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from kspliced.engine import evidence, transactions
from kspliced.engine.files import make_private, write_durably
from kspliced.engine.state import Stage, State, load_state, save_state
from kspliced.engine.store import opened
from kspliced.errors import Code, KernelError, KsplicedError
from tests.unit.engine.fakes import NEWER, UPDATE, Machine

SECRET = "at 0xffffffff9a0012c0"


def busy() -> KernelError:
    return KernelError(Code.SWITCH_FAILED, "it is not as it was", "", ("dd[7]",), (SECRET,))


def mode(file: Path) -> int:
    return file.stat().st_mode & 0o777


def test_evidence_is_kept_with_its_update_and_goes_with_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path, NEWER)
    machine.kernel.core_error = busy()
    with pytest.raises(KsplicedError) as caught:
        transactions.apply(machine.context, None)
    file = machine.paths.evidence / f"{UPDATE}.txt"
    assert caught.value.details == ("dd[7]", f"addresses, bytes and stacks, for root: {file}")
    assert file.read_text() == f"switch_failed: it is not as it was\n{SECRET}\n"
    assert mode(file) == 0o600 and mode(file.parent) == 0o700
    state = load_state(machine.paths)
    for problem in (state.problem, state.history[-1].problem):
        assert problem is not None and problem.details == caught.value.details
    with opened(machine.paths, machine.journal, 0) as store:
        record = replace(store.state.history[-1], stage=Stage.RETIRED)
        store.save(State(history=(record,)))
        store.prune()
    assert not file.exists()


def test_number_and_size_are_bounded(tmp_path: Path) -> None:
    paths = Machine(tmp_path).paths
    for number in range(3 * evidence.MAX_FILES):
        error = KsplicedError(Code.FAILED, "x", evidence=("y" * (2 * evidence.MAX_BYTES),))
        evidence.keep(paths, error, f"ks_{number:08x}")
    files = list(paths.evidence.iterdir())
    assert len(files) == evidence.MAX_FILES
    assert all(file.stat().st_size < evidence.MAX_BYTES + 64 for file in files)


def test_a_disk_that_is_full_hides_no_error(tmp_path: Path) -> None:
    paths = Machine(tmp_path).paths
    paths.evidence.parent.mkdir(parents=True)
    paths.evidence.write_bytes(b"")
    error = busy()
    evidence.keep(paths, error, UPDATE)
    assert error.details == ("dd[7]",) and not error.evidence


@pytest.mark.parametrize("umask", [0o022, 0o000, 0o077])
def test_the_state_is_for_root(tmp_path: Path, umask: int) -> None:
    paths = Machine(tmp_path).paths
    old = os.umask(umask)
    try:
        paths.lib.mkdir(parents=True)
        # What a writer that was killed left, and what an older version wrote.
        for file in (paths.state, paths.state.with_name(".state.json.new")):
            file.write_bytes(b"{}")
            file.chmod(0o644)
        save_state(paths, State(installed="1"))
        assert mode(paths.state) == 0o600
        write_durably(paths.lib / "other", b"")
        assert mode(paths.lib / "other") == 0o644
    finally:
        os.umask(old)


def test_an_old_state_is_made_private_by_any_job(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    save_state(machine.paths, State(installed="1"))
    machine.paths.state.chmod(0o644)
    with opened(machine.paths, machine.journal, 0):
        assert mode(machine.paths.state) == 0o600


def test_a_link_is_not_made_private(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"")
    (tmp_path / "victim").chmod(0o644)
    (tmp_path / "link").symlink_to("victim")
    with pytest.raises(OSError, match="link"):
        make_private(tmp_path / "link")
    assert mode(tmp_path / "victim") == 0o644


def test_addresses_that_came_into_the_state_are_withheld(tmp_path: Path) -> None:
    """The last line: whatever wrote it there."""
    machine = Machine(tmp_path)
    error = KsplicedError(Code.FAILED, SECRET, SECRET, (SECRET,))
    with opened(machine.paths, machine.journal, 0) as store:
        store.save(State(problem=store.problem(error, "x", 0)))
    assert "ffff9a" not in machine.paths.state.read_text()
