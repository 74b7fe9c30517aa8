# SPDX-License-Identifier: GPL-2.0-or-later
"""Which edits of a type leave its objects as they are, by its text.

Each kind is one small function. What is let through is proved for every unit that goes live by
the compiler's own description of the type (build/types.py); what the text leaves open is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kspliced.plan.enumerators import Value, counts, values
from kspliced.plan.members import WIDTHS, Item, TypeText, apart, callback, type_text

ADDED = "a member is added, and objects that exist lack it"
REMOVED = "a member is removed, and objects that exist have it"
OTHER = "a member becomes another, and objects that exist have the old one"
ATTRIBUTES = "how the type is aligned, packed or named changes, and objects of it exist"
UNREAD = "the type changes, and its text cannot be taken apart"
VALUES = "enumerators change their values, which are in use"
GONE = "an enumerator is removed, and its value may be in use"
_NUMBERS = frozenset({"bool", "u8", "s8", "u16", "s16", "u32", "s32"})
_SPARE = re.compile(r"_*(?:unused|reserved|rsvd|spare|pad|padding)_*\d*_*")


def difference(old: Iterable[str], new: Iterable[str]) -> str:
    """Why the objects of a type are not as they were, by its lines before and after; '' if they
    are."""
    before, after = type_text(old), type_text(new)
    if before is None or after is None:
        return UNREAD
    if (before.head, before.tail) != (after.head, after.tail):
        return ATTRIBUTES
    return _members(before, after)


def spare(name: str) -> bool:
    """Whether a member's name says that nobody uses it."""
    return _SPARE.fullmatch(name) is not None


def carved(old: Iterable[str], new: Iterable[str]) -> frozenset[str]:
    """The bit-fields that take bits which nobody used, by a type's lines before and after; its
    other members are as they were. What they are in objects that exist is not said by this."""
    return _told(_carved, old, new)


def padded(old: Iterable[str], new: Iterable[str]) -> frozenset[str]:
    """The numbers that a type has more than before, by its lines before and after; its other
    members are as they were. Whether they lie where none of these did is not said by this."""
    return _told(_padded, old, new)


def _told(
    tell: Callable[[TypeText, TypeText], frozenset[str]], old: Iterable[str], new: Iterable[str]
) -> frozenset[str]:
    before, after = type_text(old), type_text(new)
    return frozenset() if before is None or after is None else tell(before, after)


@dataclass(frozen=True)
class _Bits:
    """A bit-field: what it is declared as, its name and how many bits it has."""

    kind: tuple[str, ...]
    name: str
    width: int


def _bits(item: Item) -> _Bits | None:
    words = item.words
    if item.inner is not None or len(words) < 4 or words[-2] != ":" or not words[-1].isdecimal():
        return None
    return _Bits(words[:-3], words[-3], int(words[-1]))


def _carved(before: TypeText, after: TypeText) -> frozenset[str]:
    rest, found = list(apart(after.items)), set()
    for item in apart(before.items):
        if rest and rest[0] == item:
            rest.pop(0)
            continue
        old = _bits(item)
        if old is None or not spare(old.name):
            return frozenset()
        left = old.width
        while left > 0 and rest:
            one = _bits(rest.pop(0))
            if one is None or one.kind != old.kind:
                return frozenset()
            left -= one.width
            found |= {one.name} - {old.name}
        if left:
            return frozenset()
    return frozenset() if rest else frozenset(found)


def _padded(before: TypeText, after: TypeText) -> frozenset[str]:
    rest, found = list(before.items), set()
    for item in after.items:
        if rest and rest[0] == item:
            rest.pop(0)
        elif item.inner is None and len(item.words) == 2 and item.words[0] in _NUMBERS:
            found.add(item.words[1])
        else:
            return frozenset()
    return frozenset() if rest else frozenset(found)


