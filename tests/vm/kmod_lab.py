# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest with the kernel core and the modules of tests/vm/kmod/."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from tests.vm import fresh
from tests.vm.guest import FAULT
from tests.vm.initramfs import PARALLEL, Initramfs
from tests.vm.kmod_build import Modules

UPDATES = "/sys/kernel/kspliced/updates"
VICTIMS = ("victim_value", "victim_sleeper", "victim_deep")
REPLACED = (*VICTIMS, "cmdline_proc_show")
CONSTANTS = ("victim_table", "linux_proc_banner")
# Of its members the second is the hook.
HOOKS = "victim_hooks"

# The symbols named, each with the one behind it: those of vmlinux are sorted by address.
FIND = "grep -A1 -E ' [tTrRdD] ({names})([^[:alnum:]_.]|$)' /proc/kallsyms"


@dataclass(frozen=True)
class Place:
    """A function or datum of the running kernel: address, and size in bytes."""

    addr: int
    size: int


@dataclass(frozen=True)
class Lab:
    """A running guest with the core, the park and the victim loaded.

    An update that was applied stays until the reboot, so a test that comes later has it under
    another name: ``names`` tells which, where it is not its own.
    """

    machine: Initramfs
    modules: Modules
    places: dict[str, Place]
    names: dict[str, str] = field(default_factory=dict)

    def name(self, update: str) -> str:
        """The name of the module that is an update at this time."""
        return self.names.get(update, update)

    def at(self, update: str) -> str:
        """The directory of an update."""
        return f"{UPDATES}/{self.name(update)}"

    def renew(self, update: str) -> None:
        """Have an update that is loaded, and stays, for what will be loaded next by its name."""
        old = self.name(update)
        number = 1 + (0 if old == update else int(old[1:4]))
        name = self.names[update] = fresh.name(update, number)
        offsets = fresh.offsets(self.modules.files[f"{update}.ko"].read_bytes(), update)
        writes = "".join(
            f"printf {name} | dd of=/{name}.ko bs=1 seek={at} conv=notrunc 2> /dev/null\n"
            for at in offsets
        )
        # Its last abort cause is from a test that is over.
        self.machine.check(
            f"""cp /{update}.ko /{name}.ko; {writes}
            (echo reverse > {UPDATES}/{old}/control) 2> /dev/null; exit 0"""
        )

    def insmod(self, update: str, watched: str = "", **parameters: str | int) -> str:
        """The command that loads an update module, with a further function to keep off stacks."""
        names = [*REPLACED, *([watched] if watched else [])]
        if watched:
            parameters["count"] = len(names)
        found = [self.places[name] for name in names]
        parameters["addrs"] = ",".join(str(place.addr) for place in found)
        parameters["sizes"] = ",".join(str(place.size) for place in found)
        words = " ".join(f"{name}={value}" for name, value in parameters.items())
        return f"insmod /{self.name(update)}.ko {words}"

    def insmod_with_data(self, update: str, wrong: str = "", hook: bool = False) -> str:
        """The same for an update that changes constants as well, and may set a hook."""
        addrs = [self.places[name].addr for name in CONSTANTS]
        addrs += [self.places[HOOKS].addr + 8] if hook else []
        places = ",".join(map(str, addrs))
        return self.insmod(update, data=places, **({"wrong": wrong} if wrong else {}))

    def load(self, update: str, watched: str = "", **parameters: str | int) -> str:
        """Load an update module; returns what insmod said, empty where it succeeded."""
        return self._load(self.insmod(update, watched, **parameters))

    def _load(self, insmod: str) -> str:
        output = self.machine.run(insmod)
        assert (output.status == 0) == (not output.text)
        return output.text

    def load_with_data(self, update: str, wrong: str = "", hook: bool = False) -> str:
        """The same for an update that changes constants as well, and may set a hook."""
        return self._load(self.insmod_with_data(update, wrong, hook))

    def write(self, update: str, word: str) -> int:
        """Write to ``control``; returns the error number, 0 where the write succeeded."""
        output = self.machine.run(f"echo {word} > {self.at(update)}/control", 120)
        if output.status == 0:
            return 0
        known = {os.strerror(number): number for number in errno.errorcode}
        return known[output.text.strip().rpartition(": ")[2]]

    def read(self, update: str, file: str) -> str:
        """The content of one of an update's files."""
        return self.machine.check(f"cat {self.at(update)}/{file}")

    def state(self, update: str) -> tuple[str, str]:
        """Stage and abort cause of an update."""
        stage, cause = self.machine.check(f"cd {self.at(update)}; cat stage abort_cause").split()
        return stage, cause

    def applied(self) -> tuple[str, ...]:
        """The updates whose stage is "applied"."""
        found = self.machine.check(f"grep -sl applied {UPDATES}/*/stage; exit 0").split()
        return tuple(path.split("/")[-2] for path in found)

    def head(self, update: str, function: str) -> int:
        """The offset of the jump in a function that an update replaces."""
        spans = [line.split("\t") for line in self.read(update, "spans").splitlines()]
        (offset,) = (int(fields[2]) for fields in spans if fields[5] == function)
        return offset

    def values(self) -> tuple[int, str]:
        """What the victim and the kernel's own function give: (1000, "") is the original."""
        value, cmdline = self.machine.check("cat /proc/victim /proc/cmdline").splitlines()
        return int(value), cmdline.removeprefix(
            "cmdline of update "
        ) if "of update" in cmdline else ""

    def constants(self) -> tuple[str, str]:
        """What the victim's table and the kernel's banner show."""
        table = self.machine.check("cat /proc/victim_table").split()
        return ",".join(table), self.machine.check("cat /proc/version")[:20]

    def sleep_in(self, word: str, comm: str) -> int:
        """Put a thread to sleep in the victim; returns its pid once it sleeps there."""
        self.machine.check(f"echo {word} > /proc/victim")
        script = f"""
            for i in $(seq 100); do
                for p in /proc/[0-9]*; do
                    if grep -qF '{comm}' $p/comm && grep -qE 'park_wait|sleeper' $p/stack; then
                        echo ${{p#/proc/}}; exit 0
                    fi
                done
                sleep 0.1
            done
            exit 1"""
        return int(self.machine.check(script))

    def wake(self) -> None:
        """Let the sleeping thread go; returns when it has ended."""
        self.machine.check("echo wake > /proc/victim")

    def locks_watched(self) -> bool:
        """Whether a kernel that watches locks still does: not after a complaint.

        Nor does it after unloading by force (bit 3 of the taint), where that is no matter.
        """
        return not self.machine.run("""
            grep -q 'debug_locks: *0' /proc/lockdep_stats 2> /dev/null || exit 0
            [ $(($(cat /proc/sys/kernel/tainted) & 8)) != 0 ]""").status


