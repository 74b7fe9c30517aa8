# SPDX-License-Identifier: GPL-2.0-or-later
"""An update is closed: what its code imports, something shows its target to have."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kspliced.build.closed import Listed, Missing, Proofs, read_exports, read_running
from kspliced.build.kbuild import Unit
from kspliced.build.unit import DiffedUnit, diff_unit, join_units
from kspliced.kernel.kallsyms import without_addresses
from tests.corpus.compiler import compile_file

BTF = ("-g0", "-gbtf")
FENTRY = {"__fentry__": "vmlinux", "other": "vmlinux"}
USER = "int use_it(int n) { return other(n); }"
CALL = "int wanted(int n); int use_it(int n) { return wanted(other(n)); }"
EXPORT = 'asm(".globl __ksymtab_wanted\\n__ksymtab_wanted = 0");'


@dataclass
class Tree:
    """Old objects in a folder, and what of them goes live."""

    folder: Path
    exports: dict[str, str] = field(default_factory=lambda: dict(FENTRY))
    running: frozenset[str] = frozenset()
    olds: list[tuple[Unit, Path]] = field(default_factory=list)
    live: list[DiffedUnit] = field(default_factory=list)

    def old(self, name: str, text: str, target: str) -> tuple[Unit, bytes]:
        """A unit that is compiled as it was."""
        unit, content = Unit(f"{name}.o", "", target), compile_file(text, *BTF)
        path = self.folder / unit.path
        path.write_bytes(content)
        self.olds.append((unit, path))
        return unit, content

    def unit(self, name: str, before: str, after: str, target: str = "vmlinux") -> None:
        """A unit that changes."""
        unit, content = self.old(name, before, target)
        self.live.append(diff_unit(unit, content, compile_file(after, *BTF), ()))

    def missing(self) -> dict[str, Missing]:
        """By symbol, what nothing shows."""
        listed = Listed(self.exports, self.running)
        joined = join_units(self.live)
        assert not [refusal for d in joined for refusal in d.refused]
        return {m.symbol: m for m in Proofs(lambda: listed, lambda: self.olds).missing(joined)}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_what_nothing_shows_is_missing_and_its_users_are_named(tree: Tree) -> None:
    tree.unit("user", USER, CALL)
    tree.unit("other", "int fine(int n) { return other(n); }", "int fine(int n) { return n; }")
    (one,) = tree.missing().values()
    assert (one.unit.path, one.symbol, one.functions) == ("user.o", "wanted", ("use_it",))
    assert (one.exporter, one.gone) == ("", False)


def test_compilers_helpers_are_exported(tree: Tree) -> None:
    """__fentry__ is in every function; without an export table it is shown by what used it."""
    tree.exports.clear()
    tree.unit("user", USER, USER.replace("other(n)", "other(n) + 1"))
    assert tree.missing() == {}
    tree.live.clear()
    tree.unit("user", "int use_it(int n);", CALL)
    assert tree.missing() == {}, "nothing of it is live: nobody calls what is new"


def test_what_another_unit_adds_is_there_while_that_is_live(tree: Tree) -> None:
    tree.unit("user", USER, CALL)
    tree.unit("owner", "int old(int n) { return n; }", "int old(int n) { return n; }"
              " int wanted(int n) { return n + 1; }")  # fmt: skip
    assert tree.missing() == {}
    tree.live.pop()
    assert set(tree.missing()) == {"wanted"}, "what adds it is refused"


def test_what_was_static_is_found_through_its_unit_only(tree: Tree) -> None:
    static = "static noinline int wanted(int n) { return other(n); } int old(int n) {"
    before = f"{static} return wanted(n); }}"
    tree.unit("user", USER, CALL)
    tree.unit("owner", before, before.replace("static ", ""))
    assert tree.missing() == {}
    tree.live.pop()
    assert set(tree.missing()) == {"wanted"}, "the kernel's is known in its unit alone"


def test_old_objects_show_what_they_define_or_use(tree: Tree) -> None:
    tree.unit("user", USER, CALL)
    unit = tree.old("owner", "int wanted(int n) { return n; }", "vmlinux")[0]
    assert tree.missing() == {}
    tree.olds.pop()
    tree.old("owner", "int wanted(int n) { return n; }", "module")
    assert set(tree.missing()) == {"wanted"}, "the kernel proper cannot use a module's"
    tree.old("uses", CALL, "vmlinux")
    assert tree.missing() == {}
    assert unit.path == "owner.o"


@pytest.mark.parametrize(
    "text",
    [
        "int wanted(int n) __attribute__((weak)); int f(int n) { return wanted ? wanted(n) : n; }",
        'int wanted(int n); __attribute__((section(".init.text"))) int f(int n) {'
        " return wanted(n); }",
        "static noinline int wanted(int n) { return other(n); } int f(int n) { return wanted(n); }",
        "const char *f(void) { return \"wanted\"; }",
    ],
    ids=["weak", "init", "static", "string"],
)  # fmt: skip
def test_what_does_not_show_a_symbol(tree: Tree, text: str) -> None:
    tree.unit("user", USER, CALL)
    tree.old("other", text, "vmlinux")
    assert set(tree.missing()) == {"wanted"}


def test_a_weak_definition_shows_that_there_is_one(tree: Tree) -> None:
    tree.unit("user", USER, CALL)
    tree.old("weak", "int __attribute__((weak)) wanted(int n) { return n; }", "vmlinux")
    assert tree.missing() == {}


def test_what_is_there_for_start_up_only(tree: Tree) -> None:
    tree.unit("user", USER, CALL)
    init = '__attribute__((section(".init.text"))) int wanted(int n) { return n; }'
    tree.old("init", init, "vmlinux")
    (one,) = tree.missing().values()
    assert one.gone


def test_a_symbol_that_is_removed_is_still_there(tree: Tree) -> None:
    """New code of one unit uses what the new source of another no longer has."""
    tree.unit("user", USER, CALL)
    before = "int wanted(int n) { return n; } int old(int n) { return other(n); }"
    tree.unit("owner", before, "int old(int n) { return other(n) + 1; }")
    assert tree.missing() == {}


def test_a_per_cpu_variable(tree: Tree) -> None:
    declared = "extern int wanted; int other(int n);"
    tree.unit("user", USER, f"{declared} int use_it(int n) {{ return other(n) + wanted; }}")
    assert set(tree.missing()) == {"wanted"}
    percpu = 'int __attribute__((section(".data..percpu"))) wanted;'
    tree.old("owner", percpu, "vmlinux")
    assert tree.missing() == {}


def test_the_ends_of_a_section_are_the_linkers(tree: Tree) -> None:
    text = "extern int __start_table[]; int use_it(int n) { return __start_table[n]; }"
    tree.unit("user", USER, text)
    assert set(tree.missing()) == {"__start_table"}
    tree.old("uses", text.replace("use_it", "uses"), "vmlinux")
    assert tree.missing() == {}


def test_a_module_uses_what_is_exported(tree: Tree) -> None:
    tree.unit("user", USER, CALL, "module")
    tree.exports["wanted"] = "vmlinux"
    assert tree.missing() == {}
    tree.exports["wanted"] = "module"
    assert tree.missing() == {}


def test_a_module_that_nothing_keeps_is_a_new_dependency(tree: Tree) -> None:
    tree.unit("user", USER, CALL, "module")
    tree.exports |= {"wanted": "library", "linked": "library"}
    (one,) = tree.missing().values()
    assert one.exporter == "library"
    # It is used in start-up only, and links by it all the same.
    init = '__attribute__((section(".init.text"))) int f(int n) { return linked(n); }'
    tree.old("links", f"int linked(int n); {init}", "module")
    assert tree.missing() == {}
    tree.live.clear()
    tree.olds.clear()
    tree.unit("user", USER, CALL)
    assert tree.missing()["wanted"].exporter == "library", "the kernel proper links by no module"


def test_a_module_uses_what_the_kernel_proper_has_and_newly_exports(tree: Tree) -> None:
    tree.unit("user", USER, CALL, "module")
    tree.old("owner", "int wanted(int n) { return n; }", "vmlinux")
    assert tree.missing() == {}
    tree.olds.pop()
    tree.old("uses", CALL, "vmlinux")
    assert set(tree.missing()) == {"wanted"}, "what it uses may be static by now"


def test_the_running_kernel_says_what_it_has(tree: Tree) -> None:
    for target in ("vmlinux", "module"):
        tree.live.clear()
        tree.olds.clear()
        tree.running = frozenset()
        tree.unit("user", USER, CALL, target)
        assert set(tree.missing()) == {"wanted"}
        tree.running = frozenset({"wanted"})
        assert tree.missing() == {}


KALLSYMS = b"""\
0000000000000000 A __per_cpu_start
ffffffff81000000 T _text
ffffffff81000010 t local
ffffffff81000020 T wanted
ffffffff82000000 D __init_begin
ffffffff82000000 T early
ffffffff82100000 R __init_end
ffffffff82100000 B late
ffffffffc0000000 T theirs\t[module]
ffffffffc0100000 t bpf_prog_1\t[bpf]
"""


def test_a_list_of_symbols_with_and_without_addresses(tmp_path: Path) -> None:
    expected = {"__per_cpu_start", "_text", "wanted", "__init_end", "late"}
    hidden = b"".join(b"0" * 16 + line[16:] for line in KALLSYMS.splitlines(keepends=True))
    for text in (KALLSYMS, hidden, without_addresses(KALLSYMS)):
        path = tmp_path / "symbols"
        path.write_bytes(text)
        assert read_running(path) == expected
    assert b"ffff" not in without_addresses(KALLSYMS)
    assert read_running(tmp_path / "none") == read_running(None) == frozenset()


def test_exports_by_target(tmp_path: Path) -> None:
    path = tmp_path / "Module.symvers"
    path.write_text(
        "0x00000001\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n"
        "0x00000002\tsnd_ac97\tsound/pci/ac97/snd-ac97-codec\tEXPORT_SYMBOL_GPL\t\n"
        "0x00000003\tdma_buf_get\tdrivers/dma-buf/dma-buf.ko\tEXPORT_SYMBOL_GPL\tDMA_BUF\n"
        "\n"
    )
    assert read_exports(path) == {
        "printk": "vmlinux", "snd_ac97": "snd_ac97_codec", "dma_buf_get": "dma_buf",
    }  # fmt: skip
    assert read_exports(tmp_path / "none") == {}
