# SPDX-License-Identifier: GPL-2.0-or-later
"""Frozen dataclasses to JSON and back, strictly: nothing missing, nothing unknown, no coercion."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class RecordError(ValueError):
    """A JSON value does not have the shape of the record; the message names the place."""


def encode(value: Any) -> Any:
    """The JSON value of a record: dataclasses become objects, tuples arrays, enums their value."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form")


def dumps(value: Any) -> bytes:
    """Canonical JSON (sorted keys, no blanks, UTF-8) of a record: same value, same bytes."""
    text = json.dumps(encode(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8")


def loads(kind: type[T], data: bytes, longest: int = 0) -> T:
    """Parse canonical or other JSON into a record of type ``kind``.

    :param longest: how many characters a text may have, 0 for any number.
    :raises RecordError: for bytes that are not JSON or not of that shape.
    """
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not JSON: {error}") from error
    if longest:
        _require_short(value, longest)
    return decode(kind, value)


def _require_short(value: Any, longest: int) -> None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if len(item) > longest:
                raise RecordError(f"a text has {len(item)} characters: {item[:40]!r}")
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.keys()
            waiting += item.values()


def decode(kind: type[T], value: Any) -> T:
    """Turn the JSON value ``value`` into a record; RecordError if it is not a ``kind``."""
    decoded: T = _decode(kind, value, kind.__name__)
    return decoded


def _decode(kind: Any, value: Any, place: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _decode_union(kind, value, place)
    if origin is tuple:
        return _decode_tuple(get_args(kind), value, place)
    if isinstance(kind, type) and is_dataclass(kind):
        return _decode_dataclass(kind, value, place)
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(value)
        except ValueError as error:
            raise RecordError(f"{place}: {value!r:.40} is not a {kind.__name__}") from error
    if kind is float and type(value) is int:
        return float(value)
    if kind in (str, int, float, bool, NoneType) and type(value) is kind:
        return value
    raise RecordError(f"{place}: expected {getattr(kind, '__name__', kind)}, found {value!r:.40}")


def _decode_union(kind: Any, value: Any, place: str) -> Any:
    for option in get_args(kind):
        try:
            return _decode(option, value, place)
        except RecordError:
            continue
    raise RecordError(f"{place}: {value!r:.40} has none of the allowed types")


def _decode_tuple(args: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise RecordError(f"{place}: expected an array")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_decode(args[0], item, f"{place}[{i}]") for i, item in enumerate(value))
    if len(args) != len(value):
        raise RecordError(f"{place}: expected {len(args)} items")
    return tuple(
        _decode(arg, item, f"{place}[{i}]")
        for i, (arg, item) in enumerate(zip(args, value, strict=True))
    )


def _decode_dataclass(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise RecordError(f"{place}: expected an object")
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    unknown = sorted(set(value) - set(names))
    missing = sorted(set(names) - set(value))
    if unknown or missing:
        unknown = [name[:40] for name in unknown[:5]]
        raise RecordError(f"{place}: unknown {unknown}, missing {missing}")
    return kind(**{name: _decode(hints[name], value[name], f"{place}.{name}") for name in names})