@contextmanager
def booted(
    name: str,
    modules: Modules,
    files: Mapping[str, Path],
    further: Sequence[str],
    accel: str = PARALLEL,
) -> Iterator[Lab]:
    """A lab in a guest ``name`` with more files; it finds the ``further`` symbols, too."""
    tree, every = modules.tree, {**modules.files, **files}
    with Initramfs(name, tree.image, every, arguments=tree.arguments, accel=accel) as machine:
        machine.check("insmod /kspliced.ko; insmod /park.ko; insmod /victim.ko")
        assert machine.check("uname -r").strip() == tree.release
        names = (*REPLACED, *further)
        yield Lab(machine, modules, find(machine, names, sizes_in(modules.files["victim.ko"])))
        machine.check("rmmod victim")
        # What was applied stays, and what it needs with it.
        left = machine.check(f"ls {UPDATES}")
        assert (machine.run("rmmod kspliced").status != 0) == bool(left), left


@contextmanager
def unharmed(lab: Lab) -> Iterator[Lab]:
    """The lab with nothing loaded; afterwards everything must be as before, and no complaint."""
    before = len(lab.machine.console_path.read_text(errors="replace"))
    yield lab
    lab.wake()
    leave(lab)
    assert lab.values() == (1000, "")
    console = lab.machine.console_path.read_text(errors="replace")[before:]
    assert not FAULT.search(console), console
    assert lab.locks_watched()


def leave(lab: Lab) -> None:
    """Reverse what is applied, unload what never was, and have the rest under another name."""
    for name in lab.applied():
        output = lab.machine.run(f"echo reverse > {UPDATES}/{name}/control", 120)
        assert output.status == 0, output.text
    loaded = lab.machine.check(f"cd {UPDATES}; ls").split()
    for update in {path.removesuffix(".ko") for path in lab.modules.files}:
        if lab.name(update) not in loaded:
            continue
        if lab.read(update, "resident") == "0\n":
            lab.machine.check(f"rmmod {lab.name(update)}")
        else:
            lab.renew(update)


def sizes_in(module: Path) -> dict[str, int]:
    """The size of each function of a module, as its symbol table says."""
    with module.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        return {symbol.name: symbol["st_size"] for symbol in table.iter_symbols()}


def find(machine: Initramfs, names: tuple[str, ...], sizes: dict[str, int]) -> dict[str, Place]:
    """Where functions and data lie; those that ``sizes`` does not know reach to the next symbol."""
    lines = machine.check(FIND.format(names="|".join(names)), 120).splitlines()
    symbols = [line.split() for line in lines if line != "--"] + [[]]
    places: dict[str, Place] = {}
    for (at, _, name, *_), behind in itertools.pairwise(symbols):
        if name in names:
            assert name not in places, f"two symbols are called {name}"
            addr = int(at, 16)
            places[name] = Place(addr, sizes.get(name) or int(behind[0], 16) - addr)
        if not behind:
            break
    assert set(places) == set(names)
    return places
