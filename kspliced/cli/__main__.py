# SPDX-License-Identifier: GPL-2.0-or-later
"""``python3 -m kspliced.cli``."""

from kspliced.cli.main import console

console()
