# SPDX-License-Identifier: GPL-2.0-or-later
"""Source packages and kernel-devel by dnf, verified with the keys that rpm trusts, and only with
one that signed an installed kernel."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from kspliced.engine.command import run
from kspliced.engine.edges import Job
from kspliced.engine.fetch import PackageFetcher, publish, succeed
from kspliced.engine.fetch_unit import Download
from kspliced.engine.paths import Paths
from kspliced.engine.room import require_space
from kspliced.errors import Code, KsplicedError, SourceError
from kspliced.lines import split_lines
from kspliced.model import KernelId

_SECONDS = 3600.0
_UNPACK_SECONDS = 600.0
# A kernel's source package is 150 MB, kernel-devel unpacked 60 MB; dnf does not say beforehand.
_BYTES = 400 << 20
_REMEDY = "run `dnf makecache`"
_TRUSTED = "digests signatures OK"
_SIGNATURES = "%{RSAHEADER:pgpsig} %{DSAHEADER:pgpsig} %{SIGPGP:pgpsig} %{SIGGPG:pgpsig}\\n"
_KEY = re.compile(r"Key ID ([0-9a-fA-F]{8,40})")


@dataclass(frozen=True)
class DnfFetcher(PackageFetcher):
    """The fetcher of a machine with RPM packages. ``options`` go to dnf, ``keys`` to rpmkeys (tests
    point them elsewhere)."""

    paths: Paths
    options: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    download: Download = run

    def _source(self, running: KernelId, version: str, job: Job) -> Path:
        directory = self.paths.sources / f"source-{version}"
        if not directory.is_dir():
            try:
                # Whatever the package of the sources is called, that of the kernel leads to it.
                self._download(directory, ("--source", f"kernel-core-{version}"), job)
            except SourceError as error:
                raise SourceError(
                    Code.SOURCE_UNAVAILABLE,
                    f"dnf offers no trusted source of the kernel {version}: {error.message}",
                    error.remedy or "add the source repository that has it",
                    error.details,
                ) from error
        for file in sorted(directory.glob("*.src.rpm")):
            return file
        raise SourceError(
            Code.SOURCE_UNREADABLE, f"{directory} holds no source", f"remove {directory}"
        )

    def _headers(self, running: KernelId, job: Job) -> Path:
        installed = self.paths.usr_src / "kernels" / running.release
        if (installed / ".config").is_file():
            return installed
        directory = self.paths.sources / f"headers-{running.release}"
        if not directory.is_dir():
            try:
                self._unpack(directory, f"kernel-devel-{running.version}", job)
            except SourceError as error:
                raise SourceError(
                    Code.HEADERS_MISSING,
                    f"kernel-devel {running.version} is not installed and dnf does not offer it",
                    f"install kernel-devel-{running.version}",
                    (error.message, *error.details),
                ) from error
        unpacked = directory / "usr/src/kernels" / running.release
        if not unpacked.is_dir():
            raise SourceError(
                Code.HEADERS_MISSING, f"{directory} holds no headers", f"remove {directory}"
            )
        return unpacked

    def _unpack(self, directory: Path, package: str, job: Job) -> None:
        archives = self.paths.sources / f".rpms-{directory.name}"
        self._download(archives, (package,), job)
        whole = self.paths.sources / f".unpack-{directory.name}"
        whole.mkdir()
        for archive in sorted(archives.glob("*.rpm")):
            script = 'rpm2cpio "$1" | cpio --quiet -idm --no-absolute-filenames'
            command = ("sh", "-c", script, "sh", str(archive))
            succeed(run(command, job.cancel, _UNPACK_SECONDS, whole), _REMEDY)
        shutil.rmtree(archives)
        publish(whole, directory)

    def _download(self, directory: Path, arguments: tuple[str, ...], job: Job) -> None:
        """Let dnf download into ``directory``, which then is there whole, or not at all."""
        require_space(directory.parent, _BYTES, f"downloading {arguments[-1]}")
        partial = directory.with_name(f".partial-{directory.name.lstrip('.')}")
        partial.mkdir(parents=True)
        # The daemon cannot write where dnf's own logs are, without which it does nothing.
        logs = self.paths.run / "dnf"
        logs.mkdir(parents=True, exist_ok=True)
        options = ("-q", "-y", f"--setopt=logdir={logs}", *self.options)
        command = ("dnf", *options, "download", f"--destdir={partial}")
        try:
            done = self.download((*command, *arguments), job.cancel, _SECONDS, None)
            if "No such command" in "".join(done.errors):
                raise SourceError(
                    Code.TOOL_MISSING,
                    "dnf cannot download packages",
                    "install dnf-plugins-core",
                    done.errors,
                )
            succeed(done, _REMEDY)
            files = sorted(partial.glob("*.rpm"))
            if not files:
                raise SourceError(Code.SOURCE_UNAVAILABLE, f"dnf fetched no {arguments[-1]}")
            kernels = self._signers(("--whatprovides", "kernel-uname-r"), job)
            for file in files:
                self._verify(file, job)
                self._require_same_key(file, kernels, job)
        except (OSError, KsplicedError):
            shutil.rmtree(partial)
            raise
        publish(partial, directory)

    def _verify(self, file: Path, job: Job) -> None:
        """Have rpm check the package's digests, and its signature by a key that it trusts."""
        command = ("rpmkeys", *self.keys, "--checksig", str(file))
        done = run(command, job.cancel, _UNPACK_SECONDS, None)
        if done.status != 0 or not done.output.strip().endswith(_TRUSTED):
            lines = (*split_lines(done.output), *done.errors)
            raise SourceError(
                Code.SOURCE_UNAVAILABLE,
                f"{file.name} is damaged, or not signed with a key that rpm trusts",
                "import the key of the distribution (rpm --import) if it is its package",
                lines[-10:],
            )

    def _signers(self, packages: tuple[str, ...], job: Job) -> frozenset[str]:
        """The ids of the keys that signed packages, installed ones or a file (``-p FILE``)."""
        root = () if str(self.paths.root) == "/" else ("--root", str(self.paths.root.resolve()))
        command = ("rpm", *root, "-q", "--qf", _SIGNATURES, *packages)
        return frozenset(_KEY.findall(run(command, job.cancel, _UNPACK_SECONDS, None).output))

    def _require_same_key(self, file: Path, kernels: frozenset[str], job: Job) -> None:
        """Refuse a package that is not signed with a key that an installed kernel is signed with.

        rpm says of a file that was verified which key it is; of an installed one, too.
        """
        if not kernels:
            raise SourceError(
                Code.SOURCE_UNAVAILABLE,
                "no installed kernel is signed, so that it cannot be told whose source to trust",
                "install the kernel from the distribution's repository",
            )
        signers = self._signers(("-p", str(file)), job)
        if not signers & kernels:
            raise SourceError(
                Code.SOURCE_UNAVAILABLE,
                f"{file.name} is signed with the key {', '.join(sorted(signers))}, but the "
                f"installed kernels with {', '.join(sorted(kernels))}",
                "let dnf have the source from the repository of the kernel",
            )
