# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of one function of C, without its context.

Facts are flow-insensitive: they say what a function does somewhere, not in which order. What could
not be read is a fact of its own (:class:`Unread`): who proves something from these facts has to
treat it as anything at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Place:
    """A line of a source file, the first is 1. For what a macro expands to it is the line that
    uses the macro. Line 0: the compiler does not say."""

    file: str
    line: int


@dataclass(frozen=True)
class Bits:
    """A run of bits, counted from the first one of what it is in."""

    first: int
    width: int


@dataclass(frozen=True)
class AccessPath:
    """Memory that outlives the function: a variable, or what a pointer points to, and of it the
    member that ``members`` lead to.

    :param variable: the global or static variable; FUNCTION.NAME if it is static in a function;
        empty through a pointer.
    :param type: of the variable, or of what the pointer points to, as the compiler names it
        (``struct sk_buff``, ``unsigned char``); empty where it does not say. With no variable
        either it may be any memory.
    :param members: outermost first, members without a name left out, indices of arrays too.
    :param bits: where the compiler reads bit-fields without naming them: which bits.
    """

    variable: str
    type: str
    members: tuple[str, ...] = ()
    bits: Bits | None = None


class AccessKind(str, Enum):
    """What a function does with memory."""

    READ = "read"
    WRITE = "write"
    # What is done through the address is not known.
    ADDRESS = "address"


class ValueKind(str, Enum):
    """Where a value comes from."""

    CONSTANT = "constant"
    PARAMETER = "parameter"
    CALL = "call"
    MEMORY = "memory"
    ADDRESS = "address"
    FUNCTION = "function"
    COMPARISON = "comparison"
    COMPUTED = "computed"
    LOCAL = "local"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Value:
    """A value, with its ``text`` as one would write it in C.

    :param name: of the function called (CALL), named (FUNCTION), or of the parameter.
    :param path: what is read (MEMORY), or whose address it is (ADDRESS, None for a local
        variable's); of a local structure (LOCAL) the member, by the variable's type.
    """

    kind: ValueKind
    text: str
    name: str = ""
    path: AccessPath | None = None


@dataclass(frozen=True)
class Access:
    """Memory that is read or written, or whose address is taken; ``value`` is what is written."""

    kind: AccessKind
    path: AccessPath
    place: Place
    value: Value | None = None


class UseKind(str, Enum):
    """What is done with a call's result."""

    IGNORED = "ignored"
    COMPARED = "compared"
    RETURNED = "returned"
    STORED = "stored"
    PASSED = "passed"
    DEREFERENCED = "dereferenced"
    COMPUTED = "computed"


@dataclass(frozen=True)
class ResultUse:
    """One use of a result.

    :param operator: ``==``, ``<`` and so on, or ``switch`` (COMPARED); else empty.
    :param operand: what it is compared with, stored in, or passed to.
    """

    kind: UseKind
    operator: str
    operand: str
    place: Place


@dataclass(frozen=True)
class Call:
    """A call. ``targets`` is one FUNCTION for a direct call; through a pointer, the values that the
    pointer may have: MEMORY for the slot of a table of operations."""

    targets: tuple[Value, ...]
    arguments: tuple[Value, ...]
    uses: tuple[ResultUse, ...]
    place: Place

    @property
    def callee(self) -> str:
        """The function's name; empty for a call through a pointer."""
        direct = len(self.targets) == 1 and self.targets[0].kind is ValueKind.FUNCTION
        return self.targets[0].name if direct else ""

    @property
    def slots(self) -> tuple[AccessPath, ...]:
        """The members and variables that a call through a pointer may take the function from."""
        memory = (ValueKind.MEMORY, ValueKind.LOCAL)
        return tuple(t.path for t in self.targets if t.kind in memory and t.path)


@dataclass(frozen=True)
class Condition:
    """A branch: ``left operator right``; of a switch ``case``, for each value or range it names."""

    left: Value
    operator: str
    right: Value
    place: Place


@dataclass(frozen=True)
class FunctionAddress:
    """A function whose address is taken. ``stored`` says where it is stored, ``passed`` to which
    function it is passed, as far as one of both is known."""

    function: str
    stored: AccessPath | None
    passed: str
    place: Place


class UnreadKind(str, Enum):
    """Why something could not be read."""

    ASSEMBLY = "assembly"
    COMPUTED_GOTO = "computed_goto"
    STATEMENT = "statement"
    OPERAND = "operand"
    HEADER = "header"


@dataclass(frozen=True)
class Unread:
    """Something that was not read: it may do anything that C can do at that place. Operands of
    assembly are accesses and values as well."""

    kind: UnreadKind
    text: str
    place: Place


@dataclass(frozen=True)
class Function:
    """What one function does.

    :param place: where it is defined, line 0 where that is not known.
    :param lines: first and last line of that file that its statements are in; (0, 0) if none is.
    :param static: None where it is not known.
    :param statements: how many were read or left unread, the compiler's notes not counted.
    """

    name: str
    place: Place
    lines: tuple[int, int]
    static: bool | None
    parameters: tuple[str, ...]
    calls: tuple[Call, ...]
    accesses: tuple[Access, ...]
    returns: tuple[Value, ...]
    conditions: tuple[Condition, ...]
    addresses: tuple[FunctionAddress, ...]
    unread: tuple[Unread, ...]
    statements: int


@dataclass(frozen=True)
class UnitFacts:
    """The functions of a unit, those of headers that it calls among them; ``unread`` is what is
    outside of all functions."""

    functions: tuple[Function, ...]
    unread: tuple[Unread, ...]
