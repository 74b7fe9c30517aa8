# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a rewritten call or jump leads where the kernel would have it lead."""

from __future__ import annotations

from kspliced.errors import KernelError
from kspliced.kernel.image import KernelImage, KernelSymbol
from kspliced.match.pattern import REGISTERS, Allowed, Destination
from kspliced.model import VMLINUX

# ftrace allocates its trampolines, and BPF its own; kallsyms lists them as pseudo modules
# (kernel/trace/ftrace.c ftrace_get_trampoline_kallsym, kernel/bpf/core.c bpf_get_kallsym).
_TRAMPOLINES = ("__builtin__ftrace", "bpf")
# INCREMENT_CALL_DEPTH: sarq $5 of a per-CPU variable, whose address is what varies
# (arch/x86/include/asm/nospec-branch.h): (how it begins, its size).
_DEPTH = ((bytes.fromhex("6548c13d"), 9), (bytes.fromhex("6548c13c25"), 10))
_DEPTH_END = b"\x05"
_FTRACE_CALLERS = ("ftrace_caller", "ftrace_regs_caller", "__fentry__")


class Oracle:
    """Judges destinations against one kernel and the target that the code belongs to."""

    def __init__(self, kernel: KernelImage, target: str) -> None:
        self._kernel = kernel
        self._target = target
        self._known: dict[tuple[Destination, int], bool] = {}

    def allows(self, destination: Destination, address: int) -> bool:
        """Whether the kernel may have written a branch to ``address`` for ``destination``."""
        key = (destination, address)
        if key not in self._known:
            self._known[key] = self._judge(destination, address)
        return self._known[key]

    def _judge(self, destination: Destination, address: int) -> bool:
        allowed, detail = destination.allowed, destination.detail
        if allowed is Allowed.FTRACE:
            return self._ftrace(address)
        if allowed in (Allowed.RUNTIME_POINTER, Allowed.RUNTIME_SHIFT):
            return self._runtime(allowed, detail, address)
        if allowed is Allowed.RETURN_THUNK:
            return self._return_thunk(address)
        if allowed is Allowed.INDIRECT_THUNK:
            return self._indirect_thunk(address, detail)
        # A direct call may go through the thunk in its function's padding.
        address += self.thunk_size(address)
        if allowed is Allowed.PARAVIRT:
            return self._paravirt(address, int(detail))
        if allowed is Allowed.STATIC_TAIL_CALL and self._return_thunk(address):
            return True
        return self._static_call(address, detail)

    def thunk_size(self, address: int) -> int:
        """The size of the call thunk at ``address``, 0 where there is none.

        Source: arch/x86/kernel/callthunks.c, patch_dest().
        """
        for begin, size in _DEPTH:
            code = self._read(address, size)
            if code.startswith(begin) and code.endswith(_DEPTH_END):
                return size
        return 0

    def runtime_constant(self, name: str) -> int | None:
        """The 8 bytes of variable ``name``, which code has as constants (asm/runtime-const.h)."""
        variable = self._one(name)
        return None if variable is None else self._word(variable.address)

    def _runtime(self, allowed: Allowed, name: str, value: int) -> bool:
        word = self.runtime_constant(name)
        if word is None:
            return False
        return value == (word if allowed is Allowed.RUNTIME_POINTER else word & 0xFF)

    def _names(self, address: int) -> set[str]:
        return {s.name for s in self._kernel.symbols.at(address, VMLINUX)}

    def _ftrace(self, address: int) -> bool:
        if self._names(address).intersection(_FTRACE_CALLERS):
            return True
        nearest = self._kernel.symbols.nearest(address)
        return nearest is not None and nearest.target in _TRAMPOLINES

    def _return_thunk(self, address: int) -> bool:
        return any(name.endswith("return_thunk") for name in self._names(address))

    def _indirect_thunk(self, address: int, register: str) -> bool:
        # The two latter where the depth of calls is tracked.
        names = (f"__x86_indirect_{kind}thunk_{register}" for kind in ("", "call_", "jump_"))
        if self._names(address).intersection(names):
            return True
        # An ITS thunk may be anywhere (its_allocate_thunk()), so its content is what counts.
        number = REGISTERS.index(register)
        rex = b"\x41" if number >= 8 else b""
        thunk = rex + bytes((0xFF, 0xE0 + (number & 7), 0xCC))
        return self._read(address, len(thunk)) == thunk

    def _paravirt(self, address: int, operation: int) -> bool:
        table = self._one("pv_ops")
        if table is None:
            return False
        function = self._word(table.address + 8 * operation)
        if not function:
            return bool(self._names(address).intersection(("paravirt_BUG", "BUG_func")))
        return address == function

    def _static_call(self, address: int, name: str) -> bool:
        trampolines = self._candidates(f"__SCT__{name}")
        if any(s.address == address for s in trampolines):
            return True
        keys = self._candidates(f"__SCK__{name}")
        # struct static_call_key begins with the function (include/linux/static_call_types.h).
        return any(self._word(key.address) == address for key in keys)

    def _candidates(self, name: str) -> tuple[KernelSymbol, ...]:
        symbols = self._kernel.symbols
        own = symbols.named(name, self._target)
        return own or symbols.named(name, VMLINUX) or symbols.exported(name)

    def _one(self, name: str) -> KernelSymbol | None:
        found = self._kernel.symbols.named(name, VMLINUX)
        return found[0] if len(found) == 1 else None

    def _word(self, address: int) -> int | None:
        data = self._read(address, 8)
        return int.from_bytes(data, "little") if data else None

    def _read(self, address: int, size: int) -> bytes:
        try:
            return self._kernel.read(address, size)
        except KernelError:
            return b""
