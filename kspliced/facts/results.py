# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done with the results of a function's calls."""

from __future__ import annotations

from kspliced.facts.model import ResultUse, UseKind
from kspliced.facts.operand import Expression, Name, Ssa
from kspliced.facts.scope import CONVERSIONS, EXPECT, Parsed, Scope, values_in
from kspliced.facts.values import COMPARISONS, Values

# What is compared, as the other side sees it.
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_COPIES = CONVERSIONS | {"ssa_name"}


class Results:
    """The uses of results.

    :param assembly: per statement of assembly, the operands that it reads.
    """

    def __init__(self, scope: Scope, values: Values, parsed: tuple[Parsed, ...]) -> None:
        self._scope, self._values = scope, values
        self._users: dict[tuple[str, int], list[Parsed]] = {}
        for one in parsed:
            places = (one.target,) if one.target is not None else ()
            inside = [v for v, _ in _all_values(one.sources)]
            # A pointer that is written through is used.
            written = [v for v, _ in _all_values(places) if not isinstance(one.target, Ssa)]
            for key in dict.fromkeys((v.base, v.version) for v in (*inside, *written)):
                self._users.setdefault(key, []).append(one)

    def uses(self, call: Parsed) -> tuple[ResultUse, ...]:
        """What is done with what a call returns, each once, where it is done first."""
        place = call.statement.place
        if call.target is None:
            return (ResultUse(UseKind.IGNORED, "", "", place),)
        if not isinstance(call.target, Ssa):
            return (ResultUse(UseKind.STORED, "", self._values.text(call.target), place),)
        found: dict[tuple[UseKind, str, str], ResultUse] = {}
        waiting, seen = [call.target], {(call.target.base, call.target.version)}
        while waiting:
            value = waiting.pop(0)
            for user in self._users.get((value.base, value.version), ()):
                use = self._use(value, user)
                if isinstance(use, ResultUse):
                    found.setdefault((use.kind, use.operator, use.operand), use)
                elif (use.base, use.version) not in seen:
                    seen.add((use.base, use.version))
                    waiting.append(use)
        return tuple(found.values()) or (ResultUse(UseKind.IGNORED, "", "", place),)

    def _use(self, value: Ssa, user: Parsed) -> ResultUse | Ssa:
        """One use, or the value that it goes on as."""
        place = user.statement.place
        everything = (*user.sources, *((user.target,) if user.target is not None else ()))
        if any(v == value and dereferenced for v, dereferenced in _all_values(everything)):
            return ResultUse(UseKind.DEREFERENCED, "", "", place)
        if user.kind == "return":
            return ResultUse(UseKind.RETURNED, "", "", place)
        if user.kind == "switch":
            cases = ", ".join(user.statement.operands[1:])
            return ResultUse(UseKind.COMPARED, "switch", cases, place)
        if user.code in COMPARISONS and len(user.sources) == 2:
            return self._compared(value, user)
        if user.kind == "call":
            return self._passed(user)
        carried = user.kind == "phi" or (user.kind == "assign" and user.code in _COPIES)
        if carried and isinstance(user.target, Ssa):
            return user.target
        if carried and user.target is not None:
            return ResultUse(UseKind.STORED, "", self._values.text(user.target), place)
        return ResultUse(UseKind.COMPUTED, user.code.removesuffix("_expr"), "", place)

    def _compared(self, value: Ssa, user: Parsed) -> ResultUse:
        left, right = user.sources
        operator, other = COMPARISONS[user.code], right
        if left != value:
            operator, other = _TURNED[operator], left
        text = self._values.text(other)
        return ResultUse(UseKind.COMPARED, operator, text, user.statement.place)

    def _passed(self, user: Parsed) -> ResultUse | Ssa:
        callee = user.sources[0]
        name = callee.name if isinstance(callee, Name) else self._values.text(callee)
        if name in EXPECT and isinstance(user.target, Ssa):
            return user.target
        return ResultUse(UseKind.PASSED, "", name, user.statement.place)


def _all_values(expressions: tuple[Expression, ...]) -> list[tuple[Ssa, bool]]:
    return [found for expression in expressions for found in values_in(expression)]
