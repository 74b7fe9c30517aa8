# SPDX-License-Identifier: GPL-2.0-or-later
"""From two sources to a pack. The stages, in order, are the methods of :class:`_Pipeline`.

What goes into the pack is the largest set of components (plan/) that compiles and differs as it
may without the others (search.py); everything else is refused, with the reason.
"""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from kspliced.build.closed import Listed, read_exports, read_running
from kspliced.build.compiled import compiler_cache
from kspliced.build.fates import Decision
from kspliced.build.glue import place_glue
from kspliced.build.groups import Parts, emit_parts
from kspliced.build.history import History, given_series, read_history
from kspliced.build.kbuild import (
    FLAGS,
    PLAIN_FLAGS,
    Headers,
    Kbuild,
    Unit,
    check_compiler,
    compile_error,
    open_headers,
)
from kspliced.build.late import Compiled, Pre
from kspliced.build.neighbours import Neighbours
from kspliced.build.remembered import Remembered, key_of
from kspliced.build.request import BuildRequest, BuildResult, StageTime, known_result
from kspliced.build.search import Found, search
from kspliced.build.select import (
    Nature,
    Selection,
    directories,
    only_version,
    select,
    worth_keeping,
)
from kspliced.build.wish import Wish
from kspliced.build.workdir import work_directory
from kspliced.build.workspace import Workspace, check_exec, source_of
from kspliced.elf.read import read_object
from kspliced.errors import BuildError, Code, SourceError
from kspliced.model import (
    CORE_ABI,
    Manifest,
    PreUnit,
    Progress,
    ProgressSink,
    Refusal,
)
from kspliced.oserror import translated
from kspliced.pack import Blob, update_name
from kspliced.plan.conditions import Configuration
from kspliced.series.commit import Commit, digest_of
from kspliced.series.read import Series
from kspliced.source.cache import SourceCache
from kspliced.source.changelog import read_news
from kspliced.source.compare import FileChange, compare
from kspliced.source.differences import FileDiff, differences
from kspliced.source.opened import open_source
from kspliced.source.snapshot import Snapshot

_FILES = 82_000
_TOP_MAKEFILE = "Makefile"
# Of the garbage collector: what is made before it looks at that, and looks before it looks at more.
_COLLECTED = (200_000, 50, 50)
# Where each stage begins, as a share of the whole (measured on the 6.1.192 upgrade).
_STARTS = {"unpack": 0.0, "select": 0.5, "compile": 0.6, "emit": 0.93}


