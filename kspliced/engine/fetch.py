# SPDX-License-Identifier: GPL-2.0-or-later
"""Source and headers packages, through the package manager so that its signatures count, and only
from who the installed kernels came from (engine/origin.py).

Kept below /var/lib/kspliced/sources: source-VERSION/ holds a .deb, or a .dsc with its files, or a
.src.rpm,
headers-RELEASE/ unpacked headers packages. A directory of that name is whole, or not there.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from kspliced.engine.command import Finished, run
from kspliced.engine.download import announced, claim
from kspliced.engine.edges import BuildOrder, Job
from kspliced.engine.fetch_unit import Download
from kspliced.engine.files import sync_directory
from kspliced.engine.kernels import installed_images, installed_version, loaded_modules
from kspliced.engine.origin import Origins
from kspliced.engine.paths import Paths
from kspliced.engine.room import require_space
from kspliced.engine.versions import series
from kspliced.errors import Code, KsplicedError, SourceError
from kspliced.model import KernelId
from kspliced.oserror import translated

_APT_SECONDS = 3600.0
_UNPACK_SECONDS = 600.0
_SPARE_BYTES = 64 << 20
_DEPENDENCY = re.compile(
    r"(?P<name>linux-(?:headers|kbuild)-[^ ,|]+)(?: \(= (?P<version>[^)]+)\))?"
)
_APT = (
    "apt-get",
    "-q",
    "-o",
    "APT::Get::AllowUnauthenticated=false",
    "-o",
    "Acquire::Retries=2",
    "-o",
    "Acquire::http::Timeout=60",
)


class PackageFetcher:
    """What a fetcher does with any package manager; its sources and headers are up to it."""

    paths: Paths

    def order(self, running: KernelId, newest: KernelId, job: Job) -> BuildOrder:
        """Everything that building the update needs, fetched if it is not there.

        :raises KsplicedError: SOURCE_UNAVAILABLE, HEADERS_MISSING, CONFIG_MISSING, NO_SPACE,
            CANCELLED, IO.
        """
        with translated():
            self._sweep()
            job.at("fetch", 0.02, f"source of {running.version}")
            source = self._source(running, running.version, job)
            job.at("fetch", 0.08, f"source of {newest.version}")
            target = self._source(running, newest.version, job)
            job.at("fetch", 0.16, f"headers of {running.release}")
            headers = self._headers(running, job)
            modules = loaded_modules(self.paths)
            return BuildOrder(
                kernel=running,
                to_version=newest.version,
                source=source,
                target=target,
                config=self._config(running, headers),
                headers=headers,
                targets=("vmlinux", *modules.names),
                foreign=modules.foreign,
            )

    def ahead(self, running: KernelId, newest: KernelId, job: Job) -> tuple[str, ...]:
        """Fetch source and headers of the running kernel; remove what no build will need.

        :raises KsplicedError: as order().
        """
        with translated():
            self._sweep()
            keep = {
                f"source-{running.version}",
                f"source-{newest.version}",
                f"headers-{running.release}",
            }
            if self.paths.sources.is_dir():
                for directory in self.paths.sources.iterdir():
                    if directory.name not in keep:
                        shutil.rmtree(directory)
            job.at("fetch", 0.1, f"source of {running.version}")
            self._source(running, running.version, job)
            job.at("fetch", 0.8, f"headers of {running.release}")
            self._headers(running, job)
            return tuple(sorted(d.name for d in self.paths.sources.iterdir()))

    def _config(self, running: KernelId, headers: Path) -> Path:
        for config in (self.paths.config(running.release), headers / ".config"):
            if config.is_file():
                return config
        raise SourceError(
            Code.CONFIG_MISSING,
            f"there is no {self.paths.config(running.release)}",
            f"reinstall the package of the kernel {running.release}",
        )

    def _source(self, running: KernelId, version: str, job: Job) -> Path:
        raise NotImplementedError

    def _headers(self, running: KernelId, job: Job) -> Path:
        raise NotImplementedError

    def _sweep(self) -> None:
        """Remove what an interrupted fetch left (only the holder of the lock comes here)."""
        self.paths.sources.mkdir(parents=True, exist_ok=True)
        for directory in self.paths.sources.iterdir():
            if directory.name.startswith("."):
                shutil.rmtree(directory)


@dataclass(frozen=True)
class AptFetcher(PackageFetcher):
    """The fetcher of a Debian machine. ``options`` go to apt-get (tests point it elsewhere);
    ``download`` runs what needs the network."""

    paths: Paths
    options: tuple[str, ...] = ()
    download: Download = run

    def _source(self, running: KernelId, version: str, job: Job) -> Path:
        directory = self.paths.sources / f"source-{version}"
        if not directory.is_dir():
            package = f"linux-source-{series(running.release)}={version}"
            try:
                self._download(directory, ("download", package), running, job)
            except SourceError as first:
                try:
                    source = ("source", "--download-only", "--only-source", f"linux={version}")
                    self._download(directory, source, running, job)
                except SourceError as second:
                    raise SourceError(
                        Code.SOURCE_UNAVAILABLE,
                        f"apt offers no trusted source of the kernel {version}",
                        "run `apt update`, or add the archive that has it (deb or deb-src)",
                        (*_lines(first), *_lines(second)),
                    ) from second
        for pattern in ("*.deb", "*.dsc"):
            for file in sorted(directory.glob(pattern)):
                return file
        raise SourceError(
            Code.SOURCE_UNREADABLE, f"{directory} holds no source", f"remove {directory}"
        )

    def _headers(self, running: KernelId, job: Job) -> Path:
        name = f"linux-headers-{running.release}"
        installed = self.paths.usr_src / name
        if installed.is_dir() and installed_version(self.paths, name) == running.version:
            return installed
        directory = self.paths.sources / f"headers-{running.release}"
        unpacked = directory / "usr/src" / name
        if not directory.is_dir():
            try:
                self._unpack_headers(directory, f"{name}={running.version}", running, job)
            except SourceError as error:
                raise SourceError(
                    Code.HEADERS_MISSING,
                    f"{name} {running.version} is not installed and apt does not offer it",
                    f"install {name}",
                    _lines(error),
                ) from error
        if not unpacked.is_dir():
            raise SourceError(
                Code.HEADERS_MISSING, f"{directory} holds no {name}", f"remove {directory}"
            )
        return unpacked

    def _unpack_headers(self, directory: Path, package: str, running: KernelId, job: Job) -> None:
        archives = self.paths.sources / f".debs-{directory.name}"
        first = archives / "first"
        self._download(first, ("download", package), running, job)
        (deb,) = first.glob("*.deb")
        fields = succeed(run(("dpkg-deb", "-f", str(deb), "Depends"), job.cancel, 60, None))
        needed = [
            match["name"] + (f"={match['version']}" if match["version"] else "")
            for match in _DEPENDENCY.finditer(fields.output)
        ]
        if needed:
            self._download(archives / "rest", ("download", *needed), running, job)
        whole = self.paths.sources / f".unpack-{directory.name}"
        whole.mkdir()
        for archive in sorted(archives.glob("*/*.deb")):
            unpack = ("dpkg-deb", "-x", str(archive), str(whole))
            succeed(run(unpack, job.cancel, _UNPACK_SECONDS, None))
        shutil.rmtree(archives)
        publish(whole, directory)

    def _download(
        self, directory: Path, arguments: tuple[str, ...], running: KernelId, job: Job
    ) -> None:
        """Let apt download into ``directory``, which then is there whole, or not at all."""
        verb = (*_APT, *self.options, arguments[0])
        uris = succeed(run((*verb, "--print-uris", *arguments[1:]), job.cancel, _APT_SECONDS, None))
        files = announced(uris.output)
        if not files:
            raise SourceError(Code.SOURCE_UNAVAILABLE, f"apt offers no {arguments[-1]}")
        # It is there twice for a moment: apt's and ours.
        size = 2 * sum(file.size for file in files)
        require_space(directory.parent, size + _SPARE_BYTES, f"downloading {arguments[-1]}")
        if arguments[0] == "source":
            name, _, version = arguments[-1].partition("=")
            fetched = {(name, version)}
        else:
            fetched = {_package(file.name) for file in files}
        kernels = installed_images(self.paths, running)
        origins = Origins(_asking(self.options, job))
        origins.require_same(kernels, fetched, (file.uri for file in files))
        partial = directory.with_name(f".partial-{directory.name}")
        whole = directory.with_name(f".whole-{directory.name}")
        for old in (partial, whole):
            if old.exists():
                shutil.rmtree(old)
            old.mkdir(parents=True)
        _give_to_apt(partial)
        try:
            succeed(self.download((*verb, *arguments[1:]), job.cancel, _APT_SECONDS, partial))
            claim(partial, whole, files)
        except (OSError, KsplicedError):
            shutil.rmtree(whole)
            raise
        finally:
            shutil.rmtree(partial)
        publish(whole, directory)


def _asking(options: tuple[str, ...], job: Job) -> Callable[[tuple[str, ...]], str]:
    """Runs apt's tools for their output."""

    def ask(command: tuple[str, ...]) -> str:
        argv = (command[0], *options, *command[1:])
        return succeed(run(argv, job.cancel, _APT_SECONDS, None)).output

    return ask


