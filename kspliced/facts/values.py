# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the values of a function come from, and how one would write them in C."""

from __future__ import annotations

from kspliced.facts.model import Value, ValueKind
from kspliced.facts.operand import (
    Address,
    Constant,
    Dereference,
    Element,
    Expression,
    Field,
    Name,
    Opaque,
    Part,
    Ssa,
)
from kspliced.facts.scope import CONVERSIONS, EXPECT, UNINITIALISED, Parsed, Scope

COMPARISONS = {
    "lt_expr": "<",
    "le_expr": "<=",
    "gt_expr": ">",
    "ge_expr": ">=",
    "eq_expr": "==",
    "ne_expr": "!=",
}
_BINARY = {
    **COMPARISONS,
    "plus_expr": "+",
    "pointer_plus_expr": "+",
    "minus_expr": "-",
    "pointer_diff_expr": "-",
    "mult_expr": "*",
    "trunc_div_expr": "/",
    "exact_div_expr": "/",
    "trunc_mod_expr": "%",
    "bit_and_expr": "&",
    "bit_ior_expr": "|",
    "bit_xor_expr": "^",
    "lshift_expr": "<<",
    "rshift_expr": ">>",
}
_SINGLE = frozenset({"ssa_name", "addr_expr", "constructor"})
_UNARY = {"negate_expr": "-", "bit_not_expr": "~", "truth_not_expr": "!"}
# Of one size, and every bit kept.
_WORDS = frozenset({"long unsigned int", "long int", "sizetype", "ssizetype"})
_DEEPEST = 8
_LONGEST = 160
_MOST = 64


