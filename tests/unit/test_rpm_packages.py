# SPDX-License-Identifier: GPL-2.0-or-later
"""The RPM packages: they build of the tree, hold what they should, and rpmlint finds nothing."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kspliced import __version__

TREE = Path(__file__).parents[2]
SPEC = TREE / "rpm" / "kspliced.spec"
PYTHON = "/usr/lib/python3/dist-packages"


def run(*command: str | Path) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ...]]:
    """The packages as rpmbuild makes them, the source package last."""
    work = tmp_path_factory.mktemp("rpm")
    (work / "SOURCES").mkdir()
    listed = run("git", "-C", TREE, "ls-files", "-z", "-co", "--exclude-standard").split("\0")
    top = f"kspliced-{__version__}"
    with tarfile.open(work / "SOURCES" / f"{top}.tar.gz", "w:gz") as archive:
        for name in filter(None, listed):
            if (TREE / name).is_file():
                archive.add(TREE / name, f"{top}/{name}")
    # What the build needs is here as packages of Debian, of which RPM knows nothing.
    # Its %check is the tests of which this is one.
    define = ("--define", f"_topdir {work}")
    run("rpmbuild", "-ba", "--quiet", "--nodeps", "--nocheck", *define, SPEC)
    yield (*sorted(work.glob("RPMS/*/*.rpm")), *work.glob("SRPMS/*.rpm"))


def files(packages: tuple[Path, ...], name: str) -> set[str]:
    (package,) = (path for path in packages if path.name.startswith(f"{name}-{__version__}-1.no"))
    return set(run("rpm", "-qpl", package).splitlines())


def test_the_daemon_has_what_the_tree_has(packages: tuple[Path, ...]) -> None:
    found = files(packages, "kspliced")
    modules = {str(path.relative_to(TREE)) for path in TREE.glob("kspliced/**/*.py")}
    assert {f"{PYTHON}/{module}" for module in modules} <= found
    data = {path.name for path in (TREE / "data").iterdir()}
    assert data <= {Path(path).name for path in found}
    assert {
        "/usr/bin/kspliced",
        "/usr/lib/kspliced/kernel-request",
        "/usr/lib/kernel/install.d/95-kspliced.install",
        "/usr/share/bash-completion/completions/kspliced",
        f"{PYTHON}/kspliced/build/units.mk",
        f"{PYTHON}/kspliced/cli/page.css",
        "/var/lib/kspliced",
    } <= found
    assert not any(path.startswith(("/usr/local", "/usr/com")) for path in found)


def test_the_core_is_the_trees(packages: tuple[Path, ...]) -> None:
    found = files(packages, "kspliced-dkms")
    sources = {path.name for path in (TREE / "kmod").glob("*.[ch]") if ".mod." not in path.name}
    where = f"/usr/src/kspliced-{__version__}"
    expected = {f"{where}/{name}" for name in sources | {"Kbuild", "Makefile", "dkms.conf"}}
    assert {path for path in found if path.startswith(where + "/")} == expected


@pytest.mark.parametrize(
    ("package", "file"),
    [
        ("python3-dnf-plugin-kspliced", f"{PYTHON}/dnf-plugins/kspliced.py"),
        ("dnf5-plugin-kspliced", "/etc/dnf/libdnf5-plugins/actions.d/kspliced.actions"),
    ],
)
def test_plugins(packages: tuple[Path, ...], package: str, file: str) -> None:
    assert file in files(packages, package)


def test_nothing_is_enabled_by_a_preset(packages: tuple[Path, ...]) -> None:
    """Presets are the distribution's; the scriptlets are for its units, updates included."""
    (package,) = (path for path in packages if path.name.startswith(f"kspliced-{__version__}-1.no"))
    assert not any("preset" in path for path in files(packages, "kspliced"))
    scripts = run("rpm", "-qp", "--scripts", package)
    assert "postuninstall" in scripts and "daemon-reload" in scripts.split("postuninstall")[1]


def test_rpmlint_finds_nothing(packages: tuple[Path, ...]) -> None:
    said = run("rpmlint", "--config", TREE / "rpm" / "rpmlint.toml", SPEC, *packages)
    assert " 0 errors, 0 warnings" in said, said