def _members(before: TypeText, after: TypeText) -> str:
    if _carved(before, after) or _padded(before, after):
        return ""
    if len(before.items) != len(after.items):
        return ADDED if len(before.items) < len(after.items) else REMOVED
    for place, (one, other) in enumerate(zip(before.items, after.items, strict=True)):
        beside = before.items[max(0, place - 1) : place] + before.items[place + 1 : place + 2]
        if not (
            one == other
            or _same_number(one, other, beside)
            or _aliased(one, other)
            or _called_otherwise(one, other)
        ):
            return OTHER
    return ""


def callbacks(old: Iterable[str], new: Iterable[str]) -> frozenset[str]:
    """The members of a type that point to functions and take more or fewer parameters now, by its
    lines before and after; its other members are as they were."""
    before, after = type_text(old), type_text(new)
    if before is None or after is None or difference(old, new):
        return frozenset()
    if len(before.items) != len(after.items):
        return frozenset()
    pairs = zip(before.items, after.items, strict=True)
    return frozenset(_called_otherwise(one, other) for one, other in pairs) - {""}


def _called_otherwise(old: Item, new: Item) -> str:
    """The name of a pointer to a function that takes more or fewer parameters now; '' if it is
    none. Code for the old number does not compile, be it who calls it or who provides it
    (-Werror=incompatible-pointer-types), so who compiles is right, if all are compiled."""
    one, other = callback(old), callback(new)
    if one is None or other is None or one.words != other.words:
        return ""
    before, after = one.parameters, other.parameters
    open_ended = {(), ("...",)} & {*before, *after}
    return one.name if len(before) != len(after) and not open_ended else ""


def _same_number(old: Item, new: Item, beside: tuple[Item, ...]) -> bool:
    """A bit-field as wide as an integer that becomes one; none may touch it."""
    words = old.words
    if len(words) != 4 or words[2] != ":" or any(":" in item.words for item in beside):
        return False
    return new.words == (_of_width(words[3]), words[1]) and words[0] in WIDTHS


def _of_width(bits: str) -> str:
    return next((name for name, width in WIDTHS.items() if width == bits), "")


def _aliased(old: Item, new: Item) -> bool:
    """A member that is put into a union with others of its size and kind."""
    if new.anonymous != "union" or new.inner is None or old.inner is not None:
        return False
    others = [item for item in new.inner if item != old]
    return len(others) == len(new.inner) - 1 and all(_same_kind(old, item) for item in others)


def _same_kind(old: Item, new: Item) -> bool:
    """Whether two members are pointers, or of one type; neither a bit-field nor an array."""
    if old.inner is not None or new.inner is not None:
        return False
    if set(":[,(#") & {word[0] for word in old.words + new.words}:
        return False
    if old.words[-2:-1] == new.words[-2:-1] == ("*",):
        return True
    return old.words[:-1] == new.words[:-1] and len(old.words) > 1


def enumerated(lines: Iterable[Iterable[str]]) -> dict[str, Value]:
    """The values of the enumerators in the lines of several types."""
    texts = [type_text(some) for some in lines]
    return values(body for text in texts if text is not None for body in text.enums)


def moved(old: dict[str, Value], new: dict[str, Value]) -> tuple[frozenset[str], str]:
    """The enumerators that count the others and count more now, or why objects may hold a value
    that is another's now."""
    if old.keys() - new.keys():
        return frozenset(), GONE
    changed = frozenset(name for name in old if old[name] != new[name])
    for name in changed:
        if not (counts(name) and _counted(name, old, new)):
            return frozenset(), VALUES
    return changed, ""


def _counted(name: str, old: dict[str, Value], new: dict[str, Value]) -> bool:
    """Whether nothing that both have was at, or is now, the value of a counter or beyond."""
    for others, mine in ((old, old[name]), (new, new[name])):
        for other, value in others.items():
            stays = other in old and old[other] == new[other] and value.group == mine.group
            if stays and (value.base != mine.base or value.step > mine.step):
                return False
    return True
