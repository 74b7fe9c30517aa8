# SPDX-License-Identifier: GPL-2.0-or-later
"""What an object says of its module to those who look for one, and load it: .modinfo, and the
tables of device ids that MODULE_DEVICE_TABLE() names. depmod reads them off the file.

No code of the kernel reads them again once the module is in, so that nothing of them can go live.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kspliced.build.diff import UnitDiff
from kspliced.build.layout import Entity, Layout, is_device_table

_SECTION = ".modinfo"
# For people, or for the build alone: the parameters themselves are __param, and what is imported
# from a namespace is linked by address.
_IDLE = frozenset({"author", "description", "parm", "parmtype", "import_ns"})
_MACROS = {
    "alias": "MODULE_ALIAS",
    "firmware": "MODULE_FIRMWARE",
    "license": "MODULE_LICENSE",
    "softdep": "MODULE_SOFTDEP",
    "version": "MODULE_VERSION",
}


@dataclass(frozen=True)
class InfoChange:
    """``symbol`` is the macro that says it in the source, or the table; ``evidence`` what it is."""

    symbol: str
    evidence: str


def information_changes(diff: UnitDiff) -> Iterator[InfoChange]:
    """What differs of that, texts first."""
    before, after = _texts(diff.pre.layout), _texts(diff.post.layout)
    for tag, value in sorted(before ^ after):
        side = "before" if (tag, value) in before else "after"
        yield InfoChange(_MACROS.get(tag, "MODULE_INFO"), f"{tag}={value} {side}")
    olds, news = _tables(diff.pre.layout), _tables(diff.post.layout)
    changed = {data.post for data in diff.data}
    for name in sorted(olds.keys() | news.keys()):
        old, new = olds.get(name), news.get(name)
        if old is None or new is None:
            table = new or old
            assert table is not None
            yield InfoChange(table.name, f"{name} {'after' if old is None else 'before'}")
        elif new in changed or diff.pairing.pre_of(new) != old:
            yield InfoChange(new.name, name)


def _texts(layout: Layout) -> frozenset[tuple[str, str]]:
    """(tag, value) of each text of .modinfo; what is built in has its module's name before it."""
    found = set()
    for section in layout.object.sections:
        if section.name == _SECTION:
            for text in section.data.split(b"\0"):
                tag, _, value = text.decode("utf-8", "replace").partition("=")
                found.add((tag.rpartition(".")[2], value))
    return frozenset((tag, value) for tag, value in found if tag and tag not in _IDLE)


def _tables(layout: Layout) -> dict[str, Entity]:
    """The tables of device ids, by the symbol that says of which kind they are."""
    return {
        symbol.name: layout.at(symbol.section, symbol.value)
        for symbol in layout.object.symbols
        if symbol.defined and is_device_table(symbol.name) and layout.known(symbol.section)
    }
