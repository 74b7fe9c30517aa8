# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``kspliced``: parse, carry out one verb, and turn its end into an exit code."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module

from kspliced.cli.output import error_json, open_output, print_error, print_json
from kspliced.cli.parser import parser
from kspliced.cli.table import Verb
from kspliced.errors import Code, ExitCode, KsplicedError
from kspliced.oserror import translate

_INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
    """Carry out a command line; its exit code.

    :raises SystemExit: from argparse, for --help and --version.
    """
    try:
        code = _answered(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read our output has enough.
        _give_up_output()
    except OSError as error:
        _give_up_output()
        why = f"cannot write the answer: {error.strerror or error}"
        print_error(KsplicedError(Code.IO, why, "make room there, or send it elsewhere"))
    return int(ExitCode.FAILED)


def _answered(arguments: Sequence[str]) -> int:
    """The same, whose output may fail: OSError passes to the caller."""
    as_json = "--json" in arguments
    try:
        parsed = parser().parse_args(arguments)
        return int(_carry_out(parsed))
    except KsplicedError as error:
        if as_json:
            print_json(error_json(error))
        else:
            print_error(error)
        return int(error.exit_code)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except SystemExit:
        sys.stdout.flush()  # what argparse wrote, while its failure can be told
        raise


def _give_up_output() -> None:
    """Python must not complain about what is left of it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console() -> None:
    """The entry point of the installed command."""
    open_output()
    sys.exit(main(sys.argv[1:]))


def _carry_out(parsed: Namespace) -> ExitCode:
    verb: Verb = parsed.verb
    # Late: `kspliced --help` and `status` need not load a builder.
    module = import_module(f"kspliced.cli.{verb.module}")
    try:
        code: ExitCode = module.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise translate(error) from error
    return code
