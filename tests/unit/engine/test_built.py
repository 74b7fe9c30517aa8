# SPDX-License-Identifier: GPL-2.0-or-later
"""What the transactions make of what the builder gives, or fails at, on a machine of fakes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kspliced.engine import transactions
from kspliced.engine.edges import Built
from kspliced.engine.journal import Event
from kspliced.engine.queue import pending
from kspliced.engine.status import StatusState, Verdict, current_status
from kspliced.errors import BuildError, Code, ExitCode, KsplicedError
from tests.unit.engine.fakes import (
    NEWER,
    NEWEST,
    RUNNING,
    Machine,
    fails,
    leave_request,
    manifest,
    pack_content,
    refusal,
)


def test_refused_as_a_whole(machine: Machine) -> None:
    leave_request(machine)
    machine.builder.result = Built(None, (), (refusal(),))
    error = fails(machine, Code.REFUSED)
    assert error.exit_code is ExitCode.REFUSED and "runs only at boot" in error.details[0]
    status = current_status(machine.paths)
    assert status.state is StatusState.REFUSED and status.effective == RUNNING.version
    assert status.reboot_required.verdict is Verdict.YES
    assert status.reboot_required.reasons[0].code == "init_code"
    assert not pending(machine.paths)
    assert Event.CHANGE_REFUSED in machine.journal.events()


def test_refused_in_part(machine: Machine) -> None:
    partly = replace(manifest(), refused=(refusal(),))
    machine.builder.result = Built(pack_content(partly), partly.functions, partly.refused)
    transactions.upgrade(machine.context)
    status = current_status(machine.paths)
    assert status.state is StatusState.PARTLY and status.effective == RUNNING.version
    assert (status.changes.live, status.changes.total) == (1, 2)
    assert status.reboot_required.verdict is Verdict.YES


@pytest.mark.parametrize(
    "result", [BuildError(Code.NOTHING_TO_DO, "only s390x changes"), Built(None, (), ())]
)
def test_no_code_changes(machine: Machine, result: Built | BuildError) -> None:
    machine.builder.result = result
    fails(machine, Code.NOTHING_TO_DO)
    status = current_status(machine.paths)
    assert status.effective == NEWER.version and status.state is StatusState.IDLE
    assert status.reboot_required.verdict is Verdict.NO


def test_the_builders_pack_is_not_believed(machine: Machine) -> None:
    content = bytearray(pack_content(manifest()))
    content[-1] ^= 1
    machine.builder.result = Built(bytes(content), (), ())
    fails(machine, Code.PACK_MALFORMED)
    assert not machine.paths.packs.exists()


@pytest.mark.parametrize("name", ["../../etc/passwd", "kvm", "ks_0123\n456789"])
def test_a_pack_cannot_choose_its_module_name(machine: Machine, name: str) -> None:
    content = pack_content(manifest(update=name))
    machine.builder.result = Built(content, (), ())
    fails(machine, Code.PACK_MALFORMED)
    assert not any(call.startswith("load") for call in machine.kernel.calls)


def test_a_pack_with_terminal_escapes(machine: Machine) -> None:
    bad = manifest()
    function = replace(bad.functions[0], name="x\x1b[2J")
    machine.builder.result = Built(pack_content(replace(bad, functions=(function,))), (), ())
    fails(machine, Code.PACK_MALFORMED)


def test_the_builders_pack_goes_elsewhere(machine: Machine) -> None:
    machine.builder.result = Built(pack_content(manifest(to=NEWEST)), (), ())
    fails(machine, Code.PACK_MALFORMED)


@pytest.mark.parametrize(
    "code", [Code.BUILDER_UNAVAILABLE, Code.BUILDER_LOST, Code.NO_EXEC, Code.NO_MEMORY]
)
def test_a_builder_that_the_machine_failed_is_tried_again(machine: Machine, code: Code) -> None:
    leave_request(machine)
    machine.builder.result = KsplicedError(code, "no user namespaces", "allow them")
    fails(machine, code)
    assert not pending(machine.paths)
    problem = current_status(machine.paths).problem
    assert problem is not None and (problem.code, problem.remedy) == (code, "allow them")
    # As at the next boot, or after a while: the requests are there, and build once more.
    transactions.fetch(machine.context)
    assert pending(machine.paths)
    machine.builder.result = None
    transactions.upgrade(machine.context)
    assert len(machine.builder.orders) == 2 and not pending(machine.paths)
    assert current_status(machine.paths).problem is None


@pytest.mark.parametrize("code", [Code.COMPILE_FAILED, Code.COMPILER_MISSING, Code.FAILED])
def test_a_builder_that_fails_by_itself_is_not_tried_again(machine: Machine, code: Code) -> None:
    leave_request(machine)
    machine.builder.result = KsplicedError(code, "error: expected ';'", "see the details")
    fails(machine, code)
    transactions.fetch(machine.context)
    assert not pending(machine.paths)
