# SPDX-License-Identifier: GPL-2.0-or-later
"""What is read off a module's file to find and load it is no difference that code shows, and is
one all the same: it waits for the reboot."""

from __future__ import annotations

import pytest

from kspliced.build.rules import check
from tests.corpus.test_diff import judge

# include/linux/moduleparam.h, module.h
MACROS = """
#define NAME(a, line) NAME_(a, line)
#define NAME_(a, line) __UNIQUE_ID_ ## a ## line
#define INFO(tag, text) static const char NAME(tag, __COUNTER__)[] __attribute__((used, \\
    aligned(1), section(".modinfo"))) = PREFIX #tag "=" text;
#define TABLE(kind, name) extern typeof(name) LINK(kind, name) __attribute__((unused, alias(#name)))
#define FORMER(kind, name) __mod_ ## kind ## __ ## name ## _device_table
#define LATTER(kind, name) __mod_device_table__ ## kind ## __ ## name
struct id { unsigned int vendor, data; };
struct driver { const struct id *ids; int users; };
int f(int n) { return other(n); }
"""
TABLE = "static const struct id ids[] = {{1, 2}, {3, 4}, {}};\n"
ALONE = TABLE + "TABLE(pci, ids);\n"
USED = TABLE + "struct driver driver = {ids}; int g(void) { use(&driver); return 1; }\n"


def refused(
    before: str, after: str, prefix: str = "", link: str = "FORMER"
) -> set[tuple[str, str]]:
    flags = (f'-DPREFIX="{prefix}"', f"-DLINK={link}")
    verdict = judge(MACROS + before, MACROS + after, *flags)
    assert not verdict.changed
    found = check(verdict.diff, verdict.carried, "unit.o")
    return {(refusal.code, refusal.symbol) for refusal in found}


@pytest.mark.parametrize("prefix", ["", "ext4."])
@pytest.mark.parametrize(
    ("tag", "symbol"),
    [
        ("alias", "MODULE_ALIAS"),
        ("firmware", "MODULE_FIRMWARE"),
        ("license", "MODULE_LICENSE"),
        ("softdep", "MODULE_SOFTDEP"),
        ("version", "MODULE_VERSION"),
        ("staging", "MODULE_INFO"),
    ],
)
def test_what_depmod_or_the_loader_reads(tag: str, symbol: str, prefix: str) -> None:
    one, other = f'INFO({tag}, "a=1")', f'INFO({tag}, "a=2")'
    expected = {("section_changed", symbol)}
    for before, after in ((one, other), ("", one), (one, ""), (one, one + other)):
        assert refused(before, after, prefix) == expected
    assert not refused(one + other, other + one, prefix)


@pytest.mark.parametrize("tag", ["author", "description", "parm", "parmtype", "import_ns"])
def test_what_only_people_read(tag: str) -> None:
    assert not refused("", f'INFO({tag}, "a")')
    assert not refused(f'INFO({tag}, "a")', f'INFO({tag}, "an other=one")')


@pytest.mark.parametrize("link", ["FORMER", "LATTER"])
def test_devices_that_a_module_is_loaded_for(link: str) -> None:
    """With and without a driver that has the table, too."""
    expected = ("section_changed", "ids")
    for base in (TABLE, USED):
        for before, after in ((base, base + "TABLE(pci, ids);"), ("", ALONE)):
            if before or base is TABLE:
                assert refused(before, after, "", link) == {expected}
                assert refused(after, before, "", link) == {expected}
    for base in (ALONE, USED + "TABLE(pci, ids);"):
        for old, new in (("{3, 4}", "{3, 5}"), ("{3, 4}", "{3, 4}, {6, 7}")):
            assert expected in refused(base, base.replace(old, new), "", link)
        assert expected in refused(base, base.replace("pci", "usb"), "", link)
        assert not refused(base, base, "", link)


def test_a_table_that_no_tool_reads_is_written_over() -> None:
    assert not refused(USED, USED.replace("{3, 4}", "{3, 5}"))
