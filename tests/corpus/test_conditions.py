# SPDX-License-Identifier: GPL-2.0-or-later
"""What the configuration leaves out of a file, beside what the compiler leaves out."""

from __future__ import annotations

import subprocess

import pytest

from kspliced.plan.conditions import Configuration

CONFIG = """\
CONFIG_ON=y
CONFIG_ALSO=y
CONFIG_LOADED=m
CONFIG_HZ=250
CONFIG_NAME="text"
# CONFIG_OFF is not set
"""
# As include/generated/autoconf.h and include/linux/kconfig.h have it.
DEFINED = """\
#define CONFIG_ON 1
#define CONFIG_ALSO 1
#define CONFIG_LOADED_MODULE 1
#define CONFIG_HZ 250
#define CONFIG_NAME "text"
#define __ARG_PLACEHOLDER_1 0,
#define __take_second_arg(__ignored, val, ...) val
#define __and(x, y) ___and(x, y)
#define ___and(x, y) ____and(__ARG_PLACEHOLDER_##x, y)
#define ____and(arg1_or_junk, y) __take_second_arg(arg1_or_junk y, 0)
#define __or(x, y) ___or(x, y)
#define ___or(x, y) ____or(__ARG_PLACEHOLDER_##x, y)
#define ____or(arg1_or_junk, y) __take_second_arg(arg1_or_junk 1, y)
#define __is_defined(x) ___is_defined(x)
#define ___is_defined(val) ____is_defined(__ARG_PLACEHOLDER_##val)
#define ____is_defined(arg1_or_junk) __take_second_arg(arg1_or_junk 1, 0)
#define IS_BUILTIN(option) __is_defined(option)
#define IS_MODULE(option) __is_defined(option##_MODULE)
#define IS_ENABLED(option) __or(IS_BUILTIN(option), IS_MODULE(option))
"""
DECIDED = [
    "CONFIG_ON", "CONFIG_OFF", "CONFIG_LOADED", "!CONFIG_OFF", "0", "1",
    "defined(CONFIG_ON)", "defined CONFIG_OFF", "defined(CONFIG_LOADED)",
    "defined(CONFIG_LOADED_MODULE)", "defined(CONFIG_ON_MODULE)", "defined(CONFIG_HZ)",
    "IS_ENABLED(CONFIG_ON)", "IS_ENABLED(CONFIG_LOADED)", "IS_ENABLED(CONFIG_OFF)",
    "IS_BUILTIN(CONFIG_LOADED)", "IS_MODULE(CONFIG_LOADED)", "IS_MODULE(CONFIG_ON)",
    "IS_ENABLED(CONFIG_OFF) || (CONFIG_ON && !CONFIG_OFF)",
    "CONFIG_OFF && CONFIG_ON || CONFIG_ALSO", "!(CONFIG_ON || CONFIG_OFF)",
]  # fmt: skip
OPEN = ["HERE", "defined(HERE)", "CONFIG_HZ > 100", "CONFIG_ON && HERE", "CONFIG_HZ", "CONFIG_ON +"]
CONFIGURATION = Configuration.parse(CONFIG)


def text(condition: str) -> list[str]:
    body = (
        f"#if {condition}\nin\n#ifdef CONFIG_ALSO\nalso\n#else\nnever\n#endif\n#else\nout\n#endif"
    )
    around = "#ifndef CONFIG_OFF\nnot\n#elif 1\nor\n#else\nnor\n#endif\nend"
    return f"{body}\n{around}".split("\n")


def kept(lines: list[str]) -> list[str]:
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("condition", DECIDED)
def test_what_options_decide_is_what_the_compiler_reads(condition: str) -> None:
    lines = text(condition)
    resolved = CONFIGURATION.compiled(lines)
    command = ["gcc", "-E", "-P", "-x", "c", "-"]
    source = DEFINED + "\n".join(lines)
    done = subprocess.run(command, input=source.encode(), capture_output=True, check=True)
    assert kept(resolved.lines) == done.stdout.decode().split()
    assert len(resolved.lines) == len(lines)
    directives = {n for n, line in enumerate(resolved.lines, 1) if line.startswith("#")}
    assert resolved.decided >= directives


@pytest.mark.parametrize("condition", OPEN)
def test_what_else_decides_leaves_both(condition: str) -> None:
    resolved = CONFIGURATION.compiled(text(condition))
    assert kept(resolved.lines) == ["in", "also", "out", "not", "end"]
    undecided = [text(condition)[number - 1] for number in (1, 8, 10)]
    assert undecided == [f"#if {condition}", "#else", "#endif"]
    assert not resolved.decided & {1, 8, 10}


def test_an_option_that_the_file_itself_defines_is_open() -> None:
    lines = ["#define CONFIG_OFF 1", "#ifdef CONFIG_OFF", "in", "#endif"]
    assert CONFIGURATION.compiled(lines).lines[:4] == lines[:4]


def test_a_condition_may_go_on_in_the_next_line() -> None:
    lines = ["#if CONFIG_ON && \\", "CONFIG_OFF", "in", "#endif", "end"]
    resolved = CONFIGURATION.compiled(lines)
    assert kept(resolved.lines) == ["end"]
    assert len(resolved.lines) == len(lines)
