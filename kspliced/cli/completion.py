# SPDX-License-Identifier: GPL-2.0-or-later
"""Shell completion, made from the table: ``python3 -m kspliced.cli.completion [bash|zsh|fish]``."""

from __future__ import annotations

import sys
from collections.abc import Callable

from kspliced.cli.table import PROGRAM, SUMMARY, VERBS, Kind, Option, Verb

_HEAD = "# SPDX-License-Identifier: GPL-2.0-or-later\n# Made by kspliced.cli.completion.\n"


def bash() -> str:
    """The completion of bash (bash-completion's _init_completion is not needed)."""
    names = " ".join(verb.name for verb in VERBS)
    words = "\n".join(f"\t{verb.name}) words='{' '.join(_names(verb))}' ;;" for verb in VERBS)
    values = "\n".join(_bash_value(verb, option) for verb in VERBS for option in verb.options)
    files = "|".join(verb.name for verb in VERBS if verb.operands)
    return f"""{_HEAD}
_kspliced() {{
	local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}} verb='' words=''
	COMPREPLY=()
	((COMP_CWORD > 1)) && verb=${{COMP_WORDS[1]}}
	if [[ -z $verb ]]; then
		mapfile -t COMPREPLY < <(compgen -W '{names} --help --version' -- "$cur")
		return
	fi
	case $verb:$prev in
{values.strip(chr(10))}
	esac
	case $verb in
{words}
	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$words --help" -- "$cur")
		return
	fi
	case $verb in
	{files})
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		;;
	esac
}}
complete -F _kspliced {PROGRAM}
"""


def zsh() -> str:
    """The completion of zsh."""
    verbs = "\n".join(f"\t\t'{verb.name}:{_quoted(verb.summary)}'" for verb in VERBS)
    cases = "\n".join(
        f"\t{verb.name}) _arguments -S {' '.join(_zsh_specs(verb))} ;;" for verb in VERBS
    )
    return f"""#compdef {PROGRAM}
{_HEAD}
local -a verbs
if ((CURRENT == 2)); then
	verbs=(
{verbs}
	)
	_describe -t verbs '{_quoted(SUMMARY)}' verbs
	return
fi
shift words
((CURRENT--))
case $words[1] in
{cases}
esac
"""


def fish() -> str:
    """The completion of fish."""
    lines = [f"complete -c {PROGRAM} -f"]
    for verb in VERBS:
        first = f"complete -c {PROGRAM} -n __fish_use_subcommand"
        lines.append(f"{first} -a {verb.name} -d '{_quoted(verb.summary)}'")
        when = f"complete -c {PROGRAM} -n '__fish_seen_subcommand_from {verb.name}'"
        if verb.operands:
            lines.append(f"{when} -F")
        for option in verb.options:
            flags = " ".join(_fish_flag(name) for name in option.names)
            lines.append(f"{when} {flags}{_fish_value(option)} -d '{_quoted(option.help)}'")
    return _HEAD + "\n".join(lines) + "\n"


SHELLS: dict[str, Callable[[], str]] = {"bash": bash, "zsh": zsh, "fish": fish}


def _names(verb: Verb) -> list[str]:
    return [name for option in verb.options for name in option.names]


def _bash_value(verb: Verb, option: Option) -> str:
    if option.kind is Kind.FLAG:
        return ""
    patterns = "|".join(f"{verb.name}:{name}" for name in option.names)
    action = {Kind.FILE: "-f", Kind.DIRECTORY: "-d"}.get(option.kind)
    if option.choices:
        action = f"-W '{' '.join(option.choices)}'"
    if action is None:
        return f"\t{patterns}) return ;;"
    files = "compopt -o filenames; " if action in ("-f", "-d") else ""
    fill = f'mapfile -t COMPREPLY < <(compgen {action} -- "$cur")'
    return f"\t{patterns}) {files}{fill}; return ;;"


def _zsh_specs(verb: Verb) -> list[str]:
    specs = []
    for option in verb.options:
        value = {
            Kind.FLAG: "",
            Kind.FILE: f":{option.metavar}:_files",
            Kind.DIRECTORY: f":{option.metavar}:_directories",
        }.get(option.kind, f":{option.metavar}:({' '.join(option.choices)})")
        text = _quoted(option.help.replace("[", "(").replace("]", ")").replace(":", "\\:"))
        again = "*" if option.repeat else ""
        specs += [f"'{again}{name}[{text}]{value}'" for name in option.names]
    return specs + [f"'::{operand.name}:_files'" for operand in verb.operands]


def _fish_flag(name: str) -> str:
    return f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"


def _fish_value(option: Option) -> str:
    if option.kind is Kind.FLAG:
        return ""
    if option.choices:
        return f" -x -a '{' '.join(option.choices)}'"
    return " -r -F" if option.kind in (Kind.FILE, Kind.DIRECTORY) else " -x"


def _quoted(text: str) -> str:
    """For the inside of single quotes in each of the shells."""
    return text.replace("'", "").replace("`", "")


if __name__ == "__main__":
    sys.stdout.write(SHELLS[sys.argv[1] if len(sys.argv) > 1 else "bash"]())
