# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of an upgrade: everything is on it, and nothing of the upgrade is taken for markup."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kspliced.build.fates import Decision
from kspliced.build.plan import Component, EntryStatus, Lines, Plan, PlannedEntry, Reason, Totals
from kspliced.cli.page import page

HOSTILE = "</pre><script>alert(1)</script>"
LIVE = Component("fs/ext4/a.c", Decision.LIVE, ("ext4",), ("fs/ext4/a.c",), ("ext4_a",), ())
REBOOT = Component(
    "net/core/b.c",
    Decision.REBOOT,
    ("vmlinux",),
    ("net/core/b.c",),
    (),
    (Reason("type_changed", f"a type {HOSTILE}", "-int a;"),),
)
ENTRIES = (
    PlannedEntry("ext4: fix it", ("CVE-2026-1",), EntryStatus.LIVE, 0.9, ("fs/ext4/a.c",)),
    PlannedEntry(
        f"net: {HOSTILE}",
        ("CVE-2026-2",),
        EntryStatus.REBOOT,
        0.6,
        ("net/core/b.c",),
        "b.c: a type changes",
    ),
)
TOTALS = Totals(1, 1, 0, 0, 0, 2, 1, 2, 1, 1, 0, 0, 0, 0)
PLAN = Plan((LIVE, REBOOT), ENTRIES, TOTALS)
DIFFS = {
    "fs/ext4/a.c": f"--- a/a.c\n+++ b/a.c\n@@ -1 +1 @@\n-old {HOSTILE}\n+{'new ' * 200}\n same"
}
TEXT = page("6.1.1 to 6.1.2 <b>", PLAN, DIFFS)


class Outline(HTMLParser):
    """Counts the elements, and checks that they nest."""

    void = frozenset({"meta", "input", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_is_well_formed_and_takes_nothing_for_markup() -> None:
    outline = Outline()
    outline.feed(TEXT)
    assert outline.open == []
    assert outline.found.count("script") == 1 and outline.found.count("b") >= 2
    assert HOSTILE not in TEXT and TEXT.count("&lt;script&gt;") == 4


def test_everything_is_on_it() -> None:
    for words in (
        "ext4_a",
        "type_changed",
        "CVE-2026-2",
        "1 of 2 CVE fixes",
        "-old",
        "90% sure",
        "b.c: a type changes",
    ):
        assert words in TEXT
    # What needs a person comes first.
    assert TEXT.index('data-decision="reboot"') < TEXT.index('data-decision="live"')


def test_it_needs_nothing_from_elsewhere() -> None:
    assert not re.search(r"(?:src|href)=|url\(|@import|https?:", TEXT)
    assert "default-src 'none'" in TEXT


def test_a_long_difference_is_cut() -> None:
    text = page("x", PLAN, {"fs/ext4/a.c": "\n".join(f"+{n}" for n in range(1000))})
    assert "and 600 further lines" in text and "+399<" in text and "+400<" not in text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it(tmp_path: Path, width: int) -> None:
    """The script runs under the page's own policy, and nothing is wider than a phone."""
    probe = (
        "<script>document.title=[document.getElementById('count').textContent,"
        "document.documentElement.scrollWidth<=innerWidth].join()</script></body>"
    )
    file = tmp_path / "page.html"
    file.write_text(TEXT.replace("</body>", probe), "utf-8")
    shot = tmp_path / "page.png"
    command = [
        "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={tmp_path}/profile", f"--window-size={width},900",
    ]  # fmt: skip
    done = subprocess.run(
        [*command, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert "<title>2 of 2 components,true</title>" in done.stdout, done.stdout[:600] + done.stderr
    subprocess.run(
        [*command, f"--screenshot={shot}", file.as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert shot.read_bytes().startswith(b"\x89PNG") and shot.stat().st_size > 5000


def test_a_part_of_a_file_shows_its_hunks_only() -> None:
    diff = "--- a/a.c\n+++ b/a.c\n@@ -1,7 +1,7 @@\n-one\n@@ -30,6 +30,7 @@ int f(void)\n+two\n"
    part = dataclasses.replace(LIVE, lines=(Lines("fs/ext4/a.c", 33, 33),))
    text = page("t", dataclasses.replace(PLAN, components=(part,)), {"fs/ext4/a.c": diff})
    assert "+two" in text and "-one" not in text
    assert "-one" in page("t", PLAN, {"fs/ext4/a.c": diff})
