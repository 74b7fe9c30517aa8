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
from contextlib import ExitStack, contextmanager
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
    only_version,
    select,
    worth_keeping,
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
from kspliced.source.cache import SourceCache
from kspliced.source.changelog import new_entries
from kspliced.source.compare import FileChange, compare
from kspliced.source.functions import touched_functions
from kspliced.source.package import open_source
from kspliced.source.snapshot import Snapshot

_FILES = 82_000
_TOP_MAKEFILE = "Makefile"
# Where each stage begins, as a share of the whole (measured on the 6.1.192 upgrade).
_STARTS = {"unpack": 0.0, "select": 0.6, "compile": 0.65, "diff": 0.93, "emit": 0.98}


@dataclass(frozen=True)
class BuildRequest:
    """What to build. ``targets``: vmlinux and module names that matter, empty for all that the
    configuration builds; ``only``: globs of units, empty for all; ``jobs``: parallel compilers;
    ``workdir``: where the temporary trees go (needs some 300 MB), None for the default;
    ``cache``: a folder for packed sources (source.cache, 700 MB each), None to keep nothing."""

    from_source: Path
    to_source: Path
    config: Path
    headers: Path
    targets: tuple[str, ...]
    only: tuple[str, ...]
    jobs: int
    workdir: Path | None
    cache: Path | None = None


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
    stages = _Stages(progress)
    with translated(), _workdir(request) as top:
        headers = open_headers(request.headers, request.config)
        check_compiler(headers)
        with ExitStack() as stack:
            with stages.stage("unpack"):
                old = stack.enter_context(_old_source(request, headers, top, stages))
                workspace = Workspace(top, old)
                upgrade = _compare(request, old, workspace, stages)
            return _Pipeline(request, headers, old, workspace, stages).run(upgrade)


@dataclass(frozen=True)
class _Upgrade:
    """What the new source is."""

    to_version: str
    changes: tuple[FileChange, ...]
    entries: tuple[ChangelogEntry, ...]


class _Stages:
    """Times the stages and says where the build is."""

    def __init__(self, progress: ProgressSink) -> None:
        self._progress = progress
        self._seconds: list[StageTime] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        self.say(name, "")
        start = time.monotonic()
        yield
        self._seconds.append(StageTime(name, round(time.monotonic() - start, 3)))

    def say(self, stage: str, message: str) -> None:
        """Report from the beginning of a stage."""
        self._progress(Progress(stage, _STARTS[stage], message))

    def walked(self, walk: int, count: int, what: str) -> None:
        """Report from one of the two walks over a source: ``count`` files so far."""
        share = (walk + min(1.0, count / _FILES)) / 2 * _STARTS["select"]
        self._progress(Progress("unpack", share, f"{count} files {what}"))

    @property
    def seconds(self) -> tuple[StageTime, ...]:
        """The stages that ended."""
        return tuple(self._seconds)


@contextmanager
def _workdir(request: BuildRequest) -> Iterator[Path]:
    """A temporary directory, where hard links to the cache can be made if nothing else is said."""
    parent = request.workdir or request.cache
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kspliced.", dir=parent) as directory:
        yield Path(directory)


@contextmanager
def _old_source(
    request: BuildRequest, headers: Headers, top: Path, stages: _Stages
) -> Iterator[Snapshot]:
    cache = SourceCache(request.cache or top / "sources", worth_keeping)
    with (
        open_source(request.from_source, top) as source,
        cache.snapshot(source, lambda count: stages.walked(0, count, "read")) as old,
    ):
        _check_version(old, headers, request.from_source)
        yield old


def _compare(
    request: BuildRequest, old: Snapshot, workspace: Workspace, stages: _Stages
) -> _Upgrade:
    with open_source(request.to_source, workspace.top) as new:
        changes = compare(
            old, new, workspace.changed, lambda count: stages.walked(1, count, "compared")
        )
        return _Upgrade(new.version, changes, new_entries(new.changelog, old.version))


