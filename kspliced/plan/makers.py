# SPDX-License-Identifier: GPL-2.0-or-later
"""Which changelog entries made each hunk, as far as attribution.py can tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from kspliced.plan.attribution import CERTAIN, Attribution
from kspliced.plan.edits import Spot

# The share of an entry that may have made a hunk, and of one that more likely than not did.
_MAY, _LIKELY = 0.05, 0.5
# That of all who may have made a hunk, if one of them did beyond doubt.
_SURE = 0.9


class Makers:
    """The claims of all entries of an upgrade, by hunk."""

    def __init__(self, told: Iterable[Attribution] = ()) -> None:
        self._shares: dict[Spot, dict[int, float]] = defaultdict(dict)
        self._likely: dict[int, set[Spot]] = defaultdict(set)
        for number, attribution in enumerate(told):
            for claim in attribution.claims:
                self._shares[claim.spot][number] = claim.share
                if claim.share >= _LIKELY:
                    self._likely[number].add(claim.spot)

    def tie(self, spot: Spot, other: Spot) -> None:
        """Have a hunk be of those who made the other one."""
        for entry in self._likely.values():
            entry.discard(spot)
            if other in entry:
                entry.add(spot)
        self._shares[spot] = self._shares.get(other, {})

    def of(self, spot: Spot) -> frozenset[int]:
        """The entries that may have made a hunk, by their place in the changelog."""
        shares = self._shares.get(spot, {})
        return frozenset(entry for entry, share in shares.items() if share >= _MAY)

    def sure(self, spot: Spot) -> bool:
        """Whether it is beyond doubt that one of the entries that may have made a hunk did."""
        return self._told(spot) >= _SURE

    def known(self, spot: Spot) -> bool:
        """Whether it is certain that one of the entries that may have made a hunk did."""
        return self._told(spot) >= CERTAIN

    def _told(self, spot: Spot) -> float:
        """The share of all entries that may have made a hunk."""
        shares = self._shares.get(spot, {})
        return sum(shares[entry] for entry in self.of(spot))

    def commit(self, spot: Spot) -> frozenset[Spot]:
        """The hunks that the likely maker of one made, too."""
        shares = self._shares.get(spot, {})
        likely = [entry for entry, share in shares.items() if share >= _LIKELY]
        return frozenset(other for entry in likely for other in self._likely[entry])
