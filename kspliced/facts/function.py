# SPDX-License-Identifier: GPL-2.0-or-later
"""The facts of one function, of its statements."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from kspliced.facts.declared import Declared, Definition
from kspliced.facts.dump import Body, Shape, Statement, clipped
from kspliced.facts.model import (
    Access,
    AccessKind,
    Call,
    Condition,
    Function,
    FunctionAddress,
    Place,
    Unread,
    UnreadKind,
    Value,
    ValueKind,
)
from kspliced.facts.operand import (
    Address,
    Constant,
    Dereference,
    Element,
    Expression,
    Field,
    Name,
    Part,
    Ssa,
    Whole,
    split_operands,
)
from kspliced.facts.results import Results
from kspliced.facts.scope import EXPECT, UNINITIALISED, Parsed, Scope, opaque_in, operand, parse
from kspliced.facts.values import COMPARISONS, Values

# Statements without operands, or of control flow, that say nothing of what is done.
_SILENT = frozenset({"label"})
_NOT_CALLED = EXPECT | {UNINITIALISED}
_OPERAND = re.compile(r'^(?:"[^"]*" )?"(?P<constraint>[^"]*)" (?P<text>.*)$', re.DOTALL)
_CLOBBERED = ("{CLOBBER", "{}")


@dataclass
class _Found:
    calls: list[Call] = field(default_factory=list)
    accesses: dict[Access, None] = field(default_factory=dict)
    returns: dict[Value, None] = field(default_factory=dict)
    conditions: list[Condition] = field(default_factory=list)
    addresses: dict[FunctionAddress, None] = field(default_factory=dict)
    unread: list[Unread] = field(default_factory=list)


def read_function(body: Body, declared: Declared | None = None) -> Function:
    """The facts of a function.

    :param declared: what its unit declares; without it, where the function is defined and whether
        it is static is not known, and a structure passed by value is taken for a function.
    """
    return _Reader(body, declared).read()


class _Reader:
    def __init__(self, body: Body, declared: Declared | None) -> None:
        self._body = body
        self._variables = {d.name for d in (*body.parameters, *body.variables)}
        pairs = [(s, parse(s, self._variables)) for s in body.statements]
        self._pairs = pairs
        parsed = tuple(p for _, p in pairs if p is not None)
        self._scope = Scope(body, parsed, declared.names if declared is not None else None)
        self._values = Values(self._scope)
        self._results = Results(self._scope, self._values, parsed)
        self._found = _Found()
        known = dict(declared.definitions) if declared is not None else {}
        self._definition: Definition | None = known.get(body.name)

    def read(self) -> Function:
        """All facts, and what is left unread."""
        body, found = self._body, self._found
        if body.header:
            self._leave(UnreadKind.HEADER, body.header, Place("", 0))
        for statement, parsed in self._pairs:
            self._statement(statement, parsed)
        place = self._definition.place if self._definition else Place(self._file(), 0)
        return Function(
            name=body.name,
            place=place,
            lines=self._lines(place.file),
            static=self._definition.static if self._definition else None,
            parameters=self._scope.parameters,
            calls=tuple(found.calls),
            accesses=tuple(found.accesses),
            returns=tuple(found.returns),
            conditions=tuple(found.conditions),
            addresses=tuple(found.addresses),
            unread=tuple(found.unread),
            statements=len(body.statements),
        )

    def _file(self) -> str:
        return next((s.place.file for s in self._body.statements if s.place.line), "")

    def _lines(self, file: str) -> tuple[int, int]:
        lines = [s.place.line for s in self._body.statements if s.place.file == file]
        lines = [line for line in lines if line]
        return (min(lines), max(lines)) if lines else (0, 0)

    def _leave(self, kind: UnreadKind, text: str, place: Place) -> None:
        self._found.unread.append(Unread(kind, clipped(text), place))

    def _statement(self, statement: Statement, parsed: Parsed | None) -> None:
        if statement.shape is Shape.ASSEMBLY:
            self._assembly(statement)
        elif statement.kind in _SILENT and statement.operands:
            return
        elif parsed is None:
            self._leave(UnreadKind.STATEMENT, statement.text, statement.place)
        elif self._understood(parsed):
            self._parsed(parsed)

    def _understood(self, parsed: Parsed) -> bool:
        operands = (*parsed.sources, *((parsed.target,) if parsed.target is not None else ()))
        understood = True
        for each in operands:
            if opaque_in(each):
                text = f"{self._values.text(each)} in {parsed.statement.text}"
                self._leave(UnreadKind.OPERAND, text, parsed.statement.place)
                understood = False
        return understood

    def _parsed(self, parsed: Parsed) -> None:
        place = parsed.statement.place
        if parsed.kind == "call":
            self._call(parsed)
        elif parsed.kind == "cond":
            self._condition(parsed)
        elif parsed.kind == "switch":
            self._switch(parsed)
        elif parsed.kind == "goto":
            self._leave(UnreadKind.COMPUTED_GOTO, parsed.statement.text, place)
        elif parsed.kind == "return":
            for source in parsed.sources:
                self._reads(source, place)
                self._found.returns.update(dict.fromkeys(self._values.values(source)))
        else:
            self._assignment(parsed)

    def _assignment(self, parsed: Parsed) -> None:
        place = parsed.statement.place
        first = parsed.sources[0] if parsed.sources else None
        if isinstance(first, Constant) and first.text.startswith("{CLOBBER"):
            return
        function = parsed.code == "addr_expr" and isinstance(first, Name)
        if first is not None and function:
            self._address_of(first, parsed.target, "", place)
        for source in () if function else parsed.sources:
            self._reads(source, place)
            if parsed.kind == "phi":
                self._function_in(source, parsed.target, "", place)
        if parsed.target is None or isinstance(parsed.target, Ssa):
            return
        stored = self._values.value(first) if first is not None else None
        if function and isinstance(first, Name):
            stored = Value(ValueKind.FUNCTION, first.name, first.name)
        elif first is not None and len(parsed.sources) == 1:
            self._function_stored(first, parsed.target, place)
        if len(parsed.sources) != 1:
            stored = None
        self._writes(parsed.target, stored, place)

    def _function_stored(self, source: Expression, target: Expression, place: Place) -> None:
        for value in self._values.values(source):
            if value.kind is ValueKind.FUNCTION:
                stored = self._scope.typed_path(target)
                self._found.addresses.setdefault(FunctionAddress(value.name, stored, "", place))

    def _function_in(
        self, source: Expression, target: Expression | None, passed: str, place: Place
    ) -> None:
        if isinstance(source, Name) and self._scope.is_function(source.name, True):
            self._address_of(source, target, passed, place)

    def _address_of(
        self, source: Expression, target: Expression | None, passed: str, place: Place
    ) -> None:
        if isinstance(source, Name) and source.name not in self._scope.labels:
            stored = None
            if target is not None and not isinstance(target, Ssa):
                stored = self._scope.typed_path(target)
            found = FunctionAddress(source.name, stored, passed, place)
            self._found.addresses.setdefault(found)

    def _call(self, parsed: Parsed) -> None:
        place = parsed.statement.place
        callee = parsed.sources[0]
        if isinstance(callee, Name):
            if callee.name in _NOT_CALLED:
                return
            targets: tuple[Value, ...] = (Value(ValueKind.FUNCTION, callee.name, callee.name),)
        else:
            targets = self._values.values(callee)
        passed = targets[0].name if isinstance(callee, Name) else self._values.text(callee)
        for source in parsed.sources[1:]:
            self._reads(source, place)
            for value in self._values.values(source):
                if value.kind is ValueKind.FUNCTION:
                    found = FunctionAddress(value.name, None, passed, place)
                    self._found.addresses.setdefault(found)
        arguments = tuple(self._values.value(source) for source in parsed.sources[1:])
        uses = self._results.uses(parsed)
        self._found.calls.append(Call(targets, arguments, uses, place))
        if parsed.target is not None and not isinstance(parsed.target, Ssa):
            text = self._values.called(parsed)
            self._writes(parsed.target, Value(ValueKind.CALL, text, passed), place)

    def _condition(self, parsed: Parsed) -> None:
        place = parsed.statement.place
        for source in parsed.sources:
            self._reads(source, place)
        if len(parsed.sources) != 2 or parsed.code not in COMPARISONS:
            self._leave(UnreadKind.STATEMENT, parsed.statement.text, place)
            return
        compared = self._compared(parsed)
        left, right = (self._values.value(source) for source in compared.sources)
        operator = COMPARISONS[compared.code]
        if compared is not parsed and parsed.code == "eq_expr":
            operator = _opposite(operator)
        self._found.conditions.append(Condition(left, operator, right, place))

    def _compared(self, parsed: Parsed) -> Parsed:
        """The comparison whose result is compared with 0, if it is one."""
        left, right = parsed.sources
        if parsed.code not in ("eq_expr", "ne_expr") or right != Constant("0"):
            return parsed
        for _ in range(len(self._scope.definitions)):
            left = self._scope.copied(left)
            found = self._scope.definition(left) if isinstance(left, Ssa) else None
            if found is None:
                return parsed
            if found.code in COMPARISONS and len(found.sources) == 2:
                return found
            callee = found.sources[0] if found.kind == "call" and len(found.sources) > 1 else None
            if not isinstance(callee, Name) or callee.name not in EXPECT:
                return parsed
            left = found.sources[1]
        return parsed

    def _switch(self, parsed: Parsed) -> None:
        place = parsed.statement.place
        left = self._values.value(parsed.sources[0])
        for case in parsed.statement.operands[1:]:
            if case != "default":
                right = Value(ValueKind.CONSTANT, case.removeprefix("case "))
                self._found.conditions.append(Condition(left, "case", right, place))

    def _assembly(self, statement: Statement) -> None:
        self._leave(UnreadKind.ASSEMBLY, statement.text, statement.place)
        for line in statement.operands:
            kind, _, rest = line.partition(": ")
            if kind in ("OUTPUT", "INPUT"):
                for part in split_operands(rest) or [rest]:
                    self._assembly_operand(kind == "OUTPUT", part, statement.place)

    def _assembly_operand(self, output: bool, part: str, place: Place) -> None:
        match = _OPERAND.match(part)
        expression = operand(match["text"], self._variables) if match else None
        if match is None or expression is None or opaque_in(expression):
            self._leave(UnreadKind.OPERAND, f"{part} of assembly", place)
            return
        if output:
            if not isinstance(expression, Ssa):
                self._writes(expression, None, place)
            if match["constraint"].startswith("+"):
                self._reads(expression, place)
            return
        self._reads(expression, place)
        self._function_in(expression, None, "asm", place)

    def _reads(self, expression: Expression, place: Place) -> None:
        if isinstance(expression, Name) and self._scope.is_function(expression.name, False):
            return
        if isinstance(expression, Address):
            if not isinstance(expression.of, Constant):
                self._access(AccessKind.ADDRESS, expression.of, None, place)
        elif isinstance(expression, Field | Element | Part | Whole | Dereference | Name):
            self._access(AccessKind.READ, expression, None, place)
        for index in _indices(expression):
            self._reads(index, place)

    def _writes(self, target: Expression, value: Value | None, place: Place) -> None:
        self._access(AccessKind.WRITE, target, value, place)

    def _access(
        self, kind: AccessKind, expression: Expression, value: Value | None, place: Place
    ) -> None:
        path = self._scope.path(expression)
        if path is not None:
            self._found.accesses.setdefault(Access(kind, path, place, value))


def _opposite(operator: str) -> str:
    return {"<": ">=", ">=": "<", ">": "<=", "<=": ">", "==": "!=", "!=": "=="}[operator]


def _indices(expression: Expression) -> Iterator[Expression]:
    while isinstance(expression, Field | Part | Whole | Element | Address):
        if isinstance(expression, Element) and not isinstance(expression.index, Ssa | Constant):
            yield expression.index
        expression = expression.of