def build(request: BuildRequest, progress: ProgressSink) -> BuildResult:
    """Build the update that takes the kernel of ``request.headers`` to ``request.to_source``.

    :raises SourceError: a source, configuration or headers package cannot be used.
    :raises BuildError: a compiler is missing or another one, or a unit does not compile.
    :raises KsplicedError: NO_SPACE, NO_EXEC, NO_MEMORY, IO.
    """
    stages = _Stages(progress)
    with translated(), _seldom_collected(), work_directory(request) as top:
        check_exec(top)
        headers = open_headers(request.headers, request.config)
        check_compiler(headers)
        series = given_series(request)
        with ExitStack() as stack:
            with stages.stage("unpack"):
                old = stack.enter_context(_old_source(request, headers, top, stages))
                workspace = Workspace(top, old)
                upgrade = _compare(request, old, workspace, series, stages)
            return _Pipeline(request, headers, old, workspace, stages).run(upgrade)


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Hundreds of objects are held taken apart, and hardly any goes: looking for garbage among them
    takes as long as comparing them does."""
    before = gc.get_threshold()
    gc.set_threshold(*_COLLECTED)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@dataclass(frozen=True)
class _Upgrade:
    """What the new source is, and the ``commits`` that made it, where they were given."""

    from_version: str
    to_version: str
    changes: tuple[FileChange, ...]
    history: History
    commits: tuple[Commit, ...] = ()
    diffs: tuple[FileDiff, ...] = ()
    key: str = ""


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
    request: BuildRequest,
    old: Snapshot,
    workspace: Workspace,
    series: Series | None,
    stages: _Stages,
) -> _Upgrade:
    with open_source(request.to_source, workspace.top) as new:
        # What is wrong with the commits is said before minutes are spent.
        versions = old.version, new.version
        commits = () if series is None else series.commits(*versions, workspace.top)
        changes = compare(
            old, new, workspace.changed, lambda count: stages.walked(1, count, "compared")
        )
        news = read_news(new.changelog, old.version)
        return _Upgrade(*versions, changes, History(news), commits)


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
        self._configuration = Configuration.parse((headers.top / ".config").read_text("utf-8"))
        self._running = read_running(request.symbols)
        self._kbuilds: dict[str, Kbuild] = {}
        self._compiled = compiler_cache(request.cache / "compiled" if request.cache else None)

    def run(self, upgrade: _Upgrade) -> BuildResult:
        stage = self._stages.stage
        with stage("select"):
            selection = self._select(upgrade.changes)
        if upgrade.commits:
            upgrade = self._told(upgrade)
        if self._request.diffs:
            old, new = self._workspace.old.top, self._workspace.changed.top
            paths = sorted(change.path for change in upgrade.changes)
            upgrade = replace(upgrade, diffs=tuple(differences(old, new, paths)))
        if not (selection.units or selection.later or selection.headers):
            upgrade = self._told(upgrade)
            return _result(selection, upgrade, Found((), ()), None, (), self._stages)
        remembered = self._remembered(upgrade)
        if remembered.key in self._request.known:
            return known_result(remembered.key)
        upgrade = replace(upgrade, key=remembered.key)
        with stage("compile"):
            found, upgrade = self._search(selection, upgrade, remembered)
        if not found.diffed:
            return _result(selection, upgrade, found, None, (), self._stages)
        with stage("emit"):
            update = self._update_name(upgrade.to_version, found)
            glue = read_object(self._glue(update).read_bytes(), "glue")
            loaded = frozenset(self._request.targets)
            # What stays old binds nothing together.
            live = (Decision.LIVE, Decision.IRRELEVANT)
            components = (fate.component for fate in found.fates if fate.decision in live)
            parts = emit_parts(found.diffed, components, glue, loaded)
        manifest = self._manifest(upgrade, selection, found, update, parts)
        pre = tuple(Blob(_blob(d.unit), d.matched) for d in found.diffed)
        return _result(selection, upgrade, found, manifest, (*parts.blobs, *pre), self._stages)

    def _manifest(
        self,
        upgrade: _Upgrade,
        selection: Selection,
        found: Found,
        update: str,
        parts: Parts,
    ) -> Manifest:
        return Manifest(
            update=update,
            kernel=self._headers.kernel,
            to_version=upgrade.to_version,
            compiler=self._headers.compiler_version,
            core_abi=CORE_ABI,
            units=tuple(PreUnit(d.unit.target, d.unit.path, _blob(d.unit)) for d in found.diffed),
            functions=tuple(function for d in found.diffed for function in d.functions),
            refused=_refusals(selection, found),
            entries=upgrade.history.news.entries,
            glue=parts.glue,
            groups=parts.groups,
        )

    def _select(self, changes: tuple[FileChange, ...]) -> Selection:
        workspace = self._workspace
        workspace.add_common(changes)
        changes = tuple(c for c in changes if not self._version_only(c.path))
        tree = workspace.old.top
        wanted = [d for d in directories(changes) if _has_kbuild(tree / d)]
        kbuild = Kbuild(tree, workspace.objtree("list"), self._headers, self._request.jobs)
        listings = kbuild.list_directories(wanted) if wanted else {}
        targets = frozenset(self._request.targets)
        unlisted = frozenset(wanted) - listings.keys()
        self._neighbours = Neighbours(
            listings,
            kbuild.list_directories,
            lambda directory: _has_kbuild(tree / directory),
            lambda: self._old.included,
            targets,
        )
        nature = Nature.of(self._old, tree, workspace.changed.top, self._configuration)
        found = select(changes, listings, unlisted, nature, targets)
        if not self._request.only:
            return found
        return replace(
            found,
            units=tuple(u for u in found.units if self._asked_for(u.path)),
            later=tuple(u for u in found.later if self._asked_for(u.path)),
            refused=tuple(r for r in found.refused if self._asked_for(r.unit)),
        )

    def _search(
        self, selection: Selection, upgrade: _Upgrade, remembered: Remembered
    ) -> tuple[Found, _Upgrade]:
        """Compile, compare and judge until what remains may go live."""
        workspace, request = self._workspace, self._request
        workspace.add_near(selection.units)
        with ThreadPoolExecutor(1) as pool:
            compiled = pool.submit(self._compile_pre, selection.units)
            upgrade = self._told(upgrade)
            found = search(
                selection,
                self._old,
                workspace,
                self._kbuild,
                self._neighbours,
                self._configuration,
                Wish(
                    request.policy,
                    request.exclude,
                    request.only,
                    upgrade.history.attributions,
                    frozenset(request.foreign),
                ),
                Compiled(compiled.result, self._compile_more),
                self._listed,
                remembered,
                lambda text: self._stages.say("compile", text),
            )
            return found, upgrade

    def _listed(self) -> Listed:
        """The symbols that the kernel is said to have."""
        exports = read_exports(self._headers.top / "Module.symvers")
        return Listed(exports, self._running)

    def _remembered(self, upgrade: _Upgrade) -> Remembered:
        """What is known of this search."""
        request = self._request
        if request.cache is None:
            return Remembered(None, "")
        globs = (request.targets, request.only, request.exclude, request.foreign)
        wish = (request.policy.value, *(" ".join(some) for some in globs))
        wish += (" ".join(sorted(self._running)),)
        news = upgrade.history.news
        entries = tuple(" ".join((e.subject, *e.cves)) for e in news.entries)
        entries += (news.problem, upgrade.to_version, digest_of(upgrade.commits))
        paths = (change.path for change in upgrade.changes)
        changed = self._workspace.changed.top
        key = key_of(self._headers, self._old, changed, paths, wish + entries)
        return Remembered(request.cache / "searches", key)

    def _told(self, upgrade: _Upgrade) -> _Upgrade:
        """Tell which files the changelog entries are about, unless that is told."""
        if upgrade.history.attributions:
            return upgrade
        old, new = self._workspace.old.top, self._workspace.changed.top
        news, version = upgrade.history.news, upgrade.to_version
        history = read_history(news, upgrade.commits, old, new, upgrade.changes, version)
        return replace(upgrade, history=history)

    def _compile_more(self, units: tuple[Unit, ...]) -> Pre:
        self._workspace.add_near(units)
        return self._compile_old(units)

    def _compile_pre(self, units: tuple[Unit, ...]) -> Pre:
        """Compile what was selected of the old tree.

        :raises BuildError: COMPILE_FAILED when none compiles.
        """
        pre = self._compile_old(units)
        if units and len(pre.failed) == len(units):
            said = tuple(pre.failed.values())
            raise compile_error(f"the old source does not compile: {said[0]}", said[0], said[:20])
        return pre

    def _compile_old(self, units: tuple[Unit, ...]) -> Pre:
        """Compile units of the old tree; what cannot be is said."""
        self._stages.say("compile", f"{len(units)} units as they are")
        kbuild = self._kbuild("pre")
        failed = kbuild.compile(units) if units else {}
        if any("No such file" in text for text in failed.values()):
            # A file of another subsystem, or a source that is included.
            self._stages.say("compile", "writing the rest of the source")
            if self._workspace.add_rest():
                failed = kbuild.compile(units)
        reads = {source_of(u): kbuild.dependencies(u) for u in units if u.path not in failed}
        return Pre(failed, reads)

    def _kbuild(self, name: str) -> Kbuild:
        """The object tree called ``name``, with the source tree it is compiled from."""
        if name not in self._kbuilds:
            workspace, jobs = self._workspace, self._request.jobs
            tree = workspace.old.top if name in ("pre", "plain") else workspace.hot
            flags = PLAIN_FLAGS if name == "plain" else FLAGS
            objtree = workspace.objtree(name)
            self._kbuilds[name] = Kbuild(tree, objtree, self._headers, jobs, flags, self._compiled)
        return self._kbuilds[name]

    def _glue(self, update: str) -> Path:
        """Compile the glue of the module called ``update``; returns its object."""
        unit = place_glue(self._workspace.hot, self._headers, update)
        kbuild = self._kbuild("glue")
        failed = kbuild.compile((unit,))
        if failed:
            text = f"the update's own code does not compile: {failed[unit.path]}"
            raise BuildError(Code.COMPILE_FAILED, text, "report this")
        return kbuild.object_path(unit)

    def _update_name(self, to_version: str, found: Found) -> str:
        """``ks_`` and a digest of everything the update is made of."""
        digest = hashlib.sha256()
        kernel = self._headers.kernel
        for text in (kernel.release, kernel.version, kernel.arch, to_version, FLAGS):
            digest.update(text.encode() + b"\0")
        digest.update(self._headers.compiler_version.encode() + b"\0")
        for diffed in found.diffed:
            digest.update(diffed.unit.path.encode() + b"\0" + diffed.digest)
        return update_name(digest.hexdigest())

    def _asked_for(self, path: str) -> bool:
        return any(fnmatch(path, glob) for glob in self._request.only)

    def _version_only(self, path: str) -> bool:
        if path != _TOP_MAKEFILE:
            return False
        old, new = self._workspace.old.top / path, self._workspace.changed.top / path
        return old.is_file() and new.is_file() and only_version(old.read_bytes(), new.read_bytes())


def _result(
    selection: Selection,
    upgrade: _Upgrade,
    found: Found,
    manifest: Manifest | None,
    blobs: tuple[Blob, ...],
    stages: _Stages,
) -> BuildResult:
    return BuildResult(
        manifest=manifest,
        blobs=blobs,
        functions=manifest.functions if manifest is not None else (),
        refused=_refusals(selection, found),
        irrelevant=selection.irrelevant + found.same,
        fates=found.fates,
        attributions=upgrade.history.attributions,
        entries=upgrade.history.news.entries,
        seconds=stages.seconds,
        changelog=upgrade.history.news.problem,
        from_version=upgrade.from_version,
        to_version=upgrade.to_version,
        diffs=upgrade.diffs,
        key=upgrade.key,
        share=upgrade.history.share,
    )


def _refusals(selection: Selection, found: Found) -> tuple[Refusal, ...]:
    """Everything that does not go live, with the reason."""
    charged = (reason for fate in found.fates for reason in fate.reasons)
    return tuple(dict.fromkeys((*selection.refused, *charged)))


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
