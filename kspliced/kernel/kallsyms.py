# SPDX-License-Identifier: GPL-2.0-or-later
"""/proc/kallsyms as a table that parses only the lines it is asked for.

A kernel has some 200 000 lines; matching asks for a few hundred. So the lines stay bytes, names
are found through one dictionary built in bulk, and addresses by bisection on the lines
themselves: vmlinux's are in ascending order and the address is a prefix of fixed width
(kernel/kallsyms.c, s_show: ``%px %c %s\\t[%s]``).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from kspliced.errors import Code, KernelError
from kspliced.kernel.image import KernelSymbol
from kspliced.lines import split_lines
from kspliced.model import VMLINUX

_NAME = 19  # 16 digits, a blank, the type letter, a blank

_TWIN = b"__ksymtab_"


def without_addresses(text: bytes) -> bytes:
    """The kernel proper's part of /proc/kallsyms, in its order: a letter and a name a line."""
    first = text.find(b"\t[")
    core = text if first < 0 else text[: text.rfind(b"\n", 0, first) + 1]
    return b"".join(line[_NAME - 2 :] + b"\n" for line in split_lines(core))


class Kallsyms:
    """A SymbolTable over the text of /proc/kallsyms.

    :raises KernelError: KERNEL_UNREADABLE when the text is empty, malformed, or its addresses are
        hidden from this process.
    """

    def __init__(self, text: bytes) -> None:
        first = text.find(b"\t[")
        core = len(text) if first < 0 else text.rfind(b"\n", 0, first) + 1
        self._core = split_lines(text[:core])
        self._rest = split_lines(text[core:])
        self._check()
        self._core_names: dict[bytes, int] | None = None
        self._core_repeated: dict[bytes, list[int]] = {}
        self._core_dotted: dict[bytes, list[int]] = {}
        self._rest_sorted: list[bytes] | None = None
        self._modules: dict[str, _Module] = {}
        self._module_exports: dict[str, list[KernelSymbol]] | None = None

    def _check(self) -> None:
        if not self._core or len(self._core[-1]) <= _NAME:
            raise KernelError(
                Code.KERNEL_UNREADABLE,
                "/proc/kallsyms is empty or malformed",
                "a kernel with CONFIG_KALLSYMS_ALL is needed",
            )
        if not any(line[:16].strip(b"0") for line in self._core[-64:]):
            raise KernelError(
                Code.KERNEL_UNREADABLE,
                "/proc/kallsyms hides its addresses from this process",
                "run as root; kernel.kptr_restrict must be below 2",
            )

    def named(self, name: str, target: str) -> tuple[KernelSymbol, ...]:
        """Every symbol of ``target`` called exactly ``name``."""
        if target != VMLINUX:
            return self._module(target).names.get(name, ())
        key = name.encode()
        number = self._names().get(key)
        if number is None:
            return ()
        return self._symbols(self._core_repeated.get(key, [number]))

    def stem(self, stem: str, target: str) -> tuple[KernelSymbol, ...]:
        """Every symbol of ``target`` whose name is ``stem`` or begins with ``stem`` and a dot."""
        if target != VMLINUX:
            return self._module(target).stems.get(stem, ())
        exact = self.named(stem, target)
        return exact + self._symbols(self._core_dotted.get(stem.encode(), []))

    def at(self, address: int, target: str) -> tuple[KernelSymbol, ...]:
        """Every symbol of ``target`` with exactly this address."""
        if target != VMLINUX:
            return self._module(target).addresses.get(address, ())
        if not 0 <= address < 1 << 64:
            return ()
        key = b"%016x" % address
        first = bisect_left(self._core, key)
        last = bisect_left(self._core, key + b"\xff")
        return self._symbols(range(first, last))

    def nearest(self, address: int) -> KernelSymbol | None:
        """The last symbol at or below ``address``; vmlinux's own range first, then modules."""
        if not 0 <= address < 1 << 64:
            return None
        key = b"%016x\xff" % address
        if self._core[-1][:16] >= key[:16]:
            number = bisect_right(self._core, key) - 1
            return self._symbol(self._core[number]) if number >= 0 else None
        if self._rest_sorted is None:
            self._rest_sorted = sorted(self._rest)
        number = bisect_right(self._rest_sorted, key) - 1
        return self._symbol(self._rest_sorted[number]) if number >= 0 else None

    def exported(self, name: str) -> tuple[KernelSymbol, ...]:
        """Exported symbols: what has a ``__ksymtab_`` twin in its target.

        The type of a module's says it only of those that are not for GPL modules alone
        (kernel/module/main.c, is_exported).
        """
        if self._module_exports is None:
            self._module_exports = self._find_module_exports()
        found: list[KernelSymbol] = []
        # A kernel that lists no such twins is taken to export every global symbol.
        lists = self.named("__ksymtab_jiffies", VMLINUX)
        if not lists or self.named(f"__ksymtab_{name}", VMLINUX):
            found += [s for s in self.named(name, VMLINUX) if s.type.isupper()]
        return (*found, *self._module_exports.get(name, ()))

    def _find_module_exports(self) -> dict[str, list[KernelSymbol]]:
        twins = {line[_NAME + len(_TWIN) :] for line in self._rest if line.startswith(_TWIN, _NAME)}
        exports: dict[str, list[KernelSymbol]] = {}
        for line in self._rest:
            if line[17:18].isupper() or line[_NAME:] in twins:
                symbol = self._symbol(line)
                exports.setdefault(symbol.name, []).append(symbol)
        return exports

    def _names(self) -> dict[bytes, int]:
        """Index of vmlinux's names: last line of each; lines of repeated and of dotted names."""
        if self._core_names is None:
            names = [line[_NAME:] for line in self._core]
            index = dict(zip(names, range(len(names)), strict=True))
            if len(index) != len(names):
                repeated = {name for number, name in enumerate(names) if index[name] != number}
                for number, name in enumerate(names):
                    if name in repeated:
                        self._core_repeated.setdefault(name, []).append(number)
            for number, name in enumerate(names):
                if b"." in name:
                    stem = name[: name.index(b".", 1)] if b"." in name[1:] else name
                    self._core_dotted.setdefault(stem, []).append(number)
            self._core_names = index
        return self._core_names

    def _symbols(self, numbers: list[int] | range) -> tuple[KernelSymbol, ...]:
        return tuple(self._symbol(self._core[number]) for number in numbers)

    def _symbol(self, line: bytes) -> KernelSymbol:
        name, _, module = line[_NAME:].partition(b"\t")
        try:
            return KernelSymbol(
                name=name.decode("utf-8", "replace"),
                address=int(line[:16], 16),
                type=chr(line[17]),
                target=module[1:-1].decode("utf-8", "replace") if module else VMLINUX,
            )
        except (ValueError, IndexError) as error:
            raise KernelError(
                Code.KERNEL_UNREADABLE,
                "/proc/kallsyms has a malformed line",
                evidence=(f"/proc/kallsyms: {line[:200]!r}",),
            ) from error

    def _module(self, target: str) -> _Module:
        if target not in self._modules:
            suffix = b"\t[" + target.encode() + b"]"
            lines = [line for line in self._rest if line.endswith(suffix)]
            self._modules[target] = _Module([self._symbol(line) for line in lines])
        return self._modules[target]


class _Module:
    """A module's few hundred symbols, by name, stem and address."""

    def __init__(self, symbols: list[KernelSymbol]) -> None:
        self.names: dict[str, tuple[KernelSymbol, ...]] = {}
        self.stems: dict[str, tuple[KernelSymbol, ...]] = {}
        self.addresses: dict[int, tuple[KernelSymbol, ...]] = {}
        for symbol in symbols:
            dot = symbol.name.find(".", 1)
            stem = symbol.name if dot < 0 else symbol.name[:dot]
            self.names[symbol.name] = (*self.names.get(symbol.name, ()), symbol)
            self.stems[stem] = (*self.stems.get(stem, ()), symbol)
            self.addresses[symbol.address] = (*self.addresses.get(symbol.address, ()), symbol)
