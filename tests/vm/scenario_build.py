# SPDX-License-Identifier: GPL-2.0-or-later
"""Packs of the scenarios: patches against one kernel's source, built by the builder's stages.

    python3 -m tests.vm.scenario_build VERSION FOLDER PATCH...

writes PATCH.kspack, or PATCH.refused with the codes, where the kernel's compiler is.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kspliced.build.glue import place_glue
from kspliced.build.groups import emit_parts
from kspliced.build.kbuild import Unit
from kspliced.build.unit import DiffedUnit, PlainProofs, join_units
from kspliced.build.workspace import source_of
from kspliced.elf.read import read_object
from kspliced.model import CORE_ABI, FunctionChange, Manifest, PreUnit, Refusal
from kspliced.pack import Blob, Pack, pack_bytes, parse_pack, read_pack
from kspliced.plan.components import Component
from tests.corpus import kernels, stages
from tests.vm import cache, kmod_build, trixie
from tests.vm.case import OLD_VERSION

PATCHES = Path(__file__).parent / "scenarios"
_PATH = re.compile(r"^\+\+\+ b/(\S+)", re.MULTILINE)

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Built:
    """What came of a scenario; ``pack`` is None when there is nothing to do or it is refused."""

    pack: Pack | None
    functions: tuple[FunctionChange, ...]
    refused: tuple[Refusal, ...]

    @property
    def codes(self) -> set[str]:
        """The codes of the refusals."""
        return {refusal.code for refusal in self.refused}

    @property
    def live(self) -> Pack:
        """The pack of a scenario that is to go live."""
        assert self.pack is not None, self.refused
        return self.pack


class Workshop:
    """Builds scenarios for the kernel of ``version`` in ``folder``, which is empty at first."""

    def __init__(self, folder: Path, version: str = OLD_VERSION) -> None:
        self._trees = stages.Trees(kernels.source(version), kernels.headers(version), folder)
        self._patched = folder / "patched"

    @property
    def source(self) -> Path:
        """The unpatched tree."""
        return self._trees.old

    def patched(self, *patches: str) -> Files:
        """The files that the named patches change, one patch on top of the other."""
        place = self._patched / "+".join(patches)
        paths: set[str] = set()
        for patch in patches:
            text = (PATCHES / f"{patch}.patch").read_text()
            for path in _PATH.findall(text):
                (place / path).parent.mkdir(parents=True, exist_ok=True)
                if path not in paths:
                    shutil.copyfile(self.source / path, place / path)
                paths.add(path)
            cache.command("patch", "-p1", "--quiet", "-d", place, stdin=text)
        return {path: (place / path).read_bytes() for path in sorted(paths)}

    def build(
        self, scenarios: Mapping[str, Files], targets: Iterable[str] = ()
    ) -> dict[str, Built]:
        """Build each scenario by itself; every unit is compiled unpatched once."""
        trees = self._trees
        every = {path for files in scenarios.values() for path in files}
        chosen = stages.choose(trees, every, targets)
        units = {source: unit for unit in chosen.units for source in [f"{unit.path[:-2]}.c"]}
        post: dict[str, tuple[Unit, ...]] = {}
        glues: dict[str, Unit] = {}
        for name, files in scenarios.items():
            wanted = tuple(units[path] for path in files if path in units)
            if len(wanted) == len(files):
                stages.put(trees, name, files)
                glues[name] = place_glue(trees.new(name), trees.headers, _update_name(name))
                post[name] = (*wanted, glues[name])
        failed = stages.compile_all(trees, chosen.units, post)
        assert not failed, failed
        built = {}
        for name, files in scenarios.items():
            refused = tuple(r for r in chosen.refused if r.unit in files)
            if refused:
                built[name] = Built(None, (), refused)
            else:
                built[name] = self._finish(name, post[name][:-1], glues[name])
        return built

    def _finish(self, name: str, units: tuple[Unit, ...], glue: Unit) -> Built:
        joined = join_units(stages.diff(self._trees, name, unit) for unit in units)
        diffed = PlainProofs(self._compile_plain).prove(joined)
        refused = tuple(refusal for unit in diffed for refusal in unit.refused)
        functions = tuple(function for unit in diffed for function in unit.functions)
        live = [unit for unit in diffed if unit.live]
        if refused or not live:
            return Built(None, functions, refused)
        return Built(self._pack(name, live, functions, glue), functions, ())

    def _compile_plain(self, units: tuple[Unit, ...]) -> dict[str, bytes]:
        place = tempfile.mkdtemp(prefix="plain.", dir=self._trees.work)
        return stages.compile_plain(self._trees, units, Path(place))

    def _pack(
        self,
        name: str,
        live: list[DiffedUnit],
        functions: tuple[FunctionChange, ...],
        glue: Unit,
    ) -> Pack:
        headers = self._trees.headers
        compiled = (self._trees.objects(name) / glue.path).read_bytes()
        # Each file stands by itself, unless it uses what another one adds.
        components = (Component(source_of(d.unit), (source_of(d.unit),), (), (), ()) for d in live)
        parts = emit_parts(live, components, read_object(compiled, "glue"))
        manifest = Manifest(
            update=_update_name(name),
            kernel=headers.kernel,
            to_version=f"{headers.kernel.version}+{name}",
            compiler=headers.compiler_version,
            core_abi=CORE_ABI,
            units=tuple(PreUnit(d.unit.target, d.unit.path, d.unit.path) for d in live),
            functions=functions,
            refused=(),
            entries=(),
            glue=parts.glue,
            groups=parts.groups,
        )
        blobs = (*parts.blobs, *(Blob(d.unit.path, d.matched) for d in live))
        return parse_pack(pack_bytes(manifest, blobs)[0], name)


def _update_name(scenario: str) -> str:
    return f"ks_{hashlib.sha256(scenario.encode()).hexdigest()[:12]}"


def packs(kernel: kmod_build.Kernel, patches: Sequence[str]) -> dict[str, Pack | set[str]]:
    """The packs of patches for a kernel, or the codes of their refusals; built in Debian 13 where
    that has its compiler."""
    folder = kmod_build.TREE / "build" / "vm" / f"packs-{kernel.version}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    words = [kernel.version, str(folder), *patches]
    kernels.source(kernel.version)
    if shutil.which(kmod_build.compiler(kmod_build.headers(kernel))) is None:
        trixie.run(["python3", "-m", "tests.vm.scenario_build", *words])
    else:
        main(words)
    found: dict[str, Pack | set[str]] = {}
    for name in patches:
        refused = folder / f"{name}.refused"
        pack = folder / f"{name}.kspack"
        found[name] = set(refused.read_text().split()) if refused.exists() else read_pack(pack)
    return found


def main(arguments: list[str]) -> int:
    """Build the patches ``arguments[2:]`` for the kernel of a version into a folder."""
    version, folder, *patches = arguments
    with tempfile.TemporaryDirectory() as work:
        workshop = Workshop(Path(work), version)
        built = workshop.build({patch: workshop.patched(patch) for patch in patches})
    for name, scenario in built.items():
        place = Path(folder, name).parent
        place.mkdir(parents=True, exist_ok=True)
        if scenario.pack is None:
            Path(folder, f"{name}.refused").write_text(" ".join(sorted(scenario.codes)))
        else:
            content = pack_bytes(scenario.pack.manifest, scenario.pack.blobs)[0]
            Path(folder, f"{name}.kspack").write_bytes(content)
    return 0


def pack_file(scenario: str) -> bytes:
    """The pack of one patch, as a file."""
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        pack = workshop.build({scenario: workshop.patched(scenario)})[scenario].live
        return pack_bytes(pack.manifest, pack.blobs)[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
