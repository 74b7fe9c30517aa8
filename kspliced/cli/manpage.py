# SPDX-License-Identifier: GPL-2.0-or-later
"""The man pages, made from the table: ``python3 -m kspliced.cli.manpage DIRECTORY``."""

from __future__ import annotations

import sys
from pathlib import Path

from kspliced import __version__
from kspliced.cli.manual import SYSTEM_SECTIONS, Item, Section
from kspliced.cli.table import EXIT_CODES, PROGRAM, SUMMARY, VERBS, Kind, Option, Verb


def command_page() -> str:
    """kspliced(1): the command."""
    lines = [*_head(1), *_name(SUMMARY), ".SH SYNOPSIS"]
    for verb in VERBS:
        lines += [f".B {_text(PROGRAM)} {_text(verb.name)}", _usage(verb), ".br"]
    lines += [
        ".SH DESCRIPTION",
        *_paragraph(
            "kspliced makes kernel upgrades take effect without a reboot. When the package "
            "manager has installed a newer build of the kernel that runs, the daemon builds an "
            "update from the two sources, proves by comparing every byte that the running "
            "kernel is what it takes it for, and switches the changed functions while the "
            "machine runs. What cannot be proved is refused, with the reason."
        ),
        *_paragraph(
            "status, apply, undo, uname and reboot-required ask the daemon, over D-Bus. plan, "
            "build, show and match work without it, on any machine; doctor looks for itself."
        ),
        ".SH COMMANDS",
    ]
    for verb in VERBS:
        lines += _verb(verb)
    lines += [".SH EXIT STATUS"]
    for code, text in EXIT_CODES:
        lines += [".TP", f".B {code.value}", _text(text)]
    lines += [
        ".SH ERRORS",
        *_paragraph(
            "An error is one line on standard error: what happened and what can be done. With "
            '--json it is an object {"error": {"code", "message", "remedy", "details"}} on '
            "standard output; the codes are stable."
        ),
        ".SH SEE ALSO",
        ".BR kspliced (8),",
        ".BR busctl (1),",
        ".BR journalctl (1)",
    ]
    return "\n".join(lines) + "\n"


def system_page() -> str:
    """kspliced(8): the daemon and the machine."""
    lines = [*_head(8), *_name("the daemon that makes kernel upgrades live")]
    for section in SYSTEM_SECTIONS:
        lines += _section(section)
    lines += [".SH SEE ALSO", ".BR kspliced (1),", ".BR systemctl (1),", ".BR polkit (8)"]
    return "\n".join(lines) + "\n"


def write_pages(directory: Path) -> None:
    """Write kspliced.1 and kspliced.8 to ``directory``. OSError passes to the caller."""
    (directory / "kspliced.1").write_text(command_page(), "utf-8")
    (directory / "kspliced.8").write_text(system_page(), "utf-8")


def _head(section: int) -> list[str]:
    manual = "User Commands" if section == 1 else "System Manager's Manual"
    return [
        '.\\" SPDX-License-Identifier: GPL-2.0-or-later',
        '.\\" Made by kspliced.cli.manpage; do not edit.',
        f'.TH KSPLICED {section} "" "{PROGRAM} {__version__}" "{manual}"',
        ".nh",
        ".ad l",
    ]


def _name(summary: str) -> list[str]:
    return [".SH NAME", f"{PROGRAM} \\- {_text(summary)}"]


def _section(section: Section) -> list[str]:
    lines = [f'.SH "{_text(section.title)}"']
    for text in section.paragraphs:
        lines += _paragraph(text)
    for item in section.items:
        lines += _item(item)
    return lines


def _item(item: Item) -> list[str]:
    return [".TP", f".B {_text(item.term)}", _text(item.text)]


def _paragraph(text: str) -> list[str]:
    return [".PP", _text(text)]


def _verb(verb: Verb) -> list[str]:
    lines = [f'.SS "{_text(verb.name)}"', *(_text(text) for text in verb.text)]
    for operand in verb.operands:
        lines += [".TP", f".I {_text(operand.name)}", _text(_sentence(operand.help))]
    for option in verb.options:
        names = ", ".join(f"\\fB{_text(name)}\\fR" for name in option.names)
        value = f" \\fI{_text(option.metavar)}\\fR" if option.kind is not Kind.FLAG else ""
        text = _sentence(option.help)
        if option.default:
            text += f" Default: {option.default}."
        lines += [".TP", names + value, _text(text)]
    codes = ", ".join(str(int(code)) for code in verb.exits)
    if codes:
        lines += [".PP", f"Exit codes besides 0, 1 and 2: {codes}."]
    return lines


def _usage(verb: Verb) -> str:
    parts = [_option_usage(option) for option in verb.options]
    for operand in verb.operands:
        name = f"\\fI{_text(operand.name)}\\fR"
        parts.append(f"[{name}]" if operand.optional else name)
    return " ".join(parts)


def _option_usage(option: Option) -> str:
    text = f"\\fB{_text(option.names[0])}\\fR"
    if option.kind is not Kind.FLAG:
        text += f"\\~\\fI{_text(option.metavar)}\\fR"
    text = text if option.required else f"[{text}]"
    return text + ("\\|.\\|.\\|." if option.repeat else "")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _text(text: str) -> str:
    """Text with what roff would take for its own made literal."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga")
    escaped = escaped.replace("'", "\\(aq").replace('"', "\\(dq").replace("~", "\\(ti")
    return f"\\&{escaped}" if escaped[:1] == "." else escaped


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
