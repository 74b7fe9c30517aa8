# SPDX-License-Identifier: GPL-2.0-or-later
"""Small old and new trees, taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kspliced.plan.attribution import Attribution
from kspliced.plan.components import Component, Decomposer, Decomposition, Texts
from kspliced.plan.makers import Makers

ONE = "int one(int n)\n{\n\treturn n;\n}\n"
TWO = "int two(void)\n{\n\treturn 2;\n}\n"
THREE = "int three(void)\n{\n\treturn 3;\n}\n"
HEADER = """\
#ifndef H
#define H
struct s {
	int a;
	struct s *next;
};
static inline int pick(struct s *s)
{
	return s->a;
}
#define LIMIT 3
int one(int n);
#endif
"""


@dataclass(frozen=True)
class Trees:
    """Files by path: (old text, new text); '' where there is none. ``reads``: the headers that
    sources include, all that changed if not said; ``included``: sources, with who includes each."""

    folder: Path
    files: dict[str, tuple[str, str]]
    reads: frozenset[str] | None = None
    included: tuple[tuple[str, str], ...] = ()

    def decompose(self) -> Decomposition:
        return self.decomposer().decompose()

    def decomposer(
        self, told: tuple[Attribution, ...] = (), foreign: frozenset[str] = frozenset()
    ) -> Decomposer:
        for path, both in self.files.items():
            for name, text in zip(("old", "new"), both, strict=True):
                place = self.folder / name / path
                place.parent.mkdir(parents=True, exist_ok=True)
                if text:
                    place.write_text(text)
        changed = sorted(path for path, (old, new) in self.files.items() if old != new)
        texts = Texts(self.folder / "old", self.folder / "new", changed)
        included = {path: frozenset({host}) for path, host in self.included}
        sources = [path for path in changed if path.endswith(".c") and path not in included]
        headers = [path for path in changed if path.endswith(".h") or path in included]
        reads = frozenset(headers) if self.reads is None else self.reads
        makers = Makers(told)
        return Decomposer(
            *(
                texts,
                sources,
                headers,
                self.mentions,
                lambda _: reads,
                (),
                makers,
                included,
                foreign,
            )
        )

    def mentions(self, names: frozenset[str]) -> dict[str, frozenset[str]]:
        return {
            name: frozenset(path for path, (old, _) in self.files.items() if name in old)
            for name in names
        }


def files(decomposition: Decomposition) -> list[tuple[str, ...]]:
    return [component.files for component in decomposition.components]


def only(decomposition: Decomposition) -> Component:
    (component,) = decomposition.components
    return component
