# SPDX-License-Identifier: GPL-2.0-or-later
"""Run-pre matching, symbol resolution and the link (Ksplice, EuroSys 2009, section 4)."""

from kspliced.match.coherence import check_coherence
from kspliced.match.explain import Explanation, explain
from kspliced.match.link import link
from kspliced.match.report import (
    Cause,
    Counts,
    Matched,
    MatchedSpan,
    Mismatch,
    NoMatchError,
    ResolvedImport,
)
from kspliced.match.run import match

__all__ = [
    "Cause",
    "Counts",
    "Explanation",
    "Matched",
    "MatchedSpan",
    "Mismatch",
    "NoMatchError",
    "ResolvedImport",
    "check_coherence",
    "explain",
    "link",
    "match",
]
