# SPDX-License-Identifier: GPL-2.0-or-later
"""What does not match, or is always busy, is left out of the pack; nothing is built again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kspliced.engine import transactions
from kspliced.engine.edges import BuildOrder, Built, Job
from kspliced.engine.journal import Event
from kspliced.engine.status import StatusState, Verdict, current_status
from kspliced.errors import Code, KsplicedError
from kspliced.model import ChangeKind, FunctionChange, Group, Span
from kspliced.pack import Blob, pack_bytes
from tests.unit.engine.fakes import GLUE, NEWER, RUNNING, UPDATE, Machine, manifest


class ManyUnits:
    """A builder whose updates have a function in each of seven units; two go together, and what the
    second of them has in a module is a part of its own."""

    def __init__(self) -> None:
        self.orders: list[BuildOrder] = []

    def build(self, order: BuildOrder, job: Job) -> Built:
        self.orders.append(order)
        units = [f"fs/u{n}.o" for n in range(7)]
        functions = tuple(
            FunctionChange("vmlinux", unit, f"f_{unit[3:-2]}", ChangeKind.CHANGED, "own source")
            for unit in units
        )
        groups = tuple(group((unit,), unit) for unit in units[:4])
        groups += (group(("fs/u4.o", "fs/u5.o"), "pair"), group(("fs/u6.o",), "pair"))
        made = replace(manifest(NEWER, UPDATE[:15]), functions=functions, groups=groups)
        glue = b"\x7fELF" + made.update.encode().ljust(56, b"\0")
        blobs = [Blob(GLUE.blob, glue), *(Blob(g.blob, g.blob.encode()) for g in groups)]
        return Built(pack_bytes(made, tuple(blobs))[0], functions, ())


def group(units: tuple[str, ...], together: str) -> Group:
    """A part of the kernel proper with a span in each unit."""
    spans = tuple(Span("vmlinux", u, f"f_{u[3:-2]}", 1, 16, 0, u, 0) for u in units)
    blob = f"part/{units[0]}"
    return Group(blob, ("vmlinux",), units, (), spans, (), (), False, together=together)


@pytest.mark.parametrize(
    ("code", "blamed", "left"),
    [
        (Code.NO_MATCH, ("fs/u3.o",), {"fs/u3.o"}),
        (Code.UNRESOLVED, ("fs/u1.o", "fs/u3.o"), {"fs/u1.o", "fs/u3.o"}),
        (Code.AMBIGUOUS, ("fs/u6.o", "fs/u0.o"), {"fs/u0.o", "fs/u4.o", "fs/u5.o", "fs/u6.o"}),
        (Code.CODE_BUSY, ("f_u3",), {"fs/u3.o"}),
    ],
)
def test_all_that_does_not_match_or_is_busy_is_left_out_and_nothing_is_built_again(
    machine: Machine, code: Code, blamed: tuple[str, ...], left: set[str]
) -> None:
    builder = ManyUnits()
    error = KsplicedError(code, "no")
    error.blamed = blamed
    machine.kernel.link_errors = [error]
    context = replace(machine.context, builder=builder)
    assert transactions.upgrade(context).action == "live"
    assert len(builder.orders) == 1
    assert machine.kernel.calls.count("link") == 2
    assert machine.journal.events().count(Event.LEFT_OUT) == 1
    status = current_status(machine.paths)
    # Live, but never called whole.
    assert status.state is StatusState.PARTLY and status.effective == RUNNING.version
    assert status.update is not None and status.reboot_required.verdict is Verdict.YES
    assert {(r.code, r.unit) for r in status.update.refused} == {("left_out", u) for u in left}
    assert {f.unit for f in status.update.functions} == {f"fs/u{n}.o" for n in range(7)} - left
    # It is what is applied from now on.
    machine.kernel.reboot()
    machine.boot(RUNNING)
    transactions.apply(context, None)
    assert len(builder.orders) == 1
    names = {call.partition(" ")[2] for call in machine.kernel.calls if call.startswith("apply")}
    assert len(names) == 1 and names != {UPDATE[:15]}


def test_what_fails_only_then_is_left_out_too(machine: Machine) -> None:
    builder = ManyUnits()
    errors = [KsplicedError(Code.NO_MATCH, word) for word in ("first", "second")]
    errors[0].blamed, errors[1].blamed = ("fs/u0.o",), ("fs/u1.o",)
    machine.kernel.link_errors = list(errors)
    assert transactions.upgrade(replace(machine.context, builder=builder)).action == "live"
    assert len(builder.orders) == 1
    update = current_status(machine.paths).update
    assert update is not None
    assert {(r.unit, r.reason) for r in update.refused} == {
        ("fs/u0.o", "it was left out: first"), ("fs/u1.o", "it was left out: second"),
    }  # fmt: skip


def test_an_update_that_mostly_does_not_match_is_not_pared_down(machine: Machine) -> None:
    builder = ManyUnits()
    error = KsplicedError(Code.NO_MATCH, "no")
    error.blamed = tuple(f"fs/u{n}.o" for n in range(4))
    machine.kernel.link_errors = [error]
    with pytest.raises(KsplicedError) as caught:
        transactions.upgrade(replace(machine.context, builder=builder))
    assert caught.value.code is Code.NO_MATCH
    assert len(builder.orders) == 1
