# SPDX-License-Identifier: GPL-2.0-or-later
"""The text of a type, taken apart into members, so that what does not matter can be left out.

On x86-64, GCC: which spellings of an integer are one type is said for these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_TOKEN = re.compile(r"""\#.* | [A-Za-z_]\w* | \d\w* | \.\.\. | << | >> | [^\w\s]""", re.VERBOSE)
# What only sparse and fortified functions read, and const, which is no matter of layout.
_ANNOTATIONS = frozenset({
    "__rcu", "__user", "__percpu", "__iomem", "__force", "__kernel", "__nocast", "__private",
    "__safe", "const",
})  # fmt: skip
_WITH_ARGUMENT = frozenset({"__counted_by", "__counted_by_le", "__counted_by_be"})
_INTEGERS = {
    "u8": ("unsigned char", "__u8", "uint8_t"),
    "s8": ("signed char", "__s8", "int8_t"),
    "u16": ("unsigned short", "unsigned short int", "__u16", "uint16_t"),
    "s16": ("short", "short int", "signed short", "__s16", "int16_t"),
    "u32": ("unsigned int", "unsigned", "__u32", "uint32_t"),
    "s32": ("int", "signed", "signed int", "__s32", "int32_t"),
    "u64": ("unsigned long", "unsigned long int", "unsigned long long", "__u64", "uint64_t",
            "unsigned long long int", "__kernel_ulong_t"),
    "s64": ("long", "long int", "signed long", "long long", "long long int", "__s64", "int64_t",
            "__kernel_long_t"),
}  # fmt: skip
_SAME = {words: name for name, several in _INTEGERS.items() for words in (name, *several)}
_INTEGER_WORDS = frozenset({"unsigned", "signed", "char", "short", "int", "long"})
WIDTHS = {"u8": "8", "u16": "16", "u32": "32", "u64": "64"}
_TAGS = frozenset({"struct", "union", "enum"})
# include/linux/stddef.h: members, and all of them as one member.
_GROUP = "struct_group"


@dataclass(frozen=True)
class Item:
    """A member, or a directive between members: its ``words``, normal; of a structure or union
    without a name, or of a group, the ``inner`` items (``words`` is what stands around these)."""

    words: tuple[str, ...]
    inner: tuple[Item, ...] | None = None

    @property
    def anonymous(self) -> str:
        """``struct`` or ``union``, if the item is one without a name or attributes."""
        plain = self.inner is not None and len(self.words) == 3 and self.words[0] in _TAGS
        return self.words[0] if plain else ""


@dataclass(frozen=True)
class Callback:
    """A member that is a pointer to a function: its ``name``, what it is but for the parameters
    (``words``), and their types, each as its words."""

    name: str
    words: tuple[str, ...]
    parameters: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class TypeText:
    """``head`` and ``tail`` are what stands before and behind the braces; ``enums`` the bodies of
    the enumerations within."""

    head: tuple[str, ...]
    items: tuple[Item, ...]
    tail: tuple[str, ...]
    enums: tuple[tuple[str, ...], ...]


def tokens(lines: Iterable[str]) -> tuple[str, ...]:
    """The tokens of lines of code; a directive is one."""
    return tuple(word for line in lines for word in _TOKEN.findall(line))


def normal(words: tuple[str, ...]) -> tuple[str, ...]:
    """Tokens without annotations, each integer type under one name."""
    return tuple(_integers(_bare(words)))


def _bare(words: tuple[str, ...]) -> Iterator[str]:
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if word in _WITH_ARGUMENT and words[place : place + 1] == ("(",):
            place = closing(words, place) + 1
        elif word not in _ANNOTATIONS:
            yield word


def _integers(words: Iterable[str]) -> Iterator[str]:
    spelt: list[str] = []
    for word in words:
        if word in _INTEGER_WORDS:
            spelt.append(word)
            continue
        if spelt:
            yield _integer(spelt)
            spelt = []
        yield _SAME.get(word, word)
    if spelt:
        yield _integer(spelt)


def _integer(spelt: list[str]) -> str:
    return _SAME.get(" ".join(spelt), " ".join(spelt))


def closing(words: tuple[str, ...], start: int) -> int:
    """Where what opens at ``start`` closes; the end if it does not."""
    depth = 0
    for place in range(start, len(words)):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(words[place], 0)
        if not depth:
            return place
    return len(words)


