# SPDX-License-Identifier: GPL-2.0-or-later
"""Which source a headers package says that its kernel is of."""

from __future__ import annotations

from pathlib import Path

import pytest

from kspliced.build.kbuild import open_headers

RELEASE = "6.1.192-1.ks1.x86_64"


@pytest.mark.parametrize(
    ("package", "version"),
    [
        (' Debian 6.1.192-1"', "6.1.192-1"),
        # Debian's source, compiled by somebody else.
        ('"', "6.1.192-1.ks1"),
        (None, "6.1.192-1.ks1"),
    ],
)
def test_the_source_is_debians_or_the_releases(
    tmp_path: Path, package: str | None, version: str
) -> None:
    generated = tmp_path / "include/generated"
    generated.mkdir(parents=True)
    (tmp_path / "tools").mkdir()
    (generated / "utsrelease.h").write_text(f'#define UTS_RELEASE "{RELEASE}"\n')
    if package is not None:
        (generated / "package.h").write_text(f'#define LINUX_PACKAGE_ID "{package}\n')
    config = tmp_path / ".config"
    config.write_text('CONFIG_CC_VERSION_TEXT="gcc (Debian 12.2.0-14) 12.2.0"\n')
    assert open_headers(tmp_path, config).kernel.version == version
