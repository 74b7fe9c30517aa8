# SPDX-License-Identifier: GPL-2.0-or-later
"""A short campaign of mutated packs; ``make torture`` has the long one."""

from __future__ import annotations

from kspliced import limits
from kspliced.pack import parse_pack
from tests.torture import packs, subjects
from tests.torture.mutations import mutant
from tests.torture.packs import REFUSED, SAME, Subject

MUTANTS = 800
# Bytes that trying a pack of some kilobytes may take, all told: a bomb, and what was there before.
PEAK = limits.PACK_UNPACKED + 192 * limits.MIB


def test_no_mutant_gives_another_module() -> None:
    report = packs.campaign(subjects.small, MUTANTS)
    assert not report.harm, report.harm[:5]
    assert sum(report.counts.values()) == MUTANTS
    assert report.peak < PEAK
    # Each kind is refused, and is not always stopped at the digest.
    kinds = {kind for kind, _ in report.counts}
    assert {kind for kind, outcome in report.counts if outcome == REFUSED} == kinds
    assert {kind for kind, outcome in report.counts if outcome == SAME} >= {"manifest"}


def test_a_mutant_is_made_again_from_its_seed() -> None:
    subject: Subject = subjects.small()
    pack = parse_pack(subject.content, "it")
    assert [mutant(pack, subject.content, seed) for seed in range(20)] == [
        mutant(pack, subject.content, seed) for seed in range(20)
    ]