def _package(file: str) -> tuple[str, str]:
    """Name and version in the file name of a .deb, which has a version's colon as %3a."""
    name, _, rest = file.partition("_")
    return name, unquote(rest.partition("_")[0])


def _lines(error: KsplicedError) -> tuple[str, ...]:
    """An error as details of another."""
    return error.details or (error.message,)


def succeed(finished: Finished, remedy: str = "run `apt update`") -> Finished:
    """Give ``finished`` back if the tool succeeded.

    :raises SourceError: SOURCE_UNAVAILABLE with what it wrote.
    """
    if finished.status != 0:
        lines = finished.errors[-10:] or (f"status {finished.status}",)
        raise SourceError(Code.SOURCE_UNAVAILABLE, lines[-1], remedy, lines)
    return finished


def _give_to_apt(directory: Path) -> None:
    """apt drops its right for the download to the user _apt, who must be able to write here."""
    directory.chmod(0o755)
    if os.geteuid() == 0:
        try:
            os.chown(directory, pwd.getpwnam("_apt").pw_uid, -1)
        except KeyError:
            return  # no such user: apt downloads as root


def publish(partial: Path, directory: Path) -> None:
    """Make the complete directory appear under its name, owned by us, durably."""
    os.chown(partial, os.geteuid(), os.getegid())
    partial.chmod(0o755)
    for file in partial.iterdir():
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(directory)
    sync_directory(directory.parent)
