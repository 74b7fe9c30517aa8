# SPDX-License-Identifier: GPL-2.0-or-later
"""From two sources to a pack. The stages, in order, are the methods of :class:`_Pipeline`.

All or nothing: an update goes into a pack only when every change that matters to this kernel can
go live, since nothing here proves that a part of an upgrade is right without the rest.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from kspliced.build.emit import emit
from kspliced.build.glue import place_glue
from kspliced.build.kbuild import FLAGS, Headers, Kbuild, Unit, check_compiler, open_headers
from kspliced.build.select import (
    Irrelevant,
    Selection,
    directories,
    keep,
    not_kernel,
    only_version,
    select,
)
from kspliced.build.unit import DiffedUnit, diff_unit
from kspliced.build.workspace import Workspace, source_of
from kspliced.elf.read import read_object
from kspliced.errors import BuildError, Code, SourceError
from kspliced.model import (
    CORE_ABI,
    ChangelogEntry,
    FunctionChange,
    Manifest,
    PreUnit,
    Progress,
    ProgressSink,
    Refusal,
)
from kspliced.oserror import translated
from kspliced.pack import MODULE_BLOB, Blob
from kspliced.source.changelog import new_entries
from kspliced.source.compare import Comparison, complete, lay_out
from kspliced.source.functions import touched_functions
from kspliced.source.package import Source, open_source

_FILES = 82_000
_TOP_MAKEFILE = "Makefile"
# Where each stage begins, as a share of the whole (measured on the 6.1.192 upgrade).
_STARTS = {"unpack": 0.0, "select": 0.6, "compile": 0.65, "diff": 0.93, "emit": 0.98}


@dataclass(frozen=True)
class BuildRequest:
    """What to build. ``targets``: vmlinux and module names that matter, empty for all that the
    configuration builds; ``only``: globs of units, empty for all; ``jobs``: parallel compilers;
    ``workdir``: where the temporary tree goes (needs some 500 MB), None for the default."""

    from_source: Path
    to_source: Path
    config: Path
    headers: Path
    targets: tuple[str, ...]
    only: tuple[str, ...]
    jobs: int
    workdir: Path | None


@dataclass(frozen=True)
class StageTime:
    """How long a stage took, in seconds."""

    stage: str
    seconds: float


@dataclass(frozen=True)
class BuildResult:
    """What came of it. ``manifest`` is None when nothing may go live; then ``refused`` says why,
    or it is empty too and nothing in the upgrade concerns this kernel."""

    manifest: Manifest | None
    blobs: tuple[Blob, ...]
    functions: tuple[FunctionChange, ...]
    refused: tuple[Refusal, ...]
    irrelevant: tuple[Irrelevant, ...]
    entries: tuple[ChangelogEntry, ...]
    seconds: tuple[StageTime, ...]


def build(request: BuildRequest, progress: ProgressSink) -> BuildResult:
    """Build the update that takes the kernel of ``request.headers`` to ``request.to_source``.

    :raises SourceError: a source, configuration or headers package cannot be used.
    :raises BuildError: a compiler is missing or another one, or a unit does not compile.
    :raises KsplicedError: NO_SPACE, IO.
    """
    with (
        translated(),
        tempfile.TemporaryDirectory(prefix="kspliced.", dir=request.workdir) as directory,
    ):
        workspace = Workspace(Path(directory))
        try:
            return _Pipeline(request, workspace, progress).run()
        finally:
            workspace.close()


class _Pipeline:
    def __init__(self, request: BuildRequest, workspace: Workspace, progress: ProgressSink) -> None:
        self._request, self._workspace, self._progress = request, workspace, progress
        self._seconds: list[StageTime] = []

    def run(self) -> BuildResult:
        headers = open_headers(self._request.headers, self._request.config)
        check_compiler(headers)
        with self._stage("unpack"):
            comparison, to_version, entries = self._unpack(headers)
        with self._stage("select"):
            selection = self._select(headers, comparison)
        if selection.refused or not selection.units:
            return self._nothing(selection, entries, selection.refused)
        with self._stage("compile"):
            update = self._update_name(headers, to_version, selection.units)
            glue = self._compile(headers, selection.units, update)
        with self._stage("diff"):
            diffed = [self._diff(unit) for unit in selection.units]
        refused = tuple(refusal for unit in diffed for refusal in unit.refused)
        parts = tuple(unit.part for unit in diffed if unit.part is not None and unit.functions)
        if refused or not parts:
            return self._nothing(selection, entries, refused)
        with self._stage("emit"):
            emitted = emit(parts, read_object(glue.read_bytes(), "glue"))
        functions = tuple(function for unit in diffed for function in unit.functions)
        live = [unit for unit in diffed if unit.functions]
        manifest = Manifest(
            update=update,
            kernel=headers.kernel,
            to_version=to_version,
            compiler=headers.compiler_version,
            core_abi=CORE_ABI,
            units=tuple(PreUnit(d.unit.target, d.unit.path, _blob(d.unit)) for d in live),
            functions=functions,
            refused=(),
            entries=entries,
            imports=emitted.imports,
            spans=emitted.spans,
            pinned=any(part.closure.carried.pinned for part in parts),
        )
        blobs = (Blob(MODULE_BLOB, emitted.module), *(Blob(_blob(d.unit), d.pre) for d in live))
        return BuildResult(
            manifest, blobs, functions, (), selection.irrelevant, entries, tuple(self._seconds)
        )

    def _nothing(
        self,
        selection: Selection,
        entries: tuple[ChangelogEntry, ...],
        refused: tuple[Refusal, ...],
    ) -> BuildResult:
        seconds = tuple(self._seconds)
        return BuildResult(None, (), (), refused, selection.irrelevant, entries, seconds)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self._say(name, _STARTS[name], "")
        start = time.monotonic()
        yield
        self._seconds.append(StageTime(name, round(time.monotonic() - start, 3)))

    def _say(self, phase: str, fraction: float, message: str) -> None:
        self._progress(Progress(phase, fraction, message))

    def _unpack(self, headers: Headers) -> tuple[Comparison, str, tuple[ChangelogEntry, ...]]:
        request, workspace = self._request, self._workspace

        def seen(count: int) -> None:
            share = min(1.0, count / _FILES) * (_STARTS["select"] - _STARTS["unpack"])
            self._say("unpack", _STARTS["unpack"] + share, f"{count} files compared")

        with (
            open_source(request.from_source, workspace.top) as old,
            open_source(request.to_source, workspace.top) as new,
        ):
            _check_version(old, headers, request.from_source)
            changelog = new.changelog
            comparison = lay_out(old, new, workspace.old, workspace.changed, keep, seen)
            return comparison, new.version, new_entries(changelog, old.version)

    def _select(self, headers: Headers, comparison: Comparison) -> Selection:
        workspace = self._workspace
        changes = tuple(c for c in comparison.changes if not self._version_only(c.path))
        tree = workspace.old.top
        wanted = [d for d in directories(changes) if _has_kbuild(tree / d)]
        kbuild = Kbuild(tree, workspace.objtree("list"), headers, 1)
        listings = kbuild.list_directories(wanted) if wanted else {}
        targets = frozenset(self._request.targets)
        found = select(changes, listings, comparison.included, targets)
        if not self._request.only:
            return found
        units = tuple(u for u in found.units if self._asked_for(u.path))
        refused = tuple(r for r in found.refused if self._asked_for(r.unit))
        return Selection(units, found.irrelevant, refused)

    def _asked_for(self, path: str) -> bool:
        return any(fnmatch(path, glob) for glob in self._request.only)

    def _version_only(self, path: str) -> bool:
        if path != _TOP_MAKEFILE:
            return False
        old, new = self._workspace.old.top / path, self._workspace.changed.top / path
        return old.is_file() and new.is_file() and only_version(old.read_bytes(), new.read_bytes())

    def _update_name(self, headers: Headers, to_version: str, units: tuple[Unit, ...]) -> str:
        """``ks_`` and a digest of everything the update is made of."""
        digest = hashlib.sha256()
        kernel = headers.kernel
        for text in (kernel.release, kernel.version, kernel.arch, to_version, FLAGS):
            digest.update(text.encode() + b"\0")
        digest.update(headers.compiler_version.encode() + b"\0")
        for unit in units:
            digest.update(unit.path.encode() + b"\0")
            for tree in (self._workspace.old.top, self._workspace.changed.top):
                content = (tree / source_of(unit)).read_bytes()
                digest.update(hashlib.sha256(content).digest())
        return f"ks_{digest.hexdigest()[:12]}"

    def _compile(self, headers: Headers, units: tuple[Unit, ...], update: str) -> Path:
        """Compile pre, post and the glue side by side; returns the glue's object."""
        workspace = self._workspace
        self._say("compile", _STARTS["compile"], f"{len(units)} units, before and after")
        workspace.write_headers(units)
        workspace.make_hot(units)
        jobs = max(1, self._request.jobs // 2)
        pre = Kbuild(workspace.old.top, workspace.objtree("pre"), headers, jobs)
        post = Kbuild(workspace.hot, workspace.objtree("post"), headers, jobs)
        glue = place_glue(workspace.hot, headers, update)

        def both() -> None:
            with ThreadPoolExecutor(2) as pool:
                running = [
                    pool.submit(pre.compile, units),
                    pool.submit(post.compile, (*units, glue)),
                ]
                for future in running:
                    future.result()

        try:
            both()
        except BuildError as error:
            missing = "No such file" in error.message
            if error.code is not Code.COMPILE_FAILED or not missing:
                raise
            # A file that was not kept: of a far subsystem, large, or a source that is included.
            self._say("compile", _STARTS["compile"], "unpacking the rest of the source")
            with open_source(self._request.from_source, workspace.top) as old:
                if not complete(old, workspace.old, lambda path: not not_kernel(path)):
                    raise
            workspace.make_hot(units)
            both()
        return post.object_path(glue)

    def _diff(self, unit: Unit) -> DiffedUnit:
        workspace, source = self._workspace, source_of(unit)
        self._say("diff", _STARTS["diff"], unit.path)
        return diff_unit(
            unit,
            (workspace.objtree("pre") / unit.path).read_bytes(),
            (workspace.objtree("post") / unit.path).read_bytes(),
            touched_functions(workspace.old.top / source, workspace.changed.top / source),
        )


def _blob(unit: Unit) -> str:
    return f"pre/{unit.path}"


def _has_kbuild(directory: Path) -> bool:
    return (directory / "Makefile").is_file() or (directory / "Kbuild").is_file()


def _check_version(source: Source, headers: Headers, path: Path) -> None:
    version = headers.kernel.version
    if source.version not in (version, version.partition("-")[0]):
        raise SourceError(
            Code.SOURCE_VERSION,
            f"{path} is the source of {source.version}, but the kernel is {version}",
            f"use the source of {version}",
        )
