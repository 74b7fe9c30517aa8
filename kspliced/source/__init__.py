# SPDX-License-Identifier: GPL-2.0-or-later
"""Source packages to trees, changelogs and file differences."""
