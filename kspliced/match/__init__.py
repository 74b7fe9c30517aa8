# SPDX-License-Identifier: GPL-2.0-or-later
"""Run-pre matching, symbol resolution and the link."""