class _Pipeline:
    def __init__(
        self,
        request: BuildRequest,
        headers: Headers,
        old: Snapshot,
        workspace: Workspace,
        stages: _Stages,
    ) -> None:
        self._request, self._headers, self._old = request, headers, old
        self._workspace, self._stages = workspace, stages

    def run(self, upgrade: _Upgrade) -> BuildResult:
        headers, stage = self._headers, self._stages.stage
        with stage("select"):
            selection = self._select(upgrade.changes)
        if selection.refused or not selection.units:
            return self._nothing(selection, upgrade, selection.refused)
        with stage("compile"):
            update = self._update_name(upgrade.to_version, selection.units)
            glue = self._compile(selection.units, update)
        with stage("diff"):
            diffed = [self._diff(unit) for unit in selection.units]
        refused = tuple(refusal for unit in diffed for refusal in unit.refused)
        parts = tuple(unit.part for unit in diffed if unit.part is not None and unit.functions)
        if refused or not parts:
            return self._nothing(selection, upgrade, refused)
        with stage("emit"):
            emitted = emit(parts, read_object(glue.read_bytes(), "glue"))
        functions = tuple(function for unit in diffed for function in unit.functions)
        live = [unit for unit in diffed if unit.functions]
        manifest = Manifest(
            update=update,
            kernel=headers.kernel,
            to_version=upgrade.to_version,
            compiler=headers.compiler_version,
            core_abi=CORE_ABI,
            units=tuple(PreUnit(d.unit.target, d.unit.path, _blob(d.unit)) for d in live),
            functions=functions,
            refused=(),
            entries=upgrade.entries,
            imports=emitted.imports,
            spans=emitted.spans,
            pinned=any(part.closure.carried.pinned for part in parts),
        )
        blobs = (Blob(MODULE_BLOB, emitted.module), *(Blob(_blob(d.unit), d.pre) for d in live))
        return BuildResult(
            manifest,
            blobs,
            functions,
            (),
            selection.irrelevant,
            upgrade.entries,
            self._stages.seconds,
        )

    def _nothing(
        self, selection: Selection, upgrade: _Upgrade, refused: tuple[Refusal, ...]
    ) -> BuildResult:
        seconds = self._stages.seconds
        return BuildResult(None, (), (), refused, selection.irrelevant, upgrade.entries, seconds)

    def _select(self, changes: tuple[FileChange, ...]) -> Selection:
        workspace = self._workspace
        workspace.add_common(changes)
        changes = tuple(c for c in changes if not self._version_only(c.path))
        tree = workspace.old.top
        wanted = [d for d in directories(changes) if _has_kbuild(tree / d)]
        kbuild = Kbuild(tree, workspace.objtree("list"), self._headers, 1)
        listings = kbuild.list_directories(wanted) if wanted else {}
        targets = frozenset(self._request.targets)
        unlisted = frozenset(wanted) - listings.keys()
        found = select(changes, listings, unlisted, lambda: self._old.included, targets)
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

    def _update_name(self, to_version: str, units: tuple[Unit, ...]) -> str:
        """``ks_`` and a digest of everything the update is made of."""
        digest = hashlib.sha256()
        kernel = self._headers.kernel
        for text in (kernel.release, kernel.version, kernel.arch, to_version, FLAGS):
            digest.update(text.encode() + b"\0")
        digest.update(self._headers.compiler_version.encode() + b"\0")
        for unit in units:
            digest.update(unit.path.encode() + b"\0")
            for tree in (self._workspace.old.top, self._workspace.changed.top):
                content = (tree / source_of(unit)).read_bytes()
                digest.update(hashlib.sha256(content).digest())
        return f"ks_{digest.hexdigest()[:12]}"

    def _compile(self, units: tuple[Unit, ...], update: str) -> Path:
        """Compile pre, post and the glue side by side; returns the glue's object."""
        workspace, headers = self._workspace, self._headers
        self._stages.say("compile", f"{len(units)} units, before and after")
        workspace.add_near(units)
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
            # A file of another subsystem, or a source that is included.
            self._stages.say("compile", "writing the rest of the source")
            if not workspace.add_rest():
                raise
            workspace.make_hot(units)
            both()
        return post.object_path(glue)

    def _diff(self, unit: Unit) -> DiffedUnit:
        workspace, source = self._workspace, source_of(unit)
        self._stages.say("diff", unit.path)
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


def _check_version(source: Snapshot, headers: Headers, path: Path) -> None:
    version = headers.kernel.version
    if source.version not in (version, version.partition("-")[0]):
        raise SourceError(
            Code.SOURCE_VERSION,
            f"{path} is the source of {source.version}, but the kernel is {version}",
            f"use the source of {version}",
        )
