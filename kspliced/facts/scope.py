# SPDX-License-Identifier: GPL-2.0-or-later
"""The names of one function: what defines each value, what is local, what a path in memory is."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace

from kspliced.facts.dump import Body, Shape, Statement
from kspliced.facts.model import AccessPath, Bits
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
    Whole,
    pointee,
    read_operand,
)

NONE = "NULL"
# What gives on its operand as it is.
CONVERSIONS = frozenset({"nop_expr", "convert_expr", "view_convert_expr", "paren_expr"})
EXPECT = frozenset({"__builtin_expect", "__builtin_expect_with_probability"})
# A variable that nothing was stored in (-ftrivial-auto-var-init).
UNINITIALISED = ".DEFERRED_INIT"
_DEEPEST = 40
# Of a value that an operand of assembly is; "[" is before the name of a register variable only.
_OUTPUT = re.compile(r"(?P<base>[A-Za-z_$][\w$.]*?|)_(?P<version>[0-9]{1,9})(?=,|$| )")


@dataclass(frozen=True)
class Parsed:
    """A statement with its operands, read. Of an assignment ``code`` is the operator, of a
    comparison too; ``target`` what is written, and ``sources`` what is read. Of a call the first
    of ``sources`` is what is called."""

    statement: Statement
    code: str
    target: Expression | None
    sources: tuple[Expression, ...]

    @property
    def kind(self) -> str:
        """As GIMPLE calls the statement."""
        return self.statement.kind


def parse(statement: Statement, variables: Container[str]) -> Parsed | None:
    """The statement with its operands; None if it is of no kind that is known.

    :param variables: the names of the function's own, parameters among them.
    """
    words = statement.operands
    if statement.shape is not Shape.OPERANDS:
        return None
    code, target, sources = "", NONE, words
    if statement.kind in ("assign", "cond") and len(words) >= 3:
        code, sources = words[0], words[1:3] if statement.kind == "cond" else words[2:]
        target = words[1] if statement.kind == "assign" else NONE
    elif statement.kind == "call" and len(words) >= 2:
        target, sources = words[1], (words[0], *words[2:])
    elif statement.kind == "phi" and len(words) >= 2:
        # "_6(3)": the value, and the block that it comes from.
        target, sources = words[0], tuple(w.rpartition("(")[0] for w in words[1:])
    elif statement.kind == "switch" and words:
        sources = words[:1]
    elif statement.kind not in ("return", "goto") or len(words) != 1:
        return None
    written = None if target == NONE else operand(target, variables)
    read = tuple(_source(word, variables) for word in sources if word != NONE)
    return Parsed(statement, code, written, read)


def _source(word: str, variables: Container[str]) -> Expression:
    # Functions of the compiler's own: .ADD_OVERFLOW.
    return Name(word) if word.startswith(".") else operand(word, variables)


def operand(text: str, variables: Container[str]) -> Expression:
    """The operand. What looks like a value (``crc_32``) is one of a variable of the function's;
    else it is the name of something global.

    Where the function has a variable of the shorter name and uses something global of the longer,
    that is taken for its value.
    """
    expression = read_operand(text)
    if all(_is_value(value, variables) for value, _ in values_in(expression)):
        return expression
    return _renamed(expression, variables)


def _is_value(value: Ssa, variables: Container[str]) -> bool:
    plain = value.base and "." not in value.base and not value.default
    return not plain or value.base in variables


def _renamed(expression: Expression, variables: Container[str]) -> Expression:
    if isinstance(expression, Ssa):
        if _is_value(expression, variables):
            return expression
        return Name(f"{expression.base}_{expression.version}")
    if isinstance(expression, Dereference):
        return replace(expression, pointer=_renamed(expression.pointer, variables))
    if isinstance(expression, Element):
        index = _renamed(expression.index, variables)
        return Element(_renamed(expression.of, variables), index)
    if isinstance(expression, Field | Part | Whole | Address):
        return replace(expression, of=_renamed(expression.of, variables))
    return expression


def values_in(expression: Expression) -> Iterator[tuple[Ssa, bool]]:
    """The values that an operand has in it, and of each whether it is dereferenced."""
    waiting = [(expression, False)]
    while waiting:
        part, dereferenced = waiting.pop()
        if isinstance(part, Ssa):
            yield part, dereferenced
        elif isinstance(part, Dereference):
            waiting.append((part.pointer, True))
        elif isinstance(part, Element):
            waiting += [(part.of, dereferenced), (part.index, False)]
        elif isinstance(part, Field | Part | Whole | Address):
            waiting.append((part.of, dereferenced))


def opaque_in(expression: Expression) -> bool:
    """Whether something in it was not understood."""
    while isinstance(expression, Field | Part | Whole | Address | Element | Dereference):
        if isinstance(expression, Element) and opaque_in(expression.index):
            return True
        expression = expression.pointer if isinstance(expression, Dereference) else expression.of
    return isinstance(expression, Opaque)


class Scope:
    """The names of a function.

    :param functions: the names of functions that the unit declares; None if they are not known.
    """

    def __init__(
        self, body: Body, parsed: tuple[Parsed, ...], functions: frozenset[str] | None
    ) -> None:
        self._functions = functions
        self.function = body.name
        self.parameters = tuple(p.name for p in body.parameters)
        self.types = {d.name: d.type for d in (*body.parameters, *body.variables)}
        # A structure that is returned, in memory.
        self.types["<retval>"] = body.result
        self._static = {d.name for d in body.variables if d.static}
        self.labels = {w for s in body.statements if s.kind == "label" for w in s.operands}
        # What assembly computes.
        self.assembled = {
            (m["base"], int(m["version"]))
            for s in body.statements
            if s.shape is Shape.ASSEMBLY
            for m in _OUTPUT.finditer(" ".join(s.operands))
        }
        self.definitions: dict[tuple[str, int], Parsed] = {}
        for one in parsed:
            if isinstance(one.target, Ssa):
                self.definitions[one.target.base, one.target.version] = one

    def definition(self, value: Ssa) -> Parsed | None:
        """The statement that computes a value; None for what a function begins with."""
        return self.definitions.get((value.base, value.version))

    def is_local(self, name: str) -> bool:
        """Whether it is a parameter or variable of the function that ends with it."""
        return name in self.types and name not in self._static

    def is_function(self, name: str, bare: bool) -> bool:
        """Whether it names a function.

        :param bare: it stands where GIMPLE has no variable but a structure.
        """
        if name in self.types or name in self.labels:
            return False
        return name in self._functions if self._functions is not None else bare

    def type_of(self, value: Ssa) -> str:
        """The type of a value as the compiler names it; empty where it does not."""
        return self.types.get(f"{value.base}_{value.version}") or self.types.get(value.base, "")

    def copied(self, expression: Expression) -> Expression:
        """What a value is a copy or a conversion of, through as many as there are."""
        for _ in range(_DEEPEST):
            found = self.definition(expression) if isinstance(expression, Ssa) else None
            if found is None or found.kind != "assign" or len(found.sources) != 1:
                break
            source = found.sources[0]
            plain = isinstance(source, Ssa | Address | Constant)
            if not plain and found.code not in CONVERSIONS:
                break
            expression = source
        return expression

    def path(self, expression: Expression) -> AccessPath | None:
        """What is in memory, and outlives the function; None if it does not."""
        return self._path(expression, False, 0)

    def typed_path(self, expression: Expression) -> AccessPath | None:
        """The same, and what is in a local variable, by its type; None if it is no memory."""
        return self._path(expression, True, 0)

    def _path(self, expression: Expression, local: bool, depth: int) -> AccessPath | None:
        if depth > _DEEPEST:
            return AccessPath("", "")
        if isinstance(expression, Field | Element | Part | Whole):
            path = self._path(expression.of, local, depth + 1)
            if path is None or isinstance(expression, Element | Whole):
                return path
            if isinstance(expression, Part):
                return replace(path, bits=Bits(expression.first, expression.width))
            named = (expression.name,) if expression.name else ()
            return replace(path, members=(*path.members, *named))
        if isinstance(expression, Name):
            return self._variable(expression.name, local)
        if isinstance(expression, Dereference):
            return self._pointed(expression, local, depth)
        return None

    def _variable(self, name: str, local: bool) -> AccessPath | None:
        type_ = self.types.get(name, "")
        if self.is_local(name):
            return AccessPath("", type_) if local else None
        if name in self.labels or self.is_function(name, False):
            return None
        scoped = f"{self.function}.{name}" if name in self._static else name
        return AccessPath(scoped, type_)

    def _pointed(self, expression: Dereference, local: bool, depth: int) -> AccessPath | None:
        pointer = self.copied(expression.pointer)
        if isinstance(pointer, Address):
            path = self._path(pointer.of, local, depth + 1)
            # From there it may be any other member of the same object.
            return replace(path, members=(), bits=None) if path and expression.offset else path
        own = expression.pointer
        type_ = expression.type
        if not type_ and isinstance(own, Ssa):
            type_ = pointee(self.type_of(own))
        return AccessPath("", type_)