def type_text(lines: Iterable[str]) -> TypeText | None:
    """A structure, union or enumeration by the lines it stands on; None if they are none."""
    words = tokens(lines)
    if "{" not in words:
        return None
    start = words.index("{")
    end = closing(words, start)
    if end == len(words):
        return None
    enums: list[tuple[str, ...]] = []
    items: tuple[Item, ...] = ()
    head = words[:start]
    if "enum" in head:
        enums.append(words[start + 1 : end])
    else:
        items = tuple(_items(words[start + 1 : end], enums))
    return TypeText(normal(head), items, normal(words[end + 1 :]), tuple(enums))


def _items(words: tuple[str, ...], enums: list[tuple[str, ...]]) -> Iterator[Item]:
    place = 0
    while place < len(words):
        if words[place].startswith("#"):
            yield Item((words[place],))
            place += 1
            continue
        end = place
        while end < len(words) and words[end] != ";":
            end = closing(words, end) + 1 if words[end] in "({[" else end + 1
        if words[place : place + 2] == (_GROUP, "("):
            yield _group(words[place:end], enums)
        elif end > place:
            yield _item(words[place:end], enums)
        place = end + 1


def _group(words: tuple[str, ...], enums: list[tuple[str, ...]]) -> Item:
    """``struct_group(NAME, MEMBERS)``."""
    return Item((*words[:3], ")"), tuple(_items(words[4:-1], enums)))


def _item(words: tuple[str, ...], enums: list[tuple[str, ...]]) -> Item:
    if "{" not in words:
        return Item(_member(normal(words)))
    start = words.index("{")
    end = closing(words, start)
    head, body, rest = words[:start], words[start + 1 : end], words[end + 1 :]
    if "enum" in head:
        # What it is as a member; the values are compared by name.
        enums.append(body)
        signed = "-" in body
        return Item(normal(("s32" if signed else "u32", *rest)))
    around = normal((*head, "{", "}", *rest))
    return Item(around, tuple(_items(body, enums)))


def apart(items: Iterable[Item]) -> tuple[Item, ...]:
    """Items of which each bit-field is one, also where several are declared as one, and so is each
    member of a group."""
    return tuple(one for item in items for one in _apart(item))


def _apart(item: Item) -> Iterator[Item]:
    if item.inner is None:
        yield from map(Item, _bit_fields(item.words))
    elif item.words[:1] == (_GROUP,):
        yield from (Item(item.words), *apart(item.inner), Item((")",)))
    else:
        yield item


def _bit_fields(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if ":" not in words or "," not in words or set("([{") & set(words):
        yield words
        return
    ends = [*(n for n, word in enumerate(words) if word == ","), len(words)]
    starts = [0, *(end + 1 for end in ends[:-1])]
    first = words[: ends[0]]
    kind = first[: first.index(":") - 1] if ":" in first else first[:-1]
    yield first
    yield from ((*kind, *words[a:b]) for a, b in zip(starts[1:], ends[1:], strict=True))


def _member(words: tuple[str, ...]) -> tuple[str, ...]:
    """A member, without the names of the parameters if it is a pointer to a function."""
    end = _before_parameters(words)
    return (*words[:end], *parameters(words[end:])) if end else words


def callback(item: Item) -> Callback | None:
    """A member as what it is if it is a pointer to a function; None if not."""
    end = _before_parameters(item.words)
    name = next((word for word in item.words[:end][::-1] if word.isidentifier()), "")
    if item.inner is not None or not name:
        return None
    return Callback(name, item.words[:end], tuple(_parts(item.words[end:])))


def _before_parameters(words: tuple[str, ...]) -> int:
    """How many words of a pointer to a function come before its parameters; 0 if it is none."""
    place = next((p for p in range(len(words) - 1) if words[p : p + 2] == ("(", "*")), -1)
    if place < 0:
        return 0
    end = closing(words, place) + 1
    whole = words[end : end + 1] == ("(",) and closing(words, end) == len(words) - 1
    return end if whole else 0


def parameters(words: tuple[str, ...]) -> tuple[str, ...]:
    """``( … )`` without the names of the parameters."""
    found: list[str] = []
    for part in _parts(words):
        found += [",", *part]
    return ("(", *found[1:], ")")


def _parts(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The parameters of ``( … )`` without their names."""
    part: list[str] = []
    place = 1
    while place < len(words) - 1:
        if words[place] == ",":
            yield _unnamed(part)
            part = []
            place += 1
            continue
        end = closing(words, place) if words[place] in ("(", "[", "{") else place
        part += words[place : end + 1]
        place = end + 1
    yield _unnamed(part)


def _unnamed(part: list[str]) -> tuple[str, ...]:
    """A parameter without its name, where the last word can be nothing else."""
    if not part or not (part[-1].isidentifier()) or set(part) & set("([{"):
        return tuple(part)
    before = tuple(part[:-1])
    if not before or before[-1] in _TAGS:
        return tuple(part)
    return before
