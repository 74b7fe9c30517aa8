# SPDX-License-Identifier: GPL-2.0-or-later
"""The argument parser, made from the table."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from kspliced import __version__
from kspliced.cli.table import EXIT_CODES, PROGRAM, SUMMARY, VERBS, Kind, Operand, Option, Verb
from kspliced.errors import Code, KsplicedError


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting, so that main() prints every error in one way."""

    def error(self, message: str) -> NoReturn:
        """Wrong usage.

        :raises KsplicedError: USAGE, always.
        """
        raise KsplicedError(Code.USAGE, message, f"see `{self.prog} --help`")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; ``verb`` holds the Verb."""
    codes = "\n".join(f"  {code.value}  {text}" for code, text in EXIT_CODES)
    top = _Parser(
        prog=PROGRAM,
        description=SUMMARY[0].upper() + SUMMARY[1:] + ".",
        epilog=f"exit codes:\n{codes}\n\nmanual: kspliced(1), kspliced(8)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    verbs = top.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)
    for verb in VERBS:
        _add_verb(verbs, verb)
    return top


def _add_verb(verbs: Any, verb: Verb) -> None:
    child = verbs.add_parser(
        verb.name, help=verb.summary, description=" ".join(verb.text), allow_abbrev=False
    )
    child.set_defaults(verb=verb)
    for option in verb.options:
        child.add_argument(*option.names, **_settings(option))
    for operand in verb.operands:
        child.add_argument(operand.name, **_operand_settings(operand))


def _settings(option: Option) -> dict[str, Any]:
    text = option.help + (f" (default: {option.default})" if option.default else "")
    settings: dict[str, Any] = {"help": text.replace("%", "%%"), "dest": option.dest}
    if option.kind is Kind.FLAG:
        return {**settings, "action": "store_true"}
    settings["metavar"] = option.metavar
    settings["required"] = option.required
    if option.repeat:
        settings["action"] = "append"
        settings["default"] = []
    if option.choices:
        settings["choices"] = option.choices
    if option.kind is Kind.NUMBER:
        settings["type"] = _positive
    return settings


def _operand_settings(operand: Operand) -> dict[str, Any]:
    return {"help": operand.help, **({"nargs": "?"} if operand.optional else {})}


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 4096):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 4096")
    return int(text)