class Values:
    """The values of one function.

    :param scope: its names.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def text(self, expression: Expression, depth: int = 0) -> str:
        """An operand as one would write it, its temporaries by what they are computed from."""
        said = self._text(expression, depth)
        return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 1]}…"

    def _text(self, expression: Expression, depth: int) -> str:
        if isinstance(expression, Ssa):
            return self._of_value(expression, depth)
        if isinstance(expression, Name):
            return expression.name
        if isinstance(expression, Constant | Opaque):
            return expression.text
        if depth > _DEEPEST:
            return "…"
        if isinstance(expression, Address):
            return f"&{self.text(expression.of, depth + 1)}"
        if isinstance(expression, Dereference):
            return f"*{self._pointer(expression, depth)}"
        if isinstance(expression, Element):
            index = self.text(expression.index, depth + 1)
            return f"{self.text(expression.of, depth + 1)}[{index}]"
        if isinstance(expression, Field):
            return self._field(expression, depth)
        if isinstance(expression, Part):
            last = expression.first + expression.width - 1
            return f"{self.text(expression.of, depth + 1)}<{expression.first}..{last}>"
        return self.text(expression.of, depth + 1)

    def _field(self, expression: Field, depth: int) -> str:
        of, name = expression.of, expression.name
        if not name:
            # A member without a name: what is in it is called as if it were outside.
            if isinstance(of, Dereference):
                return f"*{self._pointer(of, depth)}"
            return self.text(of, depth + 1)
        inner = of
        while isinstance(inner, Field) and not inner.name:
            inner = inner.of
        if isinstance(inner, Dereference):
            return f"{self._pointer(inner, depth)}->{name}"
        return f"{self.text(inner, depth + 1)}.{name}"

    def _pointer(self, expression: Dereference, depth: int) -> str:
        pointer = self.text(expression.pointer, depth + 1)
        pointer = f"({pointer} + {expression.offset})" if expression.offset else pointer
        return f"(({expression.type} *){pointer})" if expression.type else pointer

    def _of_value(self, value: Ssa, depth: int) -> str:
        found = self._scope.definition(value)
        if value.base and "." not in value.base:
            return value.base
        if found is None or depth > _DEEPEST:
            return value.base or "…"
        if found.kind == "call":
            return self.called(found, depth)
        if found.kind != "assign" or not found.sources:
            return value.base.partition(".")[0] or "…"
        return self._computed(found, depth)

    def called(self, call: Parsed, depth: int = 0) -> str:
        """A call as one would write it."""
        words = ", ".join(self.text(source, depth + 1) for source in call.sources[1:])
        return f"{self.text(call.sources[0], depth + 1)}({words})"

    def _computed(self, found: Parsed, depth: int) -> str:
        words = [self.text(source, depth + 1) for source in found.sources]
        if found.code in _BINARY and len(words) == 2:
            return f"({words[0]} {_BINARY[found.code]} {words[1]})"
        if found.code in _UNARY and len(words) == 1:
            return f"{_UNARY[found.code]}{words[0]}"
        if found.code in CONVERSIONS and not self._same(found):
            return f"({self._type(found)}){words[0]}"
        if len(words) == 1:
            return words[0]
        return f"{found.code.removesuffix('_expr')}({', '.join(words)})"

    def _type(self, found: Parsed) -> str:
        return self._scope.type_of(found.target) if isinstance(found.target, Ssa) else ""

    def _same(self, found: Parsed) -> bool:
        """Whether a conversion keeps every bit, so far as the names of the types tell."""
        source = found.sources[0]
        before = self._scope.type_of(source) if isinstance(source, Ssa) else ""
        after = self._type(found)
        words = [type_.endswith("*") or type_ in _WORDS for type_ in (before, after)]
        return before == after or all(words)

    def value(self, expression: Expression) -> Value:
        """Where one operand comes from; COMPUTED if from more than one place."""
        found = self.values(expression)
        if len(found) == 1:
            return found[0]
        return Value(ValueKind.COMPUTED, self.text(expression))

    def values(self, expression: Expression) -> tuple[Value, ...]:
        """All that an operand may be, in the order in which they are met."""
        found: dict[Value, None] = {}
        seen: set[tuple[str, int]] = set()
        waiting: list[tuple[Expression, str]] = [(expression, "")]
        while waiting:
            if len(found) > _MOST:
                return (Value(ValueKind.UNKNOWN, "too many values"),)
            one, cast = waiting.pop(0)
            if not isinstance(one, Ssa):
                found.setdefault(self._cast(self._direct(one), cast))
            elif (one.base, one.version) not in seen:
                seen.add((one.base, one.version))
                more = self._origin(one, cast)
                if isinstance(more, Value):
                    found.setdefault(self._cast(more, cast))
                else:
                    waiting += more
        return tuple(found)

    @staticmethod
    def _cast(value: Value, cast: str) -> Value:
        if not cast:
            return value
        return Value(value.kind, f"({cast}){value.text}", value.name, value.path)

    def _origin(self, value: Ssa, cast: str) -> Value | list[tuple[Expression, str]]:
        """A value, or what it is one of."""
        found = self._scope.definition(value)
        if found is None:
            if (value.base, value.version) in self._scope.assembled:
                return Value(ValueKind.UNKNOWN, f"assembly {value.base}".strip())
            if value.default and value.base in self._scope.parameters:
                return Value(ValueKind.PARAMETER, value.base, value.base)
            return Value(ValueKind.UNKNOWN, f"uninitialised {value.base}".strip())
        if found.kind == "phi":
            return [(source, cast) for source in found.sources]
        if found.kind == "call" and found.sources:
            return self._result(found, cast)
        if found.kind != "assign" or not found.sources:
            return Value(ValueKind.UNKNOWN, self.text(value))
        if found.code in COMPARISONS:
            return Value(ValueKind.COMPARISON, self._computed(found, 0))
        if found.code in CONVERSIONS:
            return [(found.sources[0], cast if self._same(found) else cast or self._type(found))]
        if len(found.sources) == 1 and found.code not in _UNARY:
            return self._single(found, cast)
        return Value(ValueKind.COMPUTED, self._computed(found, 0))

    def _single(self, found: Parsed, cast: str) -> Value | list[tuple[Expression, str]]:
        source = found.sources[0]
        if found.code == "addr_expr" and isinstance(source, Name):
            # Without "&" it is a function.
            return Value(ValueKind.FUNCTION, source.name, source.name)
        if found.code.endswith("_decl") and isinstance(source, Name):
            return self._of_name(source.name, False)
        if found.code.endswith(("_cst", "_ref")) or found.code in _SINGLE:
            return [(found.sources[0], cast)]
        # One half of a complex number, an absolute value and the like.
        return Value(ValueKind.COMPUTED, f"{found.code}({self.text(found.sources[0])})")

    def _result(self, call: Parsed, cast: str) -> Value | list[tuple[Expression, str]]:
        callee = call.sources[0]
        name = callee.name if isinstance(callee, Name) else ""
        if name in EXPECT and len(call.sources) > 1:
            return [(call.sources[1], cast)]
        if name == UNINITIALISED:
            target = call.target.base if isinstance(call.target, Ssa) else ""
            return Value(ValueKind.UNKNOWN, f"uninitialised {target}".strip())
        return Value(ValueKind.CALL, self.called(call), name)

    def _direct(self, expression: Expression) -> Value:
        text = self.text(expression)
        if isinstance(expression, Constant):
            return Value(ValueKind.CONSTANT, text)
        if isinstance(expression, Opaque):
            return Value(ValueKind.UNKNOWN, text)
        if isinstance(expression, Name):
            return self._of_name(expression.name, True)
        if isinstance(expression, Address):
            if isinstance(expression.of, Constant):
                return Value(ValueKind.CONSTANT, text)
            if isinstance(expression.of, Name) and expression.of.name in self._scope.labels:
                return Value(ValueKind.UNKNOWN, text)
            return Value(ValueKind.ADDRESS, text, path=self._scope.path(expression.of))
        path = self._scope.path(expression)
        kind = ValueKind.LOCAL if path is None else ValueKind.MEMORY
        return Value(kind, text, path=path or self._scope.typed_path(expression))

    def _of_name(self, name: str, bare: bool) -> Value:
        if self._scope.is_function(name, bare):
            return Value(ValueKind.FUNCTION, name, name)
        path = self._scope.path(Name(name))
        return Value(ValueKind.LOCAL if path is None else ValueKind.MEMORY, name, path=path)
